"""The time limit of an environment, which Gymnasium, MiniGrid and POPGym keep in different places."""

import gymnasium as gym

_NAMES = ("_max_episode_steps", "max_steps", "max_episode_length")
"""Names of the attributes with the limit, in Gymnasium's ``TimeLimit``, in MiniGrid and in POPGym."""


def find_time_limit(env: gym.Env) -> int | None:
    """Returns after how many steps an environment truncates its episodes; ``None``: it has no limit."""
    return next((int(env.get_wrapper_attr(name)) for name in _NAMES if env.has_wrapper_attr(name)), None)
