"""A staggered start: environments that are reset together soon are at different steps of their episodes."""

from typing import Any

import gymnasium as gym

from ctm_rl.envs.wrappers.time_limit import find_time_limit
from ctm_rl.errors import UserError


class StaggeredStart(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Truncates the first episode at a random step; later episodes have their full length.

    Where most episodes end by their time limit, environments that begin together stay in step: a learner then sees
    the beginning of all episodes, some iterations later their middle, and so on, and forgets the one while it learns
    the other. The truncation is reported like that of the time limit, with ``info["is_staggered"]``, since the return
    of such an episode is not that of a whole one.

    Args:
        env: an environment with a time limit.

    Raises:
        UserError: it has none.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        limit = find_time_limit(env)
        if limit is None:
            raise UserError(
                f"wrapper stagger needs episodes with a time limit, and those of {env} have none; "
                "put time-limit=N before it."
            )
        self._limit = limit
        self._num_steps = 0
        self._end: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; the end of the first one is drawn from the environment's own generator."""
        result = self.env.reset(seed=seed, options=options)
        is_first = self._num_steps == 0
        self._end = int(self.np_random.integers(1, self._limit, endpoint=True)) if is_first else None
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step."""
        observation, reward, is_terminated, is_truncated, info = self.env.step(action)
        self._num_steps += 1
        is_cut = self._num_steps == self._end and not (is_terminated or is_truncated)
        if is_cut:
            info = {**info, "is_staggered": True}
        return observation, reward, is_terminated, is_truncated or is_cut, info
