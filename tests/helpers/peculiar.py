"""Environments that return what Gymnasium does not document, one for each kind; imported by their ids."""

import functools
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

SIGNAL = Box(-2, 2, (2,), np.float32)
DictOf: Any = Dict
"""Gymnasium takes any keys; its annotation allows texts alone."""


class PeculiarEnv(gym.Env):
    """Episodes of five steps that observe and return what it is told to, and refuse actions outside their space.

    Args:
        observation: shown in every step; ``None``: samples.
        reward: of every step.
        terminated: before the last step.
        info: of every step; a list: one after the other.
        observation_space: of it.
        action_space: of it.
    """

    def __init__(
        self,
        observation: Any = None,
        *,
        reward: Any = 0.5,
        terminated: Any = False,
        info: Any = None,
        observation_space: Any = SIGNAL,
        action_space: Any = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = Discrete(3) if action_space is None else action_space
        self.shown, self.reward, self.terminated = observation, reward, terminated
        self.infos = info if isinstance(info, list) else [{} if info is None else info]
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        assert self.action_space.contains(action), action
        self.count += 1
        info = self.infos[self.count % len(self.infos)]
        return self.look(), self.reward, True if self.count == 5 else self.terminated, False, info

    def look(self) -> Any:
        return self.observation_space.sample() if self.shown is None else self.shown


class ReadsFile(PeculiarEnv):
    """Reads a file beside which the run was started."""

    def __init__(self, file: str = "levels.txt") -> None:
        super().__init__(reward=float(Path(file).read_text()))


class Leaves(PeculiarEnv):
    """Ends its process in the sixth step of its life."""

    steps = 0

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        self.steps += 1
        if self.steps == 6:
            sys.exit("no seats left")
        return super().step(action)


TAKEN: dict[str, tuple[dict[str, Any], str]] = {
    "reward-array": ({"reward": np.array([[0.25]])}, "the reward array"),
    "reward-tensor": ({"reward": torch.tensor(0.25, requires_grad=True)}, r"the reward tensor\(0.25"),
    "reward-fraction": ({"reward": Fraction(1, 4)}, r"the reward Fraction\(1, 4\)"),
    "terminated-none": ({"terminated": None}, "terminated None"),
    "terminated-array": ({"terminated": np.array([0])}, r"terminated array\(\[0\]\)"),
    "info-text": ({"info": "fine"}, "info 'fine', which is no dict"),
    "info-types": ({"info": [{"a": 1}, {"a": "b"}, {"a": 10**30}, {"a": np.ones(2)}]}, "info 'a' of changing types"),
    "bool": ({"observation": True, "observation_space": Discrete(2)}, ""),
    "numpy-bool": ({"observation": np.bool_(1), "observation_space": Discrete(2)}, "instead of a whole number"),
    "float": ({"observation": 4.0, "observation_space": Discrete(3, start=3)}, "is 4.0 instead of a whole number"),
    "array": ({"observation": np.array([[4]]), "observation_space": Discrete(6)}, r"is array\(\[\[4\]\]\)"),
    "int64": (
        {"observation": np.array([7, 250]), "observation_space": Box(0, 255, (2,), np.uint8)},
        "holds int64 instead of uint8; it is converted",
    ),
    "float32": (
        {"observation": np.array([3, -4], np.float32), "observation_space": Box(-9, 9, (2,), np.int64)},
        "holds float32 instead of int64",
    ),
    "tensor": ({"observation": torch.ones(2, requires_grad=True)}, ""),
    "list": ({"observation": [1, 0.5]}, ""),
    "row": ({"observation": np.ones((1, 2), np.float32)}, r"has shape \(1, 2\) instead of \(2,\); it is reshaped"),
    "outside": ({"observation": np.array([0, 2.5])}, r"holds 2.5 at \[1\], outside of its bounds .*--env.check-bounds"),
    "switches": (
        {"observation": np.array([1.0, 0.0]), "observation_space": MultiBinary(2)},
        "holds float64 instead of int8",
    ),
    "choices": (
        {"observation": np.array([True, False]), "observation_space": MultiDiscrete([2, 5])},
        "",
    ),
    "words": (
        {"observation": "ein Fuß!", "observation_space": Text(4)},
        "is 'ein Fuß!', outside of its Text of 1 to 4",
    ),
    "more-parts": (
        {"observation": {"x": np.zeros(2, np.float32), "y": 1}, "observation_space": Dict(x=SIGNAL)},
        r"has parts \['y'\] that its space lacks",
    ),
    "inner": (
        {
            "observation": {7: (np.bool_(0), [3.0])},
            "observation_space": DictOf({7: Tuple((Discrete(2), Box(0, 4, (1,))))}),
        },
        "whose part 7 part 0 is np.False_",
    ),
    "names": (
        {"observation_space": DictOf({'left, "right"': SIGNAL, "a=b": Discrete(3), 4: SIGNAL, " ": Discrete(2)})},
        "",
    ),
}
"""What is taken: the arguments of ``PeculiarEnv``, and what is noted once (empty: nothing)."""
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "reward-complex": ({"reward": 1 + 2j}, r"returned the reward \(1\+2j\), which is not a finite number"),
    "reward-huge": ({"reward": 10**5000}, "returned the reward a int, beyond 1e.19, where float32 overflows"),
    "reward-large": ({"reward": -4e25}, "returned the reward -4e.25, beyond 1e.19"),
    "reward-pair": ({"reward": np.array([1.0, 2.0])}, "returned the reward array"),
    "reward-text": ({"reward": "1"}, "returned the reward '1', which is not a finite number"),
    "terminated-text": ({"terminated": "no"}, "returned terminated 'no', which is neither true nor false"),
    "large": ({"observation": np.array([0, 3e25]), "observation_space": Box(-np.inf, np.inf, (2,))}, "scale it down"),
    "half": (
        {"observation": np.array([1, 1.5]), "observation_space": Box(0, 9, (2,), np.uint8)},
        r"holds float64 instead of uint8, such as 1.5 at \[1\]",
    ),
    "wraps": (
        {"observation": np.array([1, 300]), "observation_space": Box(-128, 127, (2,), np.int8)},
        r"holds int64 instead of int8, such as 300 at \[1\]",
    ),
    "ragged": ({"observation": [[1], [1, 2]]}, r"has shape \(\) instead of \(2,\)"),
    "wide": ({"observation": np.ones((2, 2), np.float32)}, r"has shape \(2, 2\) instead of \(2,\)"),
    "discrete": ({"observation": 2.5, "observation_space": Discrete(4)}, r"is 2.5, outside of Discrete\(4\)"),
    "bytes": ({"observation": b"a", "observation_space": Text(4)}, "is b'a' instead of a text"),
    "parts": ({"observation": {1: 0}, "observation_space": DictOf({"x": SIGNAL, 1: SIGNAL})}, "instead of"),
}
"""What is a fault: the arguments, and its description."""


def make(name: str) -> gym.Env:
    """One of the environments."""
    return PeculiarEnv(**{**TAKEN, **REFUSED}[name][0])


SPACES: dict[str, Space] = {"Nothing": MultiDiscrete(np.zeros(0, np.int64)), "Billions": Discrete(3 * 10**9)}
"""Action spaces without a policy."""

ENTRY_POINTS: dict[str, Callable[..., gym.Env]] = {
    **{name: functools.partial(make, name) for name in (*TAKEN, *REFUSED)},
    **{name: functools.partial(PeculiarEnv, action_space=space) for name, space in SPACES.items()},
    "ReadsFile": ReadsFile,
    "Leaves": Leaves,
    "NoSpace": functools.partial(PeculiarEnv, observation_space="later"),
}
for name, entry_point in ENTRY_POINTS.items():
    entry: Any = entry_point
    gym.register(f"peculiar/{name}-v0", entry)
