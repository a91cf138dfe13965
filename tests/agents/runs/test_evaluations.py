"""Evaluation while training: beside it or between iterations, without a trace in training, and the best weights."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from tiny_runs import Killed, budget, comparable, stop_in, train

from ctm_rl.agents.evaluation import evaluator
from ctm_rl.agents.evaluation.evaluator import EvaluationLost, Evaluator
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.settings import EvalSettings
from ctm_rl.agents.rllib.iteration import IterationStopped
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.runs.evaluations import EVAL_METRICS, Evaluations
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import read_best
from ctm_rl.cli.main import main

EVAL = ("--eval.every", "2", "--eval.episodes", "3")


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CPU core is free: evaluations are played in the training process."""
    monkeypatch.setattr(evaluator, "has_spare_cpu", lambda experiment: False)


def training_metrics(run: str) -> list[dict[str, Any]]:
    """The metrics of training alone."""
    return [{name: value for name, value in row.items() if name not in EVAL_METRICS} for row in comparable(run)]


def evaluations_of(run: str) -> dict[int, tuple[Any, ...]]:
    """The results of a run's evaluations, by their iterations."""
    rows = [row for row in read_metrics(Path(run)) if row["eval_iteration"] is not None]
    return {int(row["eval_iteration"] or 0): tuple(row[name] for name in EVAL_METRICS) for row in rows}


