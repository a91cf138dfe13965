"""Environments that fail: reported with name, step and seed, or survived and counted."""

import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import faulty
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple
from rich.console import Console
from tiny_runs import TINY

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.agents.rllib.count_faults import FaultCounter
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import TerminalProgress
from ctm_rl.cli.main import main
from ctm_rl.envs.guard.describe_fault import Misbehaviour
from ctm_rl.envs.guard.env_guard import MAX_FAULTS, EnvGuard
from ctm_rl.envs.guard.space_check import make_reader
from ctm_rl.envs.guard.vector_guard import VectorGuard
from ctm_rl.errors import EnvFault

FAULTY = "faulty:Faulty-v0"
# The alarm signal is needed by the environment's timer, so pytest must not use it for its own timeout.
OWN_ALARM = pytest.mark.timeout(120, method="thread")


def config(fault: str = "raise", *, step: int = 2, every: int = 2, **changes: Any) -> EnvConfig:
    """A faulty environment."""
    changes = {"step_time_limit": 0.2 if fault == "hang" else None, "check_bounds": fault == "bounds", **changes}
    return EnvConfig(id=FAULTY, kwargs={"fault": fault, "step": step, "every": every}, **changes)


def play(env: gym.Env, num_episodes: int, seed: int = 9) -> list[tuple[int, dict[str, Any]]]:
    """Lengths of episodes, and the information of their last steps."""
    ends = []
    for episode in range(num_episodes):
        env.reset(seed=seed if episode == 0 else None)
        for step in range(1, 10):
            *_, is_terminated, is_truncated, info = env.step(0)
            if is_terminated or is_truncated:
                ends.append((step, info))
                break
    return ends


@OWN_ALARM
@pytest.mark.parametrize("fault", faulty.FAULTS)
def test_a_fault_is_reported_with_environment_step_and_seed(fault: str) -> None:
    env = make_env(config(fault))
    with pytest.raises(EnvFault) as raised:
        play(env, 2)
    message = str(raised.value)
    expected = rf"environment faulty:Faulty-v0 {faulty.FAULTS[fault]}, in step 2 of episode 2 from seed 9\."
    assert re.fullmatch(expected, message)


@OWN_ALARM
@pytest.mark.parametrize("fault", ["raise", "nan", "hang"])
def test_a_fault_at_the_start_of_an_episode_is_reported_too(fault: str) -> None:
    with pytest.raises(EnvFault, match=r"at the start of episode 2 from seed 9\."):
        play(make_env(config(fault, step=0)), 2)
    with pytest.raises(EnvFault, match="at the start of episode 1, without a seed"):
        make_env(config(fault, step=0, every=1)).reset()


def tolerant(fault: str, **changes: Any) -> EnvGuard:
    """A faulty environment whose guard goes on."""
    arguments = {"fault": fault, "step": 2, "every": 2, **changes}
    limit = 0.2 if fault == "hang" else None
    return EnvGuard(
        lambda: faulty.FaultyEnv(**arguments), "Faulty-v0", time_limit=limit, is_tolerant=True, has_bounds=True
    )


@OWN_ALARM
@pytest.mark.parametrize("fault", faulty.FAULTS)
def test_a_tolerant_guard_truncates_the_episode_and_recreates_the_environment(fault: str) -> None:
    env = tolerant(fault)
    first = env.env
    ends = play(env, 5)
    # The second episode of every environment fails, and so does the second one after that.
    assert [length for length, _ in ends] == [4, 2, 4, 2, 4]
    assert [bool(info) for _, info in ends] == [False, True, False, True, False]
    assert re.search(faulty.FAULTS[fault], ends[1][1]["env_fault"])
    assert env.num_faults == 2
    assert env.env is not first


def test_the_last_good_observation_ends_an_episode_that_failed() -> None:
    env = tolerant("nan")
    play(env, 1)
    env.reset()
    good, *_ = env.step(0)
    bad, reward, is_terminated, is_truncated, _ = env.step(0)
    np.testing.assert_array_equal(bad, good)
    assert (reward, is_terminated, is_truncated) == (0.0, False, True)


