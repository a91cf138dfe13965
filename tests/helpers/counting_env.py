"""Environments whose observations, frames and rewards are the number of the step; frames show 20 times it."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Counting(gym.Env):
    """Counts its steps; writes observations and frames into the same arrays again and again.

    Args:
        render_mode: rgb_array, or nothing is rendered.
        length: steps of an episode; its last digit is drawn from the seed.
        fault: what is wrong with rendering: "raises", "none", "floats", or nothing.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it
    observation_space: gym.Space = Box(-np.inf, np.inf, (2,))
    action_space: gym.Space = Discrete(3)

    def __init__(self, render_mode: str | None = None, length: int = 5, fault: str = "") -> None:
        self.render_mode, self.length, self.fault = render_mode, length, fault
        self.observation, self.frame = np.zeros(2, np.float32), np.zeros((8, 12, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.num_steps, self.end = 0, self.length + int(self.np_random.integers(3))
        self.observation[:] = 0
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.num_steps += 1
        self.observation[:] = self.num_steps, float(np.sum(action))
        is_over = self.num_steps >= self.end
        return self.observation, self.num_steps + float(np.sum(action)), is_over, False, {"is_success": action != 0}

    def render(self) -> Any:
        if self.fault == "raises":
            raise RuntimeError("no display")
        self.frame[:] = 20 * self.num_steps
        return {"none": None, "floats": self.frame / 255}.get(self.fault, self.frame)


class CountingWithoutMode(Counting):
    """The same, but no mode can be asked for."""

    def __init__(self) -> None:
        super().__init__()


class Many(Counting):
    """Shows an image, a category, and many numbers; does several things."""

    observation_space = Dict(
        {"camera": Box(0, 255, (16, 20, 3), np.uint8), "kind": Discrete(4), "many": Box(-1, 1, (12,))}
    )
    action_space = Box(np.array([-2, -np.inf], np.float32), np.array([2, np.inf], np.float32))
    action_names = ("STEER", "GAS")

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return self.look(), {}

    def step(self, action: Any) -> Any:
        _, _, is_over, _, _ = super().step(0)
        return self.look(), 1.0, is_over, False, {}

    def look(self) -> dict[str, Any]:
        camera = np.full((16, 20, 3), self.num_steps * 20, np.uint8)
        return {"camera": camera, "kind": self.num_steps % 4, "many": np.full(12, self.num_steps / 10, np.float32)}


if "helpers/Counting-v0" not in gym.registry:
    gym.register("helpers/Counting-v0", lambda **kwargs: Counting(**kwargs))
