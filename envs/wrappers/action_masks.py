"""Environments with a method ``action_masks``, as stable-baselines3 has them: the masks become part of observations."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Dict, Discrete, MultiBinary, MultiDiscrete, Space

from ctm_rl.envs.guard.describe_fault import Misbehaviour
from ctm_rl.envs.guard.mask_check import num_options
from ctm_rl.errors import UserError
from ctm_rl.spaces.action_masks import MASK, METHOD, read_masks, with_mask


def show_action_masks(env: gym.Env) -> gym.Env:
    """Shows the masks of an environment whose method returns them; any other stays as it is.

    Args:
        env: with all its wrappers. One whose observations are dictionaries with an ``action_mask`` stays as it is too.

    Returns:
        The environment, whose observations have the entry ``action_mask``.

    Raises:
        UserError: its actions are not chosen, so that there is nothing to mask.
    """
    if not env.has_wrapper_attr(METHOD):
        return env
    observed = env.observation_space
    return env if isinstance(observed, Dict) and MASK in observed.spaces else ShowActionMasks(env)


class ShowActionMasks(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Puts what ``action_masks()`` returns into the observation, a dictionary, as ``action_mask``.

    An observation that is no dictionary becomes its entry ``observation``.

    Args:
        env: with such a method, on itself or on an environment inside; what it returns may also be an attribute.

    Raises:
        UserError: the actions are not Discrete, MultiDiscrete or MultiBinary.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        sizes = num_options(env.action_space)
        if sizes is None:
            raise UserError(
                f"the environment has {METHOD}, and its action space {env.action_space} is none to choose from: masks "
                "are for Discrete, MultiDiscrete and MultiBinary actions; rename the method."
            )
        self._sizes = sizes
        self.observation_space = Dict(with_mask(env.observation_space, MultiBinary(sum(sizes))))

    def observation(self, observation: Any) -> dict[Any, Any]:
        """Adds the mask of the current state."""
        masks = self.env.get_wrapper_attr(METHOD)
        try:
            (mask,) = read_masks(masks() if callable(masks) else masks, self._sizes, 1)
        except ValueError as error:
            raise Misbehaviour(f"returned from {METHOD} no mask of its actions: {error}".rstrip(".")) from error
        return with_mask(observation, mask.astype(np.int8))


def sample_legal(space: Space, observation: Any) -> Any:
    """Draws an action from the space's own generator, a legal one if the observation has an action mask.

    Args:
        space: of the actions.
        observation: of one environment.
    """
    sizes = num_options(space)
    if sizes is None or not isinstance(observation, dict) or MASK not in observation:
        return space.sample()
    (mask,) = read_masks(observation[MASK], sizes, 1)
    of_choices = np.split(mask, np.cumsum(sizes)[:-1])
    drawn = np.array([space.np_random.choice(np.flatnonzero(of_choice)) for of_choice in of_choices])
    if isinstance(space, Discrete):
        return space.start + drawn[0]
    start = space.start if isinstance(space, MultiDiscrete) else 0
    return (drawn.reshape(space.shape) + start).astype(space.dtype)
