"""MiniGrid's view computed quickly: the same observations, bit for bit, whatever happens."""

import copy
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  registers its environments
import numpy as np
import pytest
from minigrid.minigrid_env import MiniGridEnv

from ctm_rl.envs.wrappers.minigrid_fast_view import QuickView, has_plain_view

IDS = (
    "MiniGrid-Empty-5x5-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-KeyCorridorS4R3-v0",
    "MiniGrid-ObstructedMaze-2Dlhb-v1",
    "MiniGrid-LavaCrossingS9N2-v0",
    "MiniGrid-Dynamic-Obstacles-8x8-v0",
    "BabyAI-GoToObj-v0",
    "BabyAI-UnlockPickup-v0",
)
HANDY = [0, 1, 2, 2, 2, 3, 4, 5, 5]  # moves, picks up, opens; forward often


def make(env_id: str, **kwargs: Any) -> gym.Env:
    return gym.make(env_id, disable_env_checker=True, **kwargs)


def assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    np.testing.assert_array_equal(got["image"], expected["image"])
    assert got["image"].dtype == np.uint8
    assert got["image"].flags.c_contiguous
    assert got["image"].flags.writeable
    assert (got["direction"], got["mission"]) == (expected["direction"], expected["mission"])


@pytest.mark.parametrize("env_id", IDS)
def test_a_walk_shows_the_same(env_id: str) -> None:
    plain, quick = make(env_id), QuickView(make(env_id))
    actions = np.random.default_rng(0).choice(HANDY, 300)
    assert_same(quick.reset(seed=3)[0], plain.reset(seed=3)[0])
    for action in actions:
        action = min(int(action), int(plain.action_space.n) - 1)  # pyright: ignore[reportAttributeAccessIssue]
        (shown, *rest), (expected, *expected_rest) = quick.step(action), plain.step(action)
        assert_same(shown, expected)
        assert rest == expected_rest
        if rest[1] or rest[2]:
            assert_same(quick.reset()[0], plain.reset()[0])


@pytest.mark.parametrize(
    "kwargs", [{"agent_view_size": 3}, {"agent_view_size": 11}, {"see_through_walls": True}], ids=str
)
def test_other_views_show_the_same(kwargs: dict[str, Any]) -> None:
    plain, quick = make("MiniGrid-FourRooms-v0", **kwargs), QuickView(make("MiniGrid-FourRooms-v0", **kwargs))
    assert_same(quick.reset(seed=4)[0], plain.reset(seed=4)[0])
    for action in np.random.default_rng(1).choice(HANDY, 60):
        assert_same(quick.step(int(action))[0], plain.step(int(action))[0])


def test_a_copy_sees_its_own_world() -> None:
    quick = QuickView(make("MiniGrid-Empty-5x5-v0"))
    quick.reset(seed=1)
    twin = copy.deepcopy(quick)
    before = quick.unwrapped.gen_obs()  # pyright: ignore[reportAttributeAccessIssue]
    twin.step(0)
    assert_same(quick.unwrapped.gen_obs(), before)  # pyright: ignore[reportAttributeAccessIssue]
    seen = twin.unwrapped.gen_obs()  # pyright: ignore[reportAttributeAccessIssue]
    assert_same(seen, MiniGridEnv.gen_obs(twin.unwrapped))  # pyright: ignore[reportArgumentType]
    assert seen["direction"] != before["direction"]


def test_a_view_of_its_own_is_left_alone_or_refused() -> None:
    assert not has_plain_view(gym.make("CartPole-v1"))

    class Blind(MiniGridEnv):
        def gen_obs_grid(self, agent_view_size: Any = None) -> Any:
            raise NotImplementedError

    blind = Blind.__new__(Blind)
    assert not has_plain_view(blind)
    with pytest.raises(ValueError, match="only environments with MiniGrid's own view can have it quickly, got "):
        QuickView(gym.make("CartPole-v1"))
