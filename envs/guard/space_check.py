"""Whether an observation lies in its space, and in words why not; fast, because every step is checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

Check = Callable[[Any], str | None]
"""Maps an observation to a description of what is wrong with it; ``None``: it is valid."""

_SLACK = 1e-5
"""How far rounding may take a number past a bound, relative to 1 + the bound."""


def make_check(space: Space, *, has_bounds: bool = True, is_quick: bool = False) -> Check:
    """Makes the check for a space.

    Numbers must be finite even where the space has no bounds. A type that NumPy casts to the space's own without
    changing its kind, such as float64 to float32, is no fault: it is cast when observations are batched.

    Args:
        space: of one observation, or of a batch.
        has_bounds: numbers outside the bounds are invalid.
        is_quick: skip what takes long: texts.

    Returns:
        The check.
    """
    if isinstance(space, Box):
        return _make_box_check(space, has_bounds)
    if isinstance(space, (Dict, Tuple)):
        is_dict = isinstance(space, Dict)
        parts = space.spaces.items() if is_dict else enumerate(space.spaces)
        checks = {key: make_check(part, has_bounds=has_bounds, is_quick=is_quick) for key, part in parts}
        return lambda value: _check_parts(value, checks, is_dict)
    if isinstance(space, (Discrete, MultiDiscrete, MultiBinary)) or (isinstance(space, Text) and not is_quick):
        return lambda value: None if space.contains(value) else f"is {_short(value)}, outside of {space}"
    # Spaces of other kinds, such as MiniGrid's of missions, may not contain what their environments return.
    return lambda value: None


def _make_box_check(space: Box, has_bounds: bool) -> Check:
    """Makes the check for an array of numbers."""
    shape, dtype = space.shape, np.dtype(space.dtype)
    is_float = np.issubdtype(dtype, np.floating)
    low, high = _bounds(space, has_bounds)

    def check(value: Any) -> str | None:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        if array.shape != shape:
            return f"has shape {array.shape} instead of {shape}"
        if array.dtype is not dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
            return f"holds {array.dtype} instead of {dtype}"
        # NaN fails every comparison, and infinity lies beyond every bound.
        is_inside = (low is None or (array >= low).all()) and (high is None or (array <= high).all())
        if is_inside:
            return None
        if is_float and not np.isfinite(array).all():
            return f"holds {_first(array, ~np.isfinite(array))}"
        is_outside = np.zeros(shape, bool)
        is_outside |= False if low is None else array < low
        is_outside |= False if high is None else array > high
        bounds = f"[{space.low[is_outside].flat[0]}, {space.high[is_outside].flat[0]}]"
        return f"holds {_first(array, is_outside)}, outside of its bounds {bounds}"

    return check


def _bounds(space: Box, has_bounds: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Least and greatest valid values, to compare with; ``None``: every value of the type is valid."""
    dtype: Any = np.dtype(space.dtype)
    if np.issubdtype(dtype, np.floating):
        limit = float(np.finfo(dtype).max)
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
        if not has_bounds:
            low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
        low, high = np.maximum(low, -limit), np.minimum(high, limit)
        with np.errstate(over="ignore"):  # the largest float64 overflows to infinity, which is clipped below
            low, high = low - _SLACK * (1 + abs(low)), high + _SLACK * (1 + abs(high))
        return np.maximum(low, -limit).astype(dtype), np.minimum(high, limit).astype(dtype)
    if not has_bounds or np.issubdtype(dtype, np.bool_):
        return None, None
    least, greatest = np.iinfo(dtype).min, np.iinfo(dtype).max
    low = None if (space.low == least).all() else space.low
    return low, None if (space.high == greatest).all() else space.high


def _check_parts(value: Any, checks: dict[Any, Check], is_dict: bool) -> str | None:
    """Checks a dictionary by its keys, or a tuple by its places."""
    if is_dict and (not isinstance(value, dict) or value.keys() != checks.keys()):
        parts = sorted(map(str, value)) if isinstance(value, dict) else _short(value)
        return f"has parts {parts} instead of {sorted(checks)}"
    if not is_dict and (not isinstance(value, (tuple, list)) or len(value) != len(checks)):
        return f"is {_short(value)} instead of a tuple of {len(checks)}"
    for key, check in checks.items():
        problem = check(value[key])
        if problem is not None:
            return f"part {key!r} {problem}"
    return None


def _first(array: np.ndarray, is_wrong: np.ndarray) -> str:
    """The first wrong number and its index."""
    index = tuple(int(place) for place in np.argwhere(is_wrong)[0])
    where = f" at {list(index)}" if index else ""
    return f"{'NaN' if np.isnan(array[index]) else array[index]}{where}"


def _short(value: Any) -> str:
    """A value for a message, shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