@pytest.mark.usefixtures("ray_session", "place")
def test_training_is_the_same_with_evaluations_and_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("cartpole", iterations=5, run_dir="without") == 0
    assert (
        train(
            "cartpole", *EVAL, "--keep-checkpoints", "9", "--checkpoint-iterations", "1", iterations=5, run_dir="beside"
        )
        == 0
    )
    monkeypatch.setattr(evaluator, "has_spare_cpu", lambda experiment: False)
    assert train("cartpole", *EVAL, iterations=5, run_dir="between") == 0
    assert training_metrics("without") == training_metrics("beside") == training_metrics("between")
    assert "eval_iteration" not in read_metrics(Path("without"))[0]
    rows = read_metrics(Path("between"))
    assert [row["eval_iteration"] for row in rows] == [None, 2, 2, 4, 5]
    assert [list(row)[-5:] for row in rows] == [list(EVAL_METRICS)] * 5
    assert rows[2]["eval_success_rate"] is None
    beside, between = evaluations_of("beside"), evaluations_of("between")
    assert set(between) == {2, 4, 5}
    assert {5} <= set(beside) <= {2, 4, 5}
    assert all(between[iteration] == results for iteration, results in beside.items())
    # What was evaluated is saved, and evaluates to the same number again.
    for run in ("beside", "between"):
        best = read_best(Path(run))
        assert best is not None
        assert best.metric == "eval_return_mean"
        assert best.value == max(result[0] for result in between.values())
        assert between[best.iteration][0] == best.value
    capsys.readouterr()
    for which, iteration in (("best", best.iteration), ("4", 4)):
        assert main(["evaluate", "beside", "--checkpoint", which, "--episodes", "3", "--seed", "1", "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert (again["iteration"], again["episode_return_mean"]) == (iteration, between[iteration][0])
    weights, kept = (
        store.load(best.path)["policy"]["weights"],
        store.load(store.path_of(Path("beside"), best.iteration)),
    )
    assert all((kept["policy"]["weights"][name] == value).all() for name, value in weights.items())


JUDGED = """
import gymnasium as gym
import numpy as np


class Judged(gym.Env):
    observation_space = gym.spaces.Box(0.0, 99.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, length=6, share=2):
        self.length, self.share, self.episodes = length, share, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episodes = 0, self.episodes + 1
        np.random.rand(), np.random.seed(3)  # which must not reach training
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        is_over = self.steps == self.length
        info = {"is_success": self.episodes % self.share == 0} if is_over else {}
        return np.full(2, self.steps, np.float32), 0.5, is_over, False, info


gym.register("Judged-v0", Judged)
gym.register("Wide-v0", lambda: gym.make("CartPole-v1"))
"""


@pytest.mark.usefixtures("ray_session", "between")
def test_success_rates_and_an_environment_of_its_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "judged_environment.py").write_text(JUDGED)
    own = ("--env", "judged_environment:Judged-v0", "--env.kwargs", '{"length": 14}')
    assert train(*own, *EVAL, "--eval.kwargs", '{"share": 1}', iterations=4, run_dir="a") == 0
    rows = read_metrics(Path("a"))
    # Episodes of 14 steps and an autoreset step end in iterations 2, 3 and 5 of ten steps each: fails, then succeeds.
    assert [row.get("success_rate", "none") for row in rows] == ["none", 0.0, 0.5, 0.5][: len(rows)]
    assert [row["eval_success_rate"] for row in rows][-1] == 1.0
    assert rows[-1]["eval_length_mean"] == 14
    capsys.readouterr()
    assert train(*own, *EVAL, "--eval.env", "judged_environment:Wide-v0", iterations=1, run_dir="b") == 2
    error = capsys.readouterr().err
    assert (
        "a policy of this run (--eval.env) was trained on other spaces than those of judged_environment:Wide" in error
    )
    assert not (place / "b").exists()


@pytest.mark.usefixtures("ray_session", "place", "between")
def test_a_killed_run_goes_on_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter((5.0, 3.0, 4.0, 6.0, 1.0))
    play = evaluator.evaluate_weights

    def judged(*arguments: Any) -> dict[str, Any]:
        return {**play(*arguments), "episode_return_mean": next(values)}

    monkeypatch.setattr(evaluator, "evaluate_weights", judged)
    often = ("--eval.every", "1", "--eval.episodes", "1", "--checkpoint-iterations", "1")
    with monkeypatch.context() as patch:
        stop_in(3, patch, None)
        with pytest.raises(Killed):
            train("cartpole", *often, iterations=5, run_dir="a")
    best = read_best(Path("a"))
    assert best is not None
    assert (best.iteration, best.value) == (1, 5.0)
    assert store.iterations_of(Path("a"))[0] == 2
    assert main(["resume", "a", "--budget.env-steps", budget(4)]) == 0
    rows = read_metrics(Path("a"))
    assert [row["eval_return_mean"] for row in rows] == [5.0, 3.0, 6.0, 1.0]
    best = read_best(Path("a"))
    assert best is not None
    assert (best.iteration, best.value) == (3, 6.0)


class FakeEvaluator:
    """Stands for evaluations beside training, which are over when a test says so."""

    def __init__(self, experiment: ActingExperiment, *, is_beside: bool) -> None:
        self.is_done = False
        self.calls: list[str] = []
        self.error: BaseException | None = None

    def start(self, iteration: int, content: dict[str, Any]) -> None:
        self.calls.append(f"start {iteration}")
        self._iteration = iteration

    def wait(self) -> dict[str, float]:
        self.calls.append(f"wait {self._iteration}")
        if self.error is not None:
            raise self.error
        return {"episode_return_mean": float(self._iteration), "episode_return_std": 0.0, "episode_length_mean": 1.0}

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Evaluations:
    """Evaluations every two iterations, beside training."""
    monkeypatch.setattr(evaluator, "has_spare_cpu", lambda experiment: True)
    monkeypatch.setattr(evaluator, "Evaluator", FakeEvaluator)
    settings = EvalSettings(every=2)
    return Evaluations(ActingExperiment(name="a", env=EnvConfig(id="CartPole-v1"), eval=settings))


LIVE = torch.zeros(2)
"""Weights that go on learning."""


def updates(evaluations: Evaluations, *iterations: int, is_last: bool = False) -> list[Any]:
    """The iteration that is shown as evaluated, after each iteration."""
    shown = []
    for iteration in iterations:
        LIVE.fill_(iteration)
        shown.append(evaluations.update(iteration, lambda: {"weights": LIVE}, is_last=is_last)["eval_iteration"])
    return shown


def test_a_result_joins_the_line_in_which_it_arrives(fake: Evaluations) -> None:
    assert updates(fake, 1, 2, 3) == [None, None, None]
    stand_in: FakeEvaluator = fake._evaluator
    stand_in.is_done = True
    assert updates(fake, 3) == [2]
    (candidate,) = fake.pop_candidates()
    assert (candidate.iteration, candidate.value, candidate.content["weights"].tolist()) == (2, 2.0, [2.0, 2.0])
    stand_in.is_done = False
    # The next one waits for one that is still under way, and the last iteration for its own.
    assert updates(fake, 4, 5, 6) == [2, 2, 4]
    assert updates(fake, 7, is_last=True) == [7]
    assert [one.iteration for one in fake.pop_candidates()] == [4, 6, 7]
    assert stand_in.calls == ["start 2", "wait 2", "start 4", "wait 4", "start 6", "wait 6", "start 7", "wait 7"]


@pytest.mark.parametrize("error", [EvaluationLost("ActorDiedError"), IterationStopped()])
def test_a_lost_evaluation_and_a_stop_leave_the_iteration_whole(
    fake: Evaluations, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    assert updates(fake, 2) == [None]
    stand_in: FakeEvaluator = fake._evaluator
    stand_in.error, stand_in.is_done = error, True
    assert updates(fake, 3) == [None]
    assert fake.pop_candidates() == []
    is_lost = isinstance(error, EvaluationLost)
    assert ("evaluation of iteration 2 was lost (ActorDiedError); training continues" in caplog.text) == is_lost
    stand_in.error = None
    assert updates(fake, 4, 5) == [None, 4]


@pytest.mark.usefixtures("ray_session")
def test_a_core_is_free_or_runners_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"name": "a", "env": EnvConfig(id="CartPole-v1")}
    for free, num_threads, num_runners in itertools.product((1.0, 2.0), (1, 2), (0, 1)):
        monkeypatch.setattr(ray, "available_resources", lambda free=free: {"CPU": free})
        experiment = ActingExperiment(**settings, num_threads=num_threads, num_env_runners=num_runners)
        assert evaluator.has_spare_cpu(experiment) == (num_runners > 0 or free - num_threads >= 1)


def test_nothing_is_waited_for_in_the_training_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(*_: Any) -> dict[str, float]:
        np.random.rand()
        torch.rand(1)
        return {"episode_return_mean": 1.0}

    monkeypatch.setattr(evaluator, "evaluate_weights", play)
    one = Evaluator(ActingExperiment(name="a", env=EnvConfig(id="CartPole-v1")), is_beside=False)
    before = np.random.get_state(legacy=True), torch.get_rng_state()
    one.start(1, {})
    assert one.is_done
    assert one.wait() == {"episode_return_mean": 1.0}
    np.testing.assert_equal(before[0], np.random.get_state(legacy=True))
    assert torch.equal(before[1], torch.get_rng_state())
