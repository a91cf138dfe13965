"""Sweeps from the command line: searches, trials as runs, stopping, resuming, and repeating the best trial."""

import dataclasses
import importlib.util
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
from tiny_runs import TINY_ACTING, comparable

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.tuning.options import TuneOptions
from ctm_rl.agents.tuning.plan import CHANGEABLE, Sweep, read_sweep
from ctm_rl.agents.tuning.search_space import Search, parse_search, with_values
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.configs import load
from ctm_rl.errors import UserError

TINY = (*TINY_ACTING, "--model.max-seq-len", "4", "--ppo.num-rollout-steps", "10")
TINY_ANSWERS = (
    *("--env.kwargs", '{"length": 4}', "--model.num-neurons", "16", "--model.history-length", "3"),
    *("--model.num-ticks", "3", "--model.feature-dim", "8", "--model.num-heads", "2"),
    *("--model.num-output-sync-neurons", "4", "--model.num-action-sync-neurons", "4", "--learning.batch-size", "8"),
    *("--learning.num-steps-per-iteration", "5", "--learning.num-warmup-steps", "3"),
    *("--held-out.num-samples", "50", "--held-out.num-iterations", "2"),
)

TRIALS = [f"trial-0000{number}" for number in range(3)]


def command_after(output: str, beginning: str) -> list[str]:
    """The command in a line of the output, without the program."""
    (line,) = (line for line in output.splitlines() if line.startswith(beginning))
    return line.removeprefix(beginning).split()[1:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ppo.lr=loguniform(1e-4,3e-3)", Search("ppo.lr", "loguniform", (1e-4, 3e-3))),
        (" ppo.gamma = uniform( 0.9, 1 ) ", Search("ppo.gamma", "uniform", (0.9, 1))),
        ("model.num-ticks=randint(1,5)", Search("model.num_ticks", "randint", (1, 5))),
        ("model.num_neurons=quniform(16,64,16)", Search("model.num_neurons", "quniform", (16, 64, 16))),
        ("model.kind=choice(ctm, lstm,gru)", Search("model.kind", "choice", ("ctm", "lstm", "gru"))),
        ("env.id=grid(CartPole-v1,my_module:My-v0)", Search("env.id", "grid", ("CartPole-v1", "my_module:My-v0"))),
        ("ppo.target_kl=choice(None,0.02,.1)", Search("ppo.target_kl", "choice", (None, 0.02, 0.1))),
        ("ppo.is_lr_annealed=grid(True,false)", Search("ppo.is_lr_annealed", "grid", (True, False))),
        ("model.head_dims=choice([8],[8, 9])", Search("model.head_dims", "choice", ([8], [8, 9]))),
        ("""env.id=choice("a,b",'c(d)')""", Search("env.id", "choice", ("a,b", "c(d)"))),
    ],
)
def test_a_search_is_read(text: str, expected: Search) -> None:
    assert parse_search(text) == expected
    assert list(map(type, parse_search(text).arguments)) == list(map(type, expected.arguments))


