"""An environment that fails at a chosen step; imported by its id, in other processes too."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

FAULTS = {
    "raise": r"raised ZeroDivisionError: on purpose \(faulty.py, line \d+\)",
    "nan": r"returned an observation that holds NaN at \[1\]",
    "infinite": r"returned an observation that holds inf at \[0\]",
    "reward": r"returned the reward nan, which is not a finite number",
    "no reward": r"returned the reward None, which is not a finite number",
    "shape": r"returned an observation that has shape \(3,\) instead of \(2,\)",
    "type": r"returned an observation that holds complex128 instead of float32",
    "bounds": r"returned an observation that holds 7.0 at \[1\], outside of its bounds \[0.0, 5.0\]",
    "hang": r"took longer than 0.2 seconds \(faulty.py, line \d+\)",
}
"""Kinds of faults, each with the expected description."""


class FaultyEnv(gym.Env):
    """Observes a random number and the step; fails in a step of some episodes, or at their start.

    Args:
        fault: how it fails, one of ``FAULTS``.
        step: in which step it fails; 0: at the start.
        every: it fails in every so many-th episode.
    """

    observation_space = Box(np.zeros(2, np.float32), np.array([np.inf, 5], np.float32))
    action_space = Discrete(2)

    def __init__(self, fault: str = "raise", step: int = 2, every: int = 2) -> None:
        assert fault in FAULTS
        self.fault, self.step_of_fault, self.every = fault, step, every
        self.num_episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.num_episodes += 1
        self.count = 0
        return self._fail(self._observe()), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.count += 1
        observation = self._fail(self._observe())
        is_bad = self.fault in ("reward", "no reward") and self._is_due()
        reward = {"reward": float("nan"), "no reward": None}[self.fault] if is_bad else 1.0
        return observation, reward, self.count == 4, False, {}

    def _is_due(self) -> bool:
        return self.count == self.step_of_fault and self.num_episodes % self.every == 0

    def _observe(self) -> np.ndarray:
        return np.array([self.np_random.random(), self.count], np.float32)

    def _fail(self, observation: np.ndarray) -> np.ndarray:
        if not self._is_due():
            return observation
        if self.fault == "raise":
            raise ZeroDivisionError("on purpose")
        if self.fault == "hang":
            try:
                time.sleep(20)
            except Exception:  # an environment that retries cannot suppress the timeout
                time.sleep(20)
        return {
            "nan": np.array([0, np.nan], np.float32),
            "infinite": np.array([np.inf, 0], np.float32),
            "shape": np.zeros(3, np.float32),
            "type": np.zeros(2, np.complex128),
            "bounds": np.array([9, 7], np.float32),
        }.get(self.fault, observation)


if "Faulty-v0" not in gym.registry:
    gym.register("Faulty-v0", entry_point=lambda **kwargs: FaultyEnv(**kwargs))
