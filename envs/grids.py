"""MiniGrid with the picture alone: what is seen, without the direction and the mission."""

from typing import Any

import gymnasium as gym
from minigrid.wrappers import ImgObsWrapper

from ctm_rl.envs.quick_view import QuickView, has_plain_view


def make_grid_image(env_id: str, episode_limit: int | None = None, **kwargs: Any) -> gym.Env:
    """Makes a MiniGrid environment that shows its image only; the entry point of ``ctm_rl/GridImage-v0``.

    The observation is a ``Box(0, 255, (height, width, 3), uint8)`` of object, colour and state of every cell in view.

    Args:
        env_id: Gymnasium's name of the environment.
        episode_limit: truncate episodes after this many steps; the reward, which MiniGrid lowers with the steps taken,
            goes by the same number. ``None``: as registered.
        **kwargs: handed to the environment.

    Returns:
        The environment, wrapped.

    Raises:
        ValueError: the environment's observation has no image.
    """
    limit = {} if episode_limit is None else {"max_steps": episode_limit}
    # The outer gymnasium.make checks the whole; checking the inner environment too would only cost time.
    env = gym.make(env_id, disable_env_checker=True, **limit, **kwargs)
    space = env.observation_space
    if not isinstance(space, gym.spaces.Dict) or "image" not in space.spaces:
        raise ValueError(f"only MiniGrid's observations have an image to be left alone; {env_id} has {space}.")
    return ImgObsWrapper(QuickView(env) if has_plain_view(env) else env)