MISTAKES = {
    "nothing": ((), "tune needs at least one --search FIELD=FUNCTION(VALUES)"),
    "form": (("ppo.lr",), "must be FIELD=FUNCTION(VALUES), as 'ppo.lr=loguniform(1e-4,3e-3)', got 'ppo.lr'"),
    "function": (("ppo.lr=normal(0,1)",), "unknown function 'normal'; allowed are uniform(a,b), loguniform(a,b),"),
    "program": (("ppo.lr=choice(__import__('os').getcwd())",), "cannot read the value \"__import__('os').getcwd()\""),
    "no number": (("ppo.lr=uniform(0.1,x)",), "uniform(a,b) takes 2 numbers, got uniform(0.1,x)"),
    "not finite": (("ppo.lr=uniform(0.1,1e999)",), "uniform(a,b) takes 2 numbers"),
    "too many": (("ppo.lr=uniform(1,2,3)",), "uniform(a,b) takes 2 numbers, got uniform(1,2,3)"),
    "fraction": (("seed=randint(1,2.5)",), "randint(a,b) takes 2 whole numbers, got randint(1,2.5)"),
    "empty range": (("ppo.lr=uniform(0.3,0.1)",), "uniform(0.3,0.1) is empty: 0.3 must be below 0.1"),
    "empty whole range": (("seed=randint(3,3)",), "randint(3,3) is empty: 3 must be below 3"),
    "empty choice": (("ppo.lr=choice()",), "choice needs at least one value, as in choice(x,y,...)"),
    "logarithm": (("ppo.lr=loguniform(0,1)",), "loguniform needs bounds above 0, got loguniform(0,1)"),
    "step": (("model.num_neurons=quniform(10,64,16)",), "must be multiples of its step"),
    "field": (("model.num_tick=choice(1,2)",), "model.num_tick: not a field of the experiment; did you mean model."),
    "field without its group": (("lr=choice(1e-3,2e-3)",), "did you mean ppo.lr?"),
    "group": (("ppo=choice(1,2)",), "ppo: not a field of the experiment"),
    "the same for all": (("run_dir=choice(a,b)",), "run_dir: it is the same for all trials of a sweep"),
    "logger": (("logger=choice(csv)",), "logger: it is the same for all trials of a sweep"),
    "twice": (("ppo.lr=choice(1e-3)", "ppo.lr=choice(2e-3)"), "ppo.lr is given twice; give all its values at once"),
    "type": (("ppo.num_epochs=uniform(1,4)",), "ppo.num_epochs must be a whole number, got 1.37"),
    "word": (("model.kind=choice(ctm,rnn)",), "model.kind must be one of ctm, lstm, gru, mlp; got 'rnn'"),
    "value": (("ppo.gamma=uniform(0.9,1.5)",), "ppo.gamma must be at least 0 and at most 1, got 1.5"),
    "inside a range": (("ppo.num_minibatches=randint(1,5)",), "a trial with ppo.num_minibatches 3 cannot be run"),
    "together": (
        ("num_envs_per_env_runner=choice(64,6)", "ppo.num_minibatches=choice(4,3)"),
        "a trial with num_envs_per_env_runner 64, ppo.num_minibatches 3 cannot be run",
    ),
}


@pytest.mark.parametrize("searches, message", MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_search_is_reported_in_one_line_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], searches: tuple[str, ...], message: str
) -> None:
    arguments = [argument for search in searches for argument in ("--search", search)]
    assert main(["tune", "cartpole", *arguments, "--run-dir", "new"]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("ctm-rl: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num-samples", "0"), "num_samples must be at least 1, got 0"),
        (("--metric", "reward"), "--metric must be one of iteration, env_steps, "),
        (("--scheduler", "hyperband"), "--scheduler must be one of asha, pbt, none, got 'hyperband'"),
        (("--scheduler", "pbt", "--reduction-factor", "2"), "reduction_factor has no effect with scheduler pbt"),
        (("--logger", "aim"), "--logger must be one of tensorboard, csv, wandb, mlflow, or module:Class"),
        (("--logger", "mlflow"), 'pip install "ctm-rl[mlflow]"'),
        (("--num-sample", "4"), "unknown option --num-sample; did you mean --num-samples?"),
        (("--num-env-runners", "4096"), "need 4096 CPU cores, and this machine has"),
        (("--storage", "shared"), "--storage is for a single run; put the sweep where all machines see it"),
        (("--address", "auto", "--num-env-runners", "1", "--placement", "pack"), "--placement is for a single run"),
        (("--search", "env.id=choice(CartPole-v9)"), "It provides versioned environments"),
        (("--scheduler", "pbt", "--search", "model.num_ticks=choice(1,2)"), "model.num_ticks: scheduler pbt changes"),
        (("--scheduler", "pbt", "--search", "ppo.adam_epsilon=choice(1e-5,1e-8)"), "where only ppo.lr, "),
    ],
)
def test_impossible_options_are_reported_in_one_line_and_leave_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    known = ["tune", "cartpole", "--search", "ppo.lr=loguniform(1e-4,3e-3)", "--run-dir", "new"]
    if "mlflow" in arguments and importlib.util.find_spec("mlflow"):
        pytest.skip("mlflow is installed")
    assert main([*known, *arguments]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert message in error
    assert list(place.iterdir()) == []


def test_values_of_a_trial_are_those_of_its_experiment_checked_and_typed() -> None:
    config = {"ppo.lr": 1, "model.head_dims": [8, 9], "env.kwargs.length": 7, "budget.minutes": None, "seed": 5}
    experiment = with_values(load("cartpole"), config)
    assert isinstance(experiment, ActingExperiment)
    assert (experiment.ppo.lr, type(experiment.ppo.lr)) == (1.0, float)
    assert (experiment.model.head_dims, experiment.env.kwargs, experiment.seed) == ((8, 9), {"length": 7}, 5)
    with pytest.raises(ValueError, match=r"ppo\.num_epochs must be a whole number"):
        with_values(load("cartpole"), {"ppo.num_epochs": 1.5})


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("ppo.lr=loguniform(1e-4,1e-3)", 1.2e-3, 1e-3),
        ("ppo.lr=uniform(1e-4,1e-3)", 2e-4, 2e-4),
        ("ppo.num_epochs=randint(1,4)", 4.8, 3),
        ("model.num_neurons=quniform(16,64,16)", 38, 32),
        ("ppo.lr=choice(1,2)", 3, 3),
    ],
)
def test_a_changed_value_is_moved_back_into_its_range(text: str, value: float, expected: float) -> None:
    assert parse_search(text).nearest(value) == expected


