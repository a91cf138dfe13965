"""Runs that are over in seconds, and what two of them have in common if they are equal."""

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.cli.main import main

TINY_ACTING = (
    *("--model.num-neurons", "16", "--model.num-output-sync-neurons", "5", "--model.history-length", "3"),
    *("--model.feature-dim", "6", "--model.head-dims", "7", "--num-envs-per-env-runner", "4"),
    *("--ppo.num-minibatches", "2", "--ppo.num-epochs", "1"),
)
"""Options of a run that learns to act."""
TINY = (*TINY_ACTING, "--model.max-seq-len", "4", "--ppo.num-rollout-steps", "10")
STEPS = 40
"""Slots of one iteration of ``TINY``: environment steps, and a few autoreset steps."""
CHANGING = {"seconds", "env_steps_per_second", "memory_mb"}
"""Metrics that differ between two equal runs."""
CTM_RL = (sys.executable, "-c", "import sys; from ctm_rl.cli.main import main; raise SystemExit(main(sys.argv[1:]))")
"""The command, of the package that is tested, as a process of its own."""


def comparable(run_dir: str | Path) -> list[dict[str, float | None]]:
    """A run's metrics without what differs between two equal runs."""
    return [{name: value for name, value in row.items() if name not in CHANGING} for row in read_metrics(Path(run_dir))]


def budget(iterations: int) -> str:
    """A budget that ends with this iteration, up to the sixth; up to one slot in nine is an autoreset step."""
    return str((iterations - 1) * STEPS + 10)


def train(*arguments: str, iterations: int, run_dir: str) -> int:
    """Trains something tiny."""
    return main(["train", *arguments, *TINY, "--budget.env-steps", budget(iterations), "--run-dir", run_dir])


def assert_same_state(one: Any, other: Any, where: str = "") -> None:
    """Compares the states in two checkpoints, but for the times and the experiments in them."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one.keys() - {"seconds", "experiment"}:
            assert_same_state(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, (torch.Tensor, np.ndarray)):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), where)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (item, another) in enumerate(zip(one, other, strict=True)):
            assert_same_state(item, another, f"{where}/{index}")
    else:
        assert one == other, where


class Killed(BaseException):
    """Stands for a process that was killed: nothing catches it, and nothing is saved."""


def stop_in(iteration: int, monkeypatch: pytest.MonkeyPatch, signum: int | None = signal.SIGINT) -> None:
    """Stops a run at the end of an iteration.

    Args:
        iteration: which, from 1.
        monkeypatch: changes ``Run``.
        signum: the signal that it gets; ``None``: it is killed (``Killed``).
    """
    learn = Run._train

    def counted(self: Run) -> Row:
        row = learn(self)
        if self._position.iteration == iteration:
            if signum is None:
                raise Killed
            signal.raise_signal(signum)
        return row

    monkeypatch.setattr(Run, "_train", counted)
