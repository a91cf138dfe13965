"""Runs from somebody else: what their configuration names is neither imported, nor joined, nor written unasked."""

import argparse
import dataclasses
import importlib
import importlib.machinery
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from paths import GOLDEN
from tiny_runs import CTM_RL, TINY, budget

from ctm_rl.agents import resume
from ctm_rl.agents.evaluation.evaluate import evaluate
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.experiments.serialise import AnyExperiment, to_json
from ctm_rl.agents.experiments.settings import EvalSettings
from ctm_rl.agents.rllib import private
from ctm_rl.agents.run_directory import trust
from ctm_rl.agents.run_directory.directory import SWEEP_FILE, read_config
from ctm_rl.agents.runs import train_and_resume
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.configs import for_data, load
from ctm_rl.envs.data.hub import PREFIX
from ctm_rl.errors import UserError

EVIL = """
import pathlib
import gymnasium as gym

(pathlib.Path(__file__).parent / "executed").touch()
gym.register("Roll-v0", entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv", max_episode_steps=30)
"""
WRAPPED = "ctm_rl.envs:ctm_rl/Wrapped-v0"


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has trained nothing yet."""
    home = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module that leaves a mark when it is imported."""
    (place / "evil.py").write_text(EVIL)
    yield place
    forget()


def forget() -> None:
    """As in a new process, nothing of the current folder has been imported."""
    sys.modules.pop("evil", None)
    gym.registry.pop("Roll-v0", None)
    sys.path[:] = [entry for entry in sys.path if entry != os.getcwd()]


