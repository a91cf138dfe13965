"""A run's directory: choosing, creating and locking it, and its configuration."""

import contextlib
import fcntl
import json
import logging
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.serialise import AnyExperiment, from_json, to_json
from ctm_rl.errors import UserError, expand
from ctm_rl.read_json import read_json
from ctm_rl.read_yaml import SUFFIXES, read_yaml
from ctm_rl.zoo.entries import is_zoo, locate

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
SWEEP_FILE = "sweep.json"
"""The configuration of a sweep, in the directory that holds the directories of its trials."""
RUNS_FOLDER = "runs"

_LOCK_FILE = ".lock"
_LOCKS = Path("/proc/locks")
_MAX_TRIES = 20
"""How often a directory is created again that another process removes at the same moment."""
_LOG = logging.getLogger(__name__)


def new_run_dir(experiment: AnyExperiment) -> Path:
    """Chooses the directory of a new run, absolute, and checks that it is free; creates nothing.

    Raises:
        UserError: the directory is not empty, is a file, or cannot be written.
    """
    if experiment.run_dir is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = _numbered(Path(RUNS_FOLDER).absolute() / f"{experiment.name}-{stamp}")
    else:
        path = expand(experiment.run_dir).absolute()
    check_free(path)
    return path


def _numbered(path: Path) -> Path:
    """The path itself, or with a number if it exists."""
    numbered, number = path, 1
    while os.path.lexists(numbered):
        number += 1
        numbered = path.with_name(f"{path.name}-{number}")
    return numbered


def check_free(path: Path) -> None:
    """Refuses a directory that is neither new nor empty, or cannot be written.

    Raises:
        UserError: one line naming the directory and the way out.
    """
    _check_name(path)
    if is_zoo(path.name):
        raise UserError(f"--run-dir {path} cannot be used: zoo:NAME is a run of the zoo; name another directory.")
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"--run-dir {path} is a file; name a new or empty directory.")
        if path.is_dir() and not _is_empty(path):
            raise _not_empty(path)
        parent = next(place for place in (path, *path.parents) if place.exists())
    except OSError as error:
        raise UserError(f"--run-dir {path} cannot be used: {error.strerror}; name another directory.") from error
    if not parent.is_dir():
        raise UserError(f"--run-dir {path} cannot be created: {parent} is a file; name another directory.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--run-dir {path} cannot be created: {parent} is not writable; name another directory.")


