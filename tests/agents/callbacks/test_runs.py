"""Callbacks in whole runs: what they see, that they stop, resume and fail as documented, in runs of both kinds."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import TINY, budget, comparable, stop_in

from ctm_rl.agents import Callback, resume, train
from ctm_rl.agents.callbacks.calls import CallbackFailed
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.tuning.options import TuneOptions
from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.trial import SweepTrial
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.choose import read_experiment
from ctm_rl.cli.main import main
from ctm_rl.inference.load_model import load_model
from ctm_rl.inference.policy import Policy

pytestmark = [
    pytest.mark.usefixtures("ray_session", "place"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ANSWERING = (
    *("--model.num-neurons", "16", "--model.history-length", "3", "--model.num-ticks", "2"),
    *("--model.num-output-sync-neurons", "4", "--model.num-action-sync-neurons", "4"),
    *("--learning.batch-size", "8", "--learning.num-steps-per-iteration", "2", "--held-out.num-samples", "8"),
    *("--budget.env-steps", "64"),
)


def tiny(*arguments: str, iterations: int = 4, run_dir: str = "a") -> AnyExperiment:
    return read_experiment(
        "train", ["cartpole", *TINY, "--budget.env-steps", budget(iterations), "--run-dir", run_dir, *arguments]
    )


class Everything(Callback):
    """Notes all that it is told, and that it is told what is so."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[Any] = []
        self.returns: list[float] = []
        self.stop_at = stop_at

    def on_start(self, run: Any) -> None:
        self.seen.append(("start", run.iteration))

    def on_iteration(self, run: Any, metrics: Any) -> bool | None:
        assert metrics["iteration"] == run.iteration == read_metrics(run.directory)[-1]["iteration"]
        assert metrics["env_steps"] == run.env_steps
        assert metrics["seconds"] == round(run.seconds, 3)
        assert run.algorithm.iteration == run.iteration
        self.seen.append(("iteration", run.iteration))
        return run.iteration != self.stop_at

    def on_episode(self, run: Any, episode: Any) -> None:
        assert episode.episode_return == episode.length > 5
        self.returns.append(episode.episode_return)

    def on_checkpoint(self, run: Any, path: Path) -> None:
        self.seen.append(("checkpoint", checkpoint.iteration_of(path)))
        kept = (run.policy().agent if hasattr(run.policy(), "agent") else run.policy()).state_dict()
        saved = (
            Policy.from_checkpoint(path).agent if hasattr(run.policy(), "agent") else load_model(path)
        ).state_dict()
        assert all((kept[name] == saved[name]).all() for name in saved)

    def on_end(self, run: Any) -> None:
        self.seen.append(("end", run.iteration))


def test_a_run_is_seen_from_start_to_end_and_goes_on_after_a_stop() -> None:
    experiment = tiny("--checkpoint-iterations", "2")
    stopping = Everything(stop_at=3)
    lines: list[str] = []
    progress = Progress()
    progress.write = lines.append  # pyright: ignore[reportAttributeAccessIssue]
    run_dir = train(experiment, progress, callbacks=stopping)
    assert stopping.seen == [
        ("start", 0),
        ("iteration", 1),
        ("iteration", 2),
        ("checkpoint", 2),
        ("iteration", 3),
        ("checkpoint", 3),
        ("end", 3),
    ]
    assert lines[-1] == "stopped after iteration 3: Everything.on_iteration returned False"
    rows = read_metrics(run_dir)
    assert len(stopping.returns) == sum(int(row["num_episodes"] or 0) for row in rows)
    assert np.mean(stopping.returns) == pytest.approx(rows[-1]["episode_return_mean"])

    following = Everything()
    resume(run_dir, callbacks=[following])
    assert following.seen == [("start", 3), ("iteration", 4), ("checkpoint", 4), ("end", 4)]
    # Neither callbacks nor copies of the policy change what is learned: their random numbers are their own.
    train(dataclasses.replace(experiment, run_dir="b"))
    assert comparable("b")[:3] == comparable("a")[:3]


def test_a_run_that_answers_has_callbacks_too() -> None:
    experiment = read_experiment("train", ["parity", *ANSWERING, "--run-dir", "a"])
    callback = Everything(stop_at=2)
    train(experiment, callbacks=callback)
    assert [name for name, _ in callback.seen] == ["start", "iteration", "iteration", "checkpoint", "end"]
    assert callback.returns == []


FAILING = """
from ctm_rl.agents import Callback

class Failing(Callback):
    def on_iteration(self, run, metrics):
        if run.iteration == 2:
            int("two")

class Stopping(Callback):
    def on_iteration(self, run, metrics):
        run.stop("enough of it")
"""


