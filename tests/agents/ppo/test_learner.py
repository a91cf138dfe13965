"""Recurrent PPO: the learner, alone and with others, and RLlib's machinery around it."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle, tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_policy import SMALL
from torch import Tensor

from ctm_rl import PolicyConfig
from ctm_rl.agents import CTMModule, RecurrentPPO, RecurrentPPOConfig
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.ppo.algorithm import _shards
from ctm_rl.agents.ppo.collector import Collector
from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.loss import ppo_loss
from ctm_rl.agents.ppo.rollout import RolloutFragment
from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.columns import batch_of, to_device
from ctm_rl.agents.rllib.finished_episodes import finished_episodes
from ctm_rl.agents.runs.algorithm_state import learner_state, restore
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.spaces.actions import chosen

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # RLlib calls parts of itself that it has deprecated, and leaves files and loggers to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Learners in processes of their own cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODULE = "default_policy"
WINDOW = dataclasses.replace(SMALL, sync_window=True)
OWN_CRITIC = dataclasses.replace(SMALL, critic="own")
LSTM, GRU, MLP = (dataclasses.replace(SMALL, kind=kind) for kind in ("lstm", "gru", "mlp"))
EXPERIMENT = ActingExperiment(
    name="small",
    env=EnvConfig(id="CartPole-v1", wrappers=("hide-velocities",)),
    model=SMALL,
    ppo=PPOSettings(num_rollout_steps=16, num_epochs=2, num_minibatches=2),
    budget=BudgetConfig(env_steps=2_000),
    num_envs_per_env_runner=4,
    seed=7,
)


@contextmanager
def built(config: Any) -> Iterator[Algorithm]:
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


def config_of(*, model: PolicyConfig = SMALL, env: EnvConfig = EXPERIMENT.env, **changes: Any) -> RecurrentPPOConfig:
    """The configuration of a small experiment; changes of its own fields, or of those of ``ppo``."""
    settings = {name: changes.pop(name) for name in list(changes) if hasattr(EXPERIMENT.ppo, name)}
    experiment = dataclasses.replace(
        EXPERIMENT, model=model, env=env, ppo=dataclasses.replace(EXPERIMENT.ppo, **settings), **changes
    )
    config = build_algorithm_config(experiment)
    assert isinstance(config, RecurrentPPOConfig)
    return config


def on_learners(algorithm: Algorithm, function: Callable[[Any], Any]) -> list[Any]:
    """Calls a function with every learner."""
    assert algorithm.learner_group is not None
    return [result.get() for result in algorithm.learner_group.foreach_learner(lambda learner, *_: function(learner))]


def sample(algorithm: Algorithm) -> RolloutFragment:
    runner: Any = algorithm.env_runner
    return runner.sample()


def agent_of(learner: Any) -> Any:
    return learner.module[MODULE].unwrapped().agent


def copy_parameters(learner: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in agent_of(learner).named_parameters()}


def copy_state(agent: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in agent.state_dict().items()}


def copy_gradients(learner: Any) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in agent_of(learner).named_parameters()}


def ahead(learner: Any, columns: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What the learner's module makes of a fragment: log-probabilities of all actions, and values."""
    with torch.no_grad():
        outputs = learner.module[MODULE].forward_train(to_device(columns, learner._device))
    return outputs[Columns.ACTION_DIST_INPUTS].log_softmax(-1), outputs[Columns.EMBEDDINGS]


