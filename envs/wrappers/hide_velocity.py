"""Classic control with part of the observation missing, so that a policy has to remember."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from ctm_rl.errors import UserError

VELOCITIES = {
    "CartPole-v0": (1, 3),
    "CartPole-v1": (1, 3),
    "Acrobot-v1": (4, 5),
    "MountainCar-v0": (1,),
    "MountainCarContinuous-v0": (1,),
    "Pendulum-v1": (2,),
}
"""Where the velocities stand in the observations of classic control."""


class HideVelocity(gym.ObservationWrapper[np.ndarray, Any, np.ndarray], gym.utils.RecordConstructorArgs):
    """Sets the velocities in an observation to zero.

    A single observation then no longer says where things move: a memoryless policy stays near 50 steps on CartPole.
    The observation space keeps its shape and bounds.

    Args:
        env: an environment with a one-dimensional ``Box`` of observations.
        indices: which entries to hide; ``None``: the velocities, for the environments listed in ``VELOCITIES``.

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
        name = env.spec.id if env.spec is not None else str(env)
        self._hidden = hidden_entries(env.observation_space, name, indices)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Returns a copy with zeros where the velocities were."""
        hidden = np.array(observation)
        hidden[self._hidden] = 0
        return hidden


def hidden_entries(space: gym.Space, env_id: str, indices: Sequence[int] | None) -> list[int]:
    """Checks which entries of an observation are to be hidden.

    Args:
        space: of one observation.
        env_id: name of the environment.
        indices: which entries; ``None``: the velocities, for the environments listed in ``VELOCITIES``.

    Returns:
        Their places.

    Raises:
        UserError: they cannot be hidden, or are not known.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise UserError(f"velocities can be hidden in a one-dimensional Box only, and the observation is {space}.")
    if indices is None and env_id not in VELOCITIES:
        raise UserError(
            f"velocities of {env_id} are not known by their places in the observation (those of "
            f"{', '.join(VELOCITIES)} are); pass their indices, as hide-velocities=1,3."
        )
    hidden = list(VELOCITIES[env_id] if indices is None else indices)
    size = space.shape[0]
    for index in hidden:
        if not 0 <= index < size:
            raise UserError(f"indices must be at least 0 and below {size}, the size of the observation; got {index}.")
    return hidden
