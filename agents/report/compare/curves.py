"""Learning curves of several contenders in the same charts."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ctm_rl.agents.report.compare.contenders import Contender
from ctm_rl.agents.report.compare.overlay import Points, lay_over, over_seeds
from ctm_rl.agents.report.curves import Rows, learning_curves
from ctm_rl.agents.report.document import Figure, Line, Lines

SPREAD = (
    "Of several seeds the interquartile mean (of fewer than four the mean), with its 95 % interval by the percentile "
    "bootstrap over seeds."
)
MAIN = ("eval_return_mean", "accuracy", "episode_return_mean", "reward_mean")
"""The metrics that say how good a run is, the one that says most first."""


class _Key(NamedTuple):
    """A chart: one metric of a run's chart."""

    title: str
    metric: str


def overlaid_curves(contenders: Sequence[Contender]) -> list[Figure]:
    """The learning curves of all contenders, a chart for each metric.

    Args:
        contenders: of one task.
    """
    return [*_overlaid(contenders), *_against_time(contenders)]


def main_metric(rows: Rows) -> str | None:
    """The metric that says how good a run is; ``None``: it has none of them."""
    return next((name for name in MAIN if any(isinstance(row.get(name), (int, float)) for row in rows)), None)


def _overlaid(contenders: Sequence[Contender]) -> list[Figure]:
    """A chart for each metric against environment steps."""
    charts: dict[_Key, Lines] = {}
    points = {run.name: _points(run.rows, charts) for contender in contenders for run in contender.runs}
    shared = [key.title for key in charts]
    figures: list[Figure] = []
    for key, chart in charts.items():
        curves = [
            (contender, curve)
            for contender in contenders
            if all(key in points[run.name] for run in contender.runs)
            and (curve := over_seeds([points[run.name][key] for run in contender.runs])) is not None
        ]
        if not curves:
            continue
        x, lines = lay_over(curves)
        title = chart.title if shared.count(key.title) == 1 else f"{chart.title}: {key.metric}"
        figures.append(dataclasses.replace(chart, title=title, caption=f"{key.metric}.", x=x, lines=lines))
    return figures


def _points(rows: Rows, charts: dict[_Key, Lines]) -> dict[_Key, Points]:
    """The points of each metric of a run; the charts that they belong to are added to ``charts``."""
    found: dict[_Key, Points] = {}
    for figure in learning_curves(rows):
        assert isinstance(figure, Lines)
        for line in figure.lines:
            key = _Key(figure.title, line.name)
            charts.setdefault(key, figure)
            found[key] = _with_values(figure, line)
    return found


def _with_values(figure: Lines, line: Line) -> Points:
    """The places that have a value."""
    pairs = zip(np.asarray(figure.x).tolist(), np.asarray(line.y, np.float64).tolist(), strict=True)
    return [(at, value) for at, value in pairs if np.isfinite(value)]


def _against_time(contenders: Sequence[Contender]) -> list[Figure]:
    """The main metric of all contenders against the time of training."""
    metrics = {main_metric(run.rows) for contender in contenders for run in contender.runs}
    if len(metrics) != 1 or None in metrics:
        return []
    (metric,) = metrics
    timed = [
        contender._replace(runs=[run._replace(rows=_in_seconds(run.rows)) for run in contender.runs])
        for contender in contenders
    ]
    found = [figure for figure in _overlaid(timed) if isinstance(figure, Lines)]
    chart = next((figure for figure in found if figure.caption == f"{metric}."), None)
    if chart is None:
        return []
    caption = f"{chart.caption} Each run on the machine that it was trained on, whatever else that had to do."
    title = f"{chart.title}, against time"
    return [dataclasses.replace(chart, title=title, caption=caption, x_label="seconds of training")]


def _in_seconds(rows: Rows) -> Rows:
    """The rows with their seconds in the place of environment steps."""
    return [{**row, "env_steps": row.get("seconds")} for row in rows]
