"""Environments of noise, one for each kind of space; imported by their ids."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

SIGNAL = Box(-1, 1, (3,))
OBSERVED: dict[str, Space] = {
    "Picture": Box(0, 255, (24, 24, 3), np.uint8),
    "Matrix": Box(-np.inf, np.inf, (2, 3), np.float64),
    "Integers": Box(-5, 5, (4,), np.int32),
    "Cells": Box(0, np.array([10, 5, 3]) * np.ones((5, 4, 1), int), (5, 4, 3), np.int64),
    "Bits": MultiBinary([2, 3]),
    "Kinds": MultiDiscrete([3, 5], start=[1, -2]),
    "FromTwo": Discrete(4, start=2),
    "Words": Text(12),
    "Nested": Dict({"camera": Box(0, 255, (16, 16, 1), np.uint8), "more": Tuple((Discrete(3), Text(5), SIGNAL))}),
}
"""Observation spaces of toy environments with two actions, by the name between ``toy/`` and ``-v0``."""
DONE: dict[str, Space] = {
    "Starting": Discrete(3, start=-1),
    "Switches": MultiBinary(3),
    "Choices": MultiDiscrete([2, 4]),
    "Pedals": Box(np.array([0, -1], np.float32), np.array([1, 1], np.float32)),
    "Unbounded": Box(-np.inf, np.inf, (2,)),
    "Grid": MultiDiscrete(np.array([[2, 3], [4, 5]])),
}
"""Action spaces of toy environments with a vector of observations, by name."""


class NoiseEnv(gym.Env):
    """Observes samples of its space for eight steps, and refuses actions outside its action space."""

    def __init__(self, observation_space: Space, action_space: Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.count += 1
        return self.observation_space.sample(), 1.0, self.count == 8, False, {}


def made(observation_space: Space, action_space: Space) -> Callable[..., gym.Env]:
    """An entry point for Gymnasium."""
    return lambda **_: NoiseEnv(observation_space, action_space)


for name, space in OBSERVED.items():
    if f"toy/{name}-v0" not in gym.registry:
        gym.register(f"toy/{name}-v0", made(space, Discrete(2)))
for name, space in DONE.items():
    if f"toy/{name}-v0" not in gym.registry:
        gym.register(f"toy/{name}-v0", made(SIGNAL, space))