@pytest.mark.parametrize(
    "model", [SMALL, WINDOW, LSTM, GRU, MLP, OWN_CRITIC], ids=["ctm", "window", "lstm", "gru", "mlp", "own"]
)
def test_the_learner_computes_the_rollouts_logp_and_values(model: PolicyConfig) -> None:
    with built(config_of(model=model)) as algorithm:
        is_valid = []
        for _ in range(3):
            fragment = sample(algorithm)
            is_valid.append(fragment.is_valid)
            columns = fragment.columns()
            ((log_probabilities, values),) = on_learners(
                algorithm, lambda learner, columns=columns: ahead(learner, columns)
            )
            logp = np.take_along_axis(log_probabilities.numpy(), fragment.actions[..., None], -1)[..., 0]
            np.testing.assert_allclose(logp, fragment.logp, atol=1e-5)
            np.testing.assert_allclose(values.numpy(), fragment.values, atol=1e-5)
    assert not np.all(is_valid)


@pytest.mark.parametrize("model", [SMALL, LSTM, GRU, MLP, OWN_CRITIC], ids=["ctm", "lstm", "gru", "mlp", "own"])
def test_every_parameter_moves_and_rates_stay_inside_their_limits(model: PolicyConfig) -> None:
    with built(config_of(model=model)) as algorithm:
        (before,) = on_learners(algorithm, copy_parameters)
        results = [algorithm.train() for _ in range(2)]
        (after,) = on_learners(algorithm, copy_parameters)
    assert [name for name, value in after.items() if torch.equal(value, before[name])] == []
    learner = results[-1]["learners"][MODULE]
    assert all(math.isfinite(learner[name]) for name in ("total_loss", "policy_loss", "vf_loss", "kl", "clip_fraction"))
    assert learner["num_gradient_steps"] == 4
    assert learner["num_module_steps_trained"] == 2 * results[-1]["env_runners"]["num_env_steps_sampled"]
    if model.kind == "ctm":
        rates = after["core.output_sync.decay_rate"]
        assert (rates >= 0).all()
        assert (rates > 0).any()


def test_two_learners_take_the_step_of_one_and_stop_with_it() -> None:
    settings: dict[str, Any] = {
        "num_minibatches": 1,
        "num_epochs": 5,
        "max_grad_norm": 1e9,
        "num_rollout_steps": 24,
        "lr": 0.03,
        "target_kl": 1e-4,
        "lr_kl_target": 1e-5,
    }
    with built(config_of(**settings)) as alone:
        fragment = sample(alone)
        # Rows of very different worth and length: two learners must not each go by their own.
        rewards = fragment.rewards * np.array([[1.0], [2.0], [30.0], [40.0]], dtype=np.float32)
        is_valid = fragment.is_valid.copy()
        is_valid[0, 10:] = False
        fragment = dataclasses.replace(fragment, rewards=rewards, is_valid=is_valid)
        assert alone.learner_group is not None
        (weights,) = on_learners(alone, lambda learner: copy_state(agent_of(learner)))
        (metrics,) = alone.learner_group.update(**_shards(fragment, 0), timesteps={})
        (gradients,) = on_learners(alone, copy_gradients)
        (after,) = on_learners(alone, copy_parameters)
    with built(config_of(num_learners=2, **settings)) as together:
        on_learners(together, lambda learner: agent_of(learner).load_state_dict(weights))
        assert together.learner_group is not None
        shared = together.learner_group.update(**_shards(fragment, 2), timesteps={})
        found = on_learners(together, copy_gradients)
        moved = on_learners(together, copy_parameters)
        rates = on_learners(together, private.learning_rate_of)
        # Only one of them has moved too far: the mean counts, for both.
        on_learners(together, lambda learner: learner._adapt_learning_rate(1.0 - private.learner_index(learner)))
        factors = on_learners(together, lambda learner: learner.get_own_state()["lr_factor"])
        # It goes on from there, by itself.
        assert math.isfinite(together.train()["learners"][MODULE]["total_loss"])
    # The first step is always taken; after it the policy has moved too far, and the second's gradient is not formed.
    assert [result[MODULE]["num_gradient_steps"].peek() for result in (metrics, *shared)] == [1, 1, 1]
    assert rates == [pytest.approx(0.03 / 1.5)] * 2
    assert factors == [pytest.approx(1 / 1.5**2)] * 2
    for name, expected in gradients.items():
        for learner in range(2):
            torch.testing.assert_close(found[learner][name], expected, rtol=1e-5, atol=1e-5, msg=name)
            torch.testing.assert_close(moved[learner][name], moved[0][name], rtol=0, atol=0, msg=name)
    assert max(float(value.abs().max()) for value in gradients.values()) > 0.01
    assert any(not torch.equal(value, weights[name]) for name, value in after.items())
    for name in ("total_loss", "policy_loss", "vf_loss", "entropy", "kl"):
        mean = np.mean([result[MODULE][name].peek() for result in shared])
        assert mean == pytest.approx(metrics[MODULE][name].peek(), rel=1e-3, abs=1e-6)


