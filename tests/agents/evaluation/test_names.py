"""Names of actions: the environment's own, those that are known, or numbers."""

import contextlib
import enum
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from ctm_rl.agents.evaluation.names import name_actions
from ctm_rl.spaces.actions import Choices, Numbers


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


TWO, THREE = Choices(sizes=(2,)), Choices(sizes=(3,))


@pytest.mark.parametrize(
    ("actions", "names", "found"),
    [
        (TWO, ["NOOP", "FIRE_UP"], ["noop", "fire up"]),
        (Choices(sizes=(2,), starts=(2,)), Moves, ["turn left", "go"]),
        (TWO, ["a\x1b[2J", "b"], ["a\\x1b[2j", "b"]),
        (THREE, ["a", "b"], ["action 0", "action 1", "action 2"]),
        (TWO, Moves, ["action 0", "action 1"]),
        (TWO, None, ["action 0", "action 1"]),
    ],
)
def test_names_are_those_of_all_options(actions: Choices, names: Any, found: list[str]) -> None:
    assert name_actions(Named(Discrete(2), names), "Own-v0", actions) == [found]


def test_numbers_have_names_too() -> None:
    actions = Numbers(low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,))
    assert name_actions(Named(Box(-1, 1, (2,)), ["STEER", "GAS"]), "Own-v0", actions) == [["steer"], ["gas"]]


def test_minigrid_has_names() -> None:
    import minigrid  # noqa: F401 - registers its environments

    env_id = "MiniGrid-Empty-5x5-v0"
    with contextlib.closing(gym.make(env_id)) as env:
        assert name_actions(env, env_id, Choices(sizes=(7,)))[0][:3] == ["left", "right", "forward"]
