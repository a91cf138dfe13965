"""What an environment's spaces mean for a policy: which encoder reads the observation, how many actions there are."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError

MINIGRID_SHAPE = (7, 7, 3)
"""Observation of MiniGrid: object, colour and state of every cell in view."""


def fit_config(config: PolicyConfig, observation_space: gym.Space) -> PolicyConfig:
    """Settles the encoder for an observation space.

    ``auto`` becomes ``grid`` for MiniGrid's 7 x 7 x 3 bytes and ``control`` for a vector.

    Args:
        config: the policy as it was asked for.
        observation_space: of one environment.

    Returns:
        The policy with ``encoder`` either ``control`` or ``grid``.

    Raises:
        UserError: no encoder reads this space, or not the one that was asked for.
    """
    encoder = config.encoder
    if encoder == "auto":
        encoder = "grid" if _is_grid(observation_space) and observation_space.shape == MINIGRID_SHAPE else "control"
    if encoder == "control" and not _is_vector(observation_space):
        raise UserError(
            f"observation space {observation_space} is not supported: it must be a Box of one dimension, "
            "or MiniGrid's 7 x 7 x 3 bytes."
        )
    if encoder == "grid" and not _is_grid(observation_space):
        raise UserError(
            f"observation space {observation_space} is not supported by encoder grid: it must be a Box of whole "
            "numbers of shape [height, width, 3], as MiniGrid's."
        )
    return replace(config, encoder=encoder)


def count_actions(action_space: gym.Space) -> int:
    """Returns the number of actions of a discrete action space.

    Raises:
        UserError: it is none, or does not count from 0.
    """
    if not isinstance(action_space, Discrete) or action_space.start != 0:
        raise UserError(f"action space {action_space} is not supported: it must be Discrete, counted from 0.")
    return int(action_space.n)


def _is_vector(space: gym.Space) -> bool:
    """Whether a space holds vectors of numbers."""
    return isinstance(space, Box) and len(space.shape) == 1 and space.shape[0] > 0


def _is_grid(space: gym.Space) -> bool:
    """Whether a space holds three whole numbers for each cell of a grid."""
    return (
        isinstance(space, Box)
        and len(space.shape) == 3
        and space.shape[-1] == 3
        and np.issubdtype(space.dtype, np.integer)
    )