def foreign(name: str, kind: str = "acting", **changes: Any) -> Path:
    """A run that somebody else has made: configuration and checkpoint agree."""
    run_dir = Path(name)
    shutil.copytree(GOLDEN / "runs" / kind, run_dir)
    config = json.loads((run_dir / "config.json").read_bytes())
    config = {**config, **changes, "env": {**config["env"], **changes.get("env", {})}}
    (run_dir / "config.json").write_text(json.dumps(config))
    newest = checkpoint.latest(run_dir)
    state = {**checkpoint.load(newest), "experiment": config}
    shutil.rmtree(run_dir / checkpoint.FOLDER)
    checkpoint.save(run_dir, checkpoint.iteration_of(newest), state)
    return run_dir


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must be refused without importing anything; returns its message."""
    capsys.readouterr()
    assert main([*arguments]) == 2
    assert not Path("executed").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


ENVS: dict[str, dict[str, Any]] = {
    "id": {"id": "evil:Roll-v0"},
    "part of a package": {"id": "evil.more:Roll-v0"},
    "argument": {"id": WRAPPED, "kwargs": {"env_id": "evil:Roll-v0"}},
    "nested argument": {"id": WRAPPED, "kwargs": {"arguments": {"env_id": ["evil:Roll-v0"]}}},
    "wrapper": {"wrappers": ["evil:Wrapper"]},
}


@pytest.mark.parametrize("command", ["evaluate", "resume"])
@pytest.mark.parametrize("name", ENVS)
def test_a_module_of_this_folder_is_not_imported(
    name: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign("theirs", env=ENVS[name])
    assert f"import {'evil.more' if 'part' in name else 'evil'} from {place}" in refused(capsys, command, "theirs")
    assert "--trust" in refused(capsys, command, "theirs")


CALLED: dict[str, dict[str, Any]] = {
    "id": {"id": "os:system", "kwargs": {"command": "touch executed"}},
    "explicit": {"id": "os::system", "kwargs": {"command": "touch executed"}},
    "argument": {"id": WRAPPED, "kwargs": {"env_id": "os:system", "arguments": {"command": "touch executed"}}},
    "wrapper": {"wrappers": ["os:system"]},
    "wrapper with a value": {"wrappers": ['os:system={"command": "a:b"}']},
}


@pytest.mark.parametrize("command", ["evaluate", "resume"])
@pytest.mark.parametrize("name", CALLED)
@pytest.mark.usefixtures("place")
def test_no_function_is_called_wherever_it_is(name: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    foreign("theirs", env=CALLED[name])
    assert "asks to call os:system, which no run" in refused(capsys, command, "theirs")
    assert "asks to call os:system" in refused(capsys, "train", "--config", "theirs/config.json")


@pytest.mark.usefixtures("place")
def test_a_value_of_a_wrapper_hides_no_module(capsys: pytest.CaptureFixture[str]) -> None:
    foreign("theirs", env={"wrappers": ["evil:Wrapper=a:b"]})
    assert "import evil from" in refused(capsys, "evaluate", "theirs")


@pytest.mark.parametrize("encoder", ["evil:Net", "os:system"])
@pytest.mark.parametrize("is_described", [True, False])
def test_an_encoder_of_a_checkpoint_is_neither_imported_nor_called(
    encoder: str, is_described: bool, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = foreign("theirs")
    config = json.loads((run_dir / "config.json").read_bytes())
    if is_described:
        config["model"]["encoder"] = encoder
        (run_dir / "config.json").write_text(json.dumps(config))
    newest = checkpoint.latest(run_dir)
    state = {**checkpoint.load(newest), "experiment": config}
    state["policy"] = {**state["policy"], "config": {**state["policy"]["config"], "encoder": encoder}}
    checkpoint.save(run_dir, checkpoint.iteration_of(newest), state)
    for command in ("evaluate", "resume"):
        line = refused(capsys, command, "theirs", *(("--budget.env-steps", "999999") if command == "resume" else ()))
        if encoder == "os:system":
            assert "must be a class of torch.nn.Module" in line or "the run's is 'auto'" in line
        elif command == "evaluate" or is_described:
            assert f"asks to import evil from {place}" in line
        else:
            assert "config.encoder names evil:Net, and the run's is 'auto'" in line


@pytest.mark.usefixtures("place")
def test_callbacks_of_this_folder_are_not_imported(capsys: pytest.CaptureFixture[str]) -> None:
    foreign("theirs", callbacks=["evil:Callback"])
    assert "import evil from" in refused(capsys, "resume", "theirs", "--budget.env-steps", "100000")
    assert "import evil from" in refused(capsys, "train", "--config", "theirs/config.json", "--run-dir", "mine")
    # Evaluation calls none.
    assert main(["evaluate", "theirs", "--episodes", "1"]) == 0
    assert not Path("executed").exists()
    assert main(["train", "--config", "theirs/config.json", "--run-dir", "mine", "--callbacks", "evil:Callback"]) == 2
    assert Path("executed").exists()
    assert "evil has no Callback" in capsys.readouterr().err


def test_a_logger_of_this_folder_is_not_imported_and_an_evaluation_needs_none(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign("theirs", logger=["tensorboard", "evil:Logger"])
    commands = (("resume", "theirs"), ("train", "--config", "theirs/config.json", "--run-dir", "new"))
    for arguments in commands:
        assert f"import evil from {place}" in refused(capsys, *arguments)
    assert main(["evaluate", "theirs", "--episodes", "1"]) == 0
    assert not Path("executed").exists()


@pytest.mark.usefixtures("place")
def test_a_module_that_evaluations_would_import_is_asked_for(place: Path) -> None:
    experiment = load("cartpole")
    for option, settings in (
        ("--eval.env", EvalSettings(every=5, env="evil:Roll-v0")),
        ("--eval.kwargs", EvalSettings(every=5, kwargs={"env": "evil:A"})),
    ):
        claims = trust.run_claims(dataclasses.replace(experiment, eval=settings))
        assert [(claim.option, claim.value) for claim in claims] == [(option, "evil")]
    assert not (place / "executed").exists()


@pytest.mark.usefixtures("place")
def test_a_trusted_run_is_evaluated_and_not_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    foreign("theirs", env={"id": "evil:Roll-v0", "wrappers": ["hide-velocities=1,3"]})
    assert main(["evaluate", "theirs", "--episodes", "2", "--trust"]) == 0
    assert Path("executed").exists()
    Path("executed").unlink()
    forget()
    assert "--trust" in refused(capsys, "evaluate", "theirs")


@pytest.mark.usefixtures("place")
def test_an_imported_checkpoint_is_not_an_own_run(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        published = torch.load(GOLDEN / "ctm_cartpole.pt", weights_only=True)
    published["args"].env_id = "evil:Roll-v0"
    torch.save(published, "theirs.pt")
    assert main(["import", "theirs.pt", "--run-dir", "imported"]) == 0
    assert "import evil from" in refused(capsys, "evaluate", "imported")


def test_data_of_the_network_is_not_loaded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign("theirs", "answering", env={"held_out_kwargs": {"path": "hf:somebody/digits"}})
    assert "load the data set hf:somebody/digits from the network" in refused(capsys, "evaluate", "theirs")
    assert trust.HUB == PREFIX


@pytest.mark.parametrize(
    "env",
    [{"kwargs": {"path": "evil:load"}}, {"id": "evil:Task"}, {"held_out_kwargs": {"path": "evil:load"}}],
    ids=["data", "task", "held-out data"],
)
@pytest.mark.parametrize("command", [("evaluate", "theirs"), ("train", "--config", "theirs/config.json")])
def test_own_data_and_tasks_of_this_folder_are_not_imported(
    env: dict[str, Any], command: tuple[str, ...], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign("theirs", "answering", env={"id": "ctm_rl.envs:ctm_rl/Data-v0", **env})
    assert f"import evil from {place}" in refused(capsys, *command)
    assert "--trust" in refused(capsys, *command)


def test_what_a_command_line_has_looked_at_is_remembered(place: Path) -> None:
    (place / "evil.py").write_text("def load():\n    return [[1.0], [2.0]] * 10, ['a', 'b'] * 10\n")
    trust.import_from_current_folder()
    experiment = for_data("evil:load")
    assert "evil" in sys.modules
    claims = trust.run_claims(experiment)
    assert [(claim.option, claim.value, claim.folder) for claim in claims] == [("--env.kwargs", "evil", str(place))]
    forget()
    with pytest.raises(UserError, match="asks to import evil from"):
        trust.check_trusted(claims, "theirs")
    trust.remember(claims)
    trust.check_trusted(trust.run_claims(experiment), "mine")


def test_neither_a_cluster_is_joined_nor_a_storage_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address, store = f"127.0.0.1:{server.getsockname()[1]}", str(place / "store")
        foreign("theirs", address=address, storage=store)
        config = "theirs/config.json"
        for command in (["resume", "theirs"], ["train", "--config", config], ["tune", "--config", config]):
            line = refused(capsys, *command)
            assert f"join the Ray cluster at {address}, and to write checkpoints to {store}" in line
        assert "write checkpoints" in refused(capsys, "resume", "theirs", "--address", address)
        assert "join" in refused(capsys, "resume", "theirs", "--storage", "None")
        assert "join" in refused(capsys, "bench", "--config", config, "--storage=None")
        with pytest.raises(TimeoutError):
            server.accept()
    assert sorted(os.listdir()) == ["evil.py", "theirs"]


@pytest.mark.usefixtures("place")
def test_a_file_does_not_choose_where_a_run_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.json").write_text(json.dumps({**to_json(load("cartpole")), "run_dir": "../elsewhere"}))
    assert "/elsewhere" in refused(capsys, "train", "--config", "a.json")
    assert not Path("../elsewhere").exists()
    assert "--trust is for --config FILE" in refused(capsys, "train", "cartpole", "--trust")


def test_what_the_command_line_names_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[AnyExperiment] = []
    monkeypatch.setattr(train_and_resume, "train", lambda experiment, progress: trained.append(experiment) or place)
    config = {**to_json(load("cartpole")), "address": "10.1.2.3:6379", "storage": "s3://theirs/runs"}
    Path("a.json").write_text(json.dumps({**config, "env": {**config["env"], "id": "evil:Roll-v0"}}))
    named = ("--address=10.1.2.3:6379", "--storage", "s3://mine/runs")
    assert main(["train", "--config", "a.json", *named]) == 2
    assert os.getcwd() not in sys.path
    assert main(["train", "--config", "a.json", *named, "--env.id", "evil:Roll-v0", "--run-dir", "a"]) == 0
    assert os.getcwd() == sys.path[-1]
    assert main(["train", "--config", "a.json", "--trust", "--run-dir", "b"]) == 0
    assert [run.storage for run in trained] == ["s3://mine/runs", "s3://theirs/runs"]


@pytest.mark.usefixtures("place")
def test_python_refuses_as_the_command_line_does() -> None:
    run_dir = foreign("theirs", env={"id": "evil:Roll-v0"}, storage="s3://theirs/runs")
    with pytest.raises(UserError, match=r"asks to import evil from .*trust=True"):
        evaluate(run_dir)
    with pytest.raises(UserError, match="and to write checkpoints to s3://theirs/runs"):
        resume(run_dir)
    assert not Path("executed").exists()


@pytest.mark.usefixtures("ray_session")
def test_an_own_run_needs_no_trust_wherever_its_directory_is(
    place: Path, state_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*TINY, "--budget.env-steps", budget(1), "--run-dir", "mine", "--storage", "store")
    assert main(["train", "--env", "evil:Roll-v0", *options]) == 0
    shutil.copytree("mine", "copied/again/ours")
    Path("executed").unlink()
    forget()
    assert main(["evaluate", "copied/again/ours", "--episodes", "2"]) == 0
    assert Path("executed").exists()
    forget()
    assert main(["resume", "copied/again/ours", "--budget.env-steps", budget(2)]) == 0
    assert sorted(os.listdir("store")) == ["mine", "ours"]
    # A module of the same name in another folder is another module.
    forget()
    Path("other").mkdir()
    shutil.copy("evil.py", "other")
    os.chdir("other")
    assert f"import evil from {place}/other" in refused(capsys, "evaluate", "../mine")
    file = state_home / "ctm_rl" / "trusted"
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]
    assert "evil" not in file.read_text()


@pytest.mark.usefixtures("place")
def test_installed_environments_leave_no_trace(state_home: Path) -> None:
    assert trust.run_claims(read_config(foreign("theirs"))) == []
    assert trust.run_claims(read_config(foreign("answers", "answering", address="auto"))) == []
    assert trust.env_claims(EnvConfig(id="gymnasium:CartPole-v1", kwargs={"path": "C:/nowhere", "size": 5})) == []
    trust.remember([])
    assert list(state_home.iterdir()) == []


CLAIM = trust.Claim("--address", "join the Ray cluster at {}", "10.1.2.3:6379")


def remembered() -> bool:
    """Whether the claim is taken as an own run's."""
    try:
        trust.check_trusted([CLAIM], "a")
    except UserError:
        return False
    return True


