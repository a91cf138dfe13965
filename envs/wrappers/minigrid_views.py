"""MiniGrid: which part of the grid is observed, with spaces bounded by the numbers of objects, colours and states."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import FullyObsWrapper, ImgObsWrapper, OneHotPartialObsWrapper

from ctm_rl.describe_space import describe_space
from ctm_rl.errors import UserError

HIGHEST_OBJECT, HIGHEST_COLOR = max(OBJECT_TO_IDX.values()), max(COLOR_TO_IDX.values())
HIGHEST_STATE = max(STATE_TO_IDX.values())
HIGHEST_DIRECTION = len(DIR_TO_VEC) - 1


class TightGrid(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """MiniGrid with the true bounds of its image: ``Box(0, [10, 5, 2])`` per cell instead of 255 everywhere.

    The sizes of embeddings can then be read from the space. Observations are unchanged.

    Args:
        env: a MiniGrid environment.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.observation_space = _with_image(env, (HIGHEST_OBJECT, HIGHEST_COLOR, HIGHEST_STATE))


def is_grid(env: gym.Env) -> bool:
    """Whether this is MiniGrid, with an image of its cells among its observations."""
    space = env.observation_space
    return isinstance(env.unwrapped, MiniGridEnv) and isinstance(space, Dict) and isinstance(space.get("image"), Box)


def is_plain_grid(env: gym.Env) -> bool:
    """Whether this is MiniGrid and no wrapper around it declares or makes observations of its own."""
    inner = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, gym.ObservationWrapper) or inner._observation_space is not None:
            return False
        inner = inner.env
    return is_grid(env)


def show_image(env: gym.Env) -> gym.Env:
    """Observes the image alone, without direction and mission.

    Raises:
        UserError: this is not MiniGrid, or only its image is observed already.
    """
    _image_space("grid-image", env)
    return ImgObsWrapper(env)


def show_full(env: gym.Env) -> gym.Env:
    """Observes the whole grid instead of the agent's view; the state of the agent's cell is its direction.

    Raises:
        UserError: this is not MiniGrid, or parts of its observation are missing.
    """
    _image_space("grid-full", env)
    full = FullyObsWrapper(env)
    full.observation_space = _with_image(full, (HIGHEST_OBJECT, HIGHEST_COLOR, max(HIGHEST_STATE, HIGHEST_DIRECTION)))
    return full


def show_one_hot(env: gym.Env) -> gym.Env:
    """Observes the agent's view one-hot: 11 objects, 6 colours and 3 states of every cell.

    Raises:
        UserError: this is not MiniGrid, or observes the whole grid, whose directions MiniGrid's encoding lacks.
    """
    space = _image_space("grid-onehot", env)
    if space.high.reshape(-1, space.shape[-1]).max(0).tolist() != [HIGHEST_OBJECT, HIGHEST_COLOR, HIGHEST_STATE]:
        raise UserError("wrapper grid-onehot encodes the agent's view; leave out grid-full or the second grid-onehot.")
    encoded = OneHotPartialObsWrapper(env)
    encoded.observation_space = _with_image(encoded, (1,) * (HIGHEST_OBJECT + HIGHEST_COLOR + HIGHEST_STATE + 3))
    return encoded


def _image_space(name: str, env: gym.Env) -> Box:
    """Returns the image's space; refuses environments without an image."""
    if not is_grid(env):
        raise UserError(
            f"wrapper {name} is for MiniGrid's observations of image, direction and mission; "
            f"{env.spec.id if env.spec else env} has {describe_space(env.observation_space)}."
        )
    assert isinstance(env.observation_space, Dict)
    space = env.observation_space["image"]
    assert isinstance(space, Box)
    return space


def _with_image(env: gym.Env, highest: tuple[int, ...]) -> Dict:
    """The environment's space with other bounds of its image."""
    assert isinstance(env.observation_space, Dict)
    height, width = env.observation_space["image"].shape[:2]  # pyright: ignore[reportOptionalSubscript]
    high = np.broadcast_to(np.array(highest, np.uint8), (height, width, len(highest)))
    return Dict({**env.observation_space.spaces, "image": Box(np.zeros_like(high), high, dtype=np.uint8)})
