"""Bandits: what is learned from rewards alone, that nothing else gets through, and that a run goes on as it was."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle
from ray.rllib.core import DEFAULT_MODULE_ID
from tiny_runs import comparable
from torch import Tensor

from ctm_rl.agents.bandit.env_runner import ACTIONS, LOGP, BanditRunner
from ctm_rl.agents.bandit.module import LOGITS, VALUES, BanditModule
from ctm_rl.agents.experiments.answering import (
    AnsweringExperiment,
    BanditSettings,
    HeldOutSettings,
    LearningSettings,
    TaskConfig,
)
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.runs.answering_task import BANDIT_METRICS
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, REWARDS
from ctm_rl.agents.supervised.scoring import Tally
from ctm_rl.cli.main import main
from ctm_rl.config import AnswerConfig
from ctm_rl.configs import load
from ctm_rl.errors import UserError

pytestmark = [
    # RLlib calls parts of itself that it has deprecated, and leaves files and loggers to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Learners in processes of their own cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PARITY = "ctm_rl.envs:ctm_rl/Parity-v0"
SMALL = AnswerConfig(
    encoder="none",
    num_heads=0,
    num_neurons=12,
    history_length=3,
    num_ticks=2,
    nlm_hidden_dim=2,
    num_output_sync_neurons=5,
)
EXPERIMENT = AnsweringExperiment(
    name="small",
    env=TaskConfig(id=PARITY, kwargs={"length": 3}),
    model=SMALL,
    signal="reward",
    learning=LearningSettings(batch_size=8, num_steps_per_iteration=3, num_warmup_steps=0, lr=1e-2),
    bandit=BanditSettings(num_epochs=2, entropy_coefficient=0.02, entropy_coefficient_final=0.01),
    held_out=HeldOutSettings(num_samples=20, num_iterations=2),
    budget=BudgetConfig(env_steps=24 * 4),
    seed=7,
)


def changed(*, learning: dict[str, Any] | None = None, bandit: dict[str, Any] | None = None, **changes: Any) -> Any:
    """The configuration of a small experiment."""
    experiment = dataclasses.replace(
        EXPERIMENT,
        learning=dataclasses.replace(EXPERIMENT.learning, **(learning or {})),
        bandit=dataclasses.replace(EXPERIMENT.bandit, **(bandit or {})),
        **changes,
    )
    return build_algorithm_config(experiment)


@contextmanager
def built(config: Any) -> Iterator[Any]:
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


def on_learners(algorithm: Any, function: Callable[[Any], Any]) -> list[Any]:
    """Calls a function with every learner."""
    return [result.get() for result in algorithm.learner_group.foreach_learner(lambda learner, *_: function(learner))]


def copy_gradients(learner: Any) -> dict[str, Tensor]:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}


def columns_of(batch: Any) -> dict[str, Any]:
    return dict(batch.policy_batches[DEFAULT_MODULE_ID])


def drawn(runner: BanditRunner, **order: Any) -> dict[str, Any]:
    return columns_of(runner.sample(**order))


@pytest.mark.usefixtures("ray_session")
def test_the_loss_of_a_batch_equals_the_sum_over_its_answers_written_out() -> None:
    settings = {"num_steps_per_iteration": 1}
    with built(changed(learning=settings, bandit={"num_epochs": 1})) as algorithm:
        columns = columns_of(algorithm._samples(0)["batch"])
        # A policy that is not the one that acted, so that ratios differ from 1.
        columns[LOGP] = columns[LOGP] + np.linspace(-0.5, 0.5, 8, dtype=np.float32)
        columns[VALUES] = np.linspace(0.1, 0.9, 8, dtype=np.float32)
        learner = algorithm.learner_group._learner
        with torch.no_grad():
            outputs = learner.module[DEFAULT_MODULE_ID].forward_train({"obs": torch.as_tensor(columns[OBSERVATIONS])})
        learner._learn(columns)
        found = {name: learner.metrics.peek((DEFAULT_MODULE_ID, name)) for name in ("total_loss", "kl", "reward_mean")}
    advantages = columns[REWARDS] - columns[VALUES]
    advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)
    total, divergence = [], []
    for row in range(8):
        logp, entropy = 0.0, 0.0
        for element in range(3):
            p = outputs[LOGITS][row, element].double().softmax(-1)
            logp += math.log(p[columns[ACTIONS][row, element]])
            entropy -= float((p * p.log()).sum())
        ratio = math.exp(logp - columns[LOGP][row])
        policy = -min(ratio * advantages[row], max(0.8, min(1.2, ratio)) * advantages[row])
        error = (float(outputs[VALUES][row]) - columns[REWARDS][row]) ** 2
        total.append(policy + 0.5 * error / 2 - 0.02 * entropy)
        divergence.append(ratio - 1 - math.log(ratio))
    assert found["total_loss"] == pytest.approx(np.mean(total), rel=1e-4)
    assert found["kl"] == pytest.approx(np.mean(divergence), rel=1e-4)
    assert found["reward_mean"] == pytest.approx(columns[REWARDS].mean())


@pytest.mark.usefixtures("ray_session")
def test_the_learner_computes_what_the_runner_acted_on_and_is_never_observations_a_target() -> None:
    with built(changed()) as algorithm:
        columns = columns_of(algorithm._samples(0)["batch"])
        module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
        with torch.no_grad():
            outputs = module.forward_train({"obs": torch.as_tensor(columns[OBSERVATIONS])})
    assert set(columns) == {OBSERVATIONS, ACTIONS, LOGP, VALUES, REWARDS}
    assert columns[OBSERVATIONS].shape == (24, 3)
    probabilities = outputs[LOGITS].log_softmax(-1).numpy()
    logp = np.take_along_axis(probabilities, columns[ACTIONS][..., None], -1)[..., 0].sum(1)
    np.testing.assert_allclose(logp, columns[LOGP], atol=1e-5)
    np.testing.assert_allclose(outputs[VALUES].numpy(), columns[VALUES], atol=1e-5)
    # The rewards are those of the answers to the observations.
    targets = np.cumsum(columns[OBSERVATIONS] < 0, 1) % 2
    np.testing.assert_allclose(columns[REWARDS], (columns[ACTIONS] == targets).mean(1), atol=1e-6)
    assert columns[REWARDS].dtype == np.float32
    assert 0 < columns[REWARDS].std()


@pytest.mark.usefixtures("ray_session")
def test_two_learners_take_the_step_of_one() -> None:
    one: dict[str, Any] = {"learning": {"num_steps_per_iteration": 1}, "bandit": {"num_epochs": 1}}
    with built(changed(**one)) as alone, built(changed(num_learners=2, **one)) as together:
        columns = columns_of(alone._samples(0)["batch"])
        # Rows of very different worth: two learners must not each go by their own.
        columns[REWARDS] = columns[REWARDS] + np.arange(8, dtype=np.float32)
        weights = alone.learner_group.get_weights()
        on_learners(together, lambda learner: learner.module[DEFAULT_MODULE_ID].set_state(weights[DEFAULT_MODULE_ID]))
        on_learners(alone, lambda learner: learner._learn(columns))
        (expected,) = on_learners(alone, copy_gradients)

        def learn_half(learner: Any) -> dict[str, Tensor]:
            first = 4 * learner._learner_index
            learner._learn({name: column[first : first + 4] for name, column in columns.items()})
            return copy_gradients(learner)

        found = on_learners(together, learn_half)
        # It goes on from there, by itself.
        assert math.isfinite(together.train()["learners"][DEFAULT_MODULE_ID]["total_loss"])
    for name, gradient in expected.items():
        for gradients in found:
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert max(float(value.abs().max()) for value in expected.values()) > 0.01


@pytest.mark.usefixtures("ray_session")
def test_parts_of_a_batch_that_are_learned_one_after_the_other_give_the_gradient_of_the_whole() -> None:
    gradients = []
    for num_accumulated in (1, 4):
        settings = {"num_steps_per_iteration": 1, "num_accumulated": num_accumulated}
        with built(changed(learning=settings, bandit={"num_epochs": 1})) as algorithm:
            columns = columns_of(algorithm._samples(0)["batch"])
            on_learners(algorithm, lambda learner, columns=columns: learner._learn(columns))
            gradients.append(on_learners(algorithm, copy_gradients)[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_what_is_drawn_depends_on_seed_number_and_weights_alone() -> None:
    first, second = (BanditRunner(config=changed(), worker_index=0) for _ in range(2))
    second.set_state({"rl_module": first._answering().get_state()})
    order = {"iteration": 3, "part": 1}
    whole = drawn(first, **order)
    first.sample(iteration=4)
    for other in (drawn(first, **order), drawn(second, **order)):
        np.testing.assert_equal(other, whole)
    # Runners that share a part draw what one alone would.
    shared = [drawn(second, **order, steps=steps) for steps in (range(2, 3), range(2))]
    for name, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([shared[1][name], shared[0][name]]), column)
    for numbers in ({"iteration": 4, "part": 1}, {"iteration": 3, "part": 0}):
        other = drawn(first, **numbers)
        assert (other[OBSERVATIONS] != whole[OBSERVATIONS]).any()
        assert (other[ACTIONS] != whole[ACTIONS]).any()
    for runner in (first, second):
        runner.stop()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    # A lost one of two: supervised/test_learner.py has it too, with the runners' other half.
    ("num_env_runners", "num_learners"),
    [pytest.param(2, 0, marks=pytest.mark.slow), (1, 1)],
)
def test_remote_runners_answer_with_the_newest_weights_and_a_lost_one_changes_nothing(
    num_env_runners: int, num_learners: int
) -> None:
    weights = []
    for numbers in (0, 0), (num_env_runners, num_learners):
        config = changed(num_env_runners=numbers[0], num_learners=numbers[1], num_cpus_per_env_runner=0.5)
        config.fault_tolerance(delay_between_env_runner_restarts_s=0)
        with built(config) as algorithm:
            algorithm.train()
            if numbers[0] == 2:
                ray.kill(algorithm.env_runner_group._worker_manager.actors()[1], no_restart=False)
            result = algorithm.train()
            assert result["env_runners"]["num_env_steps_sampled"] == 24
            weights.append(algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID])
    np.testing.assert_equal(weights[1], weights[0])


def test_answers_are_those_of_the_most_certain_tick_and_values_send_no_gradient_into_the_model() -> None:
    module = changed().get_rl_module_spec(spaces=BanditRunner(config=changed()).get_spaces()).build()
    assert isinstance(module, BanditModule)
    observations = torch.randint(2, (9, 3), generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
    outputs = module.forward_train({"obs": observations})
    thought = module.think(observations)
    for row, tick in enumerate(thought.certainties.argmax(1).tolist()):
        torch.testing.assert_close(outputs[LOGITS][row].flatten(), thought.predictions[row, :, tick])
    outputs[VALUES].sum().backward()
    moved = {name for name, value in module.named_parameters() if value.grad is not None and value.grad.any()}
    assert moved == {"value.weight", "value.bias"}
    answered = module.answer(observations.repeat(500, 1), torch.Generator().manual_seed(2))
    found = answered.actions.view(500, 9, 3).float().mean(0)
    torch.testing.assert_close(found, outputs[LOGITS].softmax(-1)[..., 1].detach(), atol=0.1, rtol=0)


@pytest.mark.usefixtures("ray_session")
def test_a_small_bandit_learns_parity_from_its_rewards() -> None:
    config = changed(
        env=TaskConfig(id=PARITY, kwargs={"length": 2}),
        learning={"batch_size": 128, "num_steps_per_iteration": 10, "lr": 0.005, "schedule": "constant"},
        bandit={"num_epochs": 1},
    )
    with built(config) as algorithm:
        before = algorithm.test()
        rewards = [algorithm.train()["learners"][DEFAULT_MODULE_ID]["reward_mean"] for _ in range(12)]
        after = algorithm.test()
    assert before.whole / before.num_samples < 0.8
    assert after.whole / after.num_samples == 1.0
    assert rewards[0] < 0.8
    assert rewards[-1] > 0.95


class OneOrOther(gym.Env[np.ndarray, int]):
    """The answer is whether a number is above 0; optionally continues for a second step."""

    def __init__(self, num_steps: int = 1) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self._num_steps, self._target = num_steps, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._left = self._num_steps
        observations = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self._target = int(observations[0] > 0)
        return observations, {"target": self._target}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._left -= 1
        assert np.ndim(action) == 0
        return np.zeros(2, np.float32), float(action == self._target), self._left == 0, False, {}


@pytest.mark.parametrize("num_steps", [1, 2])
def test_environments_of_the_users_own_are_answered_one_by_one_and_must_end(num_steps: int) -> None:
    gym.register("OneOrOther-v0", cast(Any, OneOrOther))
    try:
        runner = BanditRunner(config=changed(env=TaskConfig(id="OneOrOther-v0", kwargs={"num_steps": num_steps})))
        if num_steps == 2:
            with pytest.raises(UserError, match="cannot be learned from rewards: its episodes go on after the first"):
                runner.sample()
            return
        columns = drawn(runner)
        assert columns[ACTIONS].shape == (24, 1)
        is_right = columns[ACTIONS][:, 0] == (columns[OBSERVATIONS][:, 0] > 0)
        np.testing.assert_array_equal(columns[REWARDS], is_right.astype(np.float32))
        runner.stop()
    finally:
        gym.registry.pop("OneOrOther-v0")


TINY = (
    *("--env.kwargs", '{"length": 3}', "--model.num-neurons", "16", "--model.num-ticks", "2"),
    *("--model.num-output-sync-neurons", "5", "--model.num-action-sync-neurons", "5", "--model.feature-dim", "8"),
    *("--model.num-heads", "2", "--learning.batch-size", "8", "--learning.num-steps-per-iteration", "3"),
    *("--bandit.num-epochs", "2", "--held-out.num-samples", "16", "--held-out.num-iterations", "1"),
)


@pytest.mark.usefixtures("ray_session")
def test_a_run_that_was_resumed_equals_one_that_was_not(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "parity-bandit", *TINY, "--learning.schedule", "constant", "--bandit.entropy-coefficient"]
    # Neither the rate nor the weight of the entropy goes by the budget here, which differs.
    arguments += ["0.01", "--bandit.entropy-coefficient-final", "None", "--run-dir"]
    assert main([*arguments, "whole", "--budget.env-steps", "96"]) == 0
    assert main([*arguments, "parts", "--budget.env-steps", "48"]) == 0
    assert main(["resume", "parts", "--budget.env-steps", "96"]) == 0
    assert comparable("parts") == comparable("whole")
    rows = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [list(BANDIT_METRICS)] * 4
    assert [row["env_steps"] for row in rows] == [24, 48, 72, 96]
    assert {name for row in rows for name, value in row.items() if value is None} == {"held_out_loss"}
    assert main(["evaluate", "whole", "--episodes", "20", "--json"]) == 0
    assert "accuracy_by_tick" in capsys.readouterr().out


def test_what_rewards_cannot_teach_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sorting", "--signal", "reward"]) == 2
    assert "signal reward needs one answer at one tick; an order is spread over all ticks" in capsys.readouterr().err
    reward: dict[str, Any] = {"env": EXPERIMENT.env, "model": SMALL, "name": "x", "signal": "reward"}
    with pytest.raises(ValueError, match="use_most_certain cannot be False with signal reward"):
        AnsweringExperiment(**reward, learning=LearningSettings(use_most_certain=False))
    with pytest.raises(ValueError, match=r"learning\.batch_size must be at least 2"):
        AnsweringExperiment(**reward, learning=LearningSettings(batch_size=1))
    with pytest.raises(ValueError, match=r"bandit\.\* fields have no effect with signal label"):
        dataclasses.replace(EXPERIMENT, signal="label")
    wrong: list[dict[str, Any]] = [
        {"clip": 0.0},
        {"num_epochs": 0},
        {"entropy_coefficient": -1.0},
        {"value_coefficient": math.nan},
    ]
    for settings in wrong:
        with pytest.raises(ValueError, match=f"bandit.{next(iter(settings))} must be"):
            BanditSettings(**settings)


def test_steps_of_the_whole_run_count_every_pass() -> None:
    assert EXPERIMENT.num_steps == 2 * 12
    assert dataclasses.replace(EXPERIMENT, signal="label", bandit=BanditSettings()).num_steps == 12


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", ["qa-mnist", "mnist"])
def test_other_tasks_are_answered_and_learned_from(name: str) -> None:
    experiment = load(name)
    assert isinstance(experiment, AnsweringExperiment)
    experiment = dataclasses.replace(
        experiment,
        signal="reward",
        model=dataclasses.replace(experiment.model, dropout=0.0),
        learning=LearningSettings(loss=experiment.learning.loss, batch_size=6, num_steps_per_iteration=2),
        held_out=HeldOutSettings(num_samples=6),
    )
    with built(build_algorithm_config(experiment)) as algorithm:
        learner = algorithm.train()["learners"][DEFAULT_MODULE_ID]
        assert math.isfinite(learner["total_loss"])
        tally = algorithm.test()
    assert isinstance(tally, Tally)
    assert tally.num_samples == 6
