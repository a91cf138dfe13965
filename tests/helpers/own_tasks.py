"""Tasks and environments of a user's own, in none of the packages, which tests name as ``own_tasks:Class``."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from ctm_rl.envs.tasks.single_step import SingleStepTask


class Brackets(SingleStepTask):
    """Do the brackets match? 1 opens, -1 closes; about half of the sequences match."""

    def __init__(self, length: int = 12) -> None:
        super().__init__(Box(-1, 1, (length,), np.float32), Discrete(2))
        self.half = np.repeat(np.array([1, -1], np.float32), length // 2)

    def sample(self, rng: np.random.Generator, num_samples: int) -> Any:
        """Draws sequences [N, length], and whether they match [N]."""
        brackets = rng.permuted(np.tile(self.half, (num_samples, 1)), axis=1)
        for row in np.flatnonzero(rng.random(num_samples) < 0.5):
            brackets[row] = np.roll(brackets[row], -1 - brackets[row].cumsum().argmin())
        return brackets, brackets.cumsum(1).min(1) >= 0


class Larger(SingleStepTask):
    """Which numbers are above their mean? With a scale of its own at each place."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__(Box(-np.inf, np.inf, (3,), np.float32), MultiDiscrete([2, 2, 2]))
        self.wrong = wrong

    def sample(self, rng: np.random.Generator, num_samples: int) -> Any:
        """Draws numbers [N, 3] and answers [N, 3]."""
        if self.wrong == "raises":
            raise KeyError("no such word")
        numbers = rng.normal((0, 5, -100), (1, 10, 0.5), (num_samples, 3)).astype(np.float32)
        answers = (numbers > (0, 5, -100)) * (5 if self.wrong == "class" else 1)
        return numbers[:, : 2 if self.wrong == "shape" else 3], answers


class Sign(gym.Env[Any, Any]):
    """An environment of one step that shows the right answer."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, num_steps: int = 1) -> None:
        self.num_steps = num_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws two numbers."""
        super().reset(seed=seed)
        self.left = self.num_steps
        self.shown = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.shown, {"target": int(self.shown[0] > 0)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Rewards the right answer."""
        self.left -= 1
        return self.shown, float(action == (self.shown[0] > 0)), self.left == 0, False, {}


class Box3(SingleStepTask):
    """Inputs of a kind that no model reads."""

    def __init__(self) -> None:
        super().__init__(Box(0, 1, (2, 2, 2), np.float32), Discrete(2))

    def sample(self, rng: np.random.Generator, num_samples: int) -> Any:
        """Draws inputs [N, 2, 2, 2]."""
        return rng.random((num_samples, 2, 2, 2), np.float32), np.zeros(num_samples, int)


def number() -> int:
    """Makes neither a task nor an environment."""
    return 3


def arrays() -> Any:
    """A data set: (x, y)."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    return x, np.where(x[:, 0] > 0, "up", "down")


gym.register("OwnSign-v0", entry_point="own_tasks:Sign")
gym.register("OwnSigns-v0", entry_point="own_tasks:Sign", kwargs={"num_steps": 2})
gym.register("Sign-v3", entry_point="own_tasks:Sign")
