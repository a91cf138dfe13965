"""The previous action and reward in the observation: of single environments and vectors, in training and evaluation."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from small_policy import SMALL

from ctm_rl import notes
from ctm_rl.agents.evaluation.play import PlayOptions, play_all, seeds_of_episodes
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.ppo.vector_player import VectorPlayer
from ctm_rl.agents.rllib.environment import make_env, make_vector_env, training_arguments
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.envs import wrap
from ctm_rl.errors import UserError
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.inference.policy import Policy
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import is_masked

BOTH: dict[str, Any] = {"previous_action": True, "previous_reward": True}
LENGTH = 4


class Counting(gym.Env):
    """Observes and rewards how many steps have been taken; an episode has four."""

    def __init__(self, action_space: Space | None = None, observation_space: Space | None = None) -> None:
        self.action_space = Discrete(2) if action_space is None else action_space
        self.observation_space = Box(0, 10, (1,), np.float32) if observation_space is None else observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.look(), 10.0 * self.count, self.count == LENGTH, False, {}

    def look(self) -> Any:
        number = np.array([self.count], np.float32)
        return {"n": number} if isinstance(self.observation_space, Dict) else number


SHOWN: dict[str, tuple[Space, Any, list[float]]] = {
    "discrete": (Discrete(3, start=-1), 1, [0, 0, 1]),
    "multi-discrete": (
        MultiDiscrete(np.array([[2], [3]]), start=np.array([[1], [-1]])),
        [[2], [-1]],
        [0, 1, 1, 0, 0],
    ),
    "multi-binary": (MultiBinary((1, 2)), [[0, 1]], [1, 0, 0, 1]),
    "box": (Box(np.array([1, -2], np.float32), np.array([3, -1], np.float32)), [2.5, -1.5], [2.5, -1.5]),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_the_previous_action_is_shown_and_begins_with_zeros(kind: str) -> None:
    space, action, shown = SHOWN[kind]
    env = wrap(Counting(space), ["previous-action"])
    part = env.observation_space["previous_action"]  # pyright: ignore[reportIndexIssue]
    assert part.shape == (len(shown),)
    for _ in range(2):
        observation, _ = env.reset(seed=1)
        assert observation in env.observation_space
        assert observation["previous_action"].tolist() == [0] * len(shown)
        for step in range(1, 4):
            observation, *_ = env.step(np.array(action))
            assert observation in env.observation_space
            assert observation["previous_action"].tolist() == shown
            assert observation["observation"].tolist() == [step]
    # a policy can read it
    assert [one.name for one in fit(SMALL, env.observation_space, space).layout.parts] == [
        "observation",
        "previous_action",
    ]


@pytest.mark.parametrize("space", [None, Dict({"n": Box(0, 10, (1,), np.float32)})], ids=["box", "dict"])
def test_the_previous_reward_is_shown_as_the_environment_gave_it(space: Space | None) -> None:
    env = wrap(Counting(observation_space=space), ["previous-reward", "clip-rewards"])
    assert set(env.observation_space) == {"observation" if space is None else "n", "previous_reward"}  # pyright: ignore
    shown = [env.reset(seed=1)[0]["previous_reward"].tolist()]
    for _ in range(3):
        observation, reward, *_ = env.step(0)
        assert reward == 1.0
        shown.append(observation["previous_reward"].tolist())
    assert shown == [[0], [10], [20], [30]]


# Rewards and CartPole's velocities are unbounded, and the check warns about wrappers.
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasiums_check_is_passed() -> None:
    for env_id in ("CartPole-v1", "MountainCarContinuous-v0"):
        check_env(wrap(gym.make(env_id).unwrapped, ["previous-action", "previous-reward"]), skip_render_check=True)


def expected_parts(
    actions: np.ndarray, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What every step of a vector of CartPoles with autoreset mode NextStep must show, [T, N, 2] and [T, N]."""
    has_ended = np.roll(terminated | truncated, 1, axis=0)
    has_ended[0] = False
    return np.eye(2)[actions] * ~has_ended[..., None], np.where(has_ended, 0, rewards)


