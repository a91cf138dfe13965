"""The machine in RLlib's asynchronous algorithms, and with several agents at once."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import small_policy
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from torch import Tensor

from ctm_rl.agents import CTMModule
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.rllib.finished_episodes import finished_episodes
from ctm_rl.agents.runs.acting_task import ActingTask
from ctm_rl.agents.runs.algorithm_state import learner_state, restore
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.inference.policy import POLICY_ENTRY

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # RLlib calls parts of itself that it has deprecated, and leaves files and loggers to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MODULE = "default_policy"
SMALL = dataclasses.replace(small_policy.SMALL, max_seq_len=10)
APPO = ActingExperiment(
    name="small",
    env=EnvConfig(id="CartPole-v1", wrappers=("hide-velocities",)),
    model=SMALL,
    ppo=PPOSettings(num_rollout_steps=16, num_epochs=2, num_minibatches=2, is_lr_annealed=True),
    budget=BudgetConfig(env_steps=2_000),
    num_envs_per_env_runner=4,
    algorithm="appo",
    seed=7,
)
IMPALA = dataclasses.replace(APPO, algorithm="impala")
BOTH = pytest.mark.parametrize("experiment", [APPO, IMPALA], ids=["appo", "impala"])
NUM_STEPS = "num_env_steps_sampled"


@contextmanager
def built(config: AlgorithmConfig) -> Iterator[Algorithm]:
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


def on_learner(algorithm: Algorithm, function: Callable[[Any], Any]) -> Any:
    """Calls a function with the one learner."""
    assert algorithm.learner_group is not None
    (result,) = algorithm.learner_group.foreach_learner(lambda learner, *_: function(learner))
    return result.get()


def parameters_of(algorithm: Algorithm, module_id: str = MODULE) -> dict[str, Tensor]:
    """A policy's parameters on the learner, copied."""

    def copy(learner: Any) -> dict[str, Tensor]:
        agent = learner.module[module_id].unwrapped().agent
        return {name: value.detach().clone() for name, value in agent.named_parameters()}

    return on_learner(algorithm, copy)


def batch_of(algorithm: Algorithm, episodes: list[Any]) -> Any:
    """What the learner makes of episodes."""
    data = TrainingData(episodes=episodes)
    return on_learner(algorithm, lambda learner: learner._make_batch_if_necessary(data).policy_batches[MODULE])


@pytest.mark.parametrize(
    ("experiment", "num_env_runners"),
    [(APPO, 0), (IMPALA, 0), (APPO, 1), pytest.param(IMPALA, 1, marks=pytest.mark.slow)],
    ids=["appo", "impala", "appo-runner", "impala-runner"],
)
def test_it_learns_with_decay_rates_inside_their_limits(experiment: ActingExperiment, num_env_runners: int) -> None:
    experiment = dataclasses.replace(experiment, num_env_runners=num_env_runners)
    with built(build_algorithm_config(experiment)) as algorithm:
        before = parameters_of(algorithm)
        results = [algorithm.train() for _ in range(3)]
        after = parameters_of(algorithm)
        saved = ActingTask(experiment).describe(algorithm)[POLICY_ENTRY]
    assert [name for name, value in after.items() if torch.equal(value, before[name])] == []
    rates = after["core.output_sync.decay_rate"]
    assert (rates >= 0).all()
    assert (rates > 0).any()
    assert all(math.isfinite(result["learners"][MODULE]["total_loss"]) for result in results)
    assert all(result["env_runners"][NUM_STEPS] >= experiment.batch_size for result in results)
    lifetime = results[-1]["env_runners"][f"{NUM_STEPS}_lifetime"]
    assert lifetime == sum(result["env_runners"][NUM_STEPS] for result in results)
    assert sum(len(finished_episodes(result)) for result in results) > 3
    # A checkpoint holds the policy as learned, not as it was last played with.
    assert len(saved["weights"]) >= len(after)
    np.testing.assert_equal({name: np.asarray(saved["weights"][name]) for name in after}, arrays(after))