def _check_name(path: Path) -> None:
    """Refuses a directory whose name is not text: Ray needs it as such, to work inside.

    Raises:
        UserError: it holds bytes that are none in the locale's encoding.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"run directory {path} cannot be used: its name is not text in the encoding of this locale, "
            f"{sys.getfilesystemencoding()}; name another one, or set PYTHONUTF8=1 if it is UTF-8."
        ) from error


def _is_empty(path: Path) -> bool:
    """Whether there is nothing in a directory but a lock, which is never removed alone."""
    return set(os.listdir(path)) <= {_LOCK_FILE}


def _not_empty(path: Path) -> UserError:
    """The refusal of a directory that holds something."""
    run = shlex.quote(str(path))
    return UserError(f"--run-dir {path} is not empty; name a new directory, or continue its run: ctm-rl resume {run}.")


class RunDirectory:
    """A run's directory while this process holds its lock.

    Args:
        path: absolute.
        config: the content of its configuration.
        file: the configuration's name.

    Attributes:
        is_kept: whether a new directory stays, whatever happens afterwards.
        files: names of what this process has written, beside checkpoints; removed with a directory that is not kept.
    """

    def __init__(self, path: Path, config: dict[str, Any], file: str = CONFIG_FILE) -> None:
        _check_name(path)
        self.path = path
        self.is_kept = False
        self.files = [file]
        self._text, self._file = _to_text(config), file
        self._lock = _lock(path)

    def keep(self) -> None:
        """Keeps a new directory, whatever happens afterwards."""
        self.is_kept = True

    def write_config(self) -> None:
        """Writes the configuration of a run that is continued, which may differ from the one before.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(self.path / self._file, self._text)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Writes another file of JSON, which goes with a new directory that is not kept.

        Raises:
            OSError: it cannot be written.
        """
        self.files.append(name)
        write_atomically(self.path / name, _to_text(content))

    def restore(self) -> None:
        """Writes again what has disappeared meanwhile: the directory, its lock and its configuration.

        Raises:
            UserError: another process trains there now, or another run has been put there.
            OSError: the directory or a file in it cannot be written.
        """
        is_locked = is_file_at(self._lock, self.path / _LOCK_FILE)
        config = self.path / self._file
        if is_locked and config.is_file():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if not is_locked:
            lock = _lock(self.path)
            if config.is_file() and config.read_text() != self._text:
                os.close(lock)
                raise UserError(f"{self.path} was removed or moved, and holds another run now.")
            os.close(self._lock)
            self._lock = lock
        if not config.is_file():
            self.write_config()
        _LOG.warning("%s was removed, moved or changed; what was missing is written again.", self.path)
        try:
            os.getcwd()
        except OSError:
            os.chdir(self.path)  # a run works inside its directory, and the one from before is gone

    def close(self) -> None:
        """Lets other processes lock the directory."""
        os.close(self._lock)


@contextlib.contextmanager
def created_directory(
    path: Path, config: dict[str, Any], file: str = CONFIG_FILE, *, is_numbered: bool = False
) -> Iterator[RunDirectory]:
    """Creates a run's directory, locks it and writes its ``config.json``; removes that again if the body fails early.

    Of several processes that want the same directory at the same time, one gets it.

    Args:
        path: new or empty, from ``new_run_dir``.
        config: content of ``config.json``.
        file: the name of that file.
        is_numbered: whether a number is added to the name if another process has created the directory meanwhile.

    Yields:
        The directory, locked inside the body; the body keeps it by ``keep``.

    Raises:
        UserError: the directory cannot be created, or another process has got it.
    """
    made: list[Path] = []
    try:
        path = _claim(path, made, is_numbered=is_numbered)
        directory = RunDirectory(path, config, file)
    except (OSError, UserError) as error:
        _remove_directories(made, is_locked=False)
        raise _refusal(path, error) from error
    with contextlib.closing(directory):
        try:
            if not _is_empty(path):
                raise _not_empty(path)
            _write_new(path / file, _to_text(config))
        except (OSError, UserError) as error:
            _remove_directories(made, is_locked=True)
            raise _refusal(path, error) from error
        try:
            yield directory
        except BaseException:
            if not directory.is_kept:
                _remove_files(path, directory.files)
                _remove_directories(made, is_locked=True)
            raise


@contextlib.contextmanager
def opened_directory(path: Path, config: dict[str, Any], file: str = CONFIG_FILE) -> Iterator[RunDirectory]:
    """Locks the directory of a run that is continued, inside the body.

    Args:
        path: absolute.
        config: the content of its configuration, which it may not have yet.
        file: the configuration's name.

    Yields:
        The directory.

    Raises:
        UserError: another process holds the lock.
    """
    with contextlib.closing(RunDirectory(path, config, file)) as directory:
        yield directory


def _claim(path: Path, made: list[Path], *, is_numbered: bool) -> Path:
    """Creates a directory that nobody else creates; returns its path, which has a number if the name was taken.

    Args:
        path: the directory.
        made: gets the directories that this process has created, those above first.
        is_numbered: whether a name that is taken gets a number; otherwise the directory may exist if it is empty.
    """
    base = path
    while True:
        try:
            _make(path, made)
        except FileExistsError:
            if not is_numbered:
                check_free(path)
                return path
            path = _numbered(base)
        else:
            return path


def _make(path: Path, made: list[Path]) -> None:
    """Creates a directory, and those above it that are missing.

    Args:
        path: the directory.
        made: gets the directories that this process has created, those above first.

    Raises:
        FileExistsError: it exists.
        OSError: it cannot be created.
    """
    for _ in range(_MAX_TRIES):
        try:
            path.mkdir()
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                _make(path.parent, made)
        else:
            made.append(path)
            return
    path.mkdir()


def _refusal(path: Path, error: OSError | UserError) -> UserError:
    """The message for a directory that cannot be created."""
    if isinstance(error, UserError):
        return error
    return UserError(f"--run-dir {path} cannot be created: {error.strerror}; name another directory.")


def _remove_files(path: Path, names: list[str]) -> None:
    """Removes what a run that has not begun has written: nothing else that somebody has put there."""
    from ctm_rl.checkpoints import store

    store.remove_all(path)
    for name in names:
        with contextlib.suppress(OSError):
            (path / name).unlink()


def _remove_directories(made: list[Path], *, is_locked: bool) -> None:
    """Removes directories that this process has created, if nothing is in them.

    Args:
        made: those above first.
        is_locked: whether this process holds the lock of the last one, which is then removed with it: a process that
            is waiting for this lock sees that it is gone, see ``_lock``.
    """
    for place in reversed(made):
        with contextlib.suppress(OSError):
            if is_locked and place == made[-1] and _is_empty(place):
                (place / _LOCK_FILE).unlink(missing_ok=True)
            place.rmdir()


def empty_directory(path: Path) -> None:
    """Removes everything in a directory that this process has locked, except for the lock."""
    for item in path.iterdir():
        if item.name == _LOCK_FILE:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


def config_of(experiment: AnyExperiment) -> dict[str, Any]:
    """Returns the content of ``config.json``: the experiment without its ``run_dir``."""
    return {**to_json(experiment), "run_dir": None}


def write_config(path: Path, config: dict[str, Any], file: str = CONFIG_FILE) -> None:
    """Writes ``config.json`` atomically.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path / file, _to_text(config))


