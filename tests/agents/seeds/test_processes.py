"""Several seeds: one process and directory each, what fails or stops loses no other, and what they have in common."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import descendants, is_running
from rich.console import Console
from tiny_runs import CTM_RL, TINY, budget, comparable

from ctm_rl.agents.cluster.signals import RunInterrupted
from ctm_rl.agents.run_directory.metrics_file import last_row, read_metrics
from ctm_rl.agents.seeds import processes as seed_processes
from ctm_rl.agents.seeds.display import SeedsDisplay
from ctm_rl.agents.seeds.options import SeedOptions
from ctm_rl.agents.seeds.plan import Seeds, read_seeds
from ctm_rl.agents.seeds.processes import count_parallel, train_seeds
from ctm_rl.agents.seeds.results import SeedsFailed, check_outcomes, collect, format_results
from ctm_rl.cli.main import main
from ctm_rl.configs import load
from ctm_rl.errors import UserError

STAND_IN = """
import json, pathlib, signal, sys, time
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
run = pathlib.Path(sys.argv[2] if sys.argv[1] == "resume" else options["--run-dir"])
seed = int(run.name.removeprefix("seed-"))
print("arguments", sys.argv[1:], flush=True)
if WHAT.get(seed) == "refuse":
    print("ctm-rl: nothing fits.", file=sys.stderr)
    sys.exit(2)
run.mkdir(exist_ok=True)
(run / "config.json").write_text("{}")
if WHAT.get(seed) == "fail" and sys.argv[1] == "train":
    print("ctm-rl: it went wrong.", file=sys.stderr)
    sys.exit(1)
if WHAT.get(seed) == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (run / "waits").touch()
    time.sleep(60)
with open(run / "metrics.jsonl", "a") as file:
    for step in (1, 2):
        row = {"iteration": step, "env_steps": 100 * step, "seconds": 1.0 * step, "env_steps_per_second": 100.0}
        file.write(json.dumps({**row, "episode_return_mean": 10.0 * step + seed}) + chr(10))
"""
"""A process in the place of ctm-rl, which costs no second to start."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the processes by ones that fail, wait or refuse, by seed."""

    def install(what: dict[int, str] | None = None) -> None:
        command = (sys.executable, "-S", "-c", f"WHAT = {what or {}!r}\n{STAND_IN}")
        monkeypatch.setattr(seed_processes, "COMMAND", command)

    return install


def seeds_in(place: Path, *numbers: int, **changes: Any) -> Seeds:
    """Seeds of CartPole whose budget the stand-in uses up."""
    import dataclasses

    experiment = load("cartpole")
    experiment = dataclasses.replace(
        experiment, run_dir="s", budget=dataclasses.replace(experiment.budget, env_steps=200), **changes
    )
    return Seeds(place / "s", experiment, SeedOptions(seeds=numbers))


def run(seeds: Seeds, *, is_new: bool = True, num_parallel: int = 2, **options: Any) -> tuple[Seeds, dict, str]:
    """Trains seeds; returns what was written too."""
    output = io.StringIO()
    display = SeedsDisplay(seeds, Console(file=output, width=300))
    done = train_seeds(seeds, display, num_parallel=num_parallel, is_new=is_new, **options)
    return *done, output.getvalue()


def test_each_seed_has_a_directory_and_the_results_are_joined(place: Path, stand_in: Callable[..., None]) -> None:
    stand_in()
    seeds, outcomes, output = run(seeds_in(place, 1, 2, 5))
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    assert "seed 5: finished" in output
    log = (place / "s" / "seed-5.log").read_text()
    assert f"'--seed', '5', '--run-dir', '{place}/s/seed-5', '--trust'" in log
    results = collect(seeds, outcomes)
    assert results["metrics"]["episode_return_mean"]["mean"] == pytest.approx(20 + 8 / 3)
    assert results["curve"]["env_steps"] == [100, 200]
    assert results["curve"]["mean"] == pytest.approx([10 + 8 / 3, 20 + 8 / 3])
    text = format_results(results)
    assert "5     25.0" in text
    assert "episode_return_mean: 22.7 (95 % interval 17.5 to 27.8, std 2.082), mean of 3 seeds" in text
    assert read_seeds(place / "s").options.seeds == (1, 2, 5)


def test_a_seed_that_fails_loses_no_other_and_is_continued(place: Path, stand_in: Callable[..., None]) -> None:
    stand_in({2: "fail"})
    seeds, outcomes, _ = run(seeds_in(place, 1, 2, 3), num_parallel=1)
    assert [outcome.status for outcome in outcomes.values()] == ["finished", "failed", "finished"]
    assert collect(seeds, outcomes)["metrics"]["episode_return_mean"]["num_seeds"] == 2
    with pytest.raises(SeedsFailed, match=r"1 of 3 seeds did not finish \(seed 2 failed: it went wrong\); .*resume s"):
        check_outcomes(outcomes, "s")
    _, outcomes, output = run(read_seeds(place / "s"), is_new=False, options=("--address", "auto"))
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    assert "seed 1" not in output  # it had nothing left to do
    assert f"['resume', '{place}/s/seed-2', '--trust', '--address', 'auto']" in (place / "s" / "seed-2.log").read_text()


