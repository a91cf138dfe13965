"""The folder from which a run was started, where its environments are played: in Ray's processes too."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_FOLDER, _ON_PATH = "CTM_RL_FOLDER", "CTM_RL_FOLDER_ON_PATH"
"""Environment variables that the processes of a local Ray inherit: the folder, and whether its modules are imported."""
SETUP_HOOK = f"{__name__}.enter"
"""What Ray calls in each of its worker processes when it starts (``worker_process_setup_hook``)."""


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Names the current folder to the processes of a Ray that is started inside the body."""
    folder = Path.cwd()
    before = {name: os.environ.get(name) for name in (_FOLDER, _ON_PATH)}
    os.environ[_FOLDER] = str(folder)
    os.environ[_ON_PATH] = "1" if {str(folder), ""} & set(sys.path) else ""
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def users_folder() -> str | None:
    """Returns the folder that ``remembered`` names, without links; ``None``: there is none."""
    folder = os.environ.get(_FOLDER)
    return os.path.realpath(folder) if folder else None


def enter() -> None:
    """Goes to that folder, if this machine has it, and makes its modules importable.

    They come last on the path: a file called ``random.py`` there hides neither Python's module nor an installed one.
    """
    folder = os.environ.get(_FOLDER, "")
    if not os.path.isdir(folder):
        return
    with contextlib.suppress(OSError):
        os.chdir(folder)
    if os.environ.get(_ON_PATH) and folder not in sys.path:
        sys.path.append(folder)


@contextlib.contextmanager
def entered() -> Iterator[None]:
    """Plays environments of this process in that folder inside the body."""
    before = Path.cwd()
    enter()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it may have been removed
            os.chdir(before)
