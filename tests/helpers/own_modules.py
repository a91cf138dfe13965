"""Modules that a test writes into its folder: importable inside the test, and forgotten after it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym

ENVS = """
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete


class Signs(gym.Env):
    observation_space = Dict({"image": Box(0, 255, (16, 16, 3), np.uint8), "vector": Box(-1.0, 1.0, (2,))})
    action_space = MultiDiscrete([3, 2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.2), False, {}


class Endless(Signs):
    observation_space = Box(-1.0, 1.0, (2,))
    action_space = Discrete(2)

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}


class Recall(Signs): ...


def short(length, start=0):
    return gym.make("CartPole-v1", max_episode_steps=length)


def fails():
    return 1 / 0


def wrong_type():
    return "1" + 1


def no_env():
    return 7


def many():
    return gym.make_vec("CartPole-v1", 2)


number = 3
gym.registry.pop("Recall-v0", None)
gym.register("Recall-v0", entry_point=Recall)
"""
WRAPPERS = """
import gymnasium as gym


class Scale(gym.RewardWrapper):
    def __init__(self, env, factor, shift=0):
        super().__init__(env)
        self.factor, self.shift = factor, shift

    def reward(self, reward):
        return reward * self.factor + self.shift


def none(env):
    return None
"""
NETS = """
import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self, space, feature_dim):
        super().__init__()
        self.space, self.out_dim = space, 2 * feature_dim
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(space.size, 2 * feature_dim), nn.Tanh())

    def forward(self, x):
        return self.layers(x)


class All(nn.Module):
    def __init__(self, space, feature_dim):
        super().__init__()
        self.out_dim = feature_dim
        self.layers = nn.ModuleDict({part.name: nn.Linear(part.size, feature_dim) for part in space.parts})

    def forward(self, x):
        return sum(layer(x[name].flatten(1).float()) for name, layer in self.layers.items())


class Map(nn.Module):
    def __init__(self, space, feature_dim):
        super().__init__()
        self.out_dim = feature_dim
        self.project = nn.Conv2d(space.shape[0], feature_dim, 4, stride=4)

    def forward(self, x):
        return self.project(x)


class NoSize(nn.Module):
    def __init__(self, space, feature_dim):
        super().__init__()


class NoArguments(nn.Module): ...


def function(space, feature_dim):
    return Wide(space, feature_dim)
"""


@contextlib.contextmanager
def own_modules(folder: Path) -> Iterator[Path]:
    """Writes ``own_envs``, ``own_wrappers`` and ``own_nets`` into a folder, from which they are imported inside."""
    for name, text in (("own_envs", ENVS), ("own_wrappers", WRAPPERS), ("own_nets", NETS)):
        (folder / f"{name}.py").write_text(text)
    path = [*sys.path]
    sys.path.append(str(folder))
    try:
        yield folder
    finally:
        sys.path[:] = path
        forget_modules(folder)


def forget_modules(folder: Path) -> None:
    """As in a new process, nothing has been imported from a folder, nor registered by what is there."""
    inside = tuple(f"{place}{os.sep}" for place in (folder, os.path.realpath(folder)))
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(inside):
            del sys.modules[name]
            for env_id, spec in list(gym.registry.items()):
                if getattr(spec.entry_point, "__module__", None) == name:
                    del gym.registry[env_id]
