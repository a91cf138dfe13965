"""Classic control without velocities, many environments at once."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorObservationWrapper

from ctm_rl.envs.control import hidden_entries


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


def make_hidden_velocity_vector(
    num_envs: int,
    env_id: str,
    indices: Sequence[int] | None = None,
    episode_limit: int | None = None,
    **kwargs: Any,
) -> VectorEnv:
    """Makes many environments without velocities; the vector entry point of ``ctm_rl/HiddenVelocity-v0``.

    Args:
        num_envs: how many.
        env_id: Gymnasium's name of the environment. Its own vector class is taken if it has one, otherwise single
            environments are stepped one after the other.
        indices: which entries to hide; ``None``: as ``HideVelocity`` knows them.
        episode_limit: truncate episodes after this many steps; ``None``: as registered.
        **kwargs: handed to the environment.

    Returns:
        The environments, wrapped.
    """
    limit = {} if episode_limit is None else {"max_episode_steps": episode_limit}
    return HideVelocityVector(gym.make_vec(env_id, num_envs=num_envs, **limit, **kwargs), indices)