def test_a_reset_that_fails_is_repeated() -> None:
    env = tolerant("raise", step=0)
    play(env, 1)
    _, info = env.reset()
    assert "at the start of episode 2 from seed 9" in info["env_fault"]
    assert env.num_faults == 1


def test_what_follows_a_fault_is_the_same_for_the_same_seed() -> None:
    def observations() -> list[np.ndarray]:
        env = tolerant("raise")
        play(env, 2)
        return [env.reset()[0] for _ in range(3)]

    np.testing.assert_array_equal(observations(), observations())


@pytest.mark.parametrize("step", [0, 1])
def test_an_environment_that_always_fails_is_given_up(step: int) -> None:
    env = tolerant("raise", step=step, every=1)
    with pytest.raises(EnvFault, match=f"{MAX_FAULTS} faults in a row, the last one: environment Faulty-v0"):
        play(env, MAX_FAULTS + 1)


@OWN_ALARM
def test_a_step_within_its_time_limit_is_not_interrupted() -> None:
    env = EnvGuard(lambda: faulty.FaultyEnv(every=100), "Faulty-v0", time_limit=0.2)
    for _ in range(3):
        play(env, 1)
        # The timer does not run between steps.
        threading.Event().wait(0.3)


def test_a_thread_in_which_steps_cannot_be_timed_logs_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    from ctm_rl.envs.guard import timeout

    monkeypatch.setattr(timeout._ALARM, "has_warned", False)
    with caplog.at_level(logging.WARNING):
        env = EnvGuard(lambda: faulty.FaultyEnv(every=100), "Faulty-v0", time_limit=5.0)
        thread = threading.Thread(target=play, args=(env, 3))
        thread.start()
        thread.join()
    assert caplog.text.count("steps of an environment are not timed here") == 1


def no_note(kind: str, text: str) -> None:
    """Fails: what is in its space is not noted."""
    raise AssertionError(f"{kind}: {text}")


INSIDE: list[tuple[Space, Any]] = [
    (Box(-1, 1, (2,)), np.array([1 + 1e-7, -1])),
    (Box(-np.inf, np.inf, (2,)), np.array([3e18, -3e18], np.float32)),
    (Box(0, 9, (2,), np.uint8), np.array([0, 9], np.uint8)),
    (Box(0, 255, (1,), np.int64), np.array([3], np.int32)),
    (Discrete(3), np.int64(2)),
    (MultiDiscrete([2, 3]), np.array([1, 2])),
    (MultiBinary(2), np.array([1, 0], np.int8)),
    (Text(5), "abc"),
    (Dict(a=Discrete(2), b=Box(0, 1, ())), {"a": 1, "b": np.float32(0.5)}),
    (Tuple((Discrete(2), Discrete(2))), (1, 0)),
]


@pytest.mark.parametrize(("space", "observation"), INSIDE, ids=str)
def test_observations_in_their_space_pass(space: Space, observation: Any) -> None:
    for is_quick in (False, True):
        read = make_reader(space, no_note, has_bounds=True, is_quick=is_quick)
        np.testing.assert_equal(read(observation), observation)


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (Box(-1, 1, (2,)), np.array([1.001, -1]), r"holds 1.001 at \[0\], outside of its bounds \[-1.0, 1.0\]"),
        (Box(0, np.inf, (2,)), np.array([1, -1]), r"holds -1 at \[1\], outside of its bounds \[0.0, inf\]"),
        (Box(0, 9, (1,), np.uint8), np.array([10], np.uint8), r"holds 10 at \[0\]"),
        (Box(0, 9, (1,), np.uint8), np.array([1.5]), "holds float64 instead of uint8"),
        (Discrete(3), 3, r"is 3, outside of Discrete\(3\)"),
        (MultiDiscrete([2, 3]), np.array([2, 0]), "outside of MultiDiscrete"),
        (Dict(a=Discrete(2)), {"b": 1}, r"has parts \['b'\] instead of \['a'\]"),
        (Dict(a=Discrete(2)), {"a": 2}, "part 'a' is 2, outside"),
        (Tuple((Discrete(2), Discrete(2))), (1, 2), "part 1 is 2, outside"),
        (Tuple((Discrete(2), Discrete(2))), 3, "is 3 instead of a tuple of 2"),
    ],
    ids=str,
)
def test_observations_outside_their_space_are_described(space: Space, observation: Any, message: str) -> None:
    with pytest.raises(Misbehaviour, match=message):
        make_reader(space, no_note, has_bounds=True)(observation)


