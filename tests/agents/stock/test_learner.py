"""The machine learning in RLlib: stock algorithms, the stock path of an experiment, and going on from a saved state."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_policy
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from ctm_rl import PolicyConfig
from ctm_rl.agents import CTMModule
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.rllib.finished_episodes import finished_episodes, seeds_of_envs
from ctm_rl.agents.runs.algorithm_state import learner_state, restore
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.checkpoints import store as checkpoint

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # RLlib calls parts of itself that it has deprecated, and leaves files and loggers to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MODULE = "default_policy"
SMALL = dataclasses.replace(small_policy.SMALL, max_seq_len=10)
WINDOW = dataclasses.replace(SMALL, sync_window=True)
LSTM, GRU, MLP = (dataclasses.replace(SMALL, kind=kind) for kind in ("lstm", "gru", "mlp"))
EXPERIMENT = ActingExperiment(
    name="small",
    env=EnvConfig(id="CartPole-v1", wrappers=("hide-velocities",)),
    model=SMALL,
    ppo=PPOSettings(
        num_rollout_steps=16, num_epochs=2, num_minibatches=2, is_lr_annealed=True, entropy_coefficient_final=0.2
    ),
    budget=BudgetConfig(env_steps=2_000),
    num_envs_per_env_runner=4,
    algorithm="stock-ppo",
    seed=7,
)
OURS = dataclasses.replace(EXPERIMENT, algorithm="ppo", ppo=dataclasses.replace(EXPERIMENT.ppo, normalize_rewards=True))
BOTH = pytest.mark.parametrize("experiment", [EXPERIMENT, OURS], ids=["stock", "ours"])
# Our runners in processes of their own: behaviour/test_resume.py compares whole runs of them.
WITH_RUNNERS = pytest.mark.parametrize(
    ("experiment", "num_env_runners"),
    [(EXPERIMENT, 0), (OURS, 0), *(pytest.param(one, 1, marks=pytest.mark.slow) for one in (EXPERIMENT, OURS))],
    ids=["stock", "ours", "stock-runner", "ours-runner"],
)


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


def parameters_of(algorithm: Algorithm) -> dict[str, Tensor]:
    """The learner's parameters, copied."""

    def copy(learner: Any) -> dict[str, Tensor]:
        agent = learner.module[MODULE].unwrapped().agent
        return {name: value.detach().clone() for name, value in agent.named_parameters()}

    return on_learner(algorithm, copy)


def stock_config(kind: str, model: PolicyConfig) -> AlgorithmConfig:
    """One of RLlib's own algorithms with our module alone."""
    configs: dict[str, AlgorithmConfig] = {"ppo": PPOConfig(), "appo": APPOConfig(), "impala": IMPALAConfig()}
    config = configs[kind]
    config.environment("CartPole-v1")
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=20)
    config.learners(num_learners=0)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(model)))
    config.training(train_batch_size_per_learner=80, lr=1e-3)
    config.debugging(seed=3, log_level="ERROR", log_sys_usage=False)
    if isinstance(config, PPOConfig):
        config.training(minibatch_size=40, num_epochs=2)
    else:
        # An iteration is one batch, whose losses come back at once.
        assert isinstance(config, IMPALAConfig)
        config.training(broadcast_interval=1)
        config.reporting(min_time_s_per_iteration=0)
    return config


@pytest.mark.parametrize(
    ("algorithm", "model"),
    [("ppo", SMALL), ("ppo", WINDOW), ("ppo", LSTM), ("ppo", GRU), ("ppo", MLP), ("appo", SMALL), ("impala", WINDOW)],
    ids=["ppo-ctm", "ppo-window", "ppo-lstm", "ppo-gru", "ppo-mlp", "appo-ctm", "impala-window"],
)
def test_stock_algorithms_move_every_parameter(algorithm: str, model: PolicyConfig) -> None:
    with built(stock_config(algorithm, model)) as running:
        before = parameters_of(running)
        losses = [running.train()["learners"][MODULE]["total_loss"] for _ in range(2)]
        after = parameters_of(running)
    assert all(math.isfinite(loss) for loss in losses)
    assert len(before) > (15 if model.kind != "mlp" else 10)
    assert [name for name, value in after.items() if torch.equal(value, before[name])] == []
    assert [name for name, value in after.items() if not value.isfinite().all()] == []
    # Among them what stock learners lose by themselves: the start state, and decay rates, which start at their limit.
    assert any(".start_" in name for name in before) == (model.kind != "mlp")
    if model.kind == "ctm":
        assert not before["core.output_sync.decay_rate"].any()
        assert (after["core.output_sync.decay_rate"] > 0).any()


