"""Where a local Ray puts its sockets and logs: where Ray would, or a short folder if it cannot put them there."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ctm_rl.errors import UserError

MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Length of the path of a Unix socket, at most."""
LONGEST_SOCKET = "session_2026-01-31_12-00-00_123456_4194304/sockets/plasma_store"
"""What Ray appends to its folder, with the largest process id."""
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


@contextlib.contextmanager
def ray_folder() -> Iterator[str | None]:
    """Finds a folder for the sockets and logs of a local Ray.

    Yields:
        The argument ``_temp_dir`` of ``ray.init``; ``None``: Ray's own, below RAY_TMPDIR, TMPDIR or /tmp. Another is
        used where the paths of sockets become too long there or nothing can be written, and removed afterwards.

    Raises:
        UserError: no folder can be used.
    """
    usual = _usual_folder()
    reason = _why_unusable(usual)
    if reason is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        for place in SHORT_PLACES:
            with contextlib.suppress(OSError):
                made = tempfile.TemporaryDirectory(prefix="ctm-", dir=place, ignore_cleanup_errors=True)
                folder = stack.enter_context(made)
                break
        else:
            longest = MAX_SOCKET_BYTES - len(LONGEST_SOCKET) - len("/ray/")
            raise UserError(
                f"Ray cannot use {usual} ({reason}), and nothing can be written to {', '.join(SHORT_PLACES)}; set "
                f"RAY_TMPDIR to a folder that can be written, of at most {longest} bytes."
            )
        yield folder


def _usual_folder() -> Path:
    """The folder that Ray chooses by itself."""
    on_linux = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else "/tmp"
    return Path(os.environ.get("RAY_TMPDIR", on_linux)) / "ray"


def _why_unusable(folder: Path) -> str | None:
    """Why Ray cannot use a folder, which need not exist; ``None``: it can."""
    length = len(os.fsencode(folder / LONGEST_SOCKET))
    if length > MAX_SOCKET_BYTES:
        return f"the paths of its sockets would have {length} bytes, and {MAX_SOCKET_BYTES} are allowed"
    if not folder.is_absolute():
        return "it is not an absolute path"
    try:
        # Ray makes the folder, for all users of the machine.
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryDirectory(dir=existing):
            return None
    except OSError as error:
        return error.strerror
