"""Curves of several contenders over one axis, and what the seeds of one have in common."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ctm_rl.agents.report.compare.contenders import Contender
from ctm_rl.agents.report.document import Line
from ctm_rl.agents.seeds.statistics import at_same_steps
from ctm_rl.metrics import interquartile_mean, stratified_interval

MAX_POINTS = 400
"""Places of the shared axis, at most."""
Points = Sequence[tuple[float, float]]
"""Places on the axis, ascending, with their values."""


class Curve(NamedTuple):
    """One line, on an axis of its own."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class Spread(NamedTuple):
    """What the values of several seeds have in common."""

    value: float
    """The interquartile mean: of fewer than four values the mean."""
    low: float | None
    """The lower end of the percentile bootstrap's 95 % interval; ``None``: there is one value."""
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """The interquartile mean of the values of several seeds, with its interval.

    Args:
        values: one of each seed, at least one.
    """
    found = torch.tensor(list(values), dtype=torch.float64)
    interval = stratified_interval([found], lambda strata: interquartile_mean(strata[0])) or [None, None]
    return Spread(float(interquartile_mean(found)), *interval)


def difference(one: Sequence[float], other: Sequence[float]) -> Spread:
    """The difference of two interquartile means, one minus other, with its interval by the stratified bootstrap.

    Args:
        one: values of a contender's seeds.
        other: those of another.
    """
    groups = [torch.tensor(list(values), dtype=torch.float64) for values in (one, other)]
    interval = stratified_interval(
        groups, lambda strata: interquartile_mean(strata[0]) - interquartile_mean(strata[1])
    ) or [None, None]
    first, second = (float(interquartile_mean(values)) for values in groups)
    return Spread(first - second, *interval)


def over_seeds(seeds: Sequence[Points]) -> Curve | None:
    """The curve of several seeds: at each place their interquartile mean with its interval.

    Args:
        seeds: the points of each.

    Returns:
        The curve, where all seeds have values, see ``seeds.statistics.curve``; of one seed its own points. ``None``:
        there is no such place.
    """
    if len(seeds) == 1:
        points = np.array(seeds[0], np.float64).reshape(-1, 2)
        return Curve(points[:, 0], points[:, 1]) if len(points) else None
    aligned = at_same_steps(seeds)
    if not aligned:
        return None
    found = [spread(values) for _, values in aligned]
    low = np.array([math.nan if one.low is None else one.low for one in found])
    high = np.array([math.nan if one.high is None else one.high for one in found])
    return Curve(
        np.array([step for step, _ in aligned], np.float64),
        np.array([one.value for one in found]),
        low,
        high,
    )


def lay_over(curves: Sequence[tuple[Contender, Curve]]) -> tuple[np.ndarray, list[Line]]:
    """Lines over one shared axis: between its own points each is straight, as when it is drawn alone.

    Args:
        curves: contenders with their curves, at least one.

    Returns:
        The axis, ascending, and the lines; NaN before a curve begins and after it has ended.
    """
    x = np.unique(np.concatenate([curve.x for _, curve in curves]))
    if len(x) > MAX_POINTS:
        x = np.unique(x[np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int)])
    lines = []
    for contender, curve in curves:
        y, low, high = (_at(x, curve.x, values) for values in (curve.y, curve.low, curve.high))
        assert y is not None
        lines.append(Line(name=contender.title, y=y, low=low, high=high, colour=contender.colour))
    return x, lines


def _at(x: np.ndarray, own: np.ndarray, values: np.ndarray | None) -> np.ndarray | None:
    """A curve's values at the places of the shared axis."""
    return None if values is None else np.interp(x, own, values, left=np.nan, right=np.nan)
