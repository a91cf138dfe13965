"""Cumulative parity as a single-step task: for each prefix of a sequence of -1 and 1, is the number of -1 odd?"""

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv


class ParityTask(SingleStepTask):
    """Sequences of -1 and 1 with their cumulative parities; see ``ParityEnv``."""

    def __init__(self, length: int = 64, min_length: int | None = None) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        if min_length is not None and not 1 <= min_length <= length:
            raise ValueError(f"min_length must be from 1 to length = {length}, got {min_length}.")
        super().__init__(Box(-1.0, 1.0, (length,), np.float32), MultiDiscrete([2] * length))
        self.length, self.min_length = length, min_length

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws sequences [N, length] and their parities [N, length]."""
        num_words = -(-self.length // 8)
        drawn = np.frombuffer(rng.bytes(num_samples * num_words), np.uint8).reshape(num_samples, num_words)
        is_negative = np.unpackbits(drawn, axis=1, count=self.length)  # eight elements from every byte drawn
        if self.min_length is not None:
            lengths = rng.integers(self.min_length, self.length + 1, (num_samples, 1))
            is_negative &= np.arange(self.length) < lengths
        inputs = np.float32(1) - np.float32(2) * is_negative
        return Samples(inputs, np.bitwise_xor.accumulate(is_negative, axis=1).astype(np.int64))


class ParityEnv(SingleStepEnv):
    """Predicts for every prefix of a sequence whether it holds an odd number of -1. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(-1, 1, (length,), float32)``, each value -1 or 1.

    ## Action space
    ``MultiDiscrete([2] * length)``: 1 where the number of -1 up to and including this element is odd.

    ## Rewards
    The share of correct elements, in [0, 1].

    ## Starting state
    Every value is -1 or 1 with equal probability. With ``min_length``, only a prefix is random, whose length is drawn
    from ``min_length`` to ``length``, and the rest is 1: shorter sequences are easier.

    ## Episode end
    After one step.

    ## Arguments
    ``length``: of the sequence, 64 by default. ``min_length``: of the random prefix; ``None``: all values are random.
    """

    task_class = ParityTask


class ParityVectorEnv(SingleStepVectorEnv):
    """A vector of ``ParityEnv`` whose sequences are made in one batch."""

    task_class = ParityTask