def test_a_record_that_others_can_write_is_ignored(state_home: Path) -> None:
    trust.remember([CLAIM])
    trust.remember([CLAIM])
    file = state_home / "ctm_rl" / "trusted"
    assert remembered()
    assert len(file.read_text().split()) == 1
    for path in (file, file.parent):
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        assert not remembered()
        path.chmod(mode)
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")
    assert not remembered()
    trust.remember([CLAIM._replace(value="10.9.9.9:1")])
    assert len((file.parent / "elsewhere").read_text().split()) == 1
    file.unlink()
    os.mkfifo(file)
    assert not remembered()


@pytest.mark.parametrize("home", ["/proc/nowhere", "relative"])
def test_without_a_home_nothing_is_remembered(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", home)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    trust.remember([CLAIM])
    assert not remembered()
    trust.check_trusted([CLAIM], "a", is_trusted=True)


@pytest.mark.usefixtures("place")
def test_a_search_from_elsewhere_is_not_continued(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"experiment": to_json(load("cartpole")), "options": {"search": ["seed=grid(3,4)"]}}
    Path("sweep").mkdir()
    Path("sweep", SWEEP_FILE).write_text(json.dumps(values))
    assert "run what Ray Tune's files in" in refused(capsys, "resume", "sweep")


def test_a_run_is_refused_before_it_is_fetched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign("store/theirs", env={"id": "evil:Roll-v0"}, storage=str(place / "store"))
    line = refused(capsys, "resume", f"file://{place}/store/theirs")
    assert "import evil from" in line
    assert "checkpoints" not in line
    assert not Path("runs").exists()


def test_the_current_folder_counts_as_installed_only_where_it_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(place)
    for path, entries, expected in (
        ([here, "/lib"], "", ["/lib"]),  # python -m
        (["", "/lib"], "", ["/lib"]),  # python -c
        (["/bin", here, "/lib"], "", ["/bin", here, "/lib"]),  # a package that is installed from here
        (["/bin", here, "/lib"], os.pathsep + "/lib", ["/bin", "/lib"]),
        (["/bin", here, "/lib"], os.pathsep + here, ["/bin", here, "/lib"]),
        (["/bin", here, "/lib"], here, ["/bin", here, "/lib"]),
    ):
        monkeypatch.setenv("PYTHONPATH", entries)
        monkeypatch.setattr(sys, "path", path)
        assert trust.installed_path() == expected


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_package_that_is_installed_from_this_folder_is_trusted_after_an_own_module_of_it(
    is_installed: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Editable:
        """What an editable installation puts among the finders."""

        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return importlib.machinery.PathFinder.find_spec(name, [str(place)]) if name == "mine" else None

    (place / "mine.py").touch()
    if is_installed:
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    monkeypatch.syspath_prepend(str(place))
    importlib.import_module("mine")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(place)])
    trust.import_from_current_folder()
    try:
        claims = [(claim.value, claim.folder) for claim in trust.value_claims({"--env.id": "mine:Roll-v0"})]
        assert claims == ([] if is_installed else [("mine", os.path.realpath(place))])
    finally:
        del sys.modules["mine"]


