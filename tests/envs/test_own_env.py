"""Environments by name that are not registered: classes and functions of the user's."""

import logging
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from own_modules import own_modules

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.rllib.environment import make_env, make_vector, make_vector_env
from ctm_rl.agents.supervised.sampler import make_samples_env
from ctm_rl.configs import for_env
from ctm_rl.envs.guard.env_guard import LONG_EPISODE
from ctm_rl.errors import UserError


@pytest.fixture(autouse=True)
def folder(place: Path) -> Iterator[Path]:
    with own_modules(place):
        yield place


def test_a_class_needs_no_registration() -> None:
    env = make_env(EnvConfig(id="own_envs:Signs"))
    env.reset(seed=1)
    assert env.observation_space.contains(env.step(np.array([0, 1]))[0])
    assert for_env("own_envs:Signs").name == "signs"


def test_a_function_takes_the_arguments() -> None:
    env = make_env(EnvConfig(id="own_envs:short", kwargs={"length": 3}))
    assert env.get_wrapper_attr("_max_episode_steps") == 3


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
def test_they_are_stepped_together(vectorization: str) -> None:
    env = make_vector_env(EnvConfig(id="own_envs:Signs", vectorization=vectorization), 2)  # pyright: ignore[reportArgumentType]
    env.reset(seed=1)
    assert env.step(env.action_space.sample())[1].tolist() == [1.0, 1.0]
    env.close()


def test_samples_come_from_a_class_too() -> None:
    env = make_samples_env(TaskConfig(id="own_envs:Signs"), 3)
    assert env.reset(seed=1)[0]["vector"].shape == (3, 2)
    env.close()


@pytest.mark.parametrize("env_id", ["own_envs::Recall", "own_envs:Recall-v0"])
def test_a_name_that_is_an_id_as_well_can_be_chosen(env_id: str) -> None:
    assert type(make_env(EnvConfig(id=env_id)).unwrapped).__name__ == "Recall"


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("own_envs:Recall", {}, "write own_envs::Recall for the class, or own_envs:Recall-v0 for the id"),
        ("own_envs:Sings", {}, r"own_envs has no class or function Sings.*did you mean own_envs:Signs\?"),
        ("own_envs:unlike", {}, "it has Endless, Recall, Signs, fails, many, no_env, short, wrong_type"),
        ("own_envs:number", {}, "is of type int, and must be a class or a function"),
        ("own_envs:short", {}, """it needs the argument length: --env.kwargs '{"length": ...}'"""),
        ("own_envs:short", {"lenght": 3}, "has 'lenght', which it does not take; it takes length, start; it needs"),
        ("own_envs:no_env", {}, "must return a gymnasium.Env, and returned a builtins.int"),
        ("own_envs:many", {}, "a vector of environments; return a single one"),
        ("own_envs:fails", {}, r"division by zero \(ZeroDivisionError in own_envs.py, line \d+"),
        ("own_envs:wrong_type", {}, "can only concatenate str"),
        ("nowhere:Signs", {}, "No module named 'nowhere'. Any registered id is allowed, and module:Name"),
        ("CartPole-v1", {"length": 3}, "--env.kwargs has 'length', which it does not take; it takes sutton_barto"),
        ("Cartpole-v1", {}, "Did you mean: `CartPole`\\? Any registered id"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_way_out(env_id: str, kwargs: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        make_env(EnvConfig(id=env_id, kwargs=kwargs))
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "PongNoFrameskip-v4", "ale_py:ALE/Pong-v5"])
def test_games_of_atari_name_their_package(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install ale-py"):
        make_env(EnvConfig(id=env_id))


def test_rllibs_name_of_a_game_of_atari_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymnasium.registry", {})
    monkeypatch.setattr("gymnasium.envs.registration.registry", {})
    with pytest.raises(ValueError, match="pip install ale-py, and the name ale_py:ALE/Pong-v5"):
        make_vector("ALE/Pong-v5", 1, gym.VectorizeMode.SYNC, {})


@pytest.mark.parametrize("limit", [None, 2 * LONG_EPISODE])
def test_episodes_without_an_end_are_warned_about(limit: int | None, caplog: pytest.LogCaptureFixture) -> None:
    env = make_env(EnvConfig(id="own_envs:Endless", max_episode_steps=limit))
    env.reset(seed=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(LONG_EPISODE + 2):
            env.step(0)
    expected = "environment own_envs:Endless has no time limit, and an episode has not ended after 5,000 steps; returns"
    assert [record.message[: len(expected)] for record in caplog.records] == ([expected] if limit is None else [])
