"""Hidden velocities in classic control, so that a policy has to remember: one environment, or a vector of them."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv, VectorObservationWrapper

from ctm_rl.describe_space import describe_space
from ctm_rl.errors import UserError

VELOCITIES = {
    "CartPole-v0": (1, 3),
    "CartPole-v1": (1, 3),
    "Acrobot-v1": (4, 5),
    "MountainCar-v0": (1,),
    "MountainCarContinuous-v0": (1,),
    "Pendulum-v1": (2,),
}
"""Indices of the velocities in the observations of classic control."""


class HideVelocity(gym.ObservationWrapper[np.ndarray, Any, np.ndarray], gym.utils.RecordConstructorArgs):
    """Sets the velocities in an observation to zero.

    A single observation then no longer shows how things move: a memoryless policy stays near 50 steps on CartPole.
    The observation space keeps its shape and bounds.

    Args:
        env: an environment with a one-dimensional ``Box`` of observations.
        indices: which elements to hide; ``None``: the velocities, for the environments listed in ``VELOCITIES``.

    Raises:
        UserError: the environment is not listed and no indices are given, or an index lies outside the observation.

    Example:
        >>> import gymnasium as gym
        >>> env = HideVelocity(gym.make("CartPole-v1"))
        >>> observation, _ = env.reset(seed=1)
        >>> observation[[1, 3]]
        array([0., 0.], dtype=float32)
    """

    def __init__(self, env: gym.Env[np.ndarray, Any], indices: Sequence[int] | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, indices=indices)
        gym.ObservationWrapper.__init__(self, env)
        self._hidden = _hidden_indices(env, env.observation_space, indices)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Returns a copy with zeros in place of the velocities."""
        hidden = np.array(observation)
        hidden[self._hidden] = 0
        return hidden


class HideVelocityVector(VectorObservationWrapper):
    """Sets the velocities in every environment's observation to zero, as ``HideVelocity`` does for one environment.

    Args:
        env: a vector environment, each of whose observations is a one-dimensional ``Box``. It must reset an environment
            in the step after its last one, or not at all: otherwise final observations, which are returned in the
            information, would show the velocities.
        indices: as for ``HideVelocity``.

    Raises:
        UserError: as for ``HideVelocity``.
        ValueError: environments are reset in their last step.

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
        self._hidden = _hidden_indices(env, env.single_observation_space, indices)

    def observations(self, observations: Any) -> np.ndarray:
        """Returns a copy, [B, ...], with zeros in place of the velocities."""
        hidden = np.array(observations)
        hidden[:, self._hidden] = 0
        return hidden


def _hidden_indices(env: gym.Env | VectorEnv, space: gym.Space, indices: Sequence[int] | None) -> list[int]:
    """Returns the indices to hide in an observation, checked against the space of one observation."""
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise UserError(
            f"velocities can be hidden in a one-dimensional Box only, and the observation is {describe_space(space)}."
        )
    env_id = env.spec.id if env.spec is not None else str(env)
    if indices is None and env_id not in VELOCITIES:
        raise UserError(
            f"the indices of velocities in the observations of {env_id} are not known (those of "
            f"{', '.join(VELOCITIES)} are); pass them, for example hide-velocities=1,3."
        )
    hidden = list(VELOCITIES[env_id] if indices is None else indices)
    size = space.shape[0]
    for index in hidden:
        if not 0 <= index < size:
            raise UserError(f"indices must be at least 0 and below {size}, the size of the observation; got {index}.")
    return hidden
