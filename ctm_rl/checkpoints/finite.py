"""Finds numbers that are not finite, NaN or infinite, in the learned part of a checkpoint."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

_MODELS = ("policy", "model", "official")
"""Entries of a checkpoint's state that hold ``weights``."""
_LEARNED = ("modules", "optimizers")
"""Entries of its ``learner`` that training changes; others may hold NaN, such as norms that are not known yet."""


def find_not_finite(tree: Any) -> str | None:
    """Finds the first number in a tree that is NaN or infinite.

    It costs one pass over the memory of every tensor, on the device that it is on.

    Args:
        tree: nested mappings, lists and tuples of tensors, numpy arrays and plain values.

    Returns:
        The name of its entry, keys and indices joined by ``/``; ``None``: all numbers are finite.
    """
    return next((name for name, value in _leaves(tree, "") if not _is_finite(value)), None)


def learned_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a checkpoint's state and the optimiser's moments: what ``find_not_finite`` must not find in.

    Args:
        state: the content of a checkpoint, complete or in part.
    """
    part: dict[str, Any] = {}
    for name in _MODELS:
        if isinstance(entry := state.get(name), Mapping):
            part[name] = {"weights": entry.get("weights")}
    if isinstance(learner := state.get("learner"), Mapping):
        part["learner"] = {name: learner.get(name) for name in _LEARNED}
    return part


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All values of a tree that are no containers, with their names."""
    items: Any = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        yield path, tree
    for key, item in items:
        yield from _leaves(item, f"{path}/{key}" if path else str(key))


def _is_finite(value: Any) -> bool:
    """Whether a number, or all numbers of an array, are finite; other values are."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, torch.Tensor):
        if not (value.is_floating_point() or value.is_complex()):
            return True
        # a finite sum has finite terms only, and needs no memory; the sum of finite terms may overflow
        return bool(value.detach().sum().isfinite()) or bool(value.detach().isfinite().all())
    return not isinstance(value, (float, np.floating)) or math.isfinite(value)