def test_a_sweep_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    options = TuneOptions(search=("learning.lr=uniform(1e-4,1e-3)",), scheduler="pbt", max_concurrent=1)
    sweep = Sweep(tmp_path, load("parity"), options)
    (tmp_path / "sweep.json").write_text(json.dumps(sweep.to_json()))
    assert read_sweep(tmp_path) == sweep
    # As version 0.1.0 wrote it.
    old = sweep.to_json()
    del old["experiment"]["logger"]
    (tmp_path / "sweep.json").write_text(json.dumps({**old, "options": {**old["options"], "logger": ["json", "csv"]}}))
    assert read_sweep(tmp_path).experiment.logger == ("tensorboard", "csv")
    assert (sweep.metric, sweep.num_samples) == ("accuracy", 8)
    assert dataclasses.replace(sweep, options=TuneOptions(search=("seed=grid(1,2)",))).num_samples == 1
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not a file that ctm-rl tune has written"):
        read_sweep(tmp_path)


def test_every_changeable_field_is_a_field() -> None:
    known = {
        f"{group}.{field.name}"
        for experiment in (load("cartpole"), load("parity"))
        for group in ("ppo", "learning", "bandit")
        if hasattr(experiment, group)
        for field in dataclasses.fields(getattr(experiment, group))
    }
    assert set(CHANGEABLE) < known


@pytest.mark.usefixtures("ray_session", "place")
def test_a_sweep_leaves_runs_and_the_best_one_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    # Of the three the second cannot learn, which is no matter for the others.
    searches = ("--search", "ppo.lr=grid(1e-3,1e30,3e-3)", "--logger", "tensorboard", "csv")
    assert main(["tune", "cartpole", *TINY, *searches, "--budget.env-steps", "130", "--run-dir", "a"]) == 0
    output = capsys.readouterr().out
    table = output[output.index("trial  ") :].splitlines()
    assert table[0].split() == ["trial", "ppo.lr", "episode_return_mean", "env", "steps", "minutes"]
    assert sorted(line.split()[0] for line in table[1:4]) == TRIALS
    assert table[3].split()[:3] == ["trial-00001", "1e+30", "-"]
    assert "failed: iteration 1 has diverged" in table[3]
    best = table[1].split()[0]
    assert f"best: {best} (ppo.lr " in output
    scores = [float(line.split()[2]) for line in table[1:3]]
    assert scores == sorted(scores, reverse=True)
    for trial, rate in zip(TRIALS, (1e-3, 1e30, 3e-3), strict=True):
        run = Path("a") / trial
        kept: Any = read_config(run)
        assert (kept.name, kept.ppo.lr, kept.run_dir) == ("cartpole", rate, None)
        assert next((run / "tensorboard").iterdir()).name.startswith("events.out.tfevents")
        rows = read_metrics(run)
        assert checkpoint.iteration_of(checkpoint.latest(run)) == len(rows)
        assert (rows == []) == (trial == TRIALS[1])
    lines = (Path("a") / best / "progress.csv").read_text().splitlines()
    assert len(lines) == len(read_metrics(Path("a") / best)) + 1
    assert "episode_return_mean" in lines[0].split(",")
    # The same again, as a run and as a trial.
    assert main([*command_after(output, "run it again: "), "--run-dir", "again"]) == 0
    again = comparable("again")
    assert comparable(Path("a") / best) == again[: len(comparable(Path("a") / best))]
    assert main([*command_after(output, "evaluate it: "), "--episodes", "2", "--json"]) == 0
    assert main(["resume", f"a/{best}", "--budget.env-steps", "200"]) == 0
    assert len(read_metrics(Path("a") / best)) > len(again)
    # A finished sweep has nothing left to do and prints its table again.
    capsys.readouterr()
    assert main(["resume", "a"]) == 0
    assert capsys.readouterr().out.splitlines()[-6:-4] == table[2:4]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "place")
