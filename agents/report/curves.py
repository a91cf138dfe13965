"""Learning curves: the metrics of a run against its environment steps, as charts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ctm_rl.agents.report.document import Figure, Line, Lines

Rows = Sequence[dict[str, Any]]
"""Lines of metrics, one for each iteration."""

MAX_POINTS = 1000
"""Points of a curve, at most; of longer ones every n-th line of metrics is shown, and the last one."""
MAX_OTHERS = 12
"""Charts of metrics that callbacks have added, at most."""
_TESTED = ("accuracy", "accuracy_whole", "held_out_loss")
"""Metrics that lines repeat until the next test."""
_EVAL = "eval_"
_EVAL_ITERATION = "eval_iteration"
_NOT_DRAWN = {"iteration", "env_steps", "seconds", "num_episodes", "eval_return_std", _EVAL_ITERATION}


class _Chart(NamedTuple):
    """A chart of metrics that belong together."""

    title: str
    y_label: str
    names: tuple[str, ...]
    caption: str = ""
    y_range: tuple[float, float] | None = None


_CHARTS = (
    _Chart(
        "Accuracy on held-out samples",
        "share",
        ("accuracy", "accuracy_whole"),
        "Share of right elements, and of samples with all elements right, read at the most certain tick; one point for "
        "each test.",
        (0.0, 1.0),
    ),
    _Chart("Loss on held-out samples", "loss", ("held_out_loss",)),
    _Chart("Reward of drawn answers", "reward", ("reward_mean",)),
    _Chart("Return in training", "return", ("episode_return_mean",), "Mean over the last 100 episodes."),
    _Chart(
        "Return in evaluations",
        "return",
        ("eval_return_mean",),
        "Mean of each evaluation, at the environment steps that the evaluated weights had learned from; the band is "
        "one standard deviation of the episodes to either side.",
    ),
    _Chart("Successes", "share", ("success_rate", "eval_success_rate"), "", (0.0, 1.0)),
    _Chart("Length of episodes", "steps", ("episode_length_mean", "eval_length_mean")),
    _Chart("Loss", "loss", ("total_loss", "policy_loss")),
    _Chart("Value loss", "loss", ("value_loss",)),
    _Chart("Explained variance of returns", "share", ("explained_variance",), "1: values predict returns exactly."),
    _Chart("Entropy of the policy", "nats", ("entropy",)),
    _Chart("Change of the policy by an update", "KL in nats", ("kl",)),
    _Chart("Clipped ratios", "share", ("clip_fraction",), "Share of the probability ratios that the clip has cut."),
    _Chart("Gradient norm", "norm", ("gradient_norm",)),
    _Chart("Learning rate", "learning rate", ("lr",)),
    _Chart("Speed", "steps per second", ("env_steps_per_second",)),
    _Chart("Memory", "MiB", ("memory_mb",), "Largest so far, of the training process."),
    _Chart("Faults of environments", "faults so far", ("env_faults",)),
)


def learning_curves(rows: Rows) -> list[Figure]:
    """The curves of a run.

    Args:
        rows: its metrics, in order.

    Returns:
        Charts of the metrics that have values; constant ones that say nothing, such as no faults at all, are left out.
    """
    known = {name for chart in _CHARTS for name in chart.names} | _NOT_DRAWN
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    others = [_Chart(name, "", (name,)) for name in names if name not in known][:MAX_OTHERS]
    figures: list[Figure] = []
    for chart in (*_CHARTS, *others):
        figures += _draw(chart, rows)
    return figures


def _draw(chart: _Chart, rows: Rows) -> list[Figure]:
    """A chart; none where its metrics have no values. Metrics of training and of tests are drawn separately."""
    figures: list[Figure] = []
    parts = ([name for name in chart.names if not _is_tested(name)], [name for name in chart.names if _is_tested(name)])
    for names in parts:
        chosen = _thinned(_rows_of(names, rows))
        drawn = [name for name in names if any(_is_number(row.get(name)) for row in chosen)]
        if not drawn or all(_is_silent(name, chosen) for name in drawn):
            continue
        is_split = all(parts) and bool(figures)
        figures.append(
            Lines(
                title=f"{chart.title} in evaluations" if is_split else chart.title,
                caption=chart.caption,
                x=np.array([float(row["env_steps"]) for row in chosen]),
                lines=[_line(name, chosen) for name in drawn],
                x_label="environment steps",
                y_label=chart.y_label,
                y_range=chart.y_range,
            )
        )
    return figures


def _line(name: str, rows: Rows) -> Line:
    """One metric, with its standard deviation where there is one."""
    values = _column(name, rows)
    if name != "eval_return_mean":
        return Line(name=name, y=values)
    std = _column("eval_return_std", rows)
    return Line(name=name, y=values, low=values - std, high=values + std)


def _column(name: str, rows: Rows) -> np.ndarray:
    """Values of one metric; NaN where there is none."""
    return np.array([float(row[name]) if _is_number(row.get(name)) else np.nan for row in rows])


def _rows_of(names: Sequence[str], rows: Rows) -> Rows:
    """The rows that have values of their own: of tests and evaluations not those that repeat an earlier one."""
    counted = [row for row in rows if _is_number(row.get("env_steps"))]
    if not names or not _is_tested(names[0]):
        return counted
    if names[0].startswith(_EVAL):
        return _evaluated_rows(counted)
    keys = (_EVAL_ITERATION, *_TESTED)
    tested = [tuple(row.get(key) for key in keys) for row in counted]
    is_new = [index == 0 or values != tested[index - 1] for index, values in enumerate(tested)]
    has_values = [any(_is_number(row.get(name)) for name in _TESTED) for row in counted]
    return [row for row, new, tried in zip(counted, is_new, has_values, strict=True) if new and tried]


def _evaluated_rows(rows: Rows) -> Rows:
    """One row for each evaluation, at the environment steps of the weights that were evaluated."""
    steps = {row.get("iteration"): row["env_steps"] for row in rows}
    found = {row[_EVAL_ITERATION]: row for row in rows if _is_number(row.get(_EVAL_ITERATION))}
    return [{**row, "env_steps": steps.get(iteration, row["env_steps"])} for iteration, row in sorted(found.items())]


def _thinned(rows: Rows) -> Rows:
    """At most ``MAX_POINTS`` rows, the last one among them; steps ascend."""
    stride = -(-len(rows) // MAX_POINTS)
    kept = [row for index, row in enumerate(rows) if (len(rows) - 1 - index) % max(stride, 1) == 0]
    ascending: list[dict[str, Any]] = []
    for row in kept:
        if not ascending or row["env_steps"] > ascending[-1]["env_steps"]:
            ascending.append(row)
    return ascending


def _is_tested(name: str) -> bool:
    """Whether lines repeat a metric until the next test or evaluation."""
    return name in _TESTED or name.startswith(_EVAL)


def _is_silent(name: str, rows: Rows) -> bool:
    """Whether a count of faults has always been 0."""
    return name == "env_faults" and not any(row.get(name) for row in rows)


def _is_number(value: object) -> bool:
    """Whether a metric has a value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
