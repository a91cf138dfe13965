"""Environments in envpool: its protocol with a stand-in, and the real one against Gymnasium where it is installed."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.rllib.environment import make_vector_env
from ctm_rl.errors import UserError

LIMIT = 6
"""Steps of an episode of the stand-in."""


class StandInPool:
    """Behaves as envpool 1.2 is documented to; an observation contains episode, step and row."""

    observation_space: Any = Box(-10, 10, (4,))
    action_space: Any = Discrete(2)

    def __init__(self, num_envs: int, seed: Sequence[int], **config: Any) -> None:
        self.seeds = list(seed)
        self.config = {"max_episode_steps": LIMIT, **config}
        self.num_envs = num_envs
        self.steps, self.episodes = np.zeros((2, num_envs), int)
        self.is_over = np.zeros(num_envs, bool)
        self.calls: list[tuple[str, int]] = []

    def reset(self, env_id: np.ndarray | None = None) -> Any:
        rows = np.arange(self.num_envs) if env_id is None else env_id
        self.calls.append(("reset", len(rows)))
        self.steps[rows], self.is_over[rows] = 0, False
        self.episodes[rows] += 1
        return self._observe(rows), {"env_id": rows}

    def step(self, action: np.ndarray, env_id: np.ndarray | None = None) -> Any:
        rows = np.arange(self.num_envs) if env_id is None else env_id
        assert action.shape == rows.shape
        self.calls.append(("step", len(rows)))
        again = rows[self.is_over[rows]]
        self.steps[rows] += 1
        self.steps[again] = 0
        self.episodes[again] += 1
        self.is_over[rows] = self.steps[rows] == self.config["max_episode_steps"]
        rewards = np.where(self.steps[rows] > 0, 1, 0).astype(np.float32)
        order = np.argsort(-rows)  # any order is allowed
        rows = rows[order]
        ended = self.is_over[rows]
        return self._observe(rows), rewards[order], np.zeros(len(rows), bool), ended, {"env_id": rows}

    def _observe(self, rows: np.ndarray) -> np.ndarray:
        shown = np.zeros((len(rows), 4), np.float32)
        shown[:, 0], shown[:, 1], shown[:, 2] = self.episodes[rows], self.steps[rows], rows
        return shown

    def close(self) -> None:
        """Nothing runs."""


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[StandInPool]:
    """Replaces envpool by the stand-in; returns a list of all pools that are made."""
    made: list[StandInPool] = []

    def make(env_id: str, **arguments: Any) -> StandInPool:
        if "wrong" in arguments:
            raise AssertionError("no such argument")
        made.append(StandInPool(**arguments))
        return made[-1]

    module = SimpleNamespace(list_all_envs=lambda: ["CartPole-v1"], make_gymnasium=make)
    monkeypatch.setitem(sys.modules, "envpool", module)  # pyright: ignore[reportArgumentType]
    return made


def config(**settings: Any) -> EnvConfig:
    """CartPole in a pool."""
    return EnvConfig(**{"id": "CartPole-v1", "vectorization": "envpool", "check_bounds": False, **settings})


def test_a_pool_is_a_vector_that_resets_in_the_next_step(pools: list[StandInPool]) -> None:
    env = make_vector_env(config(), 3)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert env.single_observation_space == gym.make("CartPole-v1").observation_space
    assert env.action_space.shape == (3,)
    env.reset(seed=5)
    seen: Any = None
    for step in range(1, LIMIT + 2):
        seen, rewards, terminated, truncated, _ = env.step(np.zeros(3, int))
        is_over = step == LIMIT
        assert truncated.tolist() == [is_over] * 3
        assert not terminated.any()
        assert seen[:, 2].tolist() == [0, 1, 2]
        assert rewards.dtype == np.float64
        assert rewards.tolist() == [float(step <= LIMIT)] * 3
    assert seen[:, 0].tolist() == [2, 2, 2]


def test_a_reset_with_a_seed_makes_a_pool_with_derived_seeds(pools: list[StandInPool]) -> None:
    env = make_vector_env(config(), 3)
    for seed in (5, 5, 6):
        env.reset(seed=seed)
    env.reset()
    first, again, other = (pool.seeds for pool in pools[1:])
    assert first == again != other
    assert len(set(first)) == 3
    assert all(0 <= seed < 2**31 for seed in first)


def test_only_the_first_episodes_are_truncated_early(pools: list[StandInPool]) -> None:
    num_envs = 40
    env = make_vector_env(config(stagger_episodes=True), num_envs)
    env.reset(seed=1)
    episode_lengths: list[list[int]] = [[] for _ in range(num_envs)]
    lengths, was_over = np.zeros(num_envs, int), np.zeros(num_envs, bool)
    for _ in range(4 * LIMIT):
        seen, rewards, _, truncated, _ = env.step(np.zeros(num_envs, int))
        assert seen[:, 2].tolist() == list(range(num_envs))
        assert ((seen[:, 1] == 0) == was_over).all()
        assert (rewards == ~was_over).all()
        lengths += ~was_over
        for row in np.flatnonzero(truncated):
            episode_lengths[row].append(int(lengths[row]))
        lengths[truncated] = 0
        was_over = truncated
    assert {lengths[0] for lengths in episode_lengths} == set(range(1, LIMIT + 1))
    assert {length for lengths in episode_lengths for length in lengths[1:]} == {LIMIT}


def test_a_time_limit_and_hidden_velocities_work_with_a_pool(pools: list[StandInPool]) -> None:
    env = make_vector_env(config(max_episode_steps=3, wrappers=("hide-velocities",)), 2)
    env.reset(seed=1)
    assert pools[-1].config["max_episode_steps"] == 3
    assert pools[-1].config["num_threads"] == 1
    seen, *_ = env.step(np.zeros(2, int))
    assert seen.tolist() == [[1, 0, 0, 0], [1, 0, 1, 0]]


def test_the_previous_action_and_reward_are_shown_beside_a_pool(pools: list[StandInPool]) -> None:
    env = make_vector_env(config(max_episode_steps=3, previous_action=True, previous_reward=True), 2)
    assert pools[-1].observation_space == StandInPool.observation_space
    env.reset(seed=1)
    for step in range(1, 5):
        shown, *_ = env.step(np.array([0, 1]))
        is_reset = step == 4
        assert shown["observation"][:, 1].tolist() == [step % 4] * 2
        assert shown["previous_action"].tolist() == ([[0, 0]] * 2 if is_reset else [[1, 0], [0, 1]])
        assert shown["previous_reward"].tolist() == [[float(not is_reset)]] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "Taxi-v3"}, "envpool has no environment Taxi-v3"),
        (
            {"wrappers": ("frame-skip=2",)},
            "supports no wrapper frame-skip, but time-limit, hide-velocities, previous-action, previous-reward and",
        ),
        ({"kwargs": {"sutton_barto_reward": True, "wrong": 1}}, "--env.kwargs has 'wrong'"),
        ({"tolerate_faults": True}, "cannot recreate one environment"),
    ],
)
def test_unsupported_settings_are_refused_in_one_line(
    pools: list[StandInPool], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_vector_env(config(**settings), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "space", "message"),
    [
        ("observation_space", Box(0, 1, (5,)), r"envpool's CartPole-v1 observes Box.*\(5,\)"),
        ("observation_space", Dict(image=Box(0, 1, (5,))), "have the parts image"),
        ("action_space", Discrete(3), r"takes Discrete\(3\), and Gymnasium's Discrete\(2\)"),
        ("action_space", Box(0, 1, ()), "takes Box"),
    ],
)
def test_another_environment_of_the_same_name_is_refused(
    pools: list[StandInPool], monkeypatch: pytest.MonkeyPatch, attribute: str, space: gym.Space, message: str
) -> None:
    monkeypatch.setattr(StandInPool, attribute, space)
    with pytest.raises(UserError, match=message):
        make_vector_env(config(), 2)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=r'pip install "ctm-rl\[envpool\]"'):
        make_vector_env(config(), 2)


def test_stock_algorithms_refuse_a_pool() -> None:
    with pytest.raises(ValueError, match=r"env\.vectorization envpool is not for algorithm stock-ppo"):
        ActingExperiment(name="a", env=config(), algorithm="stock-ppo")


def test_the_real_cartpole_moves_like_gymnasiums() -> None:
    pytest.importorskip("envpool")
    env = make_vector_env(config(max_episode_steps=20), 8)
    seen, _ = env.reset(seed=3)
    assert (seen == env.reset(seed=3)[0]).all()
    own: Any = gym.make("CartPole-v1").unwrapped
    own.reset()
    random, was_over = np.random.default_rng(0), np.zeros(8, bool)
    for _ in range(60):
        before, actions = seen, random.integers(0, 2, 8)
        seen, rewards, terminated, truncated, _ = env.step(actions)
        for row in np.flatnonzero(~was_over):
            own.state, own.steps_beyond_terminated = before[row].astype(np.float64), None
            expected, reward, is_over, _, _ = own.step(int(actions[row]))
            np.testing.assert_allclose(seen[row], expected, atol=1e-5)
            assert (rewards[row], terminated[row]) == (reward, is_over)
        assert (rewards[was_over] == 0).all()
        was_over = terminated | truncated


def test_the_real_grid_is_observed_like_gymnasiums() -> None:
    pytest.importorskip("envpool")
    settings: Any = {"id": "MiniGrid-Empty-5x5-v0", "wrappers": ("grid-image",), "max_episode_steps": 30}
    # one room and one start, so that everything follows from the actions
    pool, own = (make_vector_env(EnvConfig(**settings, vectorization=kind), 4) for kind in ("envpool", "sync"))
    assert (pool.reset(seed=1)[0] == own.reset(seed=1)[0]).all()
    random = np.random.default_rng(0)
    num_goals = 0
    for _ in range(400):
        actions = random.integers(0, 3, 4)
        one, other = pool.step(actions), own.step(actions)
        for mine, expected in zip(one[:4], other[:4], strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-6)
        num_goals += int(one[2].sum())
    assert num_goals > 0
