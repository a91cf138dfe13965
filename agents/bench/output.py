"""From what the command line asks of a benchmark to the text that it writes."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ctm_rl.agents.bench.settings import CLUSTER, SCALING, BenchOptions
from ctm_rl.agents.experiment import Experiment
from ctm_rl.errors import UserError, expand

_WIDTH = 120


def measure_envs(options: BenchOptions, command: str) -> str:
    """Measures how fast samples are made, and gives the result as it was asked for; see ``measure``."""
    from ctm_rl.agents.bench.envs import bench_envs

    return _measure(options, lambda tell: bench_envs(command, options.rounds, tell))


def measure(experiment: Experiment, options: BenchOptions, command: str, kind: str | None = None) -> str:
    """Measures, and gives the result as it was asked for.

    Args:
        experiment: what is learned.
        options: how to measure, and how to tell it.
        command: what was asked for, to be kept with the result.
        kind: ``SCALING``: how ours grows; ``CLUSTER``: what clusters cost; ``None``: the contenders.

    Returns:
        One line of JSON, or a table for a person.

    Raises:
        UserError: the experiment cannot be run here, or the result cannot be written where it was asked to be.
    """

    def run(tell: Any) -> dict[str, Any]:
        if kind == SCALING:
            from ctm_rl.agents.bench.scaling import scaling

            return scaling(experiment, options, command, tell)
        if kind == CLUSTER:
            from ctm_rl.agents.bench.cluster import cluster

            return cluster(experiment, options, command, tell)
        from ctm_rl.agents.bench.run import bench

        return bench(experiment, options, command, tell)

    return _measure(options, run)


def _measure(options: BenchOptions, run: Callable[[Any], dict[str, Any]]) -> str:
    """Measures, keeps the result where it was asked to be kept, and gives it for a program or a person."""
    out = None if options.out is None else expand(options.out).absolute()
    if out is not None:
        _check_writable(out)
    with _progress() as tell:
        result = run(tell)
    line = json.dumps(result, allow_nan=False) + "\n"
    told = "" if out is None else _save(out, line, result)
    return line if options.json else _to_text(result) + told


def read(path: Path) -> str:
    """Makes the Markdown table of an earlier result.

    Raises:
        UserError: the file cannot be read, or is no result of ``ctm-rl bench --json``.
    """
    from ctm_rl.agents.bench.table import to_markdown

    try:
        result = json.loads(path.read_bytes())
        return to_markdown(result)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name a file made by ctm-rl bench --out.") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no result of ctm-rl bench --json.") from error


def _to_text(result: dict[str, Any]) -> str:
    """For a person."""
    if "curves" in result:
        from ctm_rl.agents.bench.scaling import to_text

        return to_text(result)
    if "clusters" in result:
        from ctm_rl.agents.bench.cluster import to_text

        return to_text(result)
    if "minibatch" not in result and "settings" not in result:
        from ctm_rl.agents.bench.envs import to_text

        return to_text(result)
    from ctm_rl.agents.bench.table import show

    console = Console(width=None if Console().is_terminal else _WIDTH)
    with console.capture() as captured:
        show(result, console)
    return captured.get()


def _save(out: Path, line: str, result: dict[str, Any]) -> str:
    """Writes the JSON, and the curves beside it; says where."""
    out.write_text(line)
    if "curves" not in result:
        return f"written: {out}\n"
    from ctm_rl.agents.bench.scaling import draw

    picture = out.with_suffix(".png")
    if draw(result, picture):
        return f"written: {out}, {picture}\n"
    return f'written: {out}; no picture, since matplotlib is not installed (pip install "ctm-rl[bench]").\n'


def _check_writable(path: Path) -> None:
    """Refuses, before anything is measured, a file that could not be written afterwards."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--out {path} cannot be written; name a file in a directory that is there.")


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Says on a terminal what is being done; elsewhere nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("starting") as status:
        yield status.update
