"""Iterations that are broken off: by a signal, by the budget's minutes, by an error; the one before is saved."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY, assert_same_state, budget, comparable, train

from ctm_rl.agents.ppo.collector import Collector
from ctm_rl.agents.ppo.learner import RecurrentPPOLearner
from ctm_rl.agents.rllib.runner_pool import RunnersLost
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.runs import snapshot, training_loop
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main

pytestmark = [
    pytest.mark.usefixtures("ray_session", "place"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def copies_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every iteration end with a copy, however busy the machine is."""
    monkeypatch.setattr(snapshot, "CHEAP_SECONDS", float("inf"))


RUNNERS = ("--num-env-runners", "2", "--num-cpus-per-env-runner", "0.5")


def stop_inside(iteration: int, what: str, signum: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends a signal inside an iteration, at the first report of the given parts."""
    observe = Run._observe

    def observed(self: Run, name: str, num_done: int, num_parts: int) -> None:
        if (self._position.iteration + 1, name) == (iteration, what):
            signal.raise_signal(signum)
        observe(self, name, num_done, num_parts)

    monkeypatch.setattr(Run, "_observe", observed)


def fail_in(iteration: int, owner: type, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the iteration's call of a method fail."""
    method, learn = getattr(owner, name), Run._train
    current = [0]

    def counted(self: Run) -> Any:
        current[0] = self._position.iteration + 1
        return learn(self)

    def failing(self: Any, *arguments: Any, **named: Any) -> Any:
        if current[0] == iteration:
            raise error
        return method(self, *arguments, **named)

    monkeypatch.setattr(Run, "_train", counted)
    monkeypatch.setattr(owner, name, failing)


def reached(run: str) -> int:
    return checkpoint.iteration_of(checkpoint.latest(Path(run)))


@pytest.mark.parametrize(
    ("what", "signum", "arguments"),
    [
        ("steps", signal.SIGHUP, ()),
        ("minibatches", signal.SIGUSR1, ("--ppo.normalize-rewards", "True")),
        pytest.param("fragments", signal.SIGQUIT, RUNNERS, marks=pytest.mark.slow),
        pytest.param("learners", signal.SIGTERM, ("--num-learners", "1"), marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_inside_an_iteration_goes_on_as_from_a_scheduled_checkpoint(
    what: str,
    signum: signal.Signals,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runners, arguments = 2 if arguments == RUNNERS else 1, (*arguments, "--ppo.is-lr-annealed", "False")
    with monkeypatch.context() as patched:
        stop_inside(3, what, signum, patched)
        assert train("cartpole", *arguments, iterations=6, run_dir="stopped") == 128 + signum
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ctm-rl")]
    assert line == "ctm-rl: stopped, a checkpoint is saved; continue with: ctm-rl resume stopped"
    end = int(budget(2)) * runners
    assert main(["train", "cartpole", *TINY, *arguments, "--budget.env-steps", str(end), "--run-dir", "scheduled"]) == 0
    assert (reached("stopped"), reached("scheduled")) == (2, 2)
    stopped, scheduled = (checkpoint.load(checkpoint.latest(Path(run))) for run in ("stopped", "scheduled"))
    assert_same_state(stopped, scheduled)
    for run in ("stopped", "scheduled"):
        assert main(["resume", run, "--budget.env-steps", str(int(budget(4)) * runners)]) == 0
    assert comparable("stopped") == comparable("scheduled")
    assert [row["iteration"] for row in read_metrics(Path("stopped"))] == [1, 2, 3, 4]


@pytest.mark.parametrize("what", ["batches", "chunks of held-out samples"])
def test_a_run_that_answers_stops_inside_an_iteration_and_its_test(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        *("train", "parity", "--model.num-neurons", "16", "--model.num-output-sync-neurons", "8"),
        *("--model.num-action-sync-neurons", "8", "--model.num-ticks", "3", "--env.kwargs", '{"length": 6}'),
        *("--learning.batch-size", "8", "--learning.num-steps-per-iteration", "2", "--held-out.num-samples", "32"),
        *("--held-out.num-iterations", "1", "--budget.env-steps"),
    )
    with monkeypatch.context() as patched:
        if what != "batches":
            patched.setattr(training_loop, "FINISH_SECONDS", 0.0)
        stop_inside(3 if what == "batches" else 4, what, signal.SIGXCPU, patched)  # a test counts its iteration before
        assert main([*arguments, "800", "--run-dir", "stopped"]) == 128 + signal.SIGXCPU
    assert (reached("stopped"), len(read_metrics(Path("stopped")))) == (2, 2)
    assert main(["resume", "stopped", "--budget.env-steps", "64"]) == 0
    assert main([*arguments, "64", "--run-dir", "whole"]) == 0
    assert comparable("stopped") == comparable("whole")


def test_the_minutes_of_the_budget_end_inside_an_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    endless = ("--ppo.num-rollout-steps", "10000000", "--budget.minutes", "0.02")
    assert main(["train", "cartpole", *TINY, *endless, "--run-dir", "a"]) == 0
    assert (reached("a"), read_metrics(Path("a"))) == (0, [])
    capsys.readouterr()
    assert main(["resume", "a"]) == 2
    assert "has used up its budget" in capsys.readouterr().err


def test_an_error_after_a_signal_is_a_stop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A signal to the whole group ends an environment's processes too."""

    def die(self: Run, *_: Any) -> None:
        if self._position.iteration == 2:
            signal.raise_signal(signal.SIGTERM)
            raise EOFError

    monkeypatch.setattr(Run, "_observe", die)
    assert train("cartpole", iterations=6, run_dir="a") == 143
    assert reached("a") == 2
    assert capsys.readouterr().err.startswith("ctm-rl: stopped, a checkpoint is saved;")


def test_any_other_error_saves_what_was_learned_before_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_in(3, RecurrentPPOLearner, "_update", torch.OutOfMemoryError("out of memory"), monkeypatch)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        train("cartpole", iterations=6, run_dir="a")
    assert reached("a") == 2
    assert "iteration 3 failed. A checkpoint is saved in" in caplog.text


def test_lost_runners_end_a_run_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_in(3, Collector, "collect", RunnersLost("no environment runner has come back in 60 tries."), monkeypatch)
    assert train("cartpole", iterations=6, run_dir="a") == 1
    error = capsys.readouterr().err
    assert error.startswith("ctm-rl: no environment runner has come back in 60 tries. A checkpoint is saved in ")
    assert error.count("\n") == 1
    assert reached("a") == 2