@pytest.mark.parametrize(
    ("vectorization", "kind"), [("auto", "CartPoleVectorEnv"), ("sync", "GuardedSyncVectorEnv"), ("async", "Guarded")]
)
def test_vectors_of_every_kind_show_the_same_and_zeros_after_an_autoreset(vectorization: Any, kind: str) -> None:
    config = EnvConfig(
        id="CartPole-v1",
        wrappers=("hide-velocities",),
        max_episode_steps=9,
        vectorization=vectorization,
        stagger_episodes=vectorization == "sync",
        **BOTH,
    )
    env = make_vector_env(config, 3)
    assert type(env.unwrapped).__name__.startswith(kind)
    shown, _ = env.reset(seed=1)
    assert not shown["previous_action"].any()
    assert not shown["previous_reward"].any()
    random, steps = np.random.default_rng(0), []
    for _ in range(40):
        actions = random.integers(0, 2, 3)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        assert observations["observation"][:, [1, 3]].tolist() == [[0, 0]] * 3
        previous = observations["previous_action"], observations["previous_reward"][:, 0]
        steps.append([np.array(part) for part in (actions, rewards, terminated, truncated, *previous)])
    env.close()
    *taken, previous_actions, previous_rewards = (np.stack(column) for column in zip(*steps, strict=True))
    assert (taken[2] | taken[3]).any(0).all()
    wanted_actions, wanted_rewards = expected_parts(*taken)
    np.testing.assert_array_equal(previous_actions, wanted_actions)
    np.testing.assert_array_equal(previous_rewards, wanted_rewards)


