"""The best weights of a run, by the value of one metric, and how a checkpoint of a run is named: best, last or N.

``checkpoints/best`` holds one checkpoint, ``iteration-000012``, and ``best.json``, which names it with the metric and
its value. A better one is written beside it before ``best.json`` is replaced, which is atomic, and the other one is
removed after that: whenever a process is killed, ``best.json`` names a whole checkpoint.
"""

import contextlib
import json
import math
import os
import re
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.errors import UserError
from ctm_rl.read_json import read_json
from ctm_rl.zoo.entries import is_zoo, locate

BEST, LAST = "best", "last"
"""Names of checkpoints, beside the numbers of iterations."""
BEST_FILE = "best.json"
"""Names the best checkpoint, in the folder ``best``."""
_NAME = re.compile(r"iteration-\d+")


class Best(NamedTuple):
    """The best weights of a run."""

    iteration: int
    """Number of training iterations that they have learned."""
    metric: str
    """What they are the best by; the largest value is the best."""
    value: float
    """Its value."""
    path: Path
    """The checkpoint's directory."""


def folder_of(run_dir: Path) -> Path:
    """The folder of a run's best checkpoint."""
    return run_dir / store.FOLDER / BEST


def read_best(run_dir: Path) -> Best | None:
    """Reads which weights are the best of a run; ``None``: there are none.

    Raises:
        CheckpointError: ``best.json`` is damaged, or what it names is gone.
    """
    return _read(folder_of(run_dir))


def _read(folder: Path) -> Best | None:
    """See ``read_best``."""
    file = folder / BEST_FILE
    try:
        values: Any = read_json(file)
        name, iteration, metric, value = (values[key] for key in ("checkpoint", "iteration", "metric", "value"))
        is_whole = type(iteration) is int and isinstance(metric, str) and type(value) in (int, float)
        # The name is that of a directory beside the file, whoever has written it.
        if not (is_whole and math.isfinite(value) and isinstance(name, str) and _NAME.fullmatch(name)):
            raise ValueError("its values are not those of a best checkpoint")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not (folder / name / store.STATE_FILE).is_file():
        raise CheckpointError(f"{file} names the checkpoint {name}, which is not there.")
    return Best(iteration, metric, float(value), folder / name)


def save_best(run_dir: Path, state: dict[str, Any], *, iteration: int, metric: str, value: float) -> Path:
    """Writes the best checkpoint of a run, and then removes the one before.

    Args:
        run_dir: directory of the run.
        state: see ``store.save``.
        iteration: number of training iterations that the weights have learned.
        metric: what they are the best by.
        value: its value.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: it cannot be written; the one before stays.
    """
    folder = folder_of(run_dir)
    target = folder / f"iteration-{iteration:06d}"
    while target.exists():  # after a resumed run has trained an iteration again: the other one stays until the end
        target = target.with_name(target.name.replace("-", "-0"))
    store.write(target, state)
    entry = {"iteration": iteration, "metric": metric, "value": value, "checkpoint": target.name}
    try:
        _replace(folder / BEST_FILE, json.dumps(entry, allow_nan=False, indent=1) + "\n")
    except OSError as error:
        store.remove(target)
        raise CheckpointError(f"{folder / BEST_FILE} cannot be written: {error.strerror}.") from error
    for other in folder.iterdir():
        if _NAME.fullmatch(other.name) and other != target:
            store.remove(other)
    return target


def _replace(file: Path, text: str) -> None:
    """Replaces a file atomically, synced to the disk."""
    partial = file.with_name(f"{store.PARTIAL}{file.name}-{secrets.token_hex(8)}")
    try:
        with open(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "w"
        ) as stream:
            stream.write(text)
        store.sync(partial)
        os.replace(partial, file)
        store.sync(file.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def run_of(path: Path) -> Path:
    """The run that a checkpoint belongs to, by its path; any other path is a run's itself, ``zoo:NAME`` too."""
    path = locate(path)
    if path.parent.name == BEST and path.parent.parent.name == store.FOLDER:
        path = path.parent
    return path.parents[1] if path.parent.name == store.FOLDER else path


def find(path: Path, which: str | int | None = None) -> Path:
    """Finds the checkpoint of a run that is meant.

    Args:
        path: a run's directory, ``zoo:NAME``, or one checkpoint in a run.
        which: ``best``, ``last`` (the newest usable one), or the number of an iteration; ``None``: the last one, or the
            one that ``path`` names.

    Returns:
        The checkpoint's directory, or the run's directory for the last one, see ``store.read_newest``.

    Raises:
        UserError: the run has no such checkpoint, or ``path`` names one already.
    """
    if is_zoo(path) and which == BEST:
        which = LAST  # the only one
    path = locate(path)
    is_best_folder, is_checkpoint = (path / BEST_FILE).is_file(), (path / store.STATE_FILE).is_file()
    if which is not None and (is_best_folder or is_checkpoint):
        raise UserError(f"{path} is one checkpoint; name the run's directory to choose another one of its checkpoints.")
    if is_best_folder:
        best = _read(path)
        assert best is not None
        return best.path
    if which is None or which == LAST:
        return path
    if which == BEST:
        best = read_best(path)
        if best is None:
            raise CheckpointError(
                f"{path} has no best checkpoint: there is one after an evaluation (--eval.every), a test on held-out "
                "samples, or a hundred episodes; last is the newest checkpoint."
            )
        return best.path
    return _find_iteration(path, str(which))


def _find_iteration(run_dir: Path, text: str) -> Path:
    """Finds the checkpoint of an iteration, among those that are kept and the best one.

    Raises:
        UserError: there is none.
    """
    if not text.isdecimal():
        raise UserError(f"checkpoint must be best, last or the number of an iteration, got {text!r}.")
    iteration = int(text)
    place = store.path_of(run_dir, iteration)
    if place.is_dir():
        return place
    best = read_best(run_dir)
    if best is not None and best.iteration == iteration:
        return best.path
    kept = ", ".join(str(number) for number in sorted(store.iterations_of(run_dir))) or "none"
    also = "" if best is None else f", and the best one is of iteration {best.iteration}"
    raise CheckpointError(
        f"{run_dir} has no checkpoint of iteration {iteration}; kept are {kept}{also} "
        "(--keep-checkpoints N keeps more)."
    )
