"""Environments that end their process, or need the folder that a run is started from: real processes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import peculiar
import pytest
from tiny_runs import TINY

from ctm_rl import notes
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.runs.check_environment import environment_check
from ctm_rl.cli.main import main
from ctm_rl.errors import UserError

COMMAND = (sys.executable, "-P", "-c", "import sys; from ctm_rl.cli.main import main; sys.exit(main())")
"""The command as installed: the working directory is not the first place on its path."""
BREAKING = """
import os, signal, sys, time
import gymnasium as gym
from gymnasium.spaces import Box, Discrete

class Breaking(gym.Env):
    observation_space, action_space = Box(-1, 1, (2,)), Discrete(2)

    def __init__(self, how):
        self.how = how

    def reset(self, *, seed=None, options=None):
        print("connecting to the simulator")
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "leave":
            os._exit(9)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float("nan") if self.how == "nan" else 1, False, True, {}

gym.register("Breaking-v0", Breaking)
"""


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("crash", "its process was ended by SIGSEGV in the first two steps: connecting to the simulator"),
        ("leave", "its process ended itself with code 9 in the first two steps: connecting"),
        ("nan", "returned the reward nan, which is not a finite number, in step 1 of episode 1 from seed 0"),
    ],
)
def test_an_environment_is_tried_out_in_a_process_of_its_own(place: Path, how: str, message: str) -> None:
    (place / "breaking.py").write_text(BREAKING)
    sys.path.append(str(place))
    experiment = ActingExperiment(name="a", env=EnvConfig(id="breaking:Breaking-v0", kwargs={"how": how}))
    with (
        pytest.raises(UserError, match=message) as raised,
        environment_check(experiment, StopRequest(lambda: None)) as wait,
    ):
        wait()
    assert "\n" not in str(raised.value)


def test_what_the_trial_notes_is_logged_here(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = ActingExperiment(name="a", env=EnvConfig(id="peculiar:peculiar/float-v0"))
    with environment_check(experiment, StopRequest(lambda: None)) as wait:
        wait()
    assert re.search("peculiar/float-v0 returned an observation that is 4.0 instead of a whole number", caplog.text)
    notes.note("peculiar:peculiar/float-v0 type", "again")
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("place")
def test_a_run_that_its_environment_refuses_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--env", "peculiar:peculiar/large-v0", *TINY, "--run-dir", "a"]) == 2
    assert re.fullmatch(
        r"ctm-rl: environment peculiar:peculiar/large-v0 returned an observation that holds 3e\+25 .*\n",
        capsys.readouterr().err,
    )
    assert list(Path().iterdir()) == []


LOOK = """
import sys
from pathlib import Path
import ray
from ctm_rl.agents.cluster.session import prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.cluster.users_folder import entered, remembered
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.run_directory.working_directory import working_inside

def look():
    import os, sys, statistics
    import own
    return os.getcwd(), own.VALUE, statistics.mean([1, 3]), sys.path[-1]

sys.path.append(str(Path.cwd()))
settings = RunSettings(name="a")
prepare_environment(settings)
with remembered(), working_inside(Path("run")), ray_for(settings, StopRequest(lambda: None)), entered():
    assert Path("own.py").is_file()
    print(*ray.get(ray.remote(look).remote()))
"""


def test_a_worker_of_ray_is_in_the_folder_of_the_user_which_comes_last_on_its_path(place: Path) -> None:
    (place / "own.py").write_text("VALUE = 17")
    (place / "run").mkdir()
    for name in ("random", "queue", "ray", "statistics", "numpy"):
        (place / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    done = subprocess.run([sys.executable, "-P", "-c", LOOK], cwd=place, capture_output=True, text=True, timeout=170)
    assert done.stdout.split() == [str(place), "17", "2", str(place)], done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_environments_are_played_in_the_folder_of_the_user_which_hides_no_module(place: Path) -> None:
    shutil.copy(peculiar.__file__, place / "own_games.py")
    (place / "levels.txt").write_text("0.75")
    for name in ("random", "queue", "ray", "statistics", "numpy"):
        (place / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    command = [*COMMAND, "train", "--env", "own_games:peculiar/ReadsFile-v0", *TINY]
    command += ["--num-env-runners", "1", "--budget.env-steps", "50", "--run-dir", "runs/a"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr
    (row, *_) = (json.loads(line) for line in (place / "runs/a/metrics.jsonl").read_text().splitlines())
    assert row["episode_return_mean"] == 5 * 0.75
