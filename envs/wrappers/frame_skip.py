"""Frame skip: one action for several steps of an environment."""

from typing import Any

import gymnasium as gym

from ctm_rl.envs.wrappers.time_limit import find_time_limit
from ctm_rl.errors import UserError


class FrameSkip(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Repeats every action and sums the rewards; the end of an episode ends the repetition.

    Args:
        env: any environment.
        num_frames: how many of its steps make one step of this wrapper.

    Raises:
        UserError: ``num_frames`` is below 1.
    """

    def __init__(self, env: gym.Env, num_frames: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, num_frames=num_frames)
        gym.Wrapper.__init__(self, env)
        if num_frames < 1:
            raise UserError(f"wrapper frame-skip must repeat an action at least 1 time, got {num_frames}.")
        self._num_frames = num_frames
        limit = find_time_limit(env)
        if limit is not None:
            self._max_episode_steps = -(-limit // num_frames)  # in this wrapper's steps

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes up to ``num_frames`` steps; returns the last observation and information, and the sum of rewards."""
        total = 0.0
        for _ in range(self._num_frames):
            observation, reward, is_terminated, is_truncated, info = self.env.step(action)
            total += float(reward)
            if is_terminated or is_truncated:
                break
        return observation, total, is_terminated, is_truncated, info  # pyright: ignore[reportPossiblyUnboundVariable]
