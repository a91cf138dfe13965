"""Rewards clipped for learning, with the raw return beside them."""

from typing import Any

import gymnasium as gym

RAW_RETURN = "raw_return"
"""Key in the information of an episode's last step: the sum of its rewards before they were clipped."""


class ClipRewards(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Clips every reward to between -1 and 1; ``info["raw_return"]`` of the last step has the sum of the raw ones.

    Args:
        env: any environment.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._return = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self._return = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes a step."""
        observation, reward, is_terminated, is_truncated, info = self.env.step(action)
        raw = float(reward)
        self._return += raw
        if is_terminated or is_truncated:
            info = {**info, RAW_RETURN: self._return}
        return observation, min(max(raw, -1.0), 1.0), is_terminated, is_truncated, info