def test_from_the_command_line_an_exception_saves_and_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine_failing.py").write_text(FAILING)
    arguments = [*TINY, "--budget.env-steps", budget(3), "--run-dir", "a", "--callbacks", "mine_failing:Failing"]
    assert main(["train", "cartpole", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "ctm-rl: callback mine_failing:Failing failed in on_iteration (mine_failing.py:7): ValueError: invalid literal "
        f"for int() with base 10: 'two'. A checkpoint is saved in {Path('a').absolute()}; continue with: ctm-rl resume "
        f"{Path('a').absolute()}"
    )
    assert checkpoint.iteration_of(checkpoint.latest(Path("a"))) == 2
    # Who reads the line mends the file; the configuration remembers the name.
    assert json.loads(Path("a/config.json").read_text())["callbacks"] == ["mine_failing:Failing"]
    assert main(["resume", "a"]) == 0
    assert [row["iteration"] for row in read_metrics(Path("a"))] == [1, 2, 3]

    assert main(["train", "cartpole", *arguments[:-1], "mine_failing:Stopping", "--run-dir", "b"]) == 0
    output = capsys.readouterr().out
    assert "stopped after iteration 1: enough of it\ndone: b\n" in output
    # Nothing is written where the callback does not exist.
    assert main(["train", "cartpole", *arguments[:-1], "mine_failing:Missing", "--run-dir", "c"]) == 2
    assert not Path("c").exists()


@pytest.mark.parametrize("method", ["on_start", "on_episode", "on_checkpoint", "on_end"])
def test_in_python_the_cause_is_chained_and_what_was_learned_is_saved(method: str) -> None:
    error = RuntimeError("mine")

    class Failing(Everything):
        pass

    def fail(self: Any, run: Any, *_: Any) -> None:
        raise error

    setattr(Failing, method, fail)
    callback = Failing()
    with pytest.raises(
        CallbackFailed, match=f"callback Failing failed in {method} .*A checkpoint is saved in"
    ) as caught:
        train(tiny(iterations=2), callbacks=callback)
    assert caught.value.__cause__ is error
    reached = len(read_metrics(Path("a")))
    assert reached == {"on_start": 0, "on_episode": 2, "on_checkpoint": 2, "on_end": 2}[method]
    assert checkpoint.iteration_of(checkpoint.latest(Path("a"))) == reached
    assert ("end", reached) not in callback.seen


def test_a_signal_ends_the_run_and_callbacks_know_its_last_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = Everything()
    stop_in(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), callbacks=callback)
    saved = checkpoint.iteration_of(checkpoint.latest(Path("a")))
    assert callback.seen[-2:] == [("checkpoint", saved), ("end", saved)]


def test_a_return_or_patience_ends_a_run_and_resuming_takes_another_one() -> None:
    train(tiny("--stop.at-return", "5", "--num-envs-per-env-runner", "40", "--budget.env-steps", "100000"))
    episodes = [int(row["num_episodes"] or 0) for row in read_metrics(Path("a"))]
    assert sum(episodes) >= 100 > sum(episodes[:-1])
    assert main(["resume", "a", "--stop.at-return", "None", "--stop.patience", "1"]) == 0
    assert len(read_metrics(Path("a"))) > len(episodes)
    assert json.loads(Path("a/config.json").read_text())["stop"] == {
        "at_return": None,
        "at_accuracy": None,
        "patience": 1,
    }


TRIED = """
from ctm_rl.agents import Callback

SEEN = []

class Stopping(Callback):
    def on_start(self, run):
        SEEN.append(run.directory.name)

    def on_iteration(self, run, metrics):
        return run.iteration < 2

    def on_end(self, run):
        SEEN.append((run.iteration, run.stop_reason))
        if len(SEEN) > 2:
            raise KeyError("second")
"""


def test_a_trial_of_a_sweep_is_stopped_and_finished(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine_tried.py").write_text(TRIED)
    options = TuneOptions(search=("seed=grid(1,2)",))
    sweep = Sweep(place / "sweep", tiny("--callbacks", "mine_tried:Stopping", "--run-dir", "sweep"), options)
    for number, is_failing in ((0, False), (1, True)):
        monkeypatch.setattr(SweepTrial, "trial_id", f"a_0000{number}")
        trial = SweepTrial.__new__(SweepTrial)
        SweepTrial.setup(trial, {"seed": number + 1}, sweep)
        first, second = trial.step(), trial.step()
        assert (first["iteration"], first["done"], second["done"]) == (1, False, True)
        if is_failing:
            assert second["failed"].startswith("callback mine_tried:Stopping failed in on_end (")
            assert "is_finished" not in second or not second["is_finished"]
        else:
            assert (second["iteration"], second["is_finished"]) == (2, True)
        trial.cleanup()
        assert checkpoint.iteration_of(checkpoint.latest(place / "sweep" / f"trial-0000{number}")) == 2
    reason = "mine_tried:Stopping.on_iteration returned False"
    assert sys.modules["mine_tried"].SEEN == ["trial-00000", (2, reason), "trial-00001", (2, reason)]
