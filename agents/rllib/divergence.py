"""Explains why numbers of an update are not finite: which field of the samples, which gradient step, which value."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor

from ctm_rl.spaces.observations import Layout

LARGEST = 1e18
"""float32 holds the square of a number up to about this size; weights and samples beyond it cannot be learned with."""

_NAMES = {Columns.REWARDS: "the reward", Columns.OBS: "the observation"}
_WAYS_OUT = {
    Columns.REWARDS: "scale it in the environment, or with --ppo.normalize-rewards True",
    Columns.OBS: "scale it in the environment",
}


def largest_of(tensors: Sequence[Tensor]) -> Tensor:
    """The largest size of all numbers in tensors, a scalar; NaN if one of them is NaN."""
    return torch.nn.utils.get_total_norm(tensors, norm_type=math.inf)


def explain_samples(columns: Mapping[str, Any], axes: Sequence[str], layout: Layout | None = None) -> str | None:
    """Names the largest reward or observation that is too large to compute with, and what to do, in one line.

    Args:
        columns: arrays or tensors by RLlib's names; an observation may be in parts by name.
        axes: names of the first axes of columns, as ``("environment", "step")``.
        layout: of the observations; ``None``: they are not packed.

    Returns:
        The line; ``None``: all are fine.
    """
    for name in _NAMES:
        found = _find_too_large(columns[name], _NAMES[name], axes, layout) if name in columns else None
        if found is not None:
            return f"{found}; {_WAYS_OUT[name]}."
    return None


def _find_too_large(column: Any, name: str, axes: Sequence[str], layout: Layout | None) -> str | None:
    """The largest number of a column and its place, if it is too large; ``None`` if all are fine."""
    if isinstance(column, (Mapping, tuple, list)):
        parts = column.items() if isinstance(column, Mapping) else enumerate(column)
        found = (_find_too_large(part, f"{name}.{key}", axes, None) for key, part in parts)
        return next((text for text in found if text is not None), None)
    values = column.detach().cpu().float().numpy() if isinstance(column, Tensor) else np.asarray(column)
    if values.dtype.kind != "f" or not values.size:
        return None
    sizes = np.nan_to_num(np.abs(values), nan=np.inf)
    flat = int(sizes.argmax())
    if sizes.flat[flat] <= LARGEST:
        return None
    index = tuple(map(int, np.unravel_index(flat, values.shape)))
    where = ", ".join(f"{axis} {place}" for axis, place in zip(axes, index, strict=False))
    field = _field(index[len(axes) :], layout)
    return f"{name}{field} is {values.flat[flat]:.3g} in {where}"


def _field(index: tuple[int, ...], layout: Layout | None) -> str:
    """Which number of an observation it is, as ``.camera[3, 1]``; empty for a single number."""
    if not index:
        return ""
    if layout is None or len(layout.parts) == 1:
        return f"[{', '.join(map(str, index))}]"
    starts = np.cumsum([0, *(part.size for part in layout.parts)])
    (place,) = index
    number = int(np.searchsorted(starts, place, side="right")) - 1
    part = layout.parts[number]
    inside = np.unravel_index(place - starts[number], part.packed_shape)
    return f".{part.name}[{', '.join(str(int(axis)) for axis in inside)}]"
