"""Runs that were cut off, by a signal or without warning: where they continue, and that no result differs."""

from pathlib import Path

import pytest
import ray
from tiny_runs import TINY_ACTING, Killed, comparable, stop_in

from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main

pytestmark = [
    pytest.mark.usefixtures("ray_session", "place"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TINY = (
    *TINY_ACTING,
    *("--model.train-random-ticks", "True", "--model.normalize-observations", "True", "--ppo.num-rollout-steps", "10"),
    *("--ppo.normalize-rewards", "True", "--num-cpus-per-env-runner", "0.5", "--env.stagger-episodes", "True"),
    # Nothing learns as little: the learning rate falls in every iteration.
    *("--ppo.is-clip-annealed", "True", "--ppo.lr-kl-target", "1e-9"),
    *("--model.critic", "own"),
    # An exact run needs episodes that are shorter than the 30 steps between two checkpoints.
    *("--env.max-episode-steps", "25"),
)


def train(*arguments: str, run_dir: str, env_steps: int) -> int:
    """Trains something tiny, with a checkpoint every three iterations."""
    return main(
        [
            *("train", "cartpole", *TINY, *arguments, "--checkpoint-iterations", "3", "--exact-resume"),
            *("--budget.env-steps", str(env_steps), "--run-dir", run_dir),
        ]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        # Running ahead contains it: the first fragments after a checkpoint are collected in step.
        pytest.param(("--num-env-runners", "1"), marks=pytest.mark.slow),
        pytest.param(("--num-env-runners", "2"), marks=pytest.mark.slow),
        pytest.param(("--num-env-runners", "2", "--ppo.collect-ahead", "True"), marks=pytest.mark.slow),
    ],
    ids=["in one process", "one runner", "two runners", "ahead"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in iteration 3 and killed in iteration 8, two after its last checkpoint; with runners, killed alone."""
    steps = 1240 if "2" in arguments else 620
    assert train(*arguments, run_dir="whole", env_steps=steps) == 0
    if not arguments:
        with monkeypatch.context() as patched:
            stop_in(3, patched)
            assert train(run_dir="parts", env_steps=steps) == 130
        assert checkpoint.iteration_of(checkpoint.latest(Path("parts"))) == 3
    with monkeypatch.context() as patched:
        stop_in(8, patched, signum=None)
        with pytest.raises(Killed):
            main(["resume", "parts"]) if not arguments else train(*arguments, run_dir="parts", env_steps=steps)
    assert checkpoint.iteration_of(checkpoint.latest(Path("parts"))) == 6
    assert main(["resume", "parts"]) == 0
    rows = comparable("whole")
    assert len(rows) >= 16  # ten iterations after the last checkpoint
    assert comparable("parts") == rows
    assert len({row["total_loss"] for row in rows}) == len(rows)


@pytest.mark.parametrize("num_learners", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lost_learner_costs_what_was_learned_since_the_last_checkpoint(
    num_learners: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ("--num-learners", str(num_learners), "--ppo.num-minibatches", "1")
    # What a learner of this process learns, one in a process of its own learns too.
    assert train(*arguments[2 if num_learners == 1 else 0 :], run_dir="whole", env_steps=300) == 0
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
