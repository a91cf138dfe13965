"""Signals to whole runs at random moments, Ray's death, and stops while Ray starts; minutes, with real processes."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import descendants, is_running
from tiny_runs import CTM_RL, TINY_ACTING, assert_same_state

from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.checkpoints import store as checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from Linux's /proc"),
]

NUM_STOPS = 20
SAVE_SECONDS = 10.0
ITERATION_SECONDS = 120.0
SLOW_ENVIRONMENT = """
import time

import gymnasium as gym
import numpy as np


class Slow(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        time.sleep(0.02)
        self.steps += 1
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return observation, float(observation[0] > 0) * float(action), self.steps == 50, False, {}


gym.register("Slow-v0", Slow)
"""
NUM_ENVS = 2
NUM_STEPS = round(0.8 * ITERATION_SECONDS / 0.02 / NUM_ENVS)
"""Steps of an environment in an iteration, four fifths of whose time they take."""
ARGUMENTS = (
    *("--env", "slow_environment:Slow-v0", *TINY_ACTING, "--num-envs-per-env-runner", str(NUM_ENVS)),
    *("--ppo.num-rollout-steps", str(NUM_STEPS), "--ppo.is-lr-annealed", "False", "--ppo.num-epochs", "4"),
    *("--budget.env-steps", "100000000"),
)


def start(place: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Starts the command line in a process group of its own, as a shell does; what it writes goes to a file."""
    with (place / "said").open("ab") as said:
        return subprocess.Popen([*CTM_RL, *arguments], cwd=place, stdout=said, stderr=said, start_new_session=True)


def wait_until(is_done: Callable[[], bool], seconds: float, place: Path) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, (place / "said").read_text()[-2000:]
        time.sleep(0.05)


def reached(run: Path) -> int:
    return checkpoint.iteration_of(checkpoint.latest(run))


@pytest.mark.timeout(20000)
def test_twenty_sigterms_to_the_group_in_long_iterations_are_all_saved_in_time(tmp_path: Path) -> None:
    (tmp_path / "slow_environment.py").write_text(SLOW_ENVIRONMENT)
    rng = random.Random(11)
    run, seconds = tmp_path / "a", []
    for number in range(NUM_STOPS):
        before = None if number == 0 else reached(run)
        if before is not None:
            shutil.copytree(run, tmp_path / f"from-{before}", dirs_exist_ok=True)
        process = start(tmp_path, *(("train", *ARGUMENTS, "--run-dir", "a") if before is None else ("resume", "a")))
        begun = (tmp_path / "said").read_text().count("run /") + 1
        wait_until(lambda begun=begun: (tmp_path / "said").read_text().count("run /") >= begun, 300, tmp_path)
        time.sleep(rng.uniform(0, 1.5 * ITERATION_SECONDS))
        others = descendants(process.pid)
        sent = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)
        whole = len(read_metrics(run))
        wait_until(lambda whole=whole: reached(run) >= whole, 2 * SAVE_SECONDS, tmp_path)
        seconds.append(time.monotonic() - sent)
        assert process.wait(120) == 143
        assert reached(run) == len(read_metrics(run))
        wait_until(lambda others=others: not any(map(is_running, others)), 30, tmp_path)
        print(f"stop {number}: iteration {reached(run)} saved in {seconds[-1]:.2f} s, {time.monotonic() - sent:.1f} s")
    assert max(seconds) < SAVE_SECONDS, seconds
    # What a run that was stopped in iteration N + 1 went on to is what one goes on to whose budget ended with N.
    stops = sorted(int(path.name.removeprefix("from-")) for path in tmp_path.glob("from-*"))
    before = next(one for one in stops if one + 1 in stops)
    wanted = checkpoint.load(checkpoint.latest(tmp_path / f"from-{before + 1}"))
    steps = str(wanted["position"]["env_steps"])
    assert start(tmp_path, "resume", f"from-{before}", "--budget.env-steps", steps).wait(1200) == 0
    assert_same_state(checkpoint.load(checkpoint.latest(tmp_path / f"from-{before}")), wanted)


@pytest.mark.timeout(1800)
def test_a_stop_while_ray_starts_leaves_nothing(tmp_path: Path) -> None:
    for number, seconds in enumerate((1.0, 3.0, 5.0, 6.0, 7.0, 8.0, 10.0)):
        process = start(tmp_path, "train", "cartpole", *TINY_ACTING, "--num-env-runners", "1", "--run-dir", f"{number}")
        time.sleep(seconds)
        is_begun = (tmp_path / f"{number}" / "checkpoints").exists()
        others = descendants(process.pid)
        os.killpg(process.pid, signal.SIGTERM)
        code = process.wait(120)
        is_caught = (tmp_path / f"{number}").exists()
        print(f"after {seconds} s: exit code {code}, has begun {is_begun}, left {is_caught}")
        assert code in (143, -signal.SIGTERM)  # the latter before the command line is loaded
        if not is_begun and is_caught:
            assert checkpoint.latest(tmp_path / f"{number}")  # it began meanwhile
        wait_until(lambda others=others: not any(map(is_running, others)), 30, tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["raylet", "gcs_server"])
def test_the_death_of_ray_costs_one_iteration_and_says_so_in_one_line(kind: str, tmp_path: Path) -> None:
    process = start(tmp_path, "train", "cartpole", *TINY_ACTING, "--num-env-runners", "1", "--run-dir", "a")
    wait_until(lambda: len(read_metrics(tmp_path / "a")) > 2, 300, tmp_path)
    others = descendants(process.pid)
    (victim,) = [one for one, name in others.items() if f"/{kind} " in name]
    os.kill(victim, signal.SIGKILL)
    assert process.wait(60) == 1
    rows = read_metrics(tmp_path / "a")
    assert rows[-1]["iteration"] is not None
    assert reached(tmp_path / "a") >= rows[-1]["iteration"] - 1
    lines = (tmp_path / "said").read_text().splitlines()
    assert lines[-1].startswith("ctm-rl: Ray has ended: its process ")
    # The latter if the copy of the last iteration was left out to save time.
    assert re.search("(A checkpoint is saved|The last checkpoint remains); continue with: ctm-rl resume", lines[-1])
    assert not [line for line in lines if "(raylet)" in line]
    wait_until(lambda: not any(map(is_running, others)), 30, tmp_path)