@pytest.mark.parametrize("algorithm", ["stock-ppo", "appo"])
def test_stock_algorithms_keep_the_statistics_of_observations(algorithm: Any) -> None:
    experiment = dataclasses.replace(
        EXPERIMENT, algorithm=algorithm, model=dataclasses.replace(SMALL, normalize_observations=True)
    )
    with built(build_algorithm_config(experiment)) as running:
        running.train()
        taken = running.train()["num_env_steps_sampled_lifetime"]
        normaliser = on_learner(running, lambda learner: learner.module[MODULE].unwrapped().agent.encoder.normaliser)
        runner: Any = running.env_runner
        acting = runner.module.agent.encoder.normaliser
    # every step once, however many passes there are, without padding and the steps that RLlib appends
    assert int(normaliser.count) == taken
    if algorithm == "stock-ppo":  # the other acts with older weights
        assert torch.equal(acting.mean, normaliser.mean)
    shown = [0, 2]  # velocities are always 0
    assert normaliser.variance[shown].min() > 0
    assert acting.variance[shown].min() < 1


def test_the_stock_path_keeps_decay_rates_inside_their_limits() -> None:
    with built(build_algorithm_config(EXPERIMENT)) as algorithm:
        before = parameters_of(algorithm)
        results = [algorithm.train() for _ in range(2)]
        after = parameters_of(algorithm)
    rates = after["core.output_sync.decay_rate"]
    assert (rates >= 0).all()
    assert (rates > 0).any()
    assert [name for name, value in after.items() if torch.equal(value, before[name])] == []
    assert all(math.isfinite(result["learners"][MODULE]["total_loss"]) for result in results)


@BOTH
def test_every_finished_episode_is_reported_with_its_raw_return(experiment: ActingExperiment) -> None:
    # An episode spans several iterations here: 16 steps each, cut off after 40.
    env = EnvConfig(id="MountainCar-v0", max_episode_steps=40)
    with built(build_algorithm_config(dataclasses.replace(experiment, env=env))) as algorithm:
        results = [algorithm.train() for _ in range(6)]
    episodes = [finished_episodes(result) for result in results]
    # In columns, an environment has an autoreset step before its next 40.
    assert [len(ended) for ended in episodes] == ([0, 0, 4, 0, 0, 4] if experiment is OURS else [0, 0, 4, 0, 4, 0])
    assert {episode[:2] for ended in episodes for episode in ended} == {(-40.0, 40)}


@pytest.mark.parametrize("model", [SMALL, WINDOW, LSTM, GRU, MLP], ids=["ctm", "window", "lstm", "gru", "mlp"])
def test_the_learner_computes_what_the_policy_acted_on(model: PolicyConfig) -> None:
    def largest_difference(learner: Any) -> tuple[float, int]:
        batch = learner._make_batch_if_necessary(TrainingData(episodes=episodes)).policy_batches[MODULE]
        with torch.no_grad():
            logits = learner.module[MODULE].forward_train(batch)["action_dist_inputs"]
        is_real = batch["loss_mask"]
        return float((logits - batch["action_dist_inputs"])[is_real].abs().max()), int(is_real.sum())

    # Short sequences, from the middle of fragments and from the middle of episodes; CartPole's end after about 20.
    with built(build_algorithm_config(dataclasses.replace(EXPERIMENT, model=model))) as algorithm:
        assert algorithm.env_runner is not None
        for _ in range(3):
            episodes = algorithm.env_runner.sample()
            difference, num_steps = on_learner(algorithm, largest_difference)
            assert num_steps >= 64
            assert difference < 1e-5