class Vector(gym.vector.VectorEnv):
    """A vector class that resets environments in the step in which they end."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        one = Counting()
        self.num_envs, self.single_action_space = num_envs, one.action_space
        self.single_observation_space = one.observation_space
        self.observation_space = batch_space(one.observation_space, num_envs)


def test_a_vector_class_that_resets_in_the_same_step_is_not_used_and_noted(caplog: pytest.LogCaptureFixture) -> None:
    gym.register("SameStep-v0", lambda **_: Counting(), vector_entry_point=lambda **kwargs: Vector(**kwargs))
    try:
        notes.forget()
        assert type(make_vector_env(EnvConfig(id="SameStep-v0"), 2).unwrapped) is Vector
        env: Any = make_vector_env(EnvConfig(id="SameStep-v0", **BOTH), 2)
        assert env.reset(seed=[1, 2])[0]["previous_reward"].tolist() == [[0], [0]]
        assert "has autoreset mode SameStep, and its wrappers need NextStep; its environments are stepped in turn" in (
            caplog.text
        )
    finally:
        gym.registry.pop("SameStep-v0")


def agent_of(env: Any) -> ActorCritic:
    """An untrained policy."""
    torch.manual_seed(3)
    return ActorCritic(*fit(SMALL, env.single_observation_space, env.single_action_space)).eval()


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_what_is_learned_from_shows_the_action_and_reward_of_the_step_before(vectorization: Any) -> None:
    config = EnvConfig(
        id="CartPole-v1",
        wrappers=("hide-velocities",),
        max_episode_steps=7,
        stagger_episodes=vectorization == "sync",
        vectorization=vectorization,
        **BOTH,
    )
    env = make_vector_env(config, 4)
    player = VectorPlayer(env, Actor(agent_of(env)), torch.Generator().manual_seed(1))
    player.reset(seed=7, position=0)
    for _ in range(2):
        fragment = player.play(30)
        shown = fragment.observations[..., 4:6]
        previous = np.eye(2)[fragment.actions[:, :-1].reshape(4, 29)]
        goes_on = ~fragment.is_first[:, 1:]
        assert goes_on.any()
        assert not goes_on.all()
        np.testing.assert_array_equal(shown[:, 1:][goes_on], previous[goes_on])
        np.testing.assert_array_equal(fragment.observations[:, 1:, 6][goes_on], fragment.rewards[:, :-1][goes_on])
        assert not fragment.observations[..., 4:][fragment.is_first].any()


def test_masks_stand_beside_the_previous_action() -> None:
    config = EnvConfig(id="masked_envs:masked/SeveralMethod-v0", **BOTH)
    env = make_vector_env(config, 3)
    agent = agent_of(env)
    assert is_masked(agent.actions)
    assert [part.name for part in agent.layout.parts] == ["observation", "previous_action", "previous_reward"]
    player = VectorPlayer(env, Actor(agent), torch.Generator().manual_seed(1))
    player.reset(seed=7, position=0)
    fragment = player.play(20)  # an action that is not legal would raise
    assert fragment.masks is not None
    first = 3 + np.cumsum((0, 2, 4))
    for row, step in np.argwhere(~fragment.is_first[:, 1:]).tolist():
        shown = fragment.observations[row, step + 1, 3:12]
        assert np.flatnonzero(shown).tolist() == (first - 3 + fragment.actions[row, step]).tolist()


def test_evaluation_and_a_policy_play_with_it() -> None:
    config = EnvConfig(id="Pendulum-v1", wrappers=("hide-velocities",), max_episode_steps=6, **BOTH)
    vector = make_vector_env(config, 1)
    policy = Policy(agent_of(vector))
    options = PlayOptions(True, 0, None, None, 100)
    report = play_all(policy, config, seeds_of_episodes(0, 3), options)
    assert (report["episodes"], report["episode_length_mean"]) == (3, 6.0)
    # one episode by hand
    env = make_env(config)
    total, state = 0.0, policy.initial_state()
    observation, _ = env.reset(seed=seeds_of_episodes(0, 1)[0])
    for _ in range(6):
        action, state = policy.act(observation, state, deterministic=True)
        observation, reward, *_ = env.step(action)
        np.testing.assert_array_equal(observation["previous_action"], action)
        assert observation["previous_reward"][0] == pytest.approx(reward)
        total += float(reward)
    one = play_all(policy, config, seeds_of_episodes(0, 1), options)
    assert one["episode_return_mean"] == pytest.approx(total, rel=1e-5)
    with pytest.raises(UserError, match=r"policy cannot act on Pendulum-v1: .* the part 'observation', which"):
        play_all(policy, EnvConfig(id="Pendulum-v1"), [1], options)


def test_the_fields_are_the_same_as_the_last_wrappers_and_before_rewards_are_clipped() -> None:
    def names_of(**changes: Any) -> list[str]:
        return training_arguments(EnvConfig(id="CartPole-v1", **changes))[1]["wrapper_names"]

    assert names_of(max_episode_steps=5, wrappers=("atari",), stagger_episodes=True, **BOTH) == [
        *("time-limit=5", "atari", "previous-action", "previous-reward", "clip-rewards", "stagger")
    ]
    assert names_of(wrappers=("previous-action", "previous-reward"), **BOTH) == ["previous-action", "previous-reward"]
    assert names_of() == []


@pytest.mark.parametrize(
    ("env", "names", "message"),
    [
        (Counting(), ["previous-action"] * 2, "has a part 'previous_action' already, so that wrapper previous-action"),
        (Counting(Text(3)), ["previous-action"], r"wrapper previous-action shows actions that are .* takes Text"),
        (Counting(), ["previous-reward=3"], "is given as previous-reward"),
        (Counting(), ["previous-reward", "frame-stack=2"], r"frame-stack stacks vectors and images.*Dict\("),
        (Counting(), ["previous-action", "hide-velocities=0"], r"one-dimensional Box only.*Dict\("),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(env: gym.Env, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        wrap(env, names)
    assert "\n" not in str(refused.value)
