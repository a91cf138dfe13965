"""MiniGrid: what of the grid is seen, and spaces that say how many objects, colours and states there are."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import FullyObsWrapper, ImgObsWrapper, OneHotPartialObsWrapper

from ctm_rl.errors import UserError

HIGHEST_OBJECT, HIGHEST_COLOR = max(OBJECT_TO_IDX.values()), max(COLOR_TO_IDX.values())
HIGHEST_STATE = max(STATE_TO_IDX.values())
HIGHEST_DIRECTION = len(DIR_TO_VEC) - 1


class TightGrid(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """MiniGrid with a space that says what its image holds: ``Box(0, [10, 5, 2])`` per cell instead of 255 everywhere.

    The sizes of embeddings can then be read from the space. Observations stay as they are.

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


def set_max_steps(env: gym.Env, limit: int) -> None:
    """Gives MiniGrid another limit, by which it also counts its rewards down."""
    assert isinstance(env.unwrapped, MiniGridEnv)
    env.unwrapped.max_steps = limit
    if hasattr(env.unwrapped, "fixed_max_steps"):  # BabyAI would choose another at every reset
        env.unwrapped.fixed_max_steps = True  # pyright: ignore[reportAttributeAccessIssue]


def show_image(env: gym.Env) -> gym.Env:
    """Shows the image alone, without direction and mission.

    Raises:
        UserError: this is not MiniGrid, or its image is shown alone already.
    """
    _check("grid-image", env)
    return ImgObsWrapper(env)


def show_full(env: gym.Env) -> gym.Env:
    """Shows the whole grid instead of what the agent sees; its own cell then has its direction for a state.

    Raises:
        UserError: this is not MiniGrid, or has lost its observation's parts.
    """
    _check("grid-full", env)
    full = FullyObsWrapper(env)
    full.observation_space = _with_image(full, (HIGHEST_OBJECT, HIGHEST_COLOR, max(HIGHEST_STATE, HIGHEST_DIRECTION)))
    return full


def show_one_hot(env: gym.Env) -> gym.Env:
    """Shows what the agent sees as zeros and ones: 11 objects, 6 colours and 3 states of every cell.

    Raises:
        UserError: this is not MiniGrid, or shows the whole grid, whose directions MiniGrid's encoding lacks.
    """
    space = _check("grid-onehot", env)
    if space.high.reshape(-1, space.shape[-1]).max(0).tolist() != [HIGHEST_OBJECT, HIGHEST_COLOR, HIGHEST_STATE]:
        raise UserError(
            "wrapper grid-onehot encodes what the agent sees; leave out grid-full or the second grid-onehot."
        )
    encoded = OneHotPartialObsWrapper(env)
    encoded.observation_space = _with_image(encoded, (1,) * (HIGHEST_OBJECT + HIGHEST_COLOR + HIGHEST_STATE + 3))
    return encoded


def _check(name: str, env: gym.Env) -> Box:
    """The image's space, if there is one."""
    if not is_grid(env):
        raise UserError(
            f"wrapper {name} is for MiniGrid's observations of image, direction and mission; "
            f"{env.spec.id if env.spec else env} has {env.observation_space}."
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
