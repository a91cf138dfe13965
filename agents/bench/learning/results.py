"""The file of a comparison: one run in each line of a JSON object; runs are added to it, and never lost."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.bench.learning.options import RANDOM
from ctm_rl.agents.run_directory.directory import write_atomically
from ctm_rl.errors import UserError
from ctm_rl.read_json import read_json

Run = dict[str, Any]
"""A finished run: ``task``, ``contender``, ``seed`` and ``env_steps``, which it is known by; ``curve``, the mean return
of the last 100 training episodes at evenly spaced steps up to ``env_steps``, ``None`` before the first episode's end;
``reached_env_steps`` and ``seconds`` of training; ``evaluation``, the mean return of ``episodes`` episodes after it;
``fields``, what the command line has changed of our experiment; and where it was measured. A random policy has seed and
steps 0 and no curve."""
NUM_POINTS = 50
"""Points of a curve."""
_NEEDED = {"task": str, "contender": str, "seed": int, "env_steps": int, "curve": list, "evaluation": (int, float)}


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
            wrong = [name for name, kind in _NEEDED.items() if not isinstance(run[name], kind)]
            if wrong or len(run["curve"]) not in (0 if run["contender"] == RANDOM else NUM_POINTS,):
                raise ValueError(f"{wrong or 'curve'} of a run")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a file of ctm-rl bench learning; name another one with --out.") from error
    return runs


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
