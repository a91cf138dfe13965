"""Sorting: in which order do these numbers stand?"""

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv


class SortingTask(SingleStepTask):
    """Numbers with their order; see ``SortingEnv``."""

    def __init__(self, length: int = 30) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        super().__init__(Box(-np.inf, np.inf, (length,), np.float32), MultiDiscrete([length] * length))
        self.length = length

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws numbers [N, length] and their order [N, length]."""
        numbers = rng.standard_normal((num_samples, self.length), dtype=np.float32)
        return Samples(numbers, numbers.argsort(1))


class SortingEnv(SingleStepEnv):
    """Gives the indices of some numbers, least number first. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(-inf, inf, (length,), float32)``.

    ## Action space
    ``MultiDiscrete([length] * length)``: the index of the least number, of the next one, and so on.

    ## Rewards
    The share of places that are right, in [0, 1].

    ## Starting state
    Every number is drawn from the standard normal distribution.

    ## Episode end
    After one step.

    ## Arguments
    ``length``: how many numbers, 30 by default.
    """

    task_class = SortingTask


class SortingVectorEnv(SingleStepVectorEnv):
    """Many of ``SortingEnv``, whose numbers are made all at once."""

    task_class = SortingTask
