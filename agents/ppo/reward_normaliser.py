"""Divides rewards by the running standard deviation of the discounted return."""

from collections.abc import Mapping
from typing import Any

import numpy as np

LIMIT = 10.0
"""Divided rewards are clipped to this size: the first standard deviations are computed from few values."""
_TINY = 1e-8


class RewardNormaliser:
    """Divides rewards by the running standard deviation of the discounted return. Source: arXiv:2005.12729.

    The published experiments keep one standard deviation for every environment; here all environments of a runner share
    one, which estimates the same quantity from more values.

    Args:
        num_envs: B.
        gamma: discount.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self._gamma = gamma
        self._returns = np.zeros(num_envs)
        self._count, self._mean, self._square = 0.0, 0.0, 0.0

    @property
    def std(self) -> float:
        """The current standard deviation, by which rewards are divided."""
        return float(np.sqrt(self._square / self._count + _TINY)) if self._count else 1.0

    def __call__(self, rewards: np.ndarray, is_first: np.ndarray, is_valid: np.ndarray) -> np.ndarray:
        """Updates the statistics with one step's rewards, and divides these.

        Args:
            rewards: raw, [B].
            is_first: whether the step is the first of its episode, [B].
            is_valid: whether it is an environment step and not an autoreset step, [B].

        Returns:
            The divided rewards, [B], between -``LIMIT`` and ``LIMIT``.
        """
        self._returns = np.where(is_first, 0.0, self._returns) * self._gamma + rewards
        seen = self._returns[is_valid]
        if len(seen):
            # Combines mean and sum of squares of two samples.
            count, mean = float(len(seen)), float(seen.mean())
            total, shift = self._count + count, mean - self._mean
            self._square += float(np.square(seen - mean).sum()) + shift**2 * self._count * count / total
            self._mean += shift * count / total
            self._count = total
        return np.clip(rewards / self.std, -LIMIT, LIMIT)

    def restart(self) -> None:
        """Resets the returns of unfinished episodes; the statistics stay."""
        self._returns[:] = 0.0

    def get_state(self) -> dict[str, float]:
        """The statistics."""
        return {"count": self._count, "mean": self._mean, "square": self._square}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores the statistics."""
        self._count, self._mean, self._square = (float(state[name]) for name in ("count", "mean", "square"))