@pytest.mark.parametrize(("scale", "factor"), [(None, 0.1), (3.0, 3.0)])
def test_rewards_are_scaled_for_the_learner_and_reported_raw(scale: float | None, factor: float) -> None:
    ppo = dataclasses.replace(EXPERIMENT.ppo, gamma=0.9, gae_lambda=1.0, reward_scale=scale, num_epochs=1)
    with built(build_algorithm_config(dataclasses.replace(EXPERIMENT, ppo=ppo))) as algorithm:
        assert algorithm.env_runner is not None
        episodes = algorithm.env_runner.sample()
        raw = float(sum(episode.get_return() for episode in episodes))
        data = TrainingData(episodes=episodes)
        rewards = on_learner(algorithm, lambda learner: learner._make_batch_if_necessary(data)[MODULE]["rewards"])
    assert raw >= 64
    assert float(rewards.sum()) == pytest.approx(factor * raw)
    assert float(sum(episode.get_return() for episode in episodes)) == raw


def losses_of(experiment: ActingExperiment, num_iterations: int) -> list[Any]:
    """The metrics of training without times."""
    with built(build_algorithm_config(experiment)) as algorithm:
        results = [algorithm.train() for _ in range(num_iterations)]
    return [
        (
            finished_episodes(result),
            result["env_runners"]["num_env_steps_sampled_lifetime"],
            {name: value for name, value in result["learners"][MODULE].items() if np.isscalar(value)},
        )
        for result in results
    ]


@WITH_RUNNERS
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    experiment: ActingExperiment, num_env_runners: int
) -> None:
    experiment = dataclasses.replace(experiment, num_env_runners=num_env_runners)
    first = losses_of(experiment, 3)
    np.testing.assert_equal(losses_of(experiment, 3), first)
    if num_env_runners == 0:
        other = losses_of(dataclasses.replace(experiment, seed=8), 1)
        assert other[0][2]["total_loss"] != first[0][2]["total_loss"]


def test_environments_are_seeded_apart() -> None:
    runs = [seeds_of_envs(seed, iteration, 50) for seed in (1, 2, 3) for iteration in (0, 20)]
    assert len({seed for seeds in runs for seed in seeds}) == 300
    assert all(0 <= seed < 2**31 for seeds in runs for seed in seeds)
    assert runs[0] == seeds_of_envs(1, 0, 50)


@WITH_RUNNERS
def test_a_restored_algorithm_stands_where_it_was_saved(
    experiment: ActingExperiment, num_env_runners: int, tmp_path: Path
) -> None:
    experiment = dataclasses.replace(experiment, num_env_runners=num_env_runners)
    config = build_algorithm_config(experiment)
    with built(config) as algorithm:
        saved_result = [algorithm.train() for _ in range(3)][-1]
        saved = learner_state(algorithm)
        checkpoint.save(tmp_path, 3, saved)
        later = algorithm.train()
        # Restored over newer weights, and into a fresh algorithm: both must go on in the same way.
        restore(algorithm, checkpoint.load(checkpoint.latest(tmp_path)))
        again = algorithm.train()
    with built(config) as algorithm:
        restore(algorithm, checkpoint.load(checkpoint.latest(tmp_path)))
        np.testing.assert_equal(plain(learner_state(algorithm)), plain(saved))
        runners: Any = algorithm.env_runner_group
        for weights in runners.foreach_env_runner(lambda runner: runner.module.get_state()):
            np.testing.assert_equal(weights, saved["modules"][MODULE])
        resumed = algorithm.train()
    assert resumed["training_iteration"] == again["training_iteration"] == later["training_iteration"] == 4
    count = "num_env_steps_sampled_lifetime"
    # Of 192 steps, autoreset steps do not count.
    assert resumed["env_runners"][count] > saved_result["env_runners"][count] > 160
    assert resumed["env_runners"][count] == again["env_runners"][count]
    assert finished_episodes(resumed) == finished_episodes(again)
    assert resumed["learners"][MODULE]["total_loss"] == again["learners"][MODULE]["total_loss"]
    # The schedule goes on by the steps of the whole run.
    rate = "default_optimizer_learning_rate"
    assert 0 < resumed["learners"][MODULE][rate] < saved_result["learners"][MODULE][rate] < experiment.ppo.lr


