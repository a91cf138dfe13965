"""Sweeps with nothing to compare, and their hints: commands that exist, no warning of numpy's, an exit code."""

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctm_rl.agents.tuning.options import TuneOptions
from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.schedulers import build_scheduler
from ctm_rl.agents.tuning.search_space import check_searches, parse_search
from ctm_rl.agents.tuning.table import NoResult, check_result, format_table
from ctm_rl.cli.main import main
from ctm_rl.configs import for_env, load
from ctm_rl.errors import UserError

METRIC = "episode_return_mean"


def a_sweep(**options: Any) -> Sweep:
    return Sweep(Path("a"), for_env("Acrobot-v1"), TuneOptions(search=("ppo.lr=uniform(1e-4,1e-3)",), **options))


def a_trial(number: int, status: str = "TERMINATED", **result: Any) -> Any:
    return SimpleNamespace(trial_id=f"x_{number:05d}", status=status, config={"ppo.lr": 1e-3}, last_result=result)


@pytest.mark.parametrize("name", ["my-own", "parity"])
def test_the_hint_for_an_unknown_field_names_a_command_that_exists(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load("parity") if name == "parity" else dataclasses.replace(for_env("Acrobot-v1"), name=name)
    with pytest.raises(UserError, match=r"ppo\.horizon_of_it: not a field of the experiment") as caught:
        check_searches(experiment, [parse_search("ppo.horizon_of_it=choice(1,2)")])
    found = re.search(r"(ctm-rl train .* --help-all) lists all of them", str(caught.value))
    assert found is not None
    _, *command = shlex.split(found[1])
    assert main(command) == 0
    assert "--budget.env-steps" in capsys.readouterr().out


def test_evaluating_a_sweep_names_its_trials_and_the_best_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("a sweep")
    place.mkdir()
    (place / "sweep.json").write_text(json.dumps(a_sweep().to_json()))
    assert main(["evaluate", "a sweep"]) == 2
    assert "a sweep is a sweep without trials; continue it with: ctm-rl resume 'a sweep'" in capsys.readouterr().err
    for number, value in enumerate((-300.0, -81.5, None)):
        trial = place / f"trial-{number:05d}"
        trial.mkdir()
        (trial / "config.json").write_text("{}")
        (trial / "metrics.jsonl").write_text(json.dumps({"iteration": 1, METRIC: value}) + "\n")
    assert main(["evaluate", "a sweep", "--episodes", "3"]) == 2
    error = capsys.readouterr().err
    assert (
        "one trial can be evaluated: trial-00000 (-300), trial-00001 (-81.5), trial-00002, by episode_return" in error
    )
    assert error.endswith("the best: ctm-rl evaluate 'a sweep/trial-00001'\n")


def test_trials_without_a_value_are_not_compared() -> None:
    scheduler = build_scheduler(a_sweep())
    scheduler.set_search_properties(METRIC, "max")
    controller: Any = None
    trials = [a_trial(number) for number in range(3)]
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    for trial in trials[:2]:
        scheduler.on_trial_complete(controller, trial, {"used_share": 0.5, METRIC: math.nan})
    scheduler.debug_string()  # all numbers that trials are compared with; numpy's warnings are errors here
    assert scheduler.on_trial_result(controller, trials[2], {"used_share": 0.5, METRIC: -3.0}) == "CONTINUE"


def test_a_sweep_with_nothing_to_compare_ends_with_an_error_that_says_why() -> None:
    sweep, rows = a_sweep(), [a_trial(0, episode_return_mean=math.nan), a_trial(1)]
    assert "best" not in format_table(sweep, rows, "a")
    with pytest.raises(NoResult, match=r"none has a value of episode_return_mean.*raise --budget.env-steps \(now 1,0"):
        check_result(sweep, rows)
    failed = [a_trial(0, failed="of this"), a_trial(1, status="ERROR")]
    with pytest.raises(NoResult, match="all of them have failed"):
        check_result(sweep, failed)
    assert NoResult.exit_code == 1
    check_result(sweep, [*rows, a_trial(2, episode_return_mean=1.5)])
