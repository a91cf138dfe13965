"""Classic control without velocities, many environments at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorObservationWrapper

from ctm_rl.envs.wrappers.hide_velocity import hidden_entries


class HideVelocityVector(VectorObservationWrapper):
    """Sets the velocities in every environment's observation to zero, as ``HideVelocity`` does for one environment.

    Args:
        env: a vector environment, each of whose observations is a one-dimensional ``Box``. It must reset an environment
            in the step after its last one, or not at all: otherwise final observations, which go another way, would
            show the velocities.
        indices: which entries to hide; ``None``: the velocities, for the environments listed in ``VELOCITIES``.

    Raises:
        ValueError: the environment is not listed and no indices are given, an index lies outside the observation, or
            environments are reset in their last step.

    Example:
        >>> import gymnasium as gym
        >>> env = HideVelocityVector(gym.make_vec("CartPole-v1", num_envs=3))
        >>> observations, _ = env.reset(seed=1)
        >>> observations[:, [1, 3]].any()
        np.False_
    """

    def __init__(self, env: VectorEnv, indices: Sequence[int] | None = None) -> None:
        if env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            raise ValueError(
                "velocities are hidden before environments become a vector, or after it with autoreset mode NextStep; "
                "this one has SameStep."
            )
        super().__init__(env)
        name = env.spec.id if env.spec is not None else str(env)
        self._hidden = hidden_entries(env.single_observation_space, name, indices)

    def observations(self, observations: Any) -> np.ndarray:
        """Returns a copy, [B, ...], with zeros where the velocities were."""
        hidden = np.array(observations)
        hidden[:, self._hidden] = 0
        return hidden
