"""Run directories written by version 0.1.0, before modules and classes were renamed: they load, evaluate and resume."""

import json
import shutil
from pathlib import Path

import pytest
from paths import GOLDEN
from recorded_runs import OLD_RUNS, assert_equal, assert_same_evaluation, comparable_evaluation, evaluated, resumed

from ctm_rl.cli.main import main

OLD = GOLDEN / "runs"
EXPECTED = json.loads((OLD / "expected.json").read_text())


@pytest.fixture
def place(place: Path) -> Path:
    """A working directory with copies of the old runs."""
    for name in OLD_RUNS:
        shutil.copytree(OLD / name, place / name)
    return place


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", OLD_RUNS)
def test_an_old_run_evaluates_to_the_same_numbers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(evaluated(name)) == 0
    result = comparable_evaluation(capsys.readouterr().out)
    assert_same_evaluation(result, EXPECTED[name]["evaluation"], EXPECTED["machine"])


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("name", OLD_RUNS)
def test_an_old_run_resumes_as_the_old_code_would_have(name: str) -> None:
    rows = resumed(name)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert_equal(rows, EXPECTED[name]["resumed"], EXPECTED["machine"])
