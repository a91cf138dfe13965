"""Exploration noise of actions that are numbers, correlated from step to step."""

import math

import torch
from torch import Tensor

from ctm_rl.spaces.actions import Actions, Numbers


def check_correlation(correlation: float, actions: Actions, prefix: str = "") -> None:
    """Refuses correlated noise for actions that have no noise.

    Args:
        correlation: from one step to the next; 0: the noise is independent.
        actions: of the policy.
        prefix: put before ``noise_correlation`` in the message.

    Raises:
        ValueError: one line with the way out.
    """
    if correlation and not isinstance(actions, Numbers):
        raise ValueError(
            f"{prefix}noise_correlation has no effect on actions that are chosen (here {actions}), only on numbers "
            "(Box); leave it out."
        )


class CorrelatedNoise:
    """Standard Gaussian noise for B environments, an autoregressive process of first order in each episode.

    ``e_t = r e_(t-1) + sqrt(1 - r^2) x_t`` with independent standard Gaussian x, and ``e_0 = x_0``: at every step alone
    it is standard Gaussian, so that the policy's log-probabilities stay those of its Gaussian, as with generalised
    state-dependent exploration (arXiv:2005.05719). Source: coloured noise in PPO, arXiv:2312.11091.

    Args:
        correlation: r, from 0 to below 1.
        generator: draws x.
    """

    def __init__(self, correlation: float, generator: torch.Generator) -> None:
        self._correlation = correlation
        self._generator = generator
        self._last: Tensor | None = None

    def draw(self, is_first: Tensor, num_numbers: int) -> Tensor:
        """Draws the noise of one step.

        Args:
            is_first: whether it begins an episode, [B].
            num_numbers: N, how many numbers an action has.

        Returns:
            [B, N].
        """
        fresh = torch.randn((len(is_first), num_numbers), generator=self._generator)
        if self._last is not None:
            following = self._correlation * self._last + math.sqrt(1 - self._correlation**2) * fresh
            fresh = torch.where(is_first[:, None], fresh, following)
        self._last = fresh
        return fresh

    def restart(self) -> None:
        """Makes the next step's noise independent of the last one's in all environments."""
        self._last = None