def write_atomically(file: Path, text: str) -> None:
    """Writes a file under another name, then renames it."""
    partial = file.with_name(f".{file.name}")
    # What has that name is a leftover, or a link that must not be followed.
    partial.unlink(missing_ok=True)
    _write_new(partial, text)
    partial.replace(file)


def _to_text(config: dict[str, Any]) -> str:
    """The content of a configuration's file."""
    return json.dumps(config, indent=2) + "\n"


def _write_new(file: Path, text: str) -> None:
    """Writes a file that does not exist yet; removes it if it cannot be written.

    Raises:
        FileExistsError: it exists, be it as a link.
        OSError: it cannot be written.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def check_is_run(path: Path) -> None:
    """Refuses a path that is not a run directory.

    Raises:
        UserError: it is not.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a run directory: there is no such directory.")
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{path} is not a run directory: it has no {CONFIG_FILE}; name one made by ctm-rl train.")


def read_config(path: Path) -> AnyExperiment:
    """Reads the experiment of a run.

    Args:
        path: the run's directory, or ``zoo:NAME``.

    Raises:
        UserError: it is not a run directory, or its configuration cannot be read.
    """
    path = locate(path)
    check_is_run(path)
    return load_config(path / CONFIG_FILE)


def load_config(path: Path) -> AnyExperiment:
    """Reads an experiment from a JSON file, or a YAML file if its name ends so.

    Args:
        path: the file; ``zoo:NAME`` is the configuration of that run.

    Raises:
        UserError: the file is missing, is not JSON or YAML, or its fields are wrong.
    """
    if is_zoo(path):
        path = locate(path) / CONFIG_FILE
    is_yaml = path.suffix.lower() in SUFFIXES
    try:
        values, lines = read_yaml(path) if is_yaml else (read_json(path), {})
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name the config.json of a run.") from error
    except ValueError as error:
        raise UserError(f"{path} {'cannot be read' if is_yaml else 'is not JSON'}: {error}.") from error
    if isinstance(values, dict) and "task" in values and "env" not in values:
        raise UserError(f"{path} describes an imported model for {values['task']}; it can be evaluated, not trained.")
    try:
        return from_json(values)
    except ValueError as error:
        raise UserError(f"{path}{_line_of(str(error), lines)}: {error}") from error


def _line_of(message: str, lines: dict[str, int]) -> str:
    """Where the field is that a message begins with, as ``, line 3``; empty if that is not known."""
    name = message.partition(" ")[0].partition("[")[0].rstrip(":,")
    while name and name not in lines:
        name = name.rpartition(".")[0]
    return f", line {lines[name]}" if name else ""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a run against a second process inside the body.

    Raises:
        UserError: another process holds the lock.
    """
    descriptor = _lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Locks a directory; returns the descriptor of its lock file, which holds the lock until it is closed.

    The file's content is never changed, and a link is not followed: whoever can write to the directory could have
    prepared it.

    Raises:
        UserError: another process holds the lock, or there can be none.
    """
    file = path / _LOCK_FILE
    for _ in range(_MAX_TRIES):
        try:
            # Without O_NONBLOCK, opening a named pipe may wait.
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as error:
            reason = "it is a symbolic link; remove it" if file.is_symlink() else error.strerror
            raise UserError(f"{path} cannot be locked by {file}: {reason}.") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{path} cannot be locked by {file}: it is not a file; remove it.")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"{path} is in use: another process trains in it; wait for it, or stop it.") from None
        except UserError:
            os.close(descriptor)
            raise
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s); do not train in it twice at a time.", path, error.strerror)
            return descriptor
        if is_file_at(descriptor, file):
            return descriptor
        os.close(descriptor)  # the process that had it has removed the whole directory
    raise UserError(f"{path} cannot be locked: it is removed again and again.")


def is_in_use(path: Path) -> bool:
    """Whether a process that this one can see trains in a run's directory; the lock is not touched.

    Linux lists locks with the numbers of their files; elsewhere, and for processes on other machines or outside of a
    container, the answer is no.
    """
    try:
        number = os.stat(path / _LOCK_FILE).st_ino
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return False
    # 1: FLOCK  ADVISORY  WRITE 3209 08:01:1835034 0 EOF
    fields = [line.split() for line in lines if "FLOCK" in line]
    return any(part.rpartition(":")[2] == str(number) for field in fields for part in field[1:] if part.count(":") == 2)


def is_file_at(descriptor: int, file: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except OSError:
        return False
