"""Runs from the command line, small enough to be quick: train, stop, resume, evaluate, and the same again."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
from gymnasium.envs.registration import EnvSpec
from processes import descendants, is_running, listening_addresses
from tiny_runs import STEPS, TINY, budget, comparable, stop_in, train

from ctm_rl.agents.rllib import spaces
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.runs.acting_task import ACTING_METRICS
from ctm_rl.agents.runs.train_and_resume import _with_saved_encoder
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.config import PolicyConfig
from ctm_rl.configs import for_env
from ctm_rl.inference.policy import Policy


def assert_steps_add_up(rows: list[dict[str, float | None]]) -> None:
    """Every slot is a step or an autoreset step; episodes of CartPole have at least eight steps."""
    counts = [int(row["env_steps"] or 0) for row in rows]
    for before, after in zip([0, *counts], counts, strict=False):
        assert STEPS - 8 <= after - before <= STEPS


@pytest.mark.usefixtures("ray_session")
def test_a_run_leaves_config_metrics_events_and_checkpoints(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", iterations=3, run_dir="a") == 0
    output, error = capsys.readouterr()
    assert error == ""
    assert "3 of" not in output
    assert "evaluate it: ctm-rl evaluate a" in output
    assert Path.cwd() == place
    run = Path("a")
    assert {item.name for item in run.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "tensorboard",
        "made-with.json",
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [list(ACTING_METRICS)] * len(rows)
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert_steps_add_up(rows)
    assert rows[-1]["episode_return_mean"] == rows[-1]["episode_length_mean"] > 5
    learned = (
        "policy_loss",
        "value_loss",
        "entropy",
        "kl",
        "clip_fraction",
        "explained_variance",
        "gradient_norm",
        "lr",
    )
    assert all(isinstance(row[name], float) for row in rows for name in learned)
    assert checkpoint.iteration_of(checkpoint.latest(run)) == 3
    assert [file.name[:19] for file in (run / "tensorboard").iterdir()] == ["events.out.tfevents"]
    assert json.loads((run / "config.json").read_text())["budget"]["env_steps"] == int(budget(3))


@pytest.mark.usefixtures("ray_session", "place")
def test_the_same_seed_repeats_the_metrics_also_from_config_json_and_another_seed_does_not() -> None:
    assert train("cartpole", "--seed", "3", iterations=3, run_dir="a") == 0
    assert main(["train", "--config", "a/config.json", "--run-dir", "b"]) == 0
    assert train("cartpole", "--seed", "4", iterations=3, run_dir="c") == 0
    assert comparable("a") == comparable("b")
    assert comparable("a") != comparable("c")


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("algorithm", ["stock-ppo", "appo", "impala"])
def test_a_stock_algorithm_trains_resumes_and_is_evaluated(algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", "--algorithm", algorithm, iterations=1, run_dir="a") == 0
    assert main(["resume", "a", "--budget.env-steps", str(STEPS + 10)]) == 0
    rows = read_metrics(Path("a"))
    assert [row["iteration"] for row in rows] == [1, 2]
    assert rows[-1]["kl"] is None
    learned = ("total_loss", "policy_loss", "value_loss", "entropy", "gradient_norm", "lr")
    assert all(isinstance(row[name], float) for row in rows for name in learned)
    # RLlib stops at the first total that suffices: autoreset steps make it take a few more.
    assert STEPS <= (rows[0]["env_steps"] or 0) < STEPS + 4
    capsys.readouterr()
    assert main(["evaluate", "a", "--episodes", "3"]) == 0
    for option, value, field in (
        ("--ppo.target-kl", "0.1", "target_kl"),
        ("--ppo.is-clip-annealed", "True", "is_clip_annealed"),
    ):
        assert train("cartpole", "--algorithm", algorithm, option, value, iterations=1, run_dir="b") == 2
        out, err = capsys.readouterr()
        assert f"ppo.{field} has no effect with algorithm {algorithm}" in err
        # the experiment's own is left out, in a line
        assert f"cartpole: without ppo.is_clip_annealed, which algorithm {algorithm} does not have" in out
    given = ("train", "--env", "CartPole-v1", "--algorithm", algorithm, "--ppo.lr", "-1")
    assert main(list(given)) == 2
    out, err = capsys.readouterr()
    assert out == f"cartpole-v1: without ppo.normalize_rewards, which algorithm {algorithm} does not have\n"
    assert "ppo.lr must be above 0" in err


@pytest.mark.usefixtures("ray_session", "place")
def test_a_resumed_run_continues_the_counts_of_its_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", "--ppo.is-lr-annealed", iterations=2, run_dir="a") == 0
    assert main(["resume", "a"]) == 2
    assert "has used up its budget" in capsys.readouterr().err
    before = read_metrics(Path("a"))
    # As after a crash: the iteration after the checkpoint had already been written.
    with Path("a/metrics.jsonl").open("a") as file:
        file.write(json.dumps({**before[-1], "iteration": 3}) + '\n{"iterat')
    assert main(["resume", "a", "--budget.env-steps", budget(4)]) == 0
    assert "the learning rate goes from 0 to 0.00" in "".join(capsys.readouterr())
    rows = read_metrics(Path("a"))
    assert rows[:2] == before
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert_steps_add_up(rows)
    seconds = [row["seconds"] or 0 for row in rows]
    assert seconds == sorted(seconds)
    assert json.loads(Path("a/config.json").read_text())["budget"]["env_steps"] == int(budget(4))
    assert checkpoint.iteration_of(checkpoint.latest(Path("a"))) == 4
    state = checkpoint.load(checkpoint.latest(Path("a")))
    assert state["position"]["env_steps"] == rows[-1]["env_steps"]
    # Far enough on the new schedule, which ends at the new budget.
    assert (rows[-1]["lr"] or 0) < (rows[0]["lr"] or 0)


@pytest.mark.usefixtures("ray_session", "place")
def test_resuming_twice_from_one_checkpoint_has_the_same_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", iterations=1, run_dir="a") == 0
    subprocess.run(["cp", "-r", "a", "b"], check=True)
    for run_dir in ("a", "b"):
        assert main(["resume", run_dir, "--budget.env-steps", budget(3)]) == 0
    assert comparable("a") == comparable("b")


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("kind", ["gru", "mlp"])
@pytest.mark.parametrize("algorithm", ["ppo", "stock-ppo"])
def test_a_baseline_of_matched_width_is_trained_and_evaluated(
    kind: str, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    num_iterations = 2 if algorithm == "ppo" else 1
    settings = "--model.kind", kind, "--algorithm", algorithm
    assert train("cartpole", *settings, iterations=num_iterations, run_dir="a") == 0
    assert len(read_metrics(Path("a"))) == num_iterations
    capsys.readouterr()
    assert main(["evaluate", "a", "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 3
    kept = json.loads(Path("a/config.json").read_text())["model"]
    assert (kept["kind"], kept["baseline_dim"]) == (kind, None)
    policy = Policy.from_checkpoint("a")
    assert policy.agent.config.baseline_dim == policy.agent.core.answer_dim


@pytest.mark.usefixtures("ray_session", "place")
def test_a_trained_run_is_evaluated_and_the_same_seed_plays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", "--model.kind", "lstm", "--model.baseline-dim", "9", iterations=1, run_dir="a") == 0
    results = []
    for seed in ("5", "5", "6"):
        capsys.readouterr()
        assert main(["evaluate", "a", "--episodes", "7", "--json", "--seed", seed]) == 0
        results.append({**json.loads(capsys.readouterr().out), "seconds": None})
    assert results[0]["episodes"] == 7
    assert results[0]["iteration"] == 1
    assert results[0] == results[1]
    assert results[0]["env_steps"] != results[2]["env_steps"]
    assert main(["evaluate", "a", "--episodes", "7", "--deterministic"]) == 0
    assert capsys.readouterr().out.startswith("7 episodes: return ")


OWN_ENVIRONMENT = """
import gymnasium as gym
import numpy as np


