"""A comparison: which runs are missing, how they are done side by side, stopped, continued and reported."""

import dataclasses
import importlib.machinery
import json
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from learning_runs import learned, played_randomly

from ctm_rl.agents.bench.learning import runs as learning_runs
from ctm_rl.agents.bench.learning.options import LearningOptions
from ctm_rl.agents.bench.learning.results import NUM_POINTS, add_run, key_of, read_results
from ctm_rl.agents.bench.learning.study import StudyStopped, jobs_of, missing, run_study
from ctm_rl.cli.main import main
from ctm_rl.configs import load
from ctm_rl.errors import UserError

STAND_IN = """
import json, pathlib, signal, sys, time
words = sys.argv[1:]
print("words", words, file=sys.stderr)
if not words:  # the worker of others
    task = json.loads(sys.stdin.read())
    if task["contender"] in WHAT:
        sys.exit("ctm-rl: it went wrong.")
    values = {"returns": [10.0] * task["episodes"]}
    if task["contender"] == "sb3":
        values |= {"rows": [[task["env_steps"] // 2, 30.0], [task["env_steps"] + 8, 40.0]], "seconds": 5.0}
    print(json.dumps(values))
    sys.exit()
if words[0] == "evaluate":
    print(json.dumps({"episode_return_mean": 50.0}))
    sys.exit()
run = pathlib.Path(words[1] if words[0] == "resume" else words[words.index("--run-dir") + 1])
run.mkdir(exist_ok=True)
(run / "config.json").write_text("{}")
kind = "resumed" if words[0] == "resume" else words[words.index("--model.kind") + 1]
if "wait" in WHAT and kind == "ctm":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    (run / "waits").touch()
    time.sleep(60)
for iteration in (1, 2):
    row = {"iteration": iteration, "env_steps": 520 * iteration, "seconds": 3.0, "episode_return_mean": 20.0}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + chr(10))
if kind in WHAT:
    print("ctm-rl: it went wrong.", file=sys.stderr)
    sys.exit(1)
"""
"""Processes in the place of ctm-rl and of the worker, which cost no second to start."""
FEW: dict[str, Any] = {"env_steps": 1000, "episodes": 4, "seeds": (1,), "tasks": ("cartpole",), "parallel": 2}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the processes; some contenders fail or wait."""

    def install(*what: str) -> None:
        command = (sys.executable, "-S", "-c", f"WHAT = {what!r}\n{STAND_IN}")
        monkeypatch.setitem(sys.modules, "sb3_contrib", types.ModuleType("sb3_contrib"))  # replaced too
        sys.modules["sb3_contrib"].__spec__ = importlib.machinery.ModuleSpec("sb3_contrib", None)
        monkeypatch.setattr(learning_runs, "COMMAND", command)
        monkeypatch.setattr(learning_runs, "_WORKER", command)

    return install


def study(place: Path, fields: tuple[str, ...] = (), **changes: Any) -> tuple[dict[str, str], list[str]]:
    """Runs a small comparison; returns failures and what was written."""
    options = LearningOptions(**{**FEW, "out": str(place / "a.json"), **changes})
    lines: list[str] = []
    experiments = {name: load(name) for name in options.tasks}
    return run_study(experiments, fields, options, "the command", lines.append), lines


def run_of(place: Path, contender: str) -> tuple[Path, str]:
    """The directory of a run of the first seed, and its log."""
    (run_dir,) = (path for path in (place / "a-runs").glob(f"cartpole-{contender}-1000-seed-1-*") if path.is_dir())
    return run_dir, run_dir.with_name(f"{run_dir.name}.log").read_text()


def test_every_task_contender_and_seed_is_a_run_and_each_task_has_a_random_policy() -> None:
    options = LearningOptions(tasks=("cartpole", "cartpole-window"), contenders=("lstm", "sb3"), seeds=(3, 4))
    jobs = jobs_of({name: load(name) for name in options.tasks}, (), options)  # pyright: ignore[reportArgumentType]
    assert [job.key for job in jobs[:5]] == [
        ("cartpole", "random", 0, 0),
        *(("cartpole", name, seed, 100_000) for seed in (3, 4) for name in ("lstm", "sb3")),
    ]
    assert jobs[6].key == ("cartpole-window", "lstm", 3, 100_000)  # the experiment's own budget
    assert len({job.name for job in jobs}) == len(jobs) == 10


def test_any_environment_is_a_task_by_its_id(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in()
    env_id = "gymnasium.envs:CartPole-v1"
    words = ["--tasks", env_id, "--contenders", "lstm", "--seeds", "1", "--env-steps", "1000", "--episodes", "4"]
    assert main(["bench", "learning", *words, "--out", str(tmp_path / "a.json")]) == 0
    assert {(run["task"], run["contender"]) for run in read_results(tmp_path / "a.json")} == {
        (env_id, "random"),
        (env_id, "lstm"),
    }
    (log,) = (tmp_path / "a-runs").glob("*-lstm-*.log")
    assert log.name.startswith("gymnasium.envs-CartPole-v1-lstm-1000-seed-1-")
    assert f"words ['train', '--env', '{env_id}', '--model.kind', 'lstm'" in log.read_text()


def test_variants_are_runs_of_ours_under_another_name() -> None:
    options = LearningOptions(**FEW, contenders=("ctm",), variant="z")
    (_, job) = jobs_of({"cartpole": load("cartpole")}, ("--ppo.lr", "1e-4"), options)  # pyright: ignore[reportArgumentType]
    assert (job.key.contender, job.kind, job.name) == ("ctm:z", "ctm", "cartpole-ctm-z-1000-seed-1")
    there = [learned("cartpole", "ctm:z", 1, [1.0], fields=["--ppo.lr", "1e-3"])]
    with pytest.raises(UserError, match=r"runs of ctm:z on cartpole with other fields \(--ppo\.lr 1e-3\).*--variant"):
        missing([job], there)
    assert missing([job], [{**there[0], "fields": list(job.fields)}]) == []
    assert missing([job], [{**there[0], "env_steps": 2000}]) == [job]


def test_a_study_adds_every_run_to_its_file(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in()
    failures, lines = study(tmp_path)
    assert failures == {}
    runs = {key_of(run).contender: run for run in read_results(tmp_path / "a.json")}
    assert list(runs) == ["ctm", "lstm", "random", "sb3"]
    sb3, ctm = runs["sb3"], runs["ctm"]
    assert (sb3["evaluation"], sb3["seconds"], sb3["reached_env_steps"]) == (10.0, 5.0, 1008)
    assert sb3["curve"][-1] == pytest.approx(39.843)  # at step 1,000, between 500 and 1,008
    assert (ctm["evaluation"], ctm["curve"][25:], ctm["reached_env_steps"]) == (50.0, [20.0] * 25, 1040)
    assert (runs["random"]["curve"], runs["random"]["evaluation"]) == ([], 10.0)
    assert ctm["machine"] and "torch" in ctm["versions"]
    run_dir, log = run_of(tmp_path, "ctm")
    trained = ["train", "cartpole", "--model.kind", "ctm", "--seed", "1", "--budget.env-steps", "1000"]
    assert str([*trained, "--num-threads", "1", "--run-dir", str(run_dir)]) in log
    assert str(["evaluate", str(run_dir), "--episodes", "4", "--json", "--deterministic", "True"]) in log
    assert lines[0] == f"runs to do: 4, 2 at a time, in {tmp_path}/a-runs"
    assert sum(line.startswith("4 of 4: ") for line in lines) == 1


def test_what_is_there_is_not_repeated(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in()
    study(tmp_path, contenders=("sb3",))
    before = read_results(tmp_path / "a.json")
    _, lines = study(tmp_path, contenders=("sb3",))
    assert lines == []
    _, lines = study(tmp_path, contenders=("sb3",), seeds=(1, 2))
    assert lines[0].startswith("runs to do: 1, ")
    runs = read_results(tmp_path / "a.json")
    assert [run["seed"] for run in runs] == [0, 1, 2] and runs[:2] == before


def test_runs_of_other_settings_are_kept_with_a_note(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in()
    add_run(tmp_path / "a.json", learned("cartpole", "ctm", 1, [1.0], settings="before"))
    _, lines = study(tmp_path, contenders=("ctm",))
    assert lines[0] == (
        "note: runs of a.json that were made with other settings or another version, or evaluated otherwise, and are "
        "not repeated: 1, such as cartpole-ctm-1000-seed-1"
    )
    assert lines[1].startswith("runs to do: 1, ")  # the random policy


@pytest.mark.parametrize(("options", "num_others"), [({}, 0), ({"episodes": 5}, 2), ({"deterministic": False}, 1)])
def test_runs_that_were_evaluated_otherwise_are_kept_with_a_note(
    options: dict[str, Any], num_others: int, tmp_path: Path, stand_in: Callable[..., None]
) -> None:
    stand_in()
    study(tmp_path, contenders=("ctm",))
    _, lines = study(tmp_path, contenders=("ctm",), **options)
    found = [line.partition(" are not repeated: ")[2] for line in lines]
    assert [one.partition(",")[0] for one in found] == ([str(num_others)] if num_others else [])


def test_a_run_that_fails_loses_no_other_and_is_tried_again(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in("lstm", "sb3")
    failures, lines = study(tmp_path)
    assert failures == {
        "cartpole-lstm-1000-seed-1": "it went wrong.",
        "cartpole-sb3-1000-seed-1": "it went wrong.",
    }
    assert "cartpole-lstm-1000-seed-1 failed: it went wrong." in lines
    assert [run["contender"] for run in read_results(tmp_path / "a.json")] == ["ctm", "random"]
    stand_in()
    assert study(tmp_path)[0] == {}
    # It had taken all its steps: what was left is its evaluation.
    _, log = run_of(tmp_path, "lstm")
    assert "['resume'" not in log and log.count("['train'") == 1
    assert len(read_results(tmp_path / "a.json")) == 4


def test_a_run_does_not_go_on_with_the_settings_of_before(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in("ctm")
    fields = ("--ppo.lr", "1e-3"), ("--ppo.lr", "1e-4")
    ppo = load("cartpole").ppo  # pyright: ignore[reportAttributeAccessIssue]
    directories = set()
    for index, lr in enumerate((1e-3, 1e-4)):
        experiment = dataclasses.replace(load("cartpole"), ppo=dataclasses.replace(ppo, lr=lr))
        options = LearningOptions(**FEW, contenders=("ctm",), variant="lr", out=str(tmp_path / "a.json"))
        assert run_study({"cartpole": experiment}, fields[index], options, "", lambda _: None)
        directories |= {path for path in (tmp_path / "a-runs").glob("cartpole-ctm-lr-*") if path.is_dir()}
    assert len(directories) == 2


def test_a_signal_stops_a_study_and_the_same_command_goes_on(tmp_path: Path, stand_in: Callable[..., None]) -> None:
    stand_in("wait")

    def stop() -> None:
        deadline = time.monotonic() + 100
        while not list((tmp_path / "a-runs").glob("*/waits")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StudyStopped, match="the same command goes on") as stopped:
        study(tmp_path, contenders=("ctm",), parallel=1, seeds=(1, 2))
    thread.join()
    assert stopped.value.exit_code == 128 + signal.SIGINT
    assert [run["contender"] for run in read_results(tmp_path / "a.json")] == ["random"]
    stand_in()
    _, lines = study(tmp_path, contenders=("ctm",), parallel=1, seeds=(1, 2))
    assert lines[0].startswith("runs to do: 2, 1 at a time")
    run_dir, log = run_of(tmp_path, "ctm")
    assert f"['resume', '{run_dir}']" in log


def test_the_command_reports_what_the_file_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    for run in (played_randomly("cartpole", 20.0), learned("cartpole", "ctm", 1, [20.0, 500.0])):
        add_run(path, run)
    assert main(["bench", "learning", "--report", "--out", str(path)]) == 0
    assert "cartpole, 1,000 steps: random policy 20, reference 500" in capsys.readouterr().out
    assert main(["bench", "learning", "--report", "--json", "--out", str(path)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["tasks"][0]["contenders"][0]["area"] == {"value": 50.0, "low": None, "high": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contenders", "ppo"], "contenders must be of ctm, lstm, mlp, sb3, got 'ppo'."),
        (["--seeds", "1", "1"], "seeds must be one or more different values, got '1 1'."),
        (["--tasks", "cartpol"], "unknown experiment 'cartpol': did you mean cartpole?"),
        (["--tasks", "parity"], "bench learning compares policies, and parity answers; name an experiment that acts."),
        (["--ppo.lr", "1"], "runs with other fields need a name, such as --variant mine; got --ppo.lr 1."),
        (["--variant", "a", "--ppo.lr", "1"], "fields are of our experiments; say who learns with them"),
        (["--variant", "a b"], "variant must be a name of letters, digits, dots and dashes, got 'a b'."),
        (["--variant", "a", "--contenders", "ctm", "--seed", "1"], "bench learning sets --seed itself; see --seeds."),
        (
            ["--variant", "a", "--contenders", "ctm", "--tasks", "cartpole", "--ppo.lrr", "1"],
            "unknown option --ppo.lrr; did you mean --ppo.lr?",
        ),
        (["--num-threads", "2"], "bench learning sets --num-threads itself; each run has one thread."),
        (["--stop.patience", "9"], "runs of bench learning all take --env-steps, without --stop.patience."),
        (["--env.kwargs", "{}"], "--env.kwargs makes another task, with another random policy; give it as"),
        (["--total-timesteps", "1e5"], "bench learning sets --total-timesteps itself; see --env-steps."),
        (["--report"], "--report reads a file that ctm-rl bench learning has written, and there is no "),
        (["--report", "--ppo.lr", "1"], "--report runs nothing and takes no fields, got --ppo.lr 1."),
        (["--out", "a.png"], "out must be a file that ends in .json, got 'a.png'; the figure lies beside it."),
        (["--tasks", "cartpole", "--out", "no/a.json"], "no/a.json cannot be written; name a file in a directory"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "learning", *arguments]) == 2
    written = capsys.readouterr()
    assert message in written.err and written.err.count("\n") == 1 and written.out == ""
    assert list(tmp_path.iterdir()) == []


def test_sb3_that_is_not_installed_is_refused_before_anything_runs(
    tmp_path: Path, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in()
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UserError, match=r"sb3 needs sb3-contrib; install it with pip install"):
        study(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_contenders_learn_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sb3_contrib")
    out = str(tmp_path / "a.json")
    words = ["--tasks", "cartpole", "--contenders", "lstm", "sb3", "--env-steps", "3000", "--seeds", "1"]
    assert main(["bench", "learning", *words, "--episodes", "4", "--out", out]) == 0
    assert "lstm - sb3" in capsys.readouterr().out
    runs = {run["contender"]: run for run in read_results(Path(out))}
    assert list(runs) == ["lstm", "random", "sb3"]
    for name in ("lstm", "sb3"):
        assert 3000 <= runs[name]["reached_env_steps"] <= 3000 + 64 * 32
        assert len(runs[name]["curve"]) == NUM_POINTS and 10 < runs[name]["curve"][-1] < 100
        assert 5 < runs[name]["evaluation"] <= 500
