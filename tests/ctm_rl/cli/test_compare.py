"""``ctm-rl compare``: the page, where it goes, and one line for each mistake."""

import json
import re
from pathlib import Path

import pytest
from answering_runs import small_experiment, write_run

from ctm_rl.cli.main import main

ROWS = [{"iteration": number, "env_steps": 100 * number, "seconds": 1.0, "total_loss": 1 / number} for number in (1, 2)]


@pytest.fixture
def runs(place: Path) -> tuple[str, str]:
    """Two runs in the working directory."""
    for name, kind in (("one", "lstm"), ("two", "mlp")):
        write_run(place / name, small_experiment("parity", kind=kind), ROWS)
    return "one", "two"


def test_a_page_is_written_into_the_current_folder(runs: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["one", "two", "--samples", "20"], ["--no-evaluate", "one", "--seed", "3", "two"]):
        assert main(["compare", *arguments]) == 0
        assert capsys.readouterr().out.startswith("comparison: compare.html\nopen it: ")
        found = re.search(r'id="report">(.*?)</script>', Path("compare.html").read_text(), re.DOTALL)
        assert found is not None
        assert json.loads(found[1])["title"] == "parity: lstm, mlp"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "compare needs DIR"),
        (("one",), "compare needs at least two runs, got one"),
        (("one", "three"), "three is not a run directory: there is no such directory."),
        (("one", "two", "--episodes", "0"), "--episodes must be at least 1, got 0."),
        (("one", "two", "--episodes", "3", "--no-evaluate"), "--episodes and --no-evaluate exclude each other"),
        (("one", "two", "--out", "one"), "--out must be the name of a file, such as report.html, got 'one'."),
        (("one", "two", "--out", "one/config.json"), "one/config.json exists and is no report; it stays"),
    ],
)
def test_mistakes_are_one_line(
    runs: tuple[str, str], arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not Path("compare.html").exists()
