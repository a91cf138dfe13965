"""The file of a comparison: one run in each line of a JSON object; runs are added to it, and never lost."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.bench.learning.options import LEARNERS, RANDOM
from ctm_rl.agents.run_directory.directory import write_atomically
from ctm_rl.errors import UserError
from ctm_rl.read_json import read_json

Run = dict[str, Any]
"""A finished run: ``task``, ``contender``, ``seed`` and ``env_steps``, which it is known by; ``curve``, the mean return
of the last 100 training episodes at evenly spaced steps up to ``env_steps``, ``None`` before the first episode's end;
``reached_env_steps`` and ``seconds`` of training; ``evaluation``, the mean return of ``episodes`` episodes after it;
``fields``, what the command line has changed of our experiment; ``settings``, a digest of all settings; and where it
was measured. A random policy has seed and steps 0 and no curve."""
NUM_POINTS = 50
"""Points of a curve."""
_NUMBER = (int, float)
_NEEDED = {"task": str, "contender": str, "seed": int, "env_steps": int, "curve": list, "evaluation": _NUMBER}
_NEEDED |= {"episodes": int}


class Key(NamedTuple):
    """What a run is known by."""

    task: str
    contender: str
    seed: int
    env_steps: int


def key_of(run: Run) -> Key:
    """What a run is known by."""
    return Key(*(run[name] for name in Key._fields))


def read_results(path: Path) -> list[Run]:
    """Reads the runs of a file; none, if there is no file.

    Raises:
        UserError: it cannot be read, or is another file.
    """
    try:
        content = read_json(path)
        runs = content["runs"]
        for run in runs:
            _check(run)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a file of ctm-rl bench learning; name another one with --out.") from error
    return runs


def _check(run: Run) -> None:
    """Raises an error for what is no run."""
    kind = run["contender"].partition(":")[0]
    needed = _NEEDED if kind == RANDOM else {**_NEEDED, "seconds": _NUMBER}
    has_all = all(isinstance(run[name], types) for name, types in needed.items())
    is_curve = all(value is None or isinstance(value, _NUMBER) for value in run["curve"])
    num_points = 0 if kind == RANDOM else NUM_POINTS
    if not (has_all and is_curve and kind in (*LEARNERS, RANDOM) and len(run["curve"]) == num_points):
        raise ValueError("not a run")


def add_run(path: Path, run: Run) -> None:
    """Adds a run to a file, or replaces the one known by the same.

    Other processes may add theirs at the same time.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            runs = {key_of(one): one for one in [*read_results(path), run]}
            write_atomically(path, to_text([runs[key] for key in sorted(runs)]))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def to_text(runs: list[Run]) -> str:
    """The content of a file, with a line for each run."""
    lines = ",\n".join(json.dumps(run, allow_nan=False) for run in runs)
    return f'{{"runs": [\n{lines}\n]}}\n'
