"""Learning curves: the mean return of the last 100 training episodes at evenly spaced environment steps."""

from collections.abc import Sequence

import numpy as np

from ctm_rl.agents.bench.learning.results import NUM_POINTS

_DIGITS = 5
"""Significant digits of what is kept."""


def curve_of(rows: Sequence[tuple[float, float | None]], env_steps: int) -> list[float | None]:
    """Returns a curve at the same steps for all contenders, whatever the size of their iterations.

    Between two iterations the mean is interpolated; a run that has ended early keeps its last one.

    Args:
        rows: environment steps and mean return after each iteration, in their order; ``None``: no episode has ended.
        env_steps: steps at the last point.

    Returns:
        The mean at ``env_steps * i / NUM_POINTS`` for i from 1; ``None`` before the first.
    """
    known = [(steps, value) for steps, value in rows if value is not None]
    if not known:
        return [None] * NUM_POINTS
    steps, values = zip(*known, strict=True)
    points = steps_of(env_steps)
    means = np.interp(points, steps, values)
    return [None if point < steps[0] else rounded(float(mean)) for point, mean in zip(points, means, strict=True)]


def steps_of(env_steps: int) -> list[float]:
    """The environment steps of a curve's points."""
    return [env_steps * number / NUM_POINTS for number in range(1, NUM_POINTS + 1)]


def rounded(value: float) -> float:
    """A value to the digits that are kept."""
    return float(f"{value:.{_DIGITS}g}")
