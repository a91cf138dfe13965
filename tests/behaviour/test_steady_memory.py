"""Half an hour of training holds no more memory at its end than at its beginning: driver, runners, object store."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import descendants
from small_cluster import cluster_of
from tiny_runs import CTM_RL

WARM_UP, WATCHED, MINUTE, PAUSE = 300.0, 1800.0, 60.0, 2.0
"""Seconds: of warming up, of the measurement, averaged in each figure, and between two samples."""
ALLOWED_GROWTH = 0.05
STORE_PART = "object store"
PARTS = ("driver", "runners", STORE_PART)
ARGUMENTS = ("train", "cartpole", "--num-env-runners", "2", "--budget.env-steps", "1000000000")
CPU = {"num_cpus": 2}
STORE = """
import sys, time, ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
address, pause = sys.argv[1], float(sys.argv[2])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
state = get_state_from_address(address)
for _ in sys.stdin:
    used = []
    until = time.monotonic() + pause
    while not used or time.monotonic() < until:
        used.append(get_memory_info_reply(state).store_stats.object_store_bytes_used)
        time.sleep(pause / 40)
    print(min(used), max(used), flush=True)
"""
"""A program that answers every line with the fewest and the most bytes that the object store has held in a pause.

Ray frees what nobody needs once a second: how many iterations are in the store at a time follows from who was faster,
and only what stays there when most is freed can pile up.
"""


def kib(process: int, entry: str) -> int:
    """One line of a process's status; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")), 0)


def look(driver: int) -> dict[str, float]:
    """MiB that the driver and the runners have of their own now."""
    names = descendants(os.getpid()).items()
    runners = [process for process, name in names if name.startswith("ray::") and "EnvRunner" in name]
    return {
        "driver": kib(driver, "RssAnon") / 1024,
        "runners": sum(kib(process, "RssAnon") for process in runners) / 1024,
        "number of runners": len(runners),
    }


def growth(samples: list[dict[str, float]], part: str) -> float:
    """Growth from the first measured minute to the last; for the object store, between the minima of these minutes."""
    start, end = WARM_UP, samples[-1]["seconds"] - MINUTE
    first = [one[part] for one in samples if start <= one["seconds"] < start + MINUTE]
    last = [one[part] for one in samples if one["seconds"] >= end]
    if part == STORE_PART:
        return min(last) / min(first) - 1
    return statistics.fmean(last) / statistics.fmean(first) - 1


def num_iterations_in_store(samples: list[dict[str, float]]) -> float:
    """Peak of the object store, as a multiple of its median peak, which is about one iteration's objects."""
    most = [one[f"{STORE_PART} at most"] for one in samples if one["seconds"] >= WARM_UP]
    return max(most) / statistics.median(most)


def draw(samples: list[dict[str, float]], path: Path) -> None:
    """Draws the parts over time."""
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure(figsize=(10, 3), layout="constrained")
    minutes = [sample["seconds"] / 60 for sample in samples]
    for axes, part in zip(figure.subplots(1, len(PARTS)), PARTS, strict=True):
        if part == STORE_PART:
            axes.plot(minutes, [sample[f"{part} at most"] for sample in samples], color="lightgrey", label="at most")
        axes.plot(minutes, [sample[part] for sample in samples], label="at least")
        axes.axvline(WARM_UP / 60, color="grey", linestyle=":")
        axes.set(title=f"{part}: {100 * growth(samples, part):+.1f} %", xlabel="minutes", ylabel="MiB")
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        if part == STORE_PART:
            axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)


@pytest.mark.slow
@pytest.mark.timeout(WARM_UP + WATCHED + 300)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_half_an_hour_of_training_takes_no_more_and_more_memory(tmp_path: Path) -> None:
    """The samples and, with matplotlib, their picture stay in the test's folder."""
    samples: list[dict[str, float]] = []
    with cluster_of([CPU], tmp_path) as address, (tmp_path / "said").open("wb") as said:
        command = [*CTM_RL, *ARGUMENTS, "--address", address, "--run-dir", str(tmp_path / "run")]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        asking = [sys.executable, "-c", STORE, address, str(PAUSE)]
        with (
            subprocess.Popen(command, stdout=said, stderr=said, env=environment) as process,
            subprocess.Popen(
                asking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment, text=True
            ) as store,
        ):
            assert store.stdin is not None
            assert store.stdout is not None
            try:
                metrics = tmp_path / "run" / "metrics.jsonl"
                while not (metrics.exists() and metrics.stat().st_size):
                    assert process.poll() is None, (tmp_path / "said").read_text()[-2000:]
                    time.sleep(PAUSE)
                begun = time.monotonic()
                while (seconds := time.monotonic() - begun) < WARM_UP + WATCHED:
                    assert process.poll() is None, (tmp_path / "said").read_text()[-2000:]
                    store.stdin.write("now\n")
                    store.stdin.flush()
                    least, most = (int(word) / 2**20 for word in store.stdout.readline().split())
                    held = {**look(process.pid), STORE_PART: least, f"{STORE_PART} at most": most}
                    samples.append({"seconds": round(seconds, 1), **held})
                num_iterations = metrics.read_bytes().count(b"\n")
            finally:
                process.terminate()
                store.terminate()
    (tmp_path / "memory.json").write_text(json.dumps(samples))
    assert num_iterations > 100
    assert {sample["number of runners"] for sample in samples} == {2}
    grown = {part: growth(samples, part) for part in PARTS}
    print(num_iterations, {part: f"{100 * share:+.2f} %" for part, share in grown.items()})
    draw(samples, tmp_path / "memory.png")
    print(f"the object store held {num_iterations_in_store(samples):.2f} iterations at most")
    assert num_iterations_in_store(samples) < 2.5
    assert all(share < ALLOWED_GROWTH for share in grown.values()), grown
