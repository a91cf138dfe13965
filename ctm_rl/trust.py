"""Keeps what somebody else has written from importing, joining and writing what this user has never named.

Configurations and checkpoints name modules, clusters and places. Installed modules are imported for any of them. What
else they name is used if the command line names it too, or a run that this user has trained on this machine, or with
``--trust``. What such runs have named is kept as digests in ``$XDG_STATE_HOME/ctm_rl/trusted`` (default:
``~/.local/state``), outside of run directories, which can therefore be moved and copied.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Collection, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from ctm_rl.config import AnswerConfig, PolicyConfig, encoder_names
from ctm_rl.errors import CodeError, printable
from ctm_rl.named_code import is_code_name

MAX_BYTES = 2**22
"""Size of the largest record that is read."""
_added_folders: set[str] = set()
"""Folders that this module has put on the import path."""


class Claim(NamedTuple):
    """Something that a configuration asks for and that is not installed."""

    option: str
    """The option that names it on a command line."""
    action: str
    """What would be done with it, in words; ``{}`` stands for the value."""
    value: str
    """The module, address, place or data set."""
    folder: str = ""
    """Of a module: the folder that it would be imported from."""

    def __str__(self) -> str:
        """What would be done."""
        return self.action.format(printable(self.value)) + (f" from {self.folder}" if self.folder else "")

    @property
    def digest(self) -> str:
        """What is kept of it."""
        import hashlib  # what the command line's help need not load

        return hashlib.sha256("\0".join((self.action, self.value, self.folder)).encode("utf-8", "replace")).hexdigest()


def code_claims(option: str, text: str, *, is_called: bool = True) -> list[Claim]:
    """Returns what a text asks for that names code: ``module:Name``, or an id in a module; empty: it names none.

    Args:
        option: the option that the text belongs to.
        text: it may be followed by ``=VALUE``, as of a wrapper.
        is_called: whether whatever ``module:Name`` is would be called, with arguments of the configuration. An
            installed module may hold functions that do harm, so that such a name counts wherever the module is.
    """
    name = text.partition("=")[0].replace("::", ":", 1)
    module, colon, _ = name.partition(":")
    if not colon:
        return []
    is_code = is_code_name(name)
    if folder := only_here(module, even_if_imported=is_code):
        return [Claim(option, "import {}", module, folder)]
    return [Claim(option, "call {}", name)] if is_called and is_code else []


def encoder_claims(config: PolicyConfig | AnswerConfig) -> list[Claim]:
    """Returns the modules of the current folder that the encoders of a model's configuration are imported from.

    An installed module counts as any other: of what it holds, nothing but a class of ``torch.nn.Module`` is called.
    """
    names = encoder_names(config)
    return [claim for name in names for claim in code_claims("--model.encoder", name, is_called=False)]


def check_encoders(config: PolicyConfig | AnswerConfig, place: Path | str, *, is_trusted: bool) -> None:
    """Refuses a checkpoint whose encoders would be imported from the current folder, see ``check_trusted``."""
    if claims := encoder_claims(config):
        check_trusted(claims, place, is_trusted=is_trusted)


def check_trusted(
    claims: Collection[Claim], place: Path | str, *, named: Collection[str] = (), is_trusted: bool = False
) -> None:
    """Refuses what neither this command nor an own run has named; otherwise lets modules of this folder be imported.

    Args:
        claims: what a configuration asks for.
        place: the run's directory or the file, for the message.
        named: options whose values are those of this command line.
        is_trusted: whether the user trusts the configuration.

    Raises:
        CodeError: one line that says what would be done, and which flag allows it.
    """
    if not is_trusted:
        known = _read()
        refused = [claim for claim in claims if claim.option not in named and claim.digest not in known]
        if refused:
            raise CodeError(
                f"{place} asks to {', and to '.join(map(str, refused))}, which no run that you have trained on this "
                "machine names; add --trust (in Python trust=True) if you know where the run comes from."
            )
    if is_trusted or any(claim.folder for claim in claims):
        import_from_current_folder()


def remember(claims: Collection[Claim]) -> None:
    """Keeps what a run that this user trains asks for; without a home that can be written, it is not remembered."""
    try:
        known = _read()
        lines = [f"{claim.digest}\n" for claim in claims if claim.digest not in known]
        if not lines:
            return
        file = _record()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(file, flags, 0o600), "a") as stream:
            stream.write("".join(lines))
    except (OSError, RuntimeError) as error:
        _warn("what this run names is not remembered (%s); resume and evaluate it with --trust.", error)


def import_from_current_folder() -> None:
    """Puts the current folder on the import path, last, so that it hides no installed module."""
    here = _current_folder()
    if here is not None and here not in sys.path:
        sys.path.append(here)
        _added_folders.add(here)


def installed_path() -> list[str]:
    """Returns ``sys.path`` without the current folder where Python or this module has put it.

    Python puts it in front for ``python -c``, ``python -m`` and a script in that folder, and where ``PYTHONPATH`` has
    an empty entry; Ray then puts folders of its own before it. An entry that names the folder stays.
    """
    here, entries = _current_folder(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    is_named = here in [os.path.abspath(entry) for entry in entries if entry]
    is_added = here in _added_folders or (len(entries) > 1 and "" in entries and not is_named)
    first = sys.path.index(here) if here in sys.path and _is_folder_of_script(here) else 0
    kept = [index not in (0, first) and not is_added for index in range(len(sys.path))]
    return [entry for index, entry in enumerate(sys.path) if entry and (entry != here or kept[index])]


def _is_folder_of_script(folder: str | None) -> bool:
    """Whether the script that runs lies in a folder, which Python has therefore put on the import path."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return bool(script) and not sys.flags.safe_path and os.path.dirname(os.path.abspath(script)) == folder


