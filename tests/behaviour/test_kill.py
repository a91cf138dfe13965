"""Runs whose process is killed without warning, again and again: each goes on from its last whole checkpoint."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny_runs import CTM_RL, TINY_ACTING

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TINY = (*TINY_ACTING, "--ppo.num-rollout-steps", "10", "--checkpoint-iterations", "1", "--budget.env-steps", "1000000")


def count_lines(run: Path) -> int:
    """Lines of metrics, the last perhaps incomplete."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def kill_at(arguments: list[str], run: Path, rng: random.Random, *, amid: bool) -> None:
    """Starts a run and kills its process: amid its iterations, or at any moment before them."""
    with (run.parent / "said").open("ab") as said:
        process = subprocess.Popen([*CTM_RL, *arguments], stdout=said, stderr=said)
    try:
        before = count_lines(run)
        deadline = time.monotonic() + 120
        while amid and count_lines(run) == before:
            assert process.poll() is None, (run.parent / "said").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
            before = min(before, count_lines(run))  # lines after the checkpoint are cut off first
        time.sleep(rng.uniform(0, 1.5 if amid else 6.0))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_at_twenty_random_moments_always_goes_on(tmp_path: Path) -> None:
    rng = random.Random(7)
    run = tmp_path / "a"
    kill_at(["train", "cartpole", *TINY, "--run-dir", str(run)], run, rng, amid=True)
    reached = [0]
    for moment in range(19):
        stands = checkpoint.latest(run)
        reached.append(checkpoint.iteration_of(stands))
        assert reached[-1] >= reached[-2]
        for place in (run / "checkpoints").glob("iteration-*"):
            checkpoint.load(place)  # nothing that bears its name is cut short
        position = checkpoint.load(stands)["position"]
        rows = read_metrics(run)
        assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= position["iteration"] == reached[-1]
        if reached[-1]:
            assert rows[reached[-1] - 1]["env_steps"] == position["env_steps"]
        kill_at(["resume", str(run)], run, rng, amid=moment % 4 != 0)
    assert len(set(reached)) > 12, reached
    steps = checkpoint.load(checkpoint.latest(run))["position"]["env_steps"]
    assert main(["resume", str(run), "--budget.env-steps", str(steps + 100)]) == 0
    rows = read_metrics(run)
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["env_steps"] >= steps + 100
