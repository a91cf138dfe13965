"""Names of actions: the environment's own, and none where it has none."""

import contextlib
import enum
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from ctm_rl.agents.evaluation.action_names import action_names


class Named(gym.Env):
    """An environment with names of its actions."""

    observation_space = Box(0, 1, (1,), np.float32)

    def __init__(self, space: Any, names: Any) -> None:
        self.action_space = space
        if isinstance(names, list):
            self.get_action_meanings = lambda: names
        elif names is not None:
            self.actions = names


class Moves(enum.IntEnum):
    """As MiniGrid has them."""

    turn_left = 2
    GO = 3


@pytest.mark.parametrize(
    ("space", "names", "found"),
    [
        (Discrete(2), ["NOOP", "FIRE_UP"], ("noop", "fire up")),
        (Discrete(2, start=2), Moves, ("turn left", "go")),
        (Discrete(2), ["a\x1b[2J", "b"], ("a\\x1b[2j", "b")),
        (Discrete(3), ["a", "b"], ()),
        (Discrete(2), Moves, ()),
        (Discrete(2), None, ()),
        (Box(-1, 1, (2,)), ["a", "b"], ()),
    ],
)
def test_names_are_those_of_all_options(space: Any, names: Any, found: tuple[str, ...]) -> None:
    assert action_names(Named(space, names)) == found


def test_minigrid_has_names() -> None:
    import minigrid  # noqa: F401 - registers its environments

    with contextlib.closing(gym.make("MiniGrid-Empty-5x5-v0")) as env:
        assert action_names(env)[:3] == ("left", "right", "forward")