def test_the_folder_of_a_script_is_not_installed_although_ray_comes_before_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["/ray/thirdparty_files", str(place), "/lib", str(place)])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    assert trust.installed_path() == ["/ray/thirdparty_files", "/lib", str(place)]


def test_relative_import_paths_stay_out_of_the_run_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "lib", "/opt"])
    with trust.fixed_import_path(place):
        assert sys.path == [str(place), str(place / "lib"), "/opt"]
        sys.path.append("/new")
    assert sys.path == ["", "lib", "/opt", "/new"]
    job = private.job_without_working_directory()
    job._py_driver_sys_path.extend(["/opt", str(place)])
    assert job._py_driver_sys_path == ["/opt"]


@pytest.mark.slow
def test_nothing_in_a_run_directory_is_imported_by_a_runner(place: Path) -> None:
    run_dir = foreign("theirs", num_env_runners=1, num_cpus_per_env_runner=0.0)
    for module in ("gymnasium", "tree", "ctm_rl", "torch"):
        (run_dir / f"{module}.py").write_text(EVIL)
    done = subprocess.run(
        [*CTM_RL, "resume", "theirs", "--budget.env-steps", "480"],
        env={**os.environ, "PYTHONPATH": f":{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert not (run_dir / "executed").exists()
    assert done.returncode == 0, done.stderr
