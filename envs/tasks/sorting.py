"""Sorting as a single-step task: the order of some numbers."""

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
    """Sorts numbers by their indices, least number first. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(-inf, inf, (length,), float32)``.

    ## Action space
    ``MultiDiscrete([length] * length)``: the index of the least number, of the next one, and so on.

    ## Rewards
    The share of correct elements, in [0, 1].

    ## Starting state
    Every number is drawn from the standard normal distribution.

    ## Episode end
    After one step.

    ## Arguments
    ``length``: how many numbers, 30 by default.
    """

    task_class = SortingTask


class SortingVectorEnv(SingleStepVectorEnv):
    """A vector of ``SortingEnv`` whose numbers are made in one batch."""

    task_class = SortingTask
