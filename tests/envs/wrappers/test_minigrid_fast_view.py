"""MiniGrid's fast view returns the same observations as its own, bit for bit."""

import copy
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  registers its environments
import numpy as np
import pytest
from minigrid.minigrid_env import MiniGridEnv

from ctm_rl.envs.wrappers.minigrid_fast_view import FastView, has_plain_view

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
ACTIONS = [0, 1, 2, 2, 2, 3, 4, 5, 5]  # moves, picks up, opens; forward often


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
def test_a_walk_returns_the_same(env_id: str) -> None:
    plain, fast = make(env_id), FastView(make(env_id))
    actions = np.random.default_rng(0).choice(ACTIONS, 300)
    assert_same(fast.reset(seed=3)[0], plain.reset(seed=3)[0])
    for action in actions:
        action = min(int(action), int(plain.action_space.n) - 1)  # pyright: ignore[reportAttributeAccessIssue]
        (shown, *rest), (expected, *expected_rest) = fast.step(action), plain.step(action)
        assert_same(shown, expected)
        assert rest == expected_rest
        if rest[1] or rest[2]:
            assert_same(fast.reset()[0], plain.reset()[0])


@pytest.mark.parametrize(
    "kwargs", [{"agent_view_size": 3}, {"agent_view_size": 11}, {"see_through_walls": True}], ids=str
)
def test_other_view_settings_return_the_same(kwargs: dict[str, Any]) -> None:
    plain, fast = make("MiniGrid-FourRooms-v0", **kwargs), FastView(make("MiniGrid-FourRooms-v0", **kwargs))
    assert_same(fast.reset(seed=4)[0], plain.reset(seed=4)[0])
    for action in np.random.default_rng(1).choice(ACTIONS, 60):
        assert_same(fast.step(int(action))[0], plain.step(int(action))[0])


def test_a_copy_observes_its_own_grid() -> None:
    fast = FastView(make("MiniGrid-Empty-5x5-v0"))
    fast.reset(seed=1)
    twin = copy.deepcopy(fast)
    before = fast.unwrapped.gen_obs()  # pyright: ignore[reportAttributeAccessIssue]
    twin.step(0)
    assert_same(fast.unwrapped.gen_obs(), before)  # pyright: ignore[reportAttributeAccessIssue]
    seen = twin.unwrapped.gen_obs()  # pyright: ignore[reportAttributeAccessIssue]
    assert_same(seen, MiniGridEnv.gen_obs(twin.unwrapped))  # pyright: ignore[reportArgumentType]
    assert seen["direction"] != before["direction"]


def test_an_environment_with_another_view_is_refused() -> None:
    assert not has_plain_view(gym.make("CartPole-v1"))

    class Blind(MiniGridEnv):
        def gen_obs_grid(self, agent_view_size: Any = None) -> Any:
            raise NotImplementedError

    blind = Blind.__new__(Blind)
    assert not has_plain_view(blind)
    with pytest.raises(ValueError, match=r"only MiniGrid's own view can be computed fast, and .*CartPole"):
        FastView(gym.make("CartPole-v1"))