@contextlib.contextmanager
def fixed_import_path(folder: Path) -> Iterator[None]:
    """Keeps relative entries of ``sys.path`` in a folder inside the body, whose working directory is a run's."""
    before = [*sys.path]
    fixed = [entry if os.path.isabs(entry) else os.path.normpath(folder / entry) for entry in before]
    sys.path[:] = fixed
    try:
        yield
    finally:
        sys.path[:] = [*before, *(entry for entry in sys.path if entry not in fixed)]


def only_here(module: str, *, even_if_imported: bool = False) -> str | None:
    """Returns the current folder, if a module is there and is neither installed nor, unless that counts, imported."""
    here, top = _current_folder(), module.partition(".")[0]
    found = PathFinder.find_spec(top, [here]) if here is not None and top.isidentifier() else None
    if here is None or found is None:
        return None
    if module in sys.modules and not even_if_imported:
        # What a command line names may have been looked at already.
        is_from_here = here in _added_folders and found.origin == getattr(sys.modules[top], "__file__", None)
        if found.origin is None or not is_from_here:
            return None
    before = sys.path
    try:
        sys.path = installed_path()
        # not importlib.util.find_spec, which knows what has been imported
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        is_installed = any(finder.find_spec(top, None) is not None for finder in finders)
    except ImportError:  # a finder of somebody else's
        is_installed = True
    finally:
        sys.path = before
    return None if is_installed else os.path.realpath(here)


def _current_folder() -> str | None:
    """The current folder; ``None``: it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _record() -> Path:
    """The file with the digests.

    Raises:
        RuntimeError: this user has no home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "ctm_rl" / "trusted"


def _read() -> set[str]:
    """The digests of all runs; none if others can write the file or its folder."""
    try:
        file = _record()
        # Neither a link nor a pipe is opened.
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not (_is_private(found) and _is_private(file.parent.stat()) and stat.S_ISREG(found.st_mode)):
                _warn("%s is ignored: it and its folder must belong to you, and be writable by you only.", file)
                return set()
            return set(stream.read(MAX_BYTES).decode("ascii", "replace").split())
    except (OSError, RuntimeError):
        return set()


def _is_private(found: os.stat_result) -> bool:
    """Whether this user alone can write a file or folder."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _warn(text: str, value: object) -> None:
    """Logs a warning; the help and other quick commands load no logging."""
    import logging

    logging.getLogger(__name__).warning(text, value)
