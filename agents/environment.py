"""From the environment an experiment names to the one Gymnasium makes."""

from typing import Any

import gymnasium as gym

from ctm_rl.agents.experiment import EnvConfig
from ctm_rl.errors import UserError

GRID_IMAGE = "ctm_rl.envs:ctm_rl/GridImage-v0"
"""Registered name of the environment that shows MiniGrid's image alone."""
HIDDEN_VELOCITY = "ctm_rl.envs:ctm_rl/HiddenVelocity-v0"
"""Registered name of the environment that hides the velocities of another."""


def gym_arguments(env: EnvConfig) -> tuple[str, dict[str, Any]]:
    """Says how Gymnasium makes an environment: its id, and what to hand to ``make`` or ``make_vec`` beside it."""
    if env.hide_velocities or env.use_image_only:
        limit = {} if env.max_episode_steps is None else {"episode_limit": env.max_episode_steps}
        return GRID_IMAGE if env.use_image_only else HIDDEN_VELOCITY, {"env_id": env.id, **limit}
    return env.id, {} if env.max_episode_steps is None else {"max_episode_steps": env.max_episode_steps}


def make_env(env: EnvConfig) -> gym.Env:
    """Makes one environment.

    Args:
        env: what the experiment names.

    Returns:
        The environment, not reset yet.

    Raises:
        UserError: Gymnasium knows no such environment, or it cannot be made as asked.
    """
    env_id, arguments = gym_arguments(env)
    try:
        return gym.make(env_id, **arguments)
    except Exception as error:  # what an environment of the user's own raises can be anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"env.id {env.id!r} cannot be made: {reason} "
            "Any registered id is allowed; module:Name-v0 imports the module first."
        ) from error