@pytest.mark.parametrize(
    ("warmup", "annealed", "expected"),
    [
        (0, False, 3e-4),
        (0, True, [[0, 3e-4], [1000, 0.0]]),
        (200, False, [[0, 0.0], [200, 3e-4]]),
        (200, True, [[0, 0.0], [200, 3e-4], [1000, 0.0]]),
    ],
)
def test_the_learning_rate_rises_and_falls_over_env_steps(warmup: int, annealed: bool, expected: Any) -> None:
    ppo = dataclasses.replace(EXPERIMENT.ppo, lr=3e-4, lr_warmup_steps=warmup, is_lr_annealed=annealed)
    changed = dataclasses.replace(EXPERIMENT, ppo=ppo, budget=BudgetConfig(env_steps=1000))
    assert build_algorithm_config(changed).lr == expected


def test_a_learning_rate_that_warms_up_longer_than_it_lasts_is_refused() -> None:
    ppo = dataclasses.replace(EXPERIMENT.ppo, lr_warmup_steps=1000, is_lr_annealed=True)
    with pytest.raises(ValueError, match=r"ppo.lr_warmup_steps must be below budget.env_steps \(1000\)"):
        dataclasses.replace(EXPERIMENT, ppo=ppo, budget=BudgetConfig(env_steps=1000))


def test_a_learner_that_warms_up_learns_nothing_in_its_first_iteration() -> None:
    ppo = dataclasses.replace(OURS.ppo, lr_warmup_steps=500)
    with built(build_algorithm_config(dataclasses.replace(OURS, ppo=ppo))) as algorithm:
        start = parameters_of(algorithm)
        for is_equal in (True, False):
            algorithm.train()
            learned = parameters_of(algorithm)
            assert all(torch.equal(learned[name], start[name]) for name in start) == is_equal
            assert all(learned[name].isfinite().all() for name in start)


@BOTH
def test_a_restored_learner_takes_up_another_learning_rate_at_once(experiment: ActingExperiment) -> None:
    with built(build_algorithm_config(experiment)) as algorithm:
        algorithm.train()
        state = learner_state(algorithm)
    ppo = dataclasses.replace(experiment.ppo, lr=7e-5, is_lr_annealed=False)
    with built(build_algorithm_config(dataclasses.replace(experiment, ppo=ppo))) as algorithm:
        restore(algorithm, state)
        (group,) = on_learner(algorithm, lambda learner: learner.get_optimizer().param_groups)
        assert group["lr"] == 7e-5


def plain(value: Any) -> Any:
    """Nested dicts and lists with numpy arrays in the place of tensors."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.numpy() if isinstance(value, Tensor) else value


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (EnvConfig(id="CartPole-v9"), r"env.id 'CartPole-v9' cannot be made: .*module:Name: an id"),
        (EnvConfig(id="no_such_module:CartPole-v1"), r"env.id 'no_such_module:CartPole-v1' cannot be made"),
        (EnvConfig(id="FrozenLake-v1", wrappers=("hide-velocities",)), "cannot be made: velocities can be hidden in"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused_before_anything_starts(env: EnvConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_algorithm_config(dataclasses.replace(EXPERIMENT, env=env))


def test_a_minibatch_shorter_than_a_sequence_is_refused() -> None:
    ppo = dataclasses.replace(EXPERIMENT.ppo, num_minibatches=8)
    with pytest.raises(ValueError, match=r"a minibatch of 8 steps is shorter than one sequence of 10; lower .*"):
        build_algorithm_config(dataclasses.replace(EXPERIMENT, ppo=ppo))


def test_the_configuration_says_what_the_experiment_says() -> None:
    experiment = dataclasses.replace(
        EXPERIMENT, env=EnvConfig(id="CartPole-v1", max_episode_steps=9), num_env_runners=2, num_learners=2
    )
    config = build_algorithm_config(experiment)
    assert isinstance(config, PPOConfig)
    assert config.env == "ctm_rl.envs:ctm_rl/Wrapped-v0"
    assert (config.env_config["env_id"], config.env_config["wrapper_names"]) == ("CartPole-v1", ["time-limit=9"])
    assert (config.num_env_runners, config.num_envs_per_env_runner, config.num_learners) == (2, 4, 2)
    # 2 runners x 4 environments x 16 steps, halved between the learners, then cut into 2 minibatches.
    assert (config.train_batch_size_per_learner, config.total_train_batch_size, config.minibatch_size) == (64, 128, 32)
    assert config.lr == [[0, experiment.ppo.lr], [2_000, 0.0]]
    assert (config.gamma, config.lambda_, config.seed) == (0.99, 0.95, 7)
    config.validate()