def arrays(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The same as numpy arrays."""
    return {name: value.numpy() for name, value in tensors.items()}


@BOTH
def test_the_value_after_a_fragment_counts(experiment: ActingExperiment) -> None:
    ppo = dataclasses.replace(experiment.ppo, gamma=0.9, entropy_coefficient=0.0, reward_scale=0.2)
    # No episode ends within the fragment: all that follows is in the bootstrap value.
    env = EnvConfig(id="MountainCar-v0")

    def losses(learner: Any) -> tuple[float, float, float]:
        batch = learner._make_batch_if_necessary(TrainingData(episodes=episodes)).policy_batches[MODULE]
        config = learner.config.get_config_for_module(MODULE)
        with torch.no_grad():
            out = learner.module[MODULE].forward_train(batch)
            loss = learner.compute_loss_for_module(module_id=MODULE, config=config, batch=batch, fwd_out=out)
        values, log_probability = out["embeddings"], batch["action_logp"][:, :16]
        assert batch["obs"].shape[:2] == values.shape == (4, 17)
        return float(loss), expected(values, log_probability, 1.0), expected(values, log_probability, 0.0)

    def expected(values: Tensor, log_probability: Tensor, bootstrap: float) -> float:
        """On-policy, V-trace's target is the discounted sum of rewards and of the value at the end."""
        targets = torch.zeros(4, 17)
        targets[:, 16] = bootstrap * values[:, 16]
        for step in reversed(range(16)):
            targets[:, step] = -1.0 * 0.2 + 0.9 * targets[:, step + 1]
        advantages = targets[:, :16] - values[:, :16]
        policy = advantages if experiment is APPO else log_probability * advantages
        return float(-policy.mean() + 0.5 * 0.5 * advantages.square().mean())

    with built(build_algorithm_config(dataclasses.replace(experiment, env=env, ppo=ppo))) as algorithm:
        assert algorithm.env_runner is not None
        episodes = algorithm.env_runner.sample()
        loss, with_bootstrap, without = on_learner(algorithm, losses)
    assert abs(with_bootstrap - without) > 1e-4
    assert loss == pytest.approx(with_bootstrap, abs=1e-5)


@BOTH
def test_rewards_are_scaled_for_the_learner_and_reported_raw(experiment: ActingExperiment) -> None:
    ppo = dataclasses.replace(experiment.ppo, gamma=0.9)
    with built(build_algorithm_config(dataclasses.replace(experiment, ppo=ppo))) as algorithm:
        assert algorithm.env_runner is not None
        episodes = algorithm.env_runner.sample()
        raw = float(sum(episode.get_return() for episode in episodes))
        rewards = batch_of(algorithm, episodes)["rewards"]
    assert raw >= 64
    assert float(rewards.sum()) == pytest.approx(0.1 * raw)
    assert float(sum(episode.get_return() for episode in episodes)) == raw


@BOTH
def test_a_restored_algorithm_stands_where_it_was_saved(experiment: ActingExperiment, tmp_path: Path) -> None:
    config = build_algorithm_config(experiment)
    with built(config) as algorithm:
        saved_result = [algorithm.train() for _ in range(3)][-1]
        saved = learner_state(algorithm)
        checkpoint.save(tmp_path, 3, saved)
    with built(config) as algorithm:
        restore(algorithm, checkpoint.load(checkpoint.latest(tmp_path)))
        np.testing.assert_equal(plain(learner_state(algorithm)), plain(saved))
        resumed = algorithm.train()
    assert resumed["training_iteration"] == 4
    count = f"{NUM_STEPS}_lifetime"
    assert resumed["env_runners"][count] == saved_result["env_runners"][count] + resumed["env_runners"][NUM_STEPS]
    rate = "default_optimizer_learning_rate"
    assert 0 < resumed["learners"][MODULE][rate] < saved_result["learners"][MODULE][rate] < experiment.ppo.lr
    if experiment is APPO:
        assert any(name.startswith("target_agent.") for name in saved["modules"][MODULE])
        assert saved["own"]["last_update"][MODULE] > 0


def plain(value: Any) -> Any:
    """Nested dicts and lists with numpy arrays in the place of tensors."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.numpy() if isinstance(value, Tensor) else value


def test_sequences_are_whole_fragments_where_v_trace_reads_them() -> None:
    for experiment, longest in ((APPO, 17), (IMPALA, 17), (dataclasses.replace(APPO, algorithm="stock-ppo"), 10)):
        spec: Any = build_algorithm_config(experiment).rl_module_spec
        assert spec.model_config["max_seq_len"] == longest


class Pair(MultiAgentEnv):
    """Two that act at the same time, with other observations and actions each, for five steps."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.agents = self.possible_agents = ["left", "right"]
        self.observation_spaces = {
            "left": gym.spaces.Box(-1.0, 1.0, (3,), np.float32),
            "right": gym.spaces.Box(-1.0, 1.0, (4,), np.float32),
        }
        self.action_spaces = {"left": gym.spaces.Discrete(2), "right": gym.spaces.Discrete(3)}
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self._steps = 0
        self._generator = np.random.default_rng(seed)
        return self._observe(), {}

    def step(self, action_dict: dict[Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
        self._steps += 1
        rewards = {name: float(action == 1) for name, action in action_dict.items()}
        return self._observe(), rewards, {"__all__": self._steps == 5}, {"__all__": False}, {}

    def _observe(self) -> dict[str, Any]:
        sizes = {"left": 3, "right": 4}
        return {name: self._generator.uniform(-1, 1, size).astype(np.float32) for name, size in sizes.items()}


def test_two_agents_of_different_kinds_and_sizes_learn_in_stock_rllib() -> None:
    models = {
        "left": dataclasses.replace(SMALL, num_neurons=11, num_ticks=3),
        "right": dataclasses.replace(SMALL, kind="lstm"),
    }
    specs = {
        name: RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(model))
        for name, model in models.items()
    }
    config = PPOConfig()
    config.environment(Pair)
    config.multi_agent(policies=set(models), policy_mapping_fn=lambda agent_id, *_, **__: str(agent_id))
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))  # pyright: ignore[reportArgumentType]
    config.env_runners(num_env_runners=0, rollout_fragment_length=20)
    config.learners(num_learners=0)
    config.training(train_batch_size_per_learner=40, minibatch_size=20, num_epochs=2, lr=1e-3)
    config.debugging(seed=3, log_level="ERROR", log_sys_usage=False)
    with built(config) as algorithm:
        before = {name: parameters_of(algorithm, name) for name in models}
        results = [algorithm.train() for _ in range(2)]
        after = {name: parameters_of(algorithm, name) for name in models}
    for name in models:
        assert all(math.isfinite(result["learners"][name]["total_loss"]) for result in results)
        still = [key for key, value in after[name].items() if torch.equal(value, before[name][key])]
        assert still == []
    assert "core.output_sync.decay_rate" in after["left"]
    assert "core.output_sync.decay_rate" not in after["right"]
