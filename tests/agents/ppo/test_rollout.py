"""Fragments of columns against the same actions played again, one environment and one step at a time."""

import dataclasses
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import small_policy
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ctm_rl import PolicyConfig
from ctm_rl.agents.ppo.reward_normaliser import LIMIT, RewardNormaliser
from ctm_rl.agents.ppo.rollout import RolloutFragment, concatenate
from ctm_rl.agents.ppo.vector_player import VectorPlayer
from ctm_rl.agents.rllib.finished_episodes import seeds_of_envs
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.machine.state import AnyState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

SMALL = dataclasses.replace(small_policy.SMALL, encoder="control")
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
NUM_ENVS, NUM_STEPS, NUM_FRAGMENTS = 4, 5, 9


class Moods(gym.Env[np.ndarray, int]):
    """Episodes of 1 to 7 steps that terminate or are truncated, as drawn at the reset; rewards depend on actions."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(4)
    # Of each class its own: a vector writes its mode into it.
    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(1, 8))
        self._is_terminated, self._is_truncated = [(True, False), (False, True), (True, True)][
            int(self.np_random.integers(3))
        ]
        return self.np_random.normal(size=3), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._left -= 1
        is_over = self._left == 0
        reward = float(self.np_random.normal()) + action
        return (
            self.np_random.normal(size=3),
            reward,
            is_over and self._is_terminated,
            is_over and self._is_truncated,
            {},
        )


def make_agent(config: PolicyConfig = SMALL) -> ActorCritic:
    torch.manual_seed(5)
    return ActorCritic(config, vector_layout(3), Choices(sizes=(4,)))


def make_player(agent: ActorCritic, mode: AutoresetMode, normaliser: RewardNormaliser | None = None) -> VectorPlayer:
    env = SyncVectorEnv([Moods] * NUM_ENVS, autoreset_mode=mode)
    player = VectorPlayer(env, Actor(agent), torch.Generator().manual_seed(1), normaliser)
    player.reset(seed=11, position=0)
    return player


class Step(NamedTuple):
    """One step of the plain replay."""

    observation: np.ndarray
    value: float
    logp: float
    reward: float
    next_value: float
    is_first: bool
    is_last: bool


def replay(agent: ActorCritic, seed: int, actions: list[int]) -> list[Step]:
    """Plays the actions in one environment, from the start."""
    env = Moods()
    observation, _ = env.reset(seed=seed)
    is_first, state, steps = True, agent.initial_state(1), []

    def look(at: np.ndarray, before: AnyState, is_fresh: bool) -> Any:
        seen = torch.tensor(at, dtype=torch.float32)[None, None]
        return agent.unroll(seen, torch.tensor([[is_fresh]]), before)

    for action in actions:
        now = look(observation, state, is_first)
        state = now.state
        following, reward, is_terminated, is_truncated, _ = env.step(action)
        is_last = is_terminated or is_truncated
        next_value = 0.0 if is_terminated else float(look(following, state, False).values)
        logp = float(now.logits[0, 0].log_softmax(-1)[action])
        steps.append(Step(observation, float(now.values), logp, reward, next_value, is_first, is_last))
        observation, is_first = (env.reset()[0], True) if is_last else (following, False)
    return steps


def along_time(fragments: list[RolloutFragment], name: str) -> np.ndarray:
    """A column of all fragments, one after the other."""
    return np.concatenate([getattr(fragment, name) for fragment in fragments], axis=1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL, sync_window=True),
        *(dataclasses.replace(SMALL, kind=kind) for kind in ("lstm", "gru", "mlp")),
    ],
    ids=["ctm", "window", "lstm", "gru", "mlp"],
)
def test_fragments_equal_the_same_actions_played_one_by_one(mode: AutoresetMode, config: PolicyConfig) -> None:
    agent = make_agent(config)
    player = make_player(agent, mode)
    fragments = [player.play(NUM_STEPS) for _ in range(NUM_FRAGMENTS)]
    is_valid = along_time(fragments, "is_valid")
    assert is_valid.all() == (mode == AutoresetMode.SAME_STEP)
    names = ("observations", "values", "logp", "rewards", "next_values", "is_first", "is_last")
    actions = along_time(fragments, "actions")
    with torch.no_grad():
        for row, seed in enumerate(seeds_of_envs(11, 0, NUM_ENVS)):
            chosen = is_valid[row]
            expected = replay(agent, seed, actions[row, chosen].tolist())
            for name, wanted in zip(names, zip(*expected, strict=True), strict=True):
                found = along_time(fragments, name)[row, chosen]
                np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_end_and_autoreset_step_occurs_also_between_fragments(mode: AutoresetMode) -> None:
    player = make_player(make_agent(), mode)
    fragments = [player.play(NUM_STEPS) for _ in range(NUM_FRAGMENTS)]
    is_last, is_valid = along_time(fragments, "is_last"), along_time(fragments, "is_valid")
    is_zero = along_time(fragments, "next_values") == 0
    assert (is_last & is_zero).any()
    assert (is_last & ~is_zero).any()
    assert any(fragment.is_last[:, -1].any() for fragment in fragments[:-1])
    autoreset_free = [fragment.is_valid[:, 0].all() for fragment in fragments[1:]]
    assert all(autoreset_free) == (mode == AutoresetMode.SAME_STEP)
    # An autoreset step follows each end, and does not count.
    if mode == AutoresetMode.NEXT_STEP:
        np.testing.assert_array_equal(~is_valid[:, 1:], is_last[:, :-1])
        assert not along_time(fragments, "rewards")[~is_valid].any()
        assert not is_last[~is_valid].any()
    assert sum(fragment.num_steps for fragment in fragments) == is_valid.sum()


@pytest.mark.parametrize("mode", MODES)
def test_returns_and_lengths_are_raw_and_complete(mode: AutoresetMode) -> None:
    player = make_player(make_agent(), mode, RewardNormaliser(NUM_ENVS, 0.9))
    plain = make_player(make_agent(), mode)
    fragments = [plain.play(NUM_STEPS) for _ in range(NUM_FRAGMENTS)]
    divided = [player.play(NUM_STEPS) for _ in range(NUM_FRAGMENTS)]
    expected = []
    rewards, is_valid, is_last = (along_time(fragments, name) for name in ("rewards", "is_valid", "is_last"))
    for time in range(rewards.shape[1]):
        for row in np.flatnonzero(is_last[:, time]):
            begin = max([0, *(np.flatnonzero(is_last[row, :time]) + 1)])
            piece = slice(begin, time + 1)
            expected.append((rewards[row, piece].sum(), is_valid[row, piece].sum()))
    found = player.pop_finished()
    assert len(found) > 10
    np.testing.assert_allclose([item[:2] for item in found], expected, rtol=1e-4, atol=1e-4)
    assert player.pop_finished() == []
    assert not np.allclose(along_time(divided, "rewards"), rewards)


def test_the_state_of_a_fragment_is_the_one_before_its_first_step() -> None:
    agent = make_agent()
    player = make_player(agent, AutoresetMode.NEXT_STEP)
    player.play(NUM_STEPS)
    fragment = player.play(NUM_STEPS)
    state = type(agent.initial_state(1))(**{name: torch.from_numpy(part) for name, part in fragment.state.items()})
    observations = torch.from_numpy(fragment.observations).transpose(0, 1)
    with torch.no_grad():
        unrolled = agent.unroll(observations, torch.from_numpy(fragment.is_first).T, state)
    np.testing.assert_allclose(unrolled.values.T.numpy(), fragment.values, atol=1e-5)


def test_the_same_generator_draws_the_same_actions_and_without_exploring_the_likeliest_are_taken() -> None:
    agent = make_agent()
    first, second = (make_player(agent, AutoresetMode.NEXT_STEP).play(9) for _ in range(2))
    np.testing.assert_array_equal(first.actions, second.actions)
    greedy = make_player(agent, AutoresetMode.NEXT_STEP).play(9, explore=False)
    assert (greedy.logp >= np.log(1 / 4)).all()
    assert (first.logp < np.log(1 / 4)).any()


def test_rows_and_concatenation_are_inverse() -> None:
    fragment = make_player(make_agent(), AutoresetMode.NEXT_STEP).play(NUM_STEPS)
    again = concatenate([fragment.rows(0, 2), fragment.rows(2, NUM_ENVS)])
    for name in ("observations", "actions", "is_last"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fragment, name))
    for name, part in fragment.state.items():
        np.testing.assert_array_equal(again.state[name], part)
    assert fragment.observations.dtype == np.float32
    assert all(part.shape[0] == NUM_ENVS for part in fragment.state.values())


def test_environments_that_never_reset_are_refused() -> None:
    env = SyncVectorEnv([Moods] * 2, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="autoreset_mode must be NextStep or SameStep, got Disabled"):
        VectorPlayer(env, Actor(make_agent()), torch.Generator())


def test_rewards_are_divided_by_the_standard_deviation_of_all_discounted_returns() -> None:
    rng = np.random.default_rng(1)
    normaliser = RewardNormaliser(3, 0.5)
    gathered, returns = [], np.zeros(3)
    for time in range(40):
        rewards, is_first = rng.normal(2.0, 3.0, size=3), np.full(3, time % 7 == 0)
        is_valid = np.array([True, True, time % 5 != 0])
        divided = normaliser(rewards, is_first, is_valid)
        returns = np.where(is_first, 0.0, returns) * 0.5 + rewards
        gathered += returns[is_valid].tolist()
        np.testing.assert_allclose(divided, np.clip(rewards / (np.std(gathered) + 1e-9), -LIMIT, LIMIT), rtol=1e-5)
    again = RewardNormaliser(3, 0.5)
    again.set_state(normaliser.get_state())
    assert again.std == normaliser.std


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_normalised_rewards_of_any_size_are_the_same(size: float) -> None:
    rng = np.random.default_rng(2)
    normalisers = RewardNormaliser(4, 0.99), RewardNormaliser(4, 0.99)
    for time in range(50):
        rewards, is_first, is_valid = rng.normal(1.0, 1.0, size=4), np.full(4, time % 20 == 0), np.full(4, True)
        one, other = (
            normaliser(factor * rewards, is_first, is_valid)
            for normaliser, factor in zip(normalisers, (1.0, size), strict=True)
        )
        np.testing.assert_allclose(other, one, rtol=0.01)
