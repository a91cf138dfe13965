"""Environments that are not all at the same moment of their episodes, though they have all begun at once."""

from typing import Any

import gymnasium as gym

from ctm_rl.errors import UserError


class StaggeredStart(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Cuts the first episode off at a random step; all later ones run as long as they do.

    Where episodes mostly end by their time limit, environments that begin together stay together: a learner then sees
    the beginning of all episodes, some iterations later their middle, and so on, and has forgotten the one by the time
    it has learned the other. The cut is a truncation like that of the time limit.

    Args:
        env: an environment with a time limit.

    Raises:
        UserError: it has none.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        # What TimeLimit calls it, and what MiniGrid, which keeps its own limit, calls it.
        names = [name for name in ("_max_episode_steps", "max_steps") if env.has_wrapper_attr(name)]
        if not names:
            raise UserError(
                f"wrapper stagger needs episodes with a time limit, and those of {env} have none; "
                "time-limit=N before it gives them one."
            )
        self._limit = int(env.get_wrapper_attr(names[0]))
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
