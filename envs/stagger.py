"""Environments that are not all at the same moment of their episodes, though they have all begun at once."""

from typing import Any

import gymnasium as gym


class StaggeredStart(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Cuts the first episode off at a random step; all later ones run as long as they do.

    Where episodes mostly end by their time limit, environments that begin together stay together: a learner then sees
    the beginning of all episodes, some iterations later their middle, and so on, and has forgotten the one by the time
    it has learned the other. The cut is a truncation like that of the time limit.

    Args:
        env: an environment with a time limit.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        try:
            self._limit = int(env.get_wrapper_attr("_max_episode_steps"))
        except AttributeError as error:
            raise ValueError(f"the episodes of {env} have no time limit, and nothing keeps them together.") from error
        self._num_steps = 0
        self._end: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, the first one with an end drawn from the environment's own generator."""
        result = self.env.reset(seed=seed, options=options)
        is_first = self._num_steps == 0
        self._end = int(self.np_random.integers(1, self._limit, endpoint=True)) if is_first else None
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step."""
        observation, reward, is_terminated, is_truncated, info = self.env.step(action)
        self._num_steps += 1
        is_cut = self._num_steps == self._end and not is_terminated
        return observation, reward, is_terminated, is_truncated or is_cut, info


def make_staggered(env_id: str, arguments: dict[str, Any] | None = None) -> gym.Env:
    """Makes an environment whose first episode is cut off; the entry point of ``ctm_rl/StaggeredStart-v0``.

    Args:
        env_id: Gymnasium's name of the environment.
        arguments: handed to ``gymnasium.make``.

    Returns:
        The environment, wrapped.

    Raises:
        ValueError: it has no time limit.
    """
    # The outer gymnasium.make checks the whole; checking the inner environment too would only cost time.
    return StaggeredStart(gym.make(env_id, disable_env_checker=True, **(arguments or {})))