def test_bounds_are_checked_only_if_asked_for_but_numbers_always() -> None:
    assert len(play(make_env(config("bounds", check_bounds=False)), 4)) == 4
    with pytest.raises(Misbehaviour, match=r"holds NaN at \[0\]"):
        make_reader(Box(0, 1, (1,)), no_note)(np.array([np.nan]))


@pytest.mark.parametrize("fault", ["raise", "reward"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_environments_of_a_vector_report_their_own_faults(vectorization: Any, fault: str) -> None:
    env: Any = make_vector_env(config(fault, vectorization=vectorization), 3)
    env.reset(seed=[4, 5, 6])
    with pytest.raises(EnvFault, match=f"{faulty.FAULTS[fault]}, in step 2 of episode 2 from seed 4"):
        for _ in range(9):
            env.step(np.zeros(3, int))
    env.close()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_survived_faults_of_a_vector_are_counted_once(vectorization: Any) -> None:
    env: Any = make_vector_env(config("raise", vectorization=vectorization, tolerate_faults=True), 3)
    counter = FaultCounter(env, is_tolerant=True)
    env.reset(seed=[4, 5, 6])
    assert counter.pop() == 0
    # Four steps, the next episode's start, two steps, the last of which fails.
    truncated = [env.step(np.zeros(3, int))[3].all() for _ in range(7)]
    assert truncated == [False] * 6 + [True]
    assert (counter.pop(), counter.pop()) == (3, 0)
    env.close()


def test_a_process_that_has_ended_is_reported() -> None:
    env: Any = make_vector_env(config("hang", every=100, vectorization="async", step_time_limit=100.0), 2)
    env.reset(seed=[1, 2])
    assert isinstance(env, gym.vector.AsyncVectorEnv)
    env.processes[1].kill()
    with pytest.raises(EnvFault, match=r"environment faulty:Faulty-v0 has ended its process, rows \[1\]"):
        env.step(np.zeros(2, int))


class BrokenVector(gym.vector.VectorEnv):
    """A vector class whose third step fails."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, fault: str) -> None:
        self.num_envs, self.fault, self.count = num_envs, fault, 0
        self.single_observation_space, self.single_action_space = Box(-9, 9, (2,)), Discrete(2)
        self.observation_space = Box(-9, 9, (num_envs, 2))
        self.action_space = MultiDiscrete([2] * num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.count += 1
        observations, rewards = np.zeros((self.num_envs, 2), np.float32), np.zeros(self.num_envs)
        if self.count == 3:
            if self.fault == "raise":
                raise RuntimeError("broken")
            observations[1, 0] = {"nan": np.nan, "bounds": 10}.get(self.fault, 0)
            rewards[1] = np.inf if self.fault == "reward" else 0
        return observations, rewards, np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool), {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"raised RuntimeError: broken \(test_faults.py, line \d+\)"),
        ("nan", r"holds NaN at \[1, 0\]"),
        ("bounds", r"holds 10.0 at \[1, 0\], outside of its bounds \[-9.0, 9.0\]"),
        ("reward", "returned the reward inf in row 1"),
    ],
)
def test_an_environments_own_vector_class_is_guarded_as_a_whole(fault: str, message: str) -> None:
    env = VectorGuard(BrokenVector(4, fault), "Broken-v0", has_bounds=True)
    env.reset(seed=7)
    with pytest.raises(
        EnvFault, match=rf"4 x environment Broken-v0 .*{message}.*, in step 3 after the reset with seed 7"
    ):
        for _ in range(3):
            env.step(np.zeros(4, int))


@pytest.fixture
def place(place: Path) -> Path:
    """A working directory with the environment beside it."""
    shutil.copy(faulty.__file__, place)
    return place


TRAIN = ("train", "--env", FAULTY, *TINY, "--run-dir", "a")


@pytest.mark.usefixtures("ray_session", "place")
def test_a_run_ends_at_a_fault_with_a_checkpoint_and_resumes_tolerating_faults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kwargs = json.dumps({"fault": "nan", "every": 6})
    assert main([*TRAIN, "--env-kwargs", kwargs, "--budget.env-steps", "100"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.match(
        r"ctm-rl: environment faulty:Faulty-v0 .*NaN.*in step 2 of episode 6 from seed \d+\. A check", error
    )
    rows = read_metrics(Path("a"))
    assert 1 <= len(rows) < 3
    assert main(["resume", "a", "--tolerate-env-faults", "--budget.env-steps", "200"]) == 0
    rows = read_metrics(Path("a"))
    assert (rows[0]["env_faults"], rows[-1]["env_faults"]) == (0, 4)
    assert json.loads(Path("a/config.json").read_text())["env"]["tolerate_faults"]
    capsys.readouterr()
    # Every sixth episode of an environment fails, and is played again from another seed.
    assert main(["evaluate", "a", "--episodes", "200", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["episodes"], result["env_steps"]) == (200, 800)
    assert result["env_faults"] == 32


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("algorithm", ["ppo", "stock-ppo"])
def test_a_tolerant_run_counts_its_faults(algorithm: str) -> None:
    arguments = ("--tolerate-env-faults", "--algorithm", algorithm, "--budget.env-steps", "75")
    assert main([*TRAIN, *arguments]) == 0
    faults = [row["env_faults"] or 0 for row in read_metrics(Path("a"))]
    assert faults[0] == 4
    assert faults == sorted(faults)
    assert faults[-1] > 4


@pytest.mark.usefixtures("ray_session", "place")
def test_the_stock_runner_ends_with_the_same_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--algorithm", "stock-ppo", "--budget.env-steps", "75"]) == 1
    assert "ctm-rl: environment faulty:Faulty-v0 raised ZeroDivisionError: on purpose" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["hang"])
def test_a_fault_in_another_process_is_reported_in_one_line(place: Path, fault: str) -> None:
    kwargs = json.dumps({"fault": fault})
    command = [sys.executable, "-c", "import sys; from ctm_rl.cli.main import main; sys.exit(main())", *TRAIN]
    command += ["--env-kwargs", kwargs, "--num-env-runners", "1", "--env.step-time-limit", "0.2"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=150)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match(rf"ctm-rl: environment faulty:Faulty-v0 {faulty.FAULTS[fault]}, in step 2 of episode 2", last)
    assert "Traceback" not in done.stderr


def test_progress_shows_faults() -> None:
    output = io.StringIO()
    progress = TerminalProgress(BudgetConfig(env_steps=1000), Console(file=output, width=200))
    row = {"iteration": 1, "env_steps": 10, "seconds": 1.0, "env_steps_per_second": 10.0, "episode_return_mean": 2.0}
    progress.show_metrics({**row, "env_faults": 3})
    assert "return 2.000, 3 env faults, 10 steps/s" in output.getvalue()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm signal")
def test_the_alarm_does_not_outlive_the_program() -> None:
    program = (
        "import atexit, signal; atexit.register(lambda: print(signal.getitimer(signal.ITIMER_REAL)[1]));"
        "from ctm_rl.envs.guard.timeout import StepTimer; StepTimer(60.0).prepare();"
        "print(signal.getitimer(signal.ITIMER_REAL)[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["15.0", "0.0"]
