"""Classic control with part of the observation missing, so that a policy has to remember."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

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
        ValueError: the environment is not listed and no indices are given, or an index lies outside the observation.

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


def make_hidden_velocity(
    env_id: str, indices: Sequence[int] | None = None, episode_limit: int | None = None, **kwargs: Any
) -> gym.Env[np.ndarray, Any]:
    """Makes an environment by its id and hides its velocities; the entry point of ``ctm_rl/HiddenVelocity-v0``.

    Args:
        env_id: Gymnasium's name of the environment.
        indices: which entries to hide; ``None``: as ``HideVelocity`` knows them.
        episode_limit: truncate episodes after this many steps; ``None``: as registered.
        **kwargs: handed to the environment.

    Returns:
        The environment, wrapped.
    """
    limit = {} if episode_limit is None else {"max_episode_steps": episode_limit}
    # The outer gymnasium.make checks the whole; checking the inner environment too would only cost time.
    return HideVelocity(gym.make(env_id, disable_env_checker=True, **limit, **kwargs), indices)


def hidden_entries(space: gym.Space, env_id: str, indices: Sequence[int] | None) -> list[int]:
    """Checks which entries of an observation are to be hidden.

    Args:
        space: of one observation.
        env_id: name of the environment.
        indices: which entries; ``None``: the velocities, for the environments listed in ``VELOCITIES``.

    Returns:
        Their places.

    Raises:
        ValueError: they cannot be hidden, or are not known.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ValueError(f"velocities can be hidden in a one-dimensional Box only, and the observation is {space}.")
    if indices is None and env_id not in VELOCITIES:
        raise ValueError(
            f"velocities of {env_id} are not known by their places in the observation (those of "
            f"{', '.join(VELOCITIES)} are); pass their indices."
        )
    hidden = list(VELOCITIES[env_id] if indices is None else indices)
    size = space.shape[0]
    for index in hidden:
        if not 0 <= index < size:
            raise ValueError(f"indices must be at least 0 and below {size}, the size of the observation; got {index}.")
    return hidden