def test_passes_end_when_the_policy_has_moved_too_far() -> None:
    steps = {}
    for limit in (None, 1e-4):
        with built(config_of(target_kl=limit, lr=0.03, num_epochs=5)) as algorithm:
            learner = algorithm.train()["learners"][MODULE]
            steps[limit] = learner["num_gradient_steps"]
    assert steps[None] == 10
    assert 1 <= steps[1e-4] < 10


def test_the_loss_equals_the_sum_over_valid_steps_written_out() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 5, generator=generator)
    values, old_values, advantages, returns = torch.randn(4, 3, 4, generator=generator)
    actions = torch.randint(5, (3, 4), generator=generator)
    logp = logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0] + 0.3 * torch.randn(3, 4, generator=generator)
    is_valid = torch.rand(3, 4, generator=generator) < 0.7
    for value_clip in (None, 0.2):
        loss = ppo_loss(
            chosen(logits, actions),
            values,
            logp=logp,
            old_values=old_values,
            advantages=advantages,
            returns=returns,
            weights=is_valid / is_valid.sum(),
            clip=0.1,
            value_clip=value_clip,
            value_coefficient=0.7,
            entropy_coefficient=0.05,
        )
        policy, value, entropy, kl, outside = [], [], [], [], []
        for row, step in is_valid.nonzero().tolist():
            p = logits[row, step].softmax(-1)
            ratio = float(p[actions[row, step]] / logp[row, step].exp())
            advantage = float(advantages[row, step])
            policy.append(-min(ratio * advantage, max(0.9, min(1.1, ratio)) * advantage))
            error = float(values[row, step] - returns[row, step]) ** 2
            if value_clip is not None:
                old = float(old_values[row, step])
                held = max(old - 0.2, min(old + 0.2, float(values[row, step])))
                error = max(error, (held - float(returns[row, step])) ** 2)
            value.append(error / 2)
            entropy.append(-float((p * p.log()).sum()))
            kl.append(ratio - 1 - math.log(ratio))
            outside.append(abs(ratio - 1) > 0.1)
        expected = [np.mean(part) for part in (policy, value, entropy, kl, outside)]
        np.testing.assert_allclose([float(part) for part in loss[1:]], expected, rtol=1e-5)
        assert float(loss.total) == pytest.approx(expected[0] + 0.7 * expected[1] - 0.05 * expected[2], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_minibatches": 3}, r"num_minibatches 3 x 1 learners must divide the 4 environments .* work: 3 or 6\."),
        ({"num_learners": 2, "num_minibatches": 3}, r"3 x 2 learners must divide .* work: 6\."),
        ({"num_env_runners": 2, "num_minibatches": 16}, r"the 8 environments \(2 x 4\).* work: 8\."),
    ],
)
def test_environments_that_make_no_equal_minibatches_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(**changes)
    config = RecurrentPPOConfig().environment("CartPole-v1")
    config.env_runners(num_env_runners=changes.get("num_env_runners", 0), num_envs_per_env_runner=4)
    config.learners(num_learners=changes.get("num_learners", 0))
    config.training(num_minibatches=changes["num_minibatches"])
    with pytest.raises(ValueError, match=message):
        config.validate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minibatch_size": 64}, "minibatch_size has no effect .*use num_minibatches"),
        ({"use_kl_loss": True}, "use_kl_loss has no effect .*use target_kl"),
        ({"vf_clip_param": 10.0}, "vf_clip_param has no effect .*use value_clip"),
        ({"grad_clip_by": "value"}, "grad_clip_by has no effect"),
        ({"target_kl": 0.0}, "^target_kl must be above 0"),
        ({"lr_kl_target": 0.0}, "^lr_kl_target must be above 0"),
        ({"lr_kl_target": 0.02, "target_kl": 0.02}, r"^lr_kl_target must be below target_kl \(0.02\)"),
        ({"lambda_": 2.0}, "^lambda_ must be at least 0 and at most 1, got 2.0"),
        ({"num_minibatches": 0}, "num_minibatches must be at least 1"),
        ({"train_batch_size_per_learner": 1000}, "has no effect .*32 environments x 64 steps make 2048"),
        ({"train_batch_size": 2000}, "has no effect .*32 environments x 64 steps make 2048"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    config = RecurrentPPOConfig().environment("CartPole-v1").training(**settings)
    with pytest.raises(ValueError, match=message) as caught:
        config.validate()
    assert "\n" not in str(caught.value)


def test_every_setting_has_one_place_in_the_configuration() -> None:
    settings = PPOSettings(
        lr=0.02,
        gamma=0.8,
        gae_lambda=0.7,
        reward_scale=3.0,
        normalize_rewards=True,
        clip=0.3,
        value_clip=0.4,
        target_kl=0.05,
        lr_kl_target=0.01,
        noise_correlation=0.5,
        entropy_coefficient=0.06,
        value_coefficient=0.9,
        max_grad_norm=1.5,
        adam_epsilon=1e-7,
        num_epochs=6,
        num_minibatches=7,
        num_rollout_steps=9,
        collect_ahead=True,
    )
    config = RecurrentPPOConfig().training(ppo=settings, num_minibatches=8)
    of_rllib = config.lr, config.entropy_coeff, config.grad_clip, config.rollout_fragment_length
    assert of_rllib == (0.02, 0.06, 1.5, 9)
    assert (config.gamma, config.lambda_, config.clip_param, config.vf_loss_coeff) == (0.8, 0.7, 0.3, 0.9)
    defaults = {"lr": 1e-3, "entropy_coefficient": 0.01, "max_grad_norm": 0.5, "num_rollout_steps": 64}
    assert config.ppo == dataclasses.replace(settings, num_minibatches=8, **defaults)
    with pytest.raises(TypeError, match="num_minibatch"):
        config.training(num_minibatch=3)


def test_tune_may_search_any_setting() -> None:
    space = RecurrentPPOConfig().training(target_kl=tune.grid_search([0.01, 0.02])).to_dict()
    assert space["target_kl"] == {"grid_search": [0.01, 0.02]}
    assert RecurrentPPOConfig().update_from_dict({**space, "target_kl": 0.02}).ppo.target_kl == 0.02


def test_only_the_callback_of_samples_is_refused() -> None:
    class WithSampleEnd(RLlibCallback):
        def on_sample_end(self, **kwargs: Any) -> None:
            pass

    class WithEpisodeEnd(RLlibCallback):
        def on_episode_end(self, **kwargs: Any) -> None:
            pass

    RecurrentPPOConfig().environment("CartPole-v1").callbacks(WithEpisodeEnd, on_train_result=print).validate()
    refused: list[dict[str, Any]] = [{"callbacks_class": WithSampleEnd}, {"on_sample_end": print}]
    for wrong in refused:
        config = RecurrentPPOConfig().environment("CartPole-v1").callbacks(**wrong)
        with pytest.raises(ValueError, match=r"on_sample_end has no effect .* use on_episode_end"):
            config.validate()


def test_rewards_may_be_normalised_and_are_reported_raw() -> None:
    with built(config_of(normalize_rewards=True)) as algorithm:
        fragment = sample(algorithm)
        result = algorithm.train()
    assert not np.isin(fragment.rewards[fragment.is_valid], [0.0, 1.0]).any()
    episodes = finished_episodes(result)
    assert episodes
    assert all(episode.episode_return == episode.length for episode in episodes)
    runners = result["env_runners"]
    assert runners["episode_return_mean"] == runners["episode_len_mean"] > 5


class Fragile(gym.Env[np.ndarray, int]):
    """Raises in its ninth step, the first time only that a process plays it."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    has_failed = False

    def __init__(self, context: dict[str, Any]) -> None:
        self.flag = Path(context["flag"])
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        if self.steps == 9 and not self.flag.exists():
            self.flag.touch()
            raise RuntimeError("fragile")
        return np.zeros(2, np.float32), 1.0, self.steps % 5 == 0, False, {}


def rllib_config(env: Any, **env_config: Any) -> RecurrentPPOConfig:
    """A configuration as a user of RLlib writes it."""
    config = RecurrentPPOConfig().environment(env, env_config=env_config)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=8)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=CTMModule, model_config=dataclasses.asdict(SMALL)))
    config.training(num_minibatches=2, num_epochs=1)
    config.debugging(seed=3, log_level="ERROR", log_sys_usage=False)
    return config


def test_environments_that_fail_are_recreated_if_configured(tmp_path: Path) -> None:
    config = rllib_config(Fragile, flag=str(tmp_path / "flag"))
    config.env_runners(rollout_fragment_length=20)
    config.fault_tolerance(restart_failed_sub_environments=True)
    with built(config) as algorithm:
        result = algorithm.train()
    assert (tmp_path / "flag").exists()
    # 20 steps of 4 environments; three of four ends are followed by an autoreset step in it.
    assert result["env_runners"]["num_env_steps_sampled"] == 4 * 17
    assert {episode.length for episode in finished_episodes(result)} == {5}


def test_a_killed_environment_runner_is_replaced_and_training_goes_on() -> None:
    config = config_of(num_env_runners=1)
    config.fault_tolerance(delay_between_env_runner_restarts_s=0)
    with built(config) as algorithm:
        assert playing_and_ages(algorithm, 2) == ([0, 0], [0, 0])
        group: Any = algorithm.env_runner_group
        assert group.local_env_runner.env is None
        ray.kill(group._worker_manager.actors()[1], no_restart=False)
        result = algorithm.train()
        assert group.num_remote_worker_restarts() == 1
        assert result["env_runners"]["num_env_steps_sampled"] > 50
        assert math.isfinite(result["learners"][MODULE]["total_loss"])
        # It has the newest weights, and knows how far the run is: its environments' seeds go by that.
        ((weights, lifetime),) = group.foreach_env_runner(
            lambda runner: (runner.module.get_state(), runner.num_env_steps_sampled_lifetime), local_env_runner=False
        )
        assert lifetime > 50
        (expected,) = on_learners(algorithm, lambda learner: learner.module[MODULE].unwrapped().get_state())
        np.testing.assert_equal(weights, expected)


def test_a_runner_that_comes_late_plays_other_episodes_than_one_of_the_start() -> None:
    firsts = []
    for lifetime in (0, 0, 500):
        runner = ColumnarEnvRunner(config=config_of(), worker_index=0)
        runner.set_state({"num_env_steps_sampled_lifetime": lifetime})
        firsts.append(runner.sample(num_timesteps=3))
        runner.stop()
    np.testing.assert_array_equal(firsts[0].observations, firsts[1].observations)
    np.testing.assert_array_equal(firsts[0].actions, firsts[1].actions)
    assert (firsts[2].observations[:, 0] != firsts[0].observations[:, 0]).any()
    with pytest.raises(ValueError, match="num_episodes is not supported"):
        runner.sample(num_episodes=3)


def test_environments_in_processes_of_their_own_play_the_same() -> None:
    fragments = []
    for vectorization in ("sync", "async"):
        env = EnvConfig(
            id="Acrobot-v1", wrappers=("hide-velocities",), max_episode_steps=6, vectorization=vectorization
        )
        runner = ColumnarEnvRunner(config=config_of(env=env), worker_index=0)
        assert type(runner.env.unwrapped).__name__.endswith(f"{vectorization.title()}VectorEnv")
        fragments.append(runner.sample(num_timesteps=9))
        runner.stop()
    for name, column in fragments[0].columns().items():
        np.testing.assert_equal(fragments[1].columns()[name], column)
    assert fragments[0].is_last.any()


def test_an_iteration_goes_on_with_the_environments_that_were_collected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with built(config_of()) as algorithm:
        answers = []

        def lose(collector: Any, tick_seed: int | None) -> tuple[list[RolloutFragment], list[Any]]:
            fragments, metrics = complete(collector, tick_seed)
            answers.append(len(answers))
            # Nobody at first, then three of four environments: one too many for two minibatches.
            return ([], []) if len(answers) == 1 else ([fragments[0].rows(0, 3)], metrics)

        complete = Collector._play_all
        monkeypatch.setattr(Collector, "_play_all", lose)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        learner = algorithm.train()["learners"][MODULE]
    assert len(answers) == 2
    assert learner["num_gradient_steps"] == 4
    assert learner["module_train_batch_size_mean"] <= 16
    assert "0 of 4 environments were played, and 2 are needed at least" in caplog.text
    assert "3 of 4 environments were played; the iteration goes on with 2 of them." in caplog.text


def playing_and_ages(algorithm: Algorithm, num_iterations: int) -> tuple[list[int], list[int]]:
    """Of iterations: runners that play while the learner learns, and the age of the weights that were played with."""
    group, learners = algorithm.env_runner_group, algorithm.learner_group
    assert group is not None
    assert learners is not None
    num_envs = 4 * group.num_remote_env_runners()
    playing, ages = [], []
    update = learners.update

    def observed(**kwargs: Any) -> Any:
        playing.append(group.num_in_flight_async_reqs("fragments"))
        return update(**kwargs)

    learners.update = observed  # pyright: ignore[reportAttributeAccessIssue]
    for iteration in range(num_iterations):
        result = algorithm.train()
        ages.append(iteration - int(result["env_runners"]["weights_seq_no"]))
        assert result["learners"][MODULE]["module_train_batch_size_mean"] <= num_envs * 16 / 2
        assert result["env_runners"]["num_env_steps_sampled"] >= num_envs * (16 - 1)  # without autoreset steps
    learners.update = update  # pyright: ignore[reportAttributeAccessIssue]
    return playing, ages


def test_runners_collect_during_the_update_if_configured() -> None:
    with built(config_of(num_env_runners=2, collect_ahead=True)) as algorithm:
        assert playing_and_ages(algorithm, 4) == ([2] * 4, [0, 1, 1, 1])
        assert_a_lost_runner_is_replaced(algorithm)


def assert_a_lost_runner_is_replaced(algorithm: Algorithm) -> None:
    """One of two, which plays ahead."""
    group: Any = algorithm.env_runner_group
    ray.kill(next(iter(group._worker_manager.actors().values())), no_restart=False)
    rows = []
    for _ in range(100):
        result = algorithm.train()
        rows.append(round(result["env_runners"]["num_env_steps_sampled"] / 16))
        if len(rows) > 2 and rows[-1] > 4:
            break
        time.sleep(0.1)
    assert min(rows) <= 4 < rows[-1]  # one runner's four environments, then those of both again


def test_collect_ahead_changes_nothing_if_weights_are_current() -> None:
    with built(config_of()) as algorithm:
        fragment = sample(algorithm)
        (learner,) = on_learners(algorithm, lambda learner: learner)
        weights, own = copy_parameters(learner), learner.get_own_state()
        found = []
        for is_ahead in (False, True):
            for name, value in agent_of(learner).named_parameters():
                value.data.copy_(weights[name])
            for optimizer in learner._optimizer_parameters:
                optimizer.state.clear()
            learner.set_own_state(own)
            learner.config = learner.config.copy(copy_frozen=False)
            learner.config.collect_ahead = is_ahead
            learner.update(batch=batch_of(fragment.columns(), fragment.num_steps))
            found.append(copy_parameters(learner))
        assert any(not torch.equal(found[0][name], weights[name]) for name in weights)
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_ratios_are_relative_to_the_policy_before_the_update() -> None:
    with built(config_of()) as algorithm:
        (learner,) = on_learners(algorithm, lambda learner: learner)
        fragment = sample(algorithm)
        columns = to_device(fragment.columns(), "cpu")
        older = torch.linspace(-1.0, 1.0, columns[Columns.ACTION_LOGP].numel()).view_as(columns[Columns.ACTION_LOGP])
        columns[Columns.ACTION_LOGP] = columns[Columns.ACTION_LOGP] + older
        ratios = learner._recompute_logp(columns)
    valid = fragment.is_valid
    np.testing.assert_allclose(columns[Columns.ACTION_LOGP].numpy()[valid], fragment.logp[valid], atol=1e-5)
    np.testing.assert_allclose(ratios[valid], np.minimum(np.exp(-older.numpy()), 1.0)[valid], rtol=1e-4)


def test_tune_runs_it(tmp_path: Path) -> None:
    param_space: Any = rllib_config("CartPole-v1")
    results = tune.Tuner(
        RecurrentPPO,
        param_space=param_space.training(lr=tune.grid_search([1e-3])),
        run_config=tune.RunConfig(
            stop={"training_iteration": 2},
            storage_path=str(tmp_path),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
    ).fit()
    assert not results.errors
    metrics = results[0].metrics
    assert metrics is not None
    assert metrics["training_iteration"] == 2
    assert metrics["env_runners"]["num_env_steps_sampled_lifetime"] > 50
    assert math.isfinite(metrics["learners"][MODULE]["total_loss"])
    checkpoint = results[0].checkpoint
    assert checkpoint is not None
    restored = RecurrentPPO.from_checkpoint(checkpoint.path)
    try:
        assert restored.train()["training_iteration"] == 3
    finally:
        restored.stop()


def test_an_environment_is_all_that_a_configuration_needs() -> None:
    config = RecurrentPPOConfig().environment("CartPole-v1")
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=4)
    config.evaluation(evaluation_interval=1, evaluation_duration=2)
    config.debugging(log_level="ERROR", log_sys_usage=False)
    with built(config) as algorithm:
        result = algorithm.train()
        runner: Any = algorithm.env_runner
        assert type(runner.env.unwrapped).__name__ == "CartPoleVectorEnv"
        assert runner.module.agent.config == dataclasses.replace(PolicyConfig.recommended(), encoder="plain")
    assert result["evaluation"]["env_runners"]["episode_return_mean"] > 5
    assert set(result["timers"]) >= {"env_runner_sampling_timer", "learner_update_timer", "synch_weights"}


def test_the_clip_range_falls_over_the_budget_and_a_restored_learner_goes_on_with_it() -> None:
    annealed = config_of(is_clip_annealed=True, budget=BudgetConfig(env_steps=1000))
    assert annealed.clip_param == [[0, 0.2], [1000, 0.0]]
    with built(annealed) as algorithm:
        (learner,) = on_learners(algorithm, lambda learner: learner)
        found = [learner.clip]
        for _ in range(2):
            steps = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
            found.append(learner.clip)
            assert found[-1] == pytest.approx(0.2 * (1 - steps / 1000))
        assert 0.17 < found[2] < 0.18 < found[1] < 0.19 < found[0] == 0.2
        state, of_rllib, expected = learner_state(algorithm), learner.get_state(), learner.clip
        for restored in (lambda: restore(algorithm, state), lambda: learner.set_state(of_rllib)):
            learner.set_clip(0)
            restored()
            assert learner.clip == expected
        # what the loss clips by: with next to nothing, every step that moves at all is outside
        learner.clip = 1e-9
        fragment = sample(algorithm)
        metrics = learner.update(batch=batch_of(fragment.columns(), fragment.num_steps))
        assert metrics[MODULE]["clip_fraction"].peek() > 0.5
    assert config_of().clip_param == 0.2


def test_the_learning_rate_follows_the_kl_divergence_and_survives_a_checkpoint() -> None:
    rate = "default_optimizer_learning_rate"
    with built(config_of(lr=0.03, lr_kl_target=1e-6)) as algorithm:
        (learner,) = on_learners(algorithm, lambda learner: learner)
        results = [algorithm.train()["learners"][MODULE] for _ in range(3)]
        assert all(result["kl"] > 2e-6 for result in results)
        # The rate that an iteration learned with, and RLlib's key, which has that of the next one.
        assert [result["lr"] for result in results] == pytest.approx([0.03, 0.02, 0.03 / 1.5**2])
        assert results[-1][rate] == private.learning_rate_of(learner) == pytest.approx(0.03 / 1.5**3)
        saved, of_rllib = learner_state(algorithm), learner.get_state()
        for restored in (lambda: restore(algorithm, saved), lambda: learner.set_state(of_rllib)):
            learner._lr_factor = 1.0
            restored()
            assert learner._lr_factor == pytest.approx(1 / 1.5**3)
            assert private.learning_rate_of(learner) == pytest.approx(0.03 / 1.5**3)
    assert "lr_factor" in saved["own"]


@pytest.mark.parametrize("annealed", [False, True])
def test_the_learning_rate_rises_again_but_not_above_its_schedule(annealed: bool) -> None:
    settings: dict[str, Any] = {"lr": 0.02, "lr_kl_target": 1e3, "is_lr_annealed": annealed, "num_epochs": 1}
    with built(config_of(budget=BudgetConfig(env_steps=1000), **settings)) as algorithm:
        steps = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
        ((found, own),) = on_learners(algorithm, lambda learner: (private.learning_rate_of(learner), learner))
        assert own.get_own_state()["lr_factor"] == (1.0 if annealed else 1.5)
        own.set_own_state({**own.get_own_state(), "lr_factor": 4.0})  # of a run without a schedule
        assert own.get_own_state()["lr_factor"] == (1.0 if annealed else 4.0)
    assert found == pytest.approx(0.02 * (1 - steps / 1000) if annealed else 0.03)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (0.0, "^clip_param must be above 0, got 0.0"),
        ([[0, -0.1], [100, 0.1]], "^clip_param must be above 0, got -0.1"),
        ([[0, 0.2], [100, -0.1]], "^clip_param must be at least 0, got -0.1"),
        ([[5, 0.2], [100, 0.1]], "`clip_param` schedule, the first timestep must be 0"),
        ([[0, 0.2]], "Invalid `clip_param`"),
    ],
)
def test_a_wrong_clip_range_is_refused(clip: Any, message: str) -> None:
    config = RecurrentPPOConfig().environment("CartPole-v1").training(clip_param=clip)
    with pytest.raises(ValueError, match=message) as caught:
        config.validate()
    assert "\n" not in str(caught.value)


def test_a_schedule_of_the_clip_range_is_read_by_its_first_value() -> None:
    config = RecurrentPPOConfig().environment("CartPole-v1").training(clip_param=[[0, 0.3], [1000, 0.1]])
    config.validate()
    assert config.ppo.clip == 0.3