def test_pbt_continues_from_a_better_trials_checkpoint_with_other_values(capsys: pytest.CaptureFixture[str]) -> None:
    # With two threads each there is room for one at a time: they take turns.
    searches = ("--search", "learning.lr=grid(1e-9,1e-2)", "--scheduler", "pbt", "--interval", "0.3")
    arguments = ("--learning.schedule", "constant", "--budget.env-steps", "400", "--num-threads", "2")
    assert main(["tune", "parity", *TINY_ANSWERS, *searches, *arguments, "--run-dir", "a"]) == 0
    assert "its values changed while it ran" in capsys.readouterr().out
    rows = [read_metrics(Path("a") / trial) for trial in TRIALS[:2]]
    for number, trial in enumerate(TRIALS[:2]):
        assert [row["iteration"] for row in rows[number]] == list(range(1, 11))
        kept: Any = read_config(Path("a") / trial)
        assert kept.learning.lr == rows[number][-1]["lr"]
    # Who went on where another was has its beginning from then on, seconds and all.
    assert rows[0][1] == rows[1][1]


def wait_until(is_so: Callable[[], bool], seconds: float = 90.0) -> None:
    """Waits for something."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def count_rows(run_dir: Path) -> int:
    """How many lines of metrics a run has."""
    file = run_dir / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def kill_amid(place: Path, search: str, trial: str) -> tuple[int, str]:
    """Starts a sweep in a process of its own and kills it when a trial has learned something; how it ended."""
    arguments = ("--search", search, "--scheduler", "none", "--checkpoint-minutes", "0.001", "--run-dir", "a")
    arguments = (*arguments, "--max-concurrent", "1")
    command = [
        sys.executable,
        "-m",
        "ctm_rl.cli.main",
        "tune",
        "cartpole",
        *TINY,
        *arguments,
        "--budget.env-steps",
        "2000",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=place, start_new_session=True
    ) as process:
        wait_until(lambda: count_rows(place / "a" / trial) > 5)
        process.kill()
        error = process.communicate(timeout=60)[1]
    return process.returncode, error


@pytest.mark.usefixtures("ray_session")
def test_a_sweep_whose_process_was_killed_continues_its_trials(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = TRIALS[:2]
    code, error = kill_amid(place, "ppo.lr=grid(1e-3,2e-3)", trials[1])
    assert code == -signal.SIGKILL, error
    before = {trial: read_metrics(place / "a" / trial) for trial in trials}
    saved = {trial: checkpoint.iteration_of(checkpoint.latest(place / "a" / trial)) for trial in trials}
    times = {trial: os.stat(place / "a" / trial / "config.json").st_mtime_ns for trial in trials}
    assert 0 < saved[trials[1]] <= len(before[trials[1]]) < 45
    assert main(["resume", "a"]) == 0
    output = capsys.readouterr().out
    assert output[output.index("trial  ") :].count("finished\n") >= 2
    for trial in trials:
        rows = read_metrics(place / "a" / trial)
        assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
        assert 2000 <= (rows[-1]["env_steps"] or 0) < 2040
        # What was in a checkpoint has not been learned again, and a trial that was over has not been touched.
        assert rows[: saved[trial]] == before[trial][: saved[trial]]
        was_over = (before[trial][-1]["env_steps"] or 0) >= 2000 and saved[trial] == len(before[trial])
        assert was_over == (os.stat(place / "a" / trial / "config.json").st_mtime_ns == times[trial])
        assert was_over == (trial == trials[0])


@pytest.mark.usefixtures("ray_session", "place")
def test_a_signal_saves_the_trials_and_prints_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ctm_rl.agents.tuning.callback import SweepCallback

    report = SweepCallback.on_trial_result

    def stop(self: SweepCallback, *args: Any, result: dict[str, Any], **kwargs: Any) -> None:
        report(self, *args, result=result, **kwargs)
        if result["iteration"] == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SweepCallback, "on_trial_result", stop)
    arguments = ("--search", "ppo.lr=grid(1e-3)", "--budget.env-steps", "2000", "--run-dir", "a")
    assert main(["tune", "cartpole", *TINY, *arguments]) == 130
    message = "ctm-rl: stopped, a checkpoint is saved; continue with: ctm-rl resume a\n"
    assert message in capsys.readouterr().err
    num_rows = len(read_metrics(Path("a") / TRIALS[0]))
    assert checkpoint.iteration_of(checkpoint.latest(Path("a") / TRIALS[0])) == num_rows
    assert 5 <= num_rows < 45
