"""Measures how our cost grows with the ticks K, the steps T and the number of iterations before."""

import contextlib
import importlib
import importlib.util
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.bench.client import Worker
from ctm_rl.agents.bench.measure import (
    OURS,
    Report,
    build,
    circumstances,
    measure_in_turn,
    median_of,
    num_threads_of,
    running_ray,
)
from ctm_rl.agents.bench.settings import BenchOptions
from ctm_rl.agents.bench.worker import ITERATION
from ctm_rl.agents.experiments.acting import ActingExperiment

_TITLES = {"ticks": "ticks of a step, K", "steps": "steps of an iteration, T", "iteration": "iteration"}


class Line(NamedTuple):
    """The straight line through some points, by least squares."""

    intercept: float
    """Its value at 0."""
    slope: float
    """Its rise per unit."""
    worst_deviation: float
    """Largest distance of a point from the line, relative to the line's value there."""


def scaling(experiment: ActingExperiment, options: BenchOptions, command: str, report: Report) -> dict[str, Any]:
    """Measures our iterations while one size grows and the others stay the same.

    Args:
        experiment: what is learned.
        options: how to measure; ``options.scale`` has the sizes.
        command: the command line, kept with the result.
        report: called with a line about what is being done.

    Returns:
        A result for JSON: ``machine``, ``versions``, ``command``, ``settings`` and ``curves``, each with its
        ``points`` (seconds per iteration, and per env step) and the ``line`` through their seconds per iteration.

    Raises:
        UserError: the experiment cannot run on this machine.
    """
    num_threads = num_threads_of(options)
    with running_ray(experiment) as experiment, contextlib.ExitStack() as stack:
        workers = {
            (size, value): Worker(OURS, variant, num_threads, options.rival, label=f"{size} {value}")
            for size, value, variant in _variants(experiment, options)
        }
        build(list(workers.values()), stack, report)
        timings, _ = measure_in_turn(list(workers.values()), options.rounds, report)
        last = list(workers.values())[-1]
        in_a_row = []
        for number in range(1, options.scale.iterations + 1):
            report(f"iteration {number} of {options.scale.iterations} in a row")
            in_a_row.append(last.request(ITERATION))
    curves: dict[str, list[dict[str, Any]]] = {"ticks": [], "steps": []}
    for (size, value), worker in workers.items():
        if size in curves:
            curves[size].append(_point(value, median_of(timings[worker.label])))
    curves["iteration"] = [_point(number, timing) for number, timing in enumerate(in_a_row, 1)]
    return {
        **circumstances(experiment, options, num_threads, command),
        "curves": {name: _curve(name, points) for name, points in curves.items()},
    }


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fits a straight line by least squares.

    Args:
        x: at least two different values.
        y: the value at each ``x``.

    Returns:
        The line, and the largest distance of a point from it.
    """
    slope, intercept = statistics.linear_regression(x, y)
    deviations = [abs(two / (intercept + slope * one) - 1) for one, two in zip(x, y, strict=True)]
    return Line(intercept, slope, max(deviations))


def to_text(result: dict[str, Any]) -> str:
    """Makes one line of text for each point."""
    lines = []
    for curve in result["curves"].values():
        line = curve["line"]
        lines.append(
            f"{curve['title']}: {line['intercept']:.4f} s + {line['slope']:.4f} s each, worst deviation "
            f"{100 * line['worst_deviation']:.1f} %"
        )
        lines += [
            f"  {point['value']:>5}  {point['seconds']:9.4f} s/iteration  "
            f"{1e6 * point['seconds_per_env_step']:9.1f} us/env step"
            for point in curve["points"]
        ]
    return "\n".join([*lines, ""])


def draw(result: dict[str, Any], path: Path) -> bool:
    """Draws the curves into a PNG.

    Args:
        result: what was measured.
        path: the file.

    Returns:
        Whether matplotlib, an optional extra, is installed; without it nothing is drawn.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    figures: Any = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(12, 3.6), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(result["curves"])), result["curves"].values(), strict=True):
        x = [point["value"] for point in curve["points"]]
        line = curve["line"]
        axes.plot(x, [point["seconds"] for point in curve["points"]], "o", label="measured")
        axes.plot(x, [line["intercept"] + line["slope"] * value for value in x], "-", label="line")
        axes.set(xlabel=curve["title"], ylabel="seconds per iteration", ylim=(0, None))
        axes.legend()
    figure.savefig(path, dpi=120)
    return True


def _variants(experiment: ActingExperiment, options: BenchOptions) -> list[tuple[str, int, ActingExperiment]]:
    """The experiment with each K, with each T, and unchanged."""
    model, ppo, scale = experiment.model, experiment.ppo, options.scale
    return [
        *(("ticks", size, replace(experiment, model=replace(model, num_ticks=size))) for size in scale.ticks),
        *(
            ("steps", size, replace(experiment, ppo=replace(ppo, num_rollout_steps=size)))
            for size in options.scale.steps
        ),
        ("iteration", 0, experiment),
    ]


def _point(value: int, timing: dict[str, Any]) -> dict[str, Any]:
    return {
        "value": value,
        "seconds": round(timing["seconds"], 5),
        "seconds_per_env_step": round(timing["seconds"] / timing["env_steps"], 9),
    }


def _curve(name: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    line = fit([point["value"] for point in points], [point["seconds"] for point in points])
    return {
        "title": _TITLES[name],
        "points": points,
        "line": {key: round(number, 6) for key, number in line._asdict().items()},
    }