def test_what_every_seed_refuses_is_one_mistake_and_leaves_nothing(place: Path, stand_in: Callable[..., None]) -> None:
    stand_in({1: "refuse", 2: "refuse"})
    with pytest.raises(UserError, match=r"^nothing fits\.$"):
        run(seeds_in(place, 1, 2, 3))
    assert list(place.iterdir()) == []


def test_a_signal_stops_all_seeds_and_resume_continues_them(place: Path, stand_in: Callable[..., None]) -> None:
    stand_in({1: "wait", 2: "wait"})
    output = io.StringIO()
    seeds = seeds_in(place, 1, 2, 3)
    display = SeedsDisplay(seeds, Console(file=output))
    update = display.update

    def stop_once_they_wait(running: Any) -> None:
        if all((place / "s" / f"seed-{seed}" / "waits").exists() for seed in (1, 2)):
            signal.raise_signal(signal.SIGTERM)
            display.update = update
        update(running)

    display.update = stop_once_they_wait
    with pytest.raises(RunInterrupted) as caught:
        train_seeds(seeds, display, num_parallel=2, is_new=True)
    assert (caught.value.run_dir, caught.value.signum, caught.value.is_saved) == (str(place / "s"), 15, True)
    assert "seed 1: stopped" in output.getvalue()
    assert not (place / "s" / "seed-3").exists()
    stand_in()
    _, outcomes, _ = run(read_seeds(place / "s"), is_new=False)
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}


@pytest.mark.parametrize(
    ("changes", "cores", "expected"),
    [
        ({}, 2, 2),
        ({}, 1, 1),
        ({}, 64, 3),
        ({"num_env_runners": 1}, 5, 2),
        ({"num_threads": 4}, 2, 1),
        ({"address": "auto"}, 64, 1),
        ({"num_gpus_per_learner": 1.0}, 64, 1),
    ],
)
def test_as_many_seeds_train_at_a_time_as_the_cores_allow(
    place: Path, changes: dict[str, Any], cores: int, expected: int
) -> None:
    assert count_parallel(seeds_in(place, 1, 2, 3, **changes), cores) == expected


def test_the_last_line_of_metrics_is_found_without_reading_all(tmp_path: Path) -> None:
    assert last_row(tmp_path) is None
    lines = [json.dumps({"iteration": number, "text": "x" * 100}) for number in range(1000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"iteration": 1000, "te']))
    assert (last_row(tmp_path) or {})["iteration"] == 999
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1')
    assert last_row(tmp_path) is None


def stopped_by(signum: int, arguments: list[str]) -> int:
    """Runs a command on two seeds in k, stops it once both have trained, and waits until their processes have ended."""
    before = {seed: len(read_metrics(Path(f"k/seed-{seed}"))) for seed in (1, 2)}
    process = subprocess.Popen([*CTM_RL, *arguments])
    try:
        deadline = time.monotonic() + 600
        while any(len(read_metrics(Path(f"k/seed-{seed}"))) <= before[seed] + 1 for seed in (1, 2)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        others = descendants(process.pid)
        os.kill(process.pid, signum)
        code = process.wait(300)
        while any(map(is_running, others)):
            assert time.monotonic() < deadline + 300, others
            time.sleep(0.2)
        return code
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_real_seeds_are_as_runs_alone_stop_on_ctrl_c_and_are_evaluated(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*TINY, "--budget.env-steps", budget(5))
    command = [*CTM_RL, "train", "cartpole", "--seeds", "1", "2", *options]
    assert subprocess.run([*command, "--run-dir", "s"], timeout=900).returncode == 0
    assert main(["train", "cartpole", "--seed", "2", *options, "--run-dir", "alone"]) == 0
    assert comparable("s/seed-2") == comparable("alone")
    capsys.readouterr()
    assert main(["evaluate", "s", "--episodes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["train_seed"] for one in found["seeds"]] == [1, 2]
    assert found["metrics"]["episode_return_mean"]["num_seeds"] == 2

    assert stopped_by(signal.SIGINT, ["train", "cartpole", "--seeds", "1", "2", *TINY, "--run-dir", "k"]) == 130
    last = max(int(read_metrics(Path(f"k/seed-{seed}"))[-1]["env_steps"] or 0) for seed in (1, 2))
    assert stopped_by(signal.SIGKILL, ["resume", "k"]) == -signal.SIGKILL
    assert main(["resume", "k", "--budget.env-steps", str(4 * last)]) == 0
    assert (read_metrics(Path("k/seed-1"))[-1]["env_steps"] or 0) >= 4 * last
