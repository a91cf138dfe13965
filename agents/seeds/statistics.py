"""Means over seeds with their uncertainty: Student's interval, which fits the few seeds that people can afford."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""The 97.5 % quantile of Student's distribution with 1 to 10 degrees of freedom."""
_NORMAL = 1.959964
NUM_POINTS = 100
"""Points of a curve, at most."""


def student_quantile(degrees: int) -> float:
    """Returns the 97.5 % quantile of Student's distribution.

    Above 10 degrees of freedom the expansion in their inverse is exact to four decimals (Abramowitz and Stegun 26.7.5).

    Args:
        degrees: of freedom, at least 1.
    """
    if degrees <= len(_QUANTILES):
        return _QUANTILES[degrees - 1]
    z = _NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def aggregate(values: Sequence[float], *, is_share: bool = False) -> dict[str, Any]:
    """Returns what several seeds have in common.

    Args:
        values: one of each seed.
        is_share: whether they lie in [0, 1], where the interval then ends too.

    Returns:
        ``num_seeds``, ``mean``, ``std`` (of the sample, n - 1), and ``low`` and ``high``, the ends of the 95 %
        confidence interval of the mean by Student's distribution; ``None`` where there are too few values.
    """
    count = len(values)
    mean = math.fsum(values) / count if count else None
    if mean is None or count < 2:
        return {"num_seeds": count, "mean": mean, "std": None, "low": None, "high": None}
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = student_quantile(count - 1) * std / math.sqrt(count)
    low, high = mean - half, mean + half
    if is_share:
        low, high = max(0.0, low), min(1.0, high)
    return {"num_seeds": count, "mean": mean, "std": std, "low": low, "high": high}


def curve(rows: Sequence[Sequence[tuple[float, float]]], *, is_share: bool = False) -> dict[str, list[Any]]:
    """Returns the mean over seeds along training, at the same env steps for all.

    Args:
        rows: for each seed env steps and values, in their order.
        is_share: see ``aggregate``.

    Returns:
        ``env_steps``, ``mean``, ``low``, ``high``: lists of at most 100 points, from where every seed has a value to
        where the first seed ends; at each point a seed's last value counts. Empty lists where there is no such place.
    """
    result: dict[str, list[Any]] = {"env_steps": [], "mean": [], "low": [], "high": []}
    for step, values in at_same_steps(rows):
        found = aggregate(values, is_share=is_share)
        result["env_steps"].append(step)
        for name in ("mean", "low", "high"):
            result[name].append(found[name])
    return result


def at_same_steps(rows: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[int, list[float]]]:
    """Returns the values of all seeds at the same env steps.

    Args:
        rows: see ``curve``.

    Returns:
        Ascending steps, each with a value of every seed; see ``curve`` for which.
    """
    if not rows or not all(rows):
        return []
    first, last = max(points[0][0] for points in rows), min(points[-1][0] for points in rows)
    if last < first:
        return []
    result = []
    num_points = min(NUM_POINTS, max(map(len, rows)))
    for step in sorted({round(float(step)) for step in np.linspace(first, last, num_points)}):
        places = [int(np.searchsorted([at for at, _ in points], step, side="right")) - 1 for points in rows]
        if min(places) >= 0:  # otherwise by rounding
            result.append((step, [points[place][1] for points, place in zip(rows, places, strict=True)]))
    return result