class Count(gym.Env):
    observation_space = gym.spaces.Box(0.0, 9.0, (2,), np.float64)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2), {}

    def step(self, action):
        self.steps += 1
        return np.full(2, float(self.steps)), 0.5, self.steps == 6, False, {}


gym.register("Count-v0", Count)
"""


@pytest.mark.usefixtures("ray_session")
def test_an_environment_in_the_working_directory_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "count_environment.py").write_text(OWN_ENVIRONMENT)
    assert train("--env", "count_environment:Count-v0", iterations=1, run_dir="a") == 0
    row = read_metrics(Path("a"))[-1]
    assert (row["episode_return_mean"], row["episode_length_mean"]) == (3.0, 6.0)
    capsys.readouterr()
    assert main(["evaluate", "a", "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episode_return_std"] == 0.0


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts the command line in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "ctm_rl.cli.main", "train", "cartpole", *TINY, "--run-dir", "a", *arguments],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_rows(file: Path, count: int) -> None:
    """Waits until a run has so many lines of metrics."""
    for _ in range(1200):
        if file.is_file() and len(file.read_text().splitlines()) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} never had {count} lines.")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from Linux's /proc")
def test_a_signal_to_the_group_saves_a_checkpoint_although_a_runner_is_frozen(place: Path) -> None:
    """Also: what listens while it runs, and that no process is left."""
    process = start(place, "--num-env-runners", "1")
    wait_for_rows(place / "a" / "metrics.jsonl", 2)
    others = descendants(process.pid)
    (runner,) = [number for number, name in others.items() if "EnvRunner" in name]
    addresses = listening_addresses([process.pid, *others])
    os.kill(runner, signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGTERM)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 143, error
    assert_stopped(place, output, error)
    assert not [name for number, name in others.items() if is_running(number)]
    assert len(addresses) > 3
    assert set(addresses.values()) <= {"127.0.0.1", "::1"}


@pytest.mark.usefixtures("ray_session")
def test_sigterm_does_so_although_ray_takes_it_when_it_starts(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process and its Ray; all that a Ray of the run's own would do besides is to take SIGTERM.
    starts = []

    def take(**_: Any) -> None:
        starts.append(signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)))

    monkeypatch.setattr(ray, "is_initialized", lambda: sys._getframe(1).f_code.co_name != "ray_for")
    monkeypatch.setattr(ray, "init", take)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    stop_in(2, monkeypatch, signal.SIGTERM)
    assert main(["train", "cartpole", *TINY, "--run-dir", "a"]) == 143
    assert len(starts) == 1
    written = capsys.readouterr()
    assert_stopped(place, written.out, written.err)


def assert_stopped(place: Path, output: str, error: str) -> None:
    """A run was stopped by a signal, and its last checkpoint is of its last line."""
    assert error == "ctm-rl: stopped, a checkpoint is saved; continue with: ctm-rl resume a\n"
    assert output.splitlines()[0] == "cartpole: starting Ray on this machine"
    rows = read_metrics(place / "a")
    assert checkpoint.iteration_of(checkpoint.latest(place / "a")) == rows[-1]["iteration"] == len(rows)
    assert not list((place / "a" / "checkpoints").glob(".*"))


@pytest.mark.usefixtures("ray_session")
def test_a_stop_before_the_run_has_started_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Run.__enter__

    def built(self: Run) -> Run:
        assert (place / "a" / "config.json").is_file()
        signal.raise_signal(signal.SIGINT)
        return build(self)

    monkeypatch.setattr(Run, "__enter__", built)
    assert train("cartpole", iterations=3, run_dir="a") == 130
    assert capsys.readouterr().err == "ctm-rl: stopped; nothing was written.\n"
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("ray_session", "place")
def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("cartpole", "--ppo.lr", "1e30", iterations=3, run_dir="a") == 1
    error = capsys.readouterr().err
    assert error.startswith("ctm-rl: iteration 1 has diverged: ")
    assert "the learning rate is 1e+30; lower --ppo.lr. The checkpoint of iteration 0 is from before that" in error
    assert error.count("\n") == 1
    assert checkpoint.iteration_of(checkpoint.latest(Path("a"))) == 0


@pytest.mark.usefixtures("ray_session", "place")
def test_two_processes_do_not_train_in_one_directory(capsys: pytest.CaptureFixture[str]) -> None:
    from ctm_rl.agents.run_directory.directory import locked

    assert train("cartpole", iterations=1, run_dir="a") == 0
    capsys.readouterr()
    with locked(Path("a")):
        assert main(["resume", "a", "--budget.env-steps", "1000"]) == 2
    assert "another process trains in it" in capsys.readouterr().err


ROW: dict[str, float | None] = {
    **dict.fromkeys(ACTING_METRICS),
    "iteration": 7,
    "env_steps": 123_456,
    "seconds": 4_000.0,
    "env_steps_per_second": 1_234.0,
}


@pytest.mark.parametrize("width", [40, 80, 120])
def test_progress_is_one_live_line_on_a_terminal_however_narrow(width: int) -> None:
    from rich.console import Console

    from ctm_rl.agents.experiments.settings import BudgetConfig
    from ctm_rl.agents.run_directory.progress import TerminalProgress

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width)
    progress = TerminalProgress(BudgetConfig(env_steps=1_000_000), console)
    progress.show_waiting("loading")
    progress.show_metrics({**ROW, "episode_return_mean": 41.5})
    with console.capture() as capture:
        console.print(progress)
    assert capture.get().count("\n") == 1
    assert "return 41.5" in capture.get()
    progress.show_stopping()
    with console.capture() as capture:
        console.print(progress)
    assert "stopping; again to stop now" in capture.get()
    progress.close()
    assert "return 41.5" in screen.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_parts_of_a_long_iteration_are_shown_and_what_a_stop_waits_for(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from ctm_rl.agents.experiments.settings import BudgetConfig
    from ctm_rl.agents.run_directory import progress as shown
    from ctm_rl.agents.run_directory.progress import TerminalProgress

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=120)
    progress = TerminalProgress(BudgetConfig(env_steps=1_000_000), console)
    progress.show_part(8, "steps", 1, 64)
    assert screen.getvalue() == ""  # it may be over soon
    monkeypatch.setattr(shown, "SECONDS_BEFORE_PARTS", -1.0)
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_PARTS", -1.0)
    progress.show_part(8, "minibatches", 3, 64)
    assert is_terminal or "iteration 8: 3 of 64 minibatches" in screen.getvalue()
    progress.show_metrics({**ROW, "episode_return_mean": 41.5})
    with console.capture() as capture:
        console.print(progress)
    assert "iteration 8: 3 of 64 minibatches; return 41.5" in capture.get()
    progress.show_stopping()
    with console.capture() as capture:
        console.print(progress)
    assert "stopping after this minibatch; again to stop now" in capture.get()
    progress.close()


def test_progress_in_a_file_is_plain_lines_and_always_the_last_one() -> None:
    from rich.console import Console

    from ctm_rl.agents.experiments.settings import BudgetConfig
    from ctm_rl.agents.run_directory.progress import TerminalProgress

    file = io.StringIO()
    progress = TerminalProgress(BudgetConfig(env_steps=1_000_000), Console(file=file, width=20))
    progress.show_waiting("loading")
    for iteration in (7, 8, 9):
        progress.show_metrics({**ROW, "iteration": iteration})
    progress.close()
    facts = "no episode ended yet, 1,234 steps/s, 123k of 1M steps, 1:06:40"
    assert file.getvalue().splitlines() == ["loading", f"iteration 7: {facts}", f"iteration 9: {facts}"]


@pytest.mark.usefixtures("ray_session", "place")
def test_a_run_whose_image_encoder_is_no_longer_the_default_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, "Large-v0", EnvSpec("Large-v0", entry_point=lambda **_: Large()))
    with monkeypatch.context() as before:
        before.setattr(spaces, "is_large_image", lambda shape: False)
        assert train("--env", "Large-v0", iterations=1, run_dir="large") == 0
    assert fit(PolicyConfig(), Large.observation_space, Large.action_space).config.encoder == "patches"
    assert main(["resume", "large", "--budget.env-steps", budget(2)]) == 0
    assert Policy.from_checkpoint("large").layout.parts[0].encoder == "conv"


def test_a_run_goes_on_with_the_encoder_that_it_began_with() -> None:
    experiment = for_env("CartPole-v1")
    saved = {"policy": {"config": {"encoder": "control"}}}  # what normalised vectors got before there was plain
    assert _with_saved_encoder(experiment, saved).model == replace(experiment.model, encoder="control")  # pyright: ignore
    named = replace(experiment, model=replace(experiment.model, encoder="plain"))
    assert _with_saved_encoder(named, saved) == named


class Large(gym.Env[Any, Any]):
    """Shows black images, 48 pixels on a side."""

    observation_space = gym.spaces.Box(0, 255, (48, 48, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros((48, 48, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros((48, 48, 3), np.uint8), 1.0, False, True, {}
