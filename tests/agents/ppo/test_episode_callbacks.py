"""RLlib's episode callbacks on columns: which are called, in which order, and that their episodes are what happened."""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_policy import SMALL

from ctm_rl.agents import CTMModule, RecurrentPPOConfig
from ctm_rl.agents.ppo.episode_callbacks import EpisodeCallbacks, info_of
from ctm_rl.agents.ppo.vector_player import VectorPlayer
from ctm_rl.agents.rllib.callbacks import EPISODE_CALLBACKS
from ctm_rl.agents.rllib.finished_episodes import finished_episodes
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.models.actor_critic import ActorCritic

pytestmark = [
    # RLlib calls parts of itself that it has deprecated, and leaves files and loggers to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_ENVS = 3


class Recording(RLlibCallback):
    """Keeps what it is called with: the names of the callbacks by environment, and ended episodes."""

    calls: dict[int, list[str]]
    ended: list[Any]

    def note(self, name: str, arguments: dict[str, Any]) -> None:
        self.calls.setdefault(arguments["env_index"], []).append(name)
        if name == "on_episode_end":
            assert arguments["prev_episode_chunks"] == []
            self.ended.append(arguments["episode"])

    def on_episode_created(self, **arguments: Any) -> None:
        assert not arguments["episode"].is_reset
        self.note("on_episode_created", arguments)

    def on_episode_start(self, **arguments: Any) -> None:
        assert len(arguments["episode"]) == 0
        self.note("on_episode_start", arguments)

    def on_episode_step(self, **arguments: Any) -> None:
        assert len(arguments["episode"]) > 0
        self.note("on_episode_step", arguments)

    def on_episode_end(self, **arguments: Any) -> None:
        self.note("on_episode_end", arguments)


def played(mode: AutoresetMode, num_fragments: int) -> tuple[Recording, VectorPlayer]:
    """A few fragments of CartPole, and what a callback has got."""
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * NUM_ENVS, autoreset_mode=mode)
    config, layout, actions = fit(SMALL, env.single_observation_space, env.single_action_space)
    recording = Recording()
    recording.calls, recording.ended = {}, []
    settings = RecurrentPPOConfig().callbacks(Recording)
    runner = SimpleNamespace(config=settings, env=env, metrics=None, module=None)
    callbacks = EpisodeCallbacks(runner, [recording])
    agent = ActorCritic(config, layout, actions).eval()
    generator = torch.Generator().manual_seed(1)
    player = VectorPlayer(env, Actor(agent), generator, callbacks=callbacks)
    player.reset(3, 0)
    for _ in range(num_fragments):
        player.play(20)
    env.close()
    return recording, player


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_episodes_are_those_that_were_played_over_several_fragments(mode: AutoresetMode) -> None:
    recording, player = played(mode, 4)
    finished = player.pop_finished()
    assert len(finished) >= 4
    assert [(episode.get_return(), len(episode)) for episode in recording.ended] == [item[:2] for item in finished]
    assert any(item.length > 20 for item in finished)
    env = gym.make("CartPole-v1")
    for episode in recording.ended:
        shown, actions = np.stack(episode.get_observations()), episode.get_actions()
        env.reset()
        env.unwrapped.state = shown[0].astype(np.float64)  # pyright: ignore[reportAttributeAccessIssue]
        again = [env.step(int(action)) for action in actions]
        np.testing.assert_allclose(np.stack([step[0] for step in again]), shown[1:], atol=1e-3)
        assert [step[2] for step in again] == [False] * (len(again) - 1) + [episode.is_terminated]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_callbacks_come_in_rllibs_order(mode: AutoresetMode) -> None:
    recording, player = played(mode, 2)
    assert sum(names.count("on_episode_end") for names in recording.calls.values()) == len(player.pop_finished()) > 0
    created, started, stepped, ended = EPISODE_CALLBACKS
    following = {created: {started}, started: {stepped}, stepped: {stepped, ended}, ended: {created}}
    assert sorted(recording.calls) == list(range(NUM_ENVS))
    for names in recording.calls.values():
        assert names[0] == created
        assert all(after in following[before] for before, after in itertools.pairwise(names))


def test_information_of_one_environment_is_what_it_returned() -> None:
    infos = {
        "score": np.array([1, 2, 3]),
        "_score": np.array([True, False, True]),
        "nested": {"depth": np.array([4, 5, 6]), "_depth": np.array([False, True, True])},
        "final_obs": [None, None, None],
    }
    assert info_of(infos, 0) == {"score": 1, "nested": {}}
    assert info_of(infos, 1) == {"nested": {"depth": 5}}


@contextmanager
def built(config: RecurrentPPOConfig) -> Iterator[Algorithm]:
    algorithm = (
        config.environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=32)
        .training(num_epochs=1, num_minibatches=2)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(SMALL)))
        .debugging(seed=3)
        .build_algo()
    )
    try:
        yield algorithm
    finally:
        algorithm.stop()


class Lengths(RLlibCallback):
    """The callbacks that people write: a metric of their own, and a result that they add to."""

    def on_episode_step(self, *, episode: Any, **arguments: Any) -> None:
        episode.custom_data.setdefault("angles", []).append(abs(episode.get_observations(-1)[2]))

    def on_episode_end(self, *, episode: Any, metrics_logger: Any = None, **arguments: Any) -> None:
        metrics_logger.log_value("widest_angle", max(episode.custom_data["angles"]), reduce="max")
        metrics_logger.log_value("own_length", len(episode), reduce="item_series")

    def on_train_result(self, *, result: dict[str, Any], **arguments: Any) -> None:
        result["own"] = result["env_runners"]["widest_angle"]


def log_length(episode: Any, metrics_logger: Any, **arguments: Any) -> None:
    metrics_logger.log_value("length_by_function", len(episode), reduce="item_series")


@pytest.mark.usefixtures("ray_session")
def test_a_class_and_functions_are_called_by_an_algorithm_and_may_log() -> None:
    config = RecurrentPPOConfig().callbacks(Lengths, on_episode_end=log_length)
    with built(config) as algorithm:
        result = algorithm.train()
    lengths = [episode.length for episode in finished_episodes(result)]
    assert len(lengths) > 1
    assert result["env_runners"]["own_length"] == result["env_runners"]["length_by_function"] == lengths
    assert 0 < result["own"] == result["env_runners"]["widest_angle"] < 0.5


def fail(**arguments: Any) -> None:
    raise KeyError("mine")


@pytest.mark.usefixtures("ray_session")
def test_without_callbacks_there_are_no_episodes_and_an_error_in_one_is_no_fault_of_the_environment() -> None:
    config = RecurrentPPOConfig().callbacks(on_train_result=fail)
    config.fault_tolerance(restart_failed_sub_environments=True)
    with built(config) as algorithm:
        assert algorithm.env_runner is not None
        assert algorithm.env_runner._episode_callbacks is None  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(KeyError, match="mine"):
            algorithm.train()
    config = RecurrentPPOConfig().callbacks(on_episode_step=fail)
    config.fault_tolerance(restart_failed_sub_environments=True)
    with built(config) as algorithm, pytest.raises(KeyError, match="mine"):
        algorithm.train()
