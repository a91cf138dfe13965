"""A run's directory: choosing and creating it, its configuration and its lock."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.serialise import AnyExperiment, from_json, to_json
from ctm_rl.errors import UserError, expand
from ctm_rl.read_json import read_json

CONFIG_FILE = "config.json"
RUNS_FOLDER = "runs"

_LOCK_FILE = ".lock"
_LOG = logging.getLogger(__name__)


def new_run_dir(experiment: AnyExperiment) -> Path:
    """Chooses the directory of a new run, absolute, and checks that it is free; creates nothing.

    Raises:
        UserError: the directory is not empty, is a file, or cannot be written.
    """
    if experiment.run_dir is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        base = Path(RUNS_FOLDER).absolute() / f"{experiment.name}-{stamp}"
        path, number = base, 1
        while path.exists():
            number += 1
            path = base.with_name(f"{base.name}-{number}")
    else:
        path = expand(experiment.run_dir).absolute()
    check_free(path)
    return path


def check_free(path: Path) -> None:
    """Refuses a directory that is neither new nor empty, or cannot be written.

    Raises:
        UserError: one line naming the directory and the way out.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"--run-dir {path} is a file; name a new or empty directory.")
        if path.is_dir() and any(path.iterdir()):
            raise UserError(
                f"--run-dir {path} is not empty; name a new directory, or continue its run: ctm-rl resume {path}."
            )
        parent = next(place for place in (path, *path.parents) if place.exists())
    except OSError as error:
        raise UserError(f"--run-dir {path} cannot be used: {error.strerror}; name another directory.") from error
    if not parent.is_dir():
        raise UserError(f"--run-dir {path} cannot be created: {parent} is a file; name another directory.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--run-dir {path} cannot be created: {parent} is not writable; name another directory.")


@contextlib.contextmanager
def created_directory(path: Path, config: dict[str, Any], file: str = CONFIG_FILE) -> Iterator[Callable[[], None]]:
    """Creates a run's directory with its ``config.json``; removes all of it again if the body fails early.

    Args:
        path: new or empty, from ``new_run_dir``.
        config: content of ``config.json``.
        file: the name of that file.

    Yields:
        A function that keeps the directory, whatever happens afterwards.

    Raises:
        UserError: the directory cannot be created.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_config(path, config, file)
    except OSError as error:
        _remove(path, missing)
        raise UserError(f"--run-dir {path} cannot be created: {error.strerror}; name another directory.") from error
    is_kept = False

    def keep() -> None:
        nonlocal is_kept
        is_kept = True

    try:
        yield keep
    except BaseException:
        if not is_kept:
            _remove(path, missing)
        raise


def _remove(path: Path, missing: list[Path]) -> None:
    """Empties a directory, and removes those directories, itself or above it, that did not exist before."""
    for item in path.iterdir() if path.is_dir() else ():
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()
    for place in missing:
        with contextlib.suppress(OSError):
            place.rmdir()


def config_of(experiment: AnyExperiment) -> dict[str, Any]:
    """Returns the content of ``config.json``: the experiment without its ``run_dir``."""
    return {**to_json(experiment), "run_dir": None}


def write_config(path: Path, config: dict[str, Any], file: str = CONFIG_FILE) -> None:
    """Writes ``config.json`` atomically."""
    write_atomically(path / file, json.dumps(config, indent=2) + "\n")


def write_atomically(file: Path, text: str) -> None:
    """Writes a file atomically."""
    partial = file.with_name(f".{file.name}")
    partial.write_text(text)
    partial.replace(file)


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

    Raises:
        UserError: it is not a run directory, or its configuration cannot be read.
    """
    check_is_run(path)
    return load_config(path / CONFIG_FILE)


def load_config(path: Path) -> AnyExperiment:
    """Reads an experiment from a JSON file.

    Raises:
        UserError: the file is missing, is not JSON, or its fields are wrong.
    """
    try:
        values = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name the config.json of a run.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    if isinstance(values, dict) and "task" in values and "env" not in values:
        raise UserError(f"{path} describes an imported model for {values['task']}; it can be evaluated, not trained.")
    try:
        return from_json(values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a run against a second process inside the body.

    Raises:
        UserError: another process holds the lock.
    """
    with (path / _LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path} is in use: another process trains in it; wait for it, or stop it.") from None
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s); do not train in it twice at a time.", path, error.strerror)
        yield
