"""Runs that were cut off, by a signal or without warning: what they go on from, and that nothing differs afterwards."""

import signal
from pathlib import Path

import pytest
import ray
from tiny_runs import TINY_ACTING, comparable

from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.run import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TINY = (
    *TINY_ACTING,
    *("--model.train-random-ticks", "True", "--model.normalize-observations", "True", "--ppo.num-rollout-steps", "10"),
    *("--ppo.normalize-rewards", "True", "--num-cpus-per-env-runner", "0.5", "--env.stagger-episodes", "True"),
)


def train(*arguments: str, run_dir: str, env_steps: int) -> int:
    """Trains something tiny, with a checkpoint every three iterations."""
    return main(
        [
            *("train", "cartpole", *TINY, *arguments, "--checkpoint-iterations", "3"),
            *("--budget.env-steps", str(env_steps), "--run-dir", run_dir),
        ]
    )


class _Killed(BaseException):
    """Stands for a process that is no more: nobody catches it, and nothing is saved."""


def stop_in(iteration: int, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool) -> None:
    """Has a run end in an iteration: as by Ctrl-C when it has been learned, or at once."""
    learn = Run._train

    def counted(self: Run) -> Row:
        row = learn(self)
        if self._position.iteration == iteration:
            if is_killed:
                raise _Killed
            signal.raise_signal(signal.SIGINT)
        return row

    monkeypatch.setattr(Run, "_train", counted)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--num-env-runners", "1"), ("--num-env-runners", "2"), ("--num-env-runners", "2", "--ppo.collect-ahead")],
    ids=["in one process", "one runner", "two runners", "ahead"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--ppo.collect-ahead" in arguments:
        arguments = (*arguments, "True")
    monkeypatch.chdir(tmp_path)
    steps = 1000 if "--num-env-runners" in arguments and "2" in arguments else 500
    assert train(*arguments, run_dir="whole", env_steps=steps) == 0
    with monkeypatch.context() as patched:
        stop_in(3, patched, is_killed=False)
        assert train(*arguments, run_dir="stopped", env_steps=steps) == 130
    with monkeypatch.context() as patched:
        stop_in(5, patched, is_killed=True)
        with pytest.raises(_Killed):
            train(*arguments, run_dir="killed", env_steps=steps)
    assert checkpoint.iteration_of(checkpoint.latest(Path("killed"))) == 3
    rows = comparable("whole")
    assert len(rows) >= 13  # ten iterations after the checkpoint
    for run_dir in ("stopped", "killed"):
        assert main(["resume", run_dir]) == 0
        assert comparable(run_dir) == rows
    assert len({row["total_loss"] for row in rows}) == len(rows)


@pytest.mark.parametrize("num_learners", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lost_learner_costs_what_was_learned_since_the_last_checkpoint(
    num_learners: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--num-learners", str(num_learners), "--ppo.num-minibatches", "1")
    assert train(*arguments, run_dir="whole", env_steps=300) == 0
    learn = Run._train
    began = []

    def losing(self: Run) -> Row:
        began.append(self._position.iteration + 1)
        if began.count(5) == 1 and began[-1] == 5:
            learner = next(iter(self._algorithm.learner_group._worker_manager.actors().values()))
            ray.kill(learner, no_restart=True)
        return learn(self)

    monkeypatch.setattr(Run, "_train", losing)
    assert train(*arguments, run_dir="lost", env_steps=300) == 0
    assert began[:8] == [1, 2, 3, 4, 5, 4, 5, 6]
    assert "a learner was lost in iteration 5" in caplog.text
    assert comparable("lost") == comparable("whole")
