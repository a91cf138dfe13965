"""A run that is killed and resumed, twice: every logger holds each point of ``metrics.jsonl`` once."""

import csv
import importlib.util
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from logged import points_of_metrics, points_of_mlflow, points_of_wandb, scalars_of
from tiny_runs import CTM_RL, TINY

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.checkpoints import store as checkpoint

LOGGERS = [name for name in ("wandb", "mlflow") if importlib.util.find_spec(name) is not None]
ARGUMENTS = (*TINY, "--checkpoint-iterations", "8", "--budget.env-steps", "1000000")


def count_lines(run: Path) -> int:
    """Lines of metrics."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def kill_after(arguments: list[str], run: Path, num_lines: int) -> None:
    """Starts a run and kills its process once it has so many lines of metrics, some of them after a checkpoint."""
    with (run.parent / "said").open("ab") as said:
        process = subprocess.Popen([*CTM_RL, *arguments], stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 600
        while count_lines(run) < num_lines or count_lines(run) % 8 not in (1, 2, 3, 4):
            assert process.poll() is None, (run.parent / "said").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_no_logger_holds_a_point_twice_after_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    rng, run = random.Random(3), tmp_path / "a"
    loggers = ["--logger", "tensorboard", "csv", *LOGGERS]
    kill_after(["train", "cartpole", *ARGUMENTS, *loggers, "--run-dir", str(run)], run, 9 + rng.randrange(3))
    num_again = 0
    for _ in range(2):
        before, saved = len(read_metrics(run)), checkpoint.iteration_of(checkpoint.latest(run))
        num_again += before - saved
        kill_after(["resume", str(run)], run, before + 4 + rng.randrange(8))
    assert num_again > 0
    position = checkpoint.load(checkpoint.latest(run))["position"]
    done = subprocess.run(
        [*CTM_RL, "resume", str(run), "--budget.env-steps", str(position["env_steps"] + 200)], check=False
    )
    assert done.returncode == 0
    assert "has failed" not in (tmp_path / "said").read_text()
    rows, expected = read_metrics(run), points_of_metrics(run)
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    scalars = scalars_of(run / "tensorboard")
    assert scalars.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in scalars[name]] == [step for step, _ in points]
        assert [value for _, value in scalars[name]] == pytest.approx([value for _, value in points], rel=1e-6)
    with (run / "progress.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [{name: float(text) if text else None for name, text in line.items()} for line in lines] == rows
    if "wandb" in LOGGERS:
        assert points_of_wandb(run) == expected
    if "mlflow" in LOGGERS:
        assert points_of_mlflow(run / "mlflow.db") == expected
