"""Single-step environments: an input is shown, one answer is given and scored, and it is over."""

import abc
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete


class SingleStepEnv(gym.Env[np.ndarray, np.ndarray], abc.ABC):
    """A supervised task as an environment of one step.

    ``reset`` draws an input, the one action answers it, the reward is the share of the answer that is right, in
    [0, 1], and the episode has ended. ``info["target"]`` holds the truth, at the reset and after the answer.
    A task says what its spaces are and how to draw samples.

    Args:
        observation_space: of one input.
        action_space: of one answer.
    """

    def __init__(self, observation_space: Box, action_space: MultiDiscrete) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self._sample: tuple[np.ndarray, np.ndarray] | None = None

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws inputs and their right answers.

        Args:
            rng: where randomness comes from.
            num_samples: N.

        Returns:
            Inputs [N, ...] in the observation space, answers [N, ...] in the action space.
        """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Shows a new input.

        Args:
            seed: makes the inputs from here on the same every time.
            options: none are known.

        Returns:
            The input, and ``{"target": ...}``.
        """
        super().reset(seed=seed)
        inputs, targets = self.sample(self.np_random, 1)
        self._sample = inputs[0], targets[0]
        return inputs[0], {"target": targets[0]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Scores an answer; the episode is over.

        Args:
            action: the answer.

        Returns:
            The input again, the share that is right in [0, 1], ended, not cut off, and ``{"target": ...}``.

        Raises:
            gymnasium.error.ResetNeeded: nothing has been shown since the last answer.
        """
        if self._sample is None:
            raise gym.error.ResetNeeded("reset the environment before answering: each input is answered once.")
        inputs, target = self._sample
        self._sample = None
        return inputs, float((np.asarray(action) == target).mean()), True, False, {"target": target}
