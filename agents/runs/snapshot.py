"""The last whole iteration of a run, in this process's memory: what a checkpoint is written from, whatever happens."""

import time
from typing import Any

import numpy as np
import torch

CHEAP_SECONDS = 0.01
"""A copy that takes no longer is made at the end of every iteration."""

MAX_SHARE = 0.01
"""Of a run's time, what other copies take at most: after one, none is made until 100 times its time has passed."""

_FIRST = 2
"""Copies that are made in any case: the first loads modules and gets its memory, and says little about the next."""


class Snapshot:
    """A copy of what a checkpoint holds, as of the end of an iteration.

    Copies reuse their memory. While one is made the last one is not whole: callers lock.

    Attributes:
        content: of a checkpoint; ``None``: there is none yet.
        iteration: number of finished iterations.
    """

    def __init__(self) -> None:
        self.content: dict[str, Any] | None = None
        self.iteration = -1
        self._due_at = 0.0
        self._seconds = float("inf")
        self._num_taken = 0

    @property
    def is_due(self) -> bool:
        """Whether another copy costs little enough."""
        return time.monotonic() >= self._due_at

    def take(self, content: dict[str, Any], iteration: int, began: float) -> None:
        """Copies the content of a checkpoint.

        Args:
            content: nested dicts and lists of tensors, arrays and plain values.
            iteration: number of finished iterations.
            began: when reading the content began, on the monotonic clock.
        """
        self.content, self.iteration = _copy(content, self.content), iteration
        ended = time.monotonic()
        self._num_taken += 1
        if self._num_taken >= _FIRST:
            # The shortest so far: on a busy machine, one may take much longer than another.
            self._seconds = min(self._seconds, ended - began)
            self._due_at = ended if self._seconds <= CHEAP_SECONDS else ended + self._seconds / MAX_SHARE


def copy_values(value: Any) -> Any:
    """Returns a copy of nested values, with tensors on the CPU."""
    return _copy(value, None)


def _copy(value: Any, old: Any) -> Any:
    """Copies nested values, tensors and arrays into the memory of an older copy where shapes and types are equal."""
    if isinstance(value, torch.Tensor):
        if _fits(value, old):
            return old.copy_(value)
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        if not _fits(value, old):
            return value.copy()
        np.copyto(old, value)
        return old
    if isinstance(value, dict):
        old = old if isinstance(old, dict) else {}
        return {name: _copy(item, old.get(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        before = old if isinstance(old, (list, tuple)) and len(old) == len(value) else [None] * len(value)
        return type(value)(_copy(item, one) for item, one in zip(value, before, strict=True))
    return value


def _fits(value: Any, old: Any) -> bool:
    """Whether a tensor or array can be copied into an older one."""
    return type(old) is type(value) and old.shape == value.shape and old.dtype == value.dtype
