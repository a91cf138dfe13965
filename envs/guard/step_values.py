"""Reads what a step returns beside the observation: reward, flags and information, in whatever type they come."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctm_rl.envs.guard.describe_fault import Misbehaviour, short
from ctm_rl.envs.guard.space_check import LARGEST, Note, to_array

PLAIN_NUMBERS = (float, int, np.floating, np.integer)
PLAIN_FLAGS = (bool, np.bool_)


def read_reward(value: Any, note: Note) -> Any:
    """Returns a reward as one finite number.

    Args:
        value: as the environment returned it.
        note: gets what is taken although it is no plain number.

    Raises:
        Misbehaviour: it is not one finite number, or one whose square overflows.
    """
    number = value if isinstance(value, PLAIN_NUMBERS) else _number(value)
    is_large = isinstance(number, int) and abs(number) > LARGEST  # may have no float
    if number is None or not (is_large or math.isfinite(number)):
        raise Misbehaviour(f"returned the reward {short(value)}, which is not a finite number")
    if is_large or abs(number) > LARGEST:
        raise Misbehaviour(f"returned the reward {short(value)}, beyond {LARGEST:g}, where float32 overflows; scale it")
    if number is not value:
        note("reward", f"returned the reward {short(value)}, which is no plain number; it is taken as {number:g}")
    return number


def _number(value: Any) -> float | None:
    """The number in an array, a tensor or an object of another type; ``None``: there is not exactly one real one."""
    array = to_array(value)
    if isinstance(value, (str, bytes)) or array.size != 1 or array.dtype.kind not in "biufO":
        return None
    try:
        return float(array.item())
    except (TypeError, ValueError, OverflowError):
        return None


def read_flag(name: str, value: Any, note: Note) -> bool:
    """Returns whether an episode is over.

    Args:
        name: terminated or truncated.
        value: as the environment returned it; ``None`` is false.
        note: gets what is taken although it is not a bool.

    Raises:
        Misbehaviour: it is neither true nor false.
    """
    if isinstance(value, PLAIN_FLAGS):
        return bool(value)
    number = 0.0 if value is None else _number(value)
    if number is None or number not in (0, 1):
        raise Misbehaviour(f"returned {name} {short(value)}, which is neither true nor false")
    note(name, f"returned {name} {short(value)}, which is no bool; it is taken as {bool(number)}")
    return bool(number)


def read_info(value: Any, note: Note) -> dict[Any, Any]:
    """Returns the information; what is no dictionary counts as none."""
    if isinstance(value, dict):
        return value
    note("info", f"returned info {short(value)}, which is no dict; it is left out")
    return dict(value) if isinstance(value, Mapping) else {}
