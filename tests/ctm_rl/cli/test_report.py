"""``ctm-rl report``: the page, where it goes, and one line for whatever is missing or wrong."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from answering_runs import small_experiment, write_run

from ctm_rl.agents.run_directory.directory import CONFIG_FILE, METRICS_FILE
from ctm_rl.checkpoints import store
from ctm_rl.cli import report as reports
from ctm_rl.cli.main import main
from ctm_rl.errors import UserError
from ctm_rl.zoo import entries

ROWS = [{"iteration": number, "env_steps": 100 * number, "seconds": 1.0, "total_loss": 1 / number} for number in (1, 2)]
FEW = ("--episodes", "20", "--samples", "2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ``place`` copies."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", small_experiment("parity", kind="mlp"), ROWS)


@pytest.fixture
def run(place: Path, made: Path) -> Path:
    """A run in the working directory."""
    shutil.copytree(made, place / "run")
    return Path("run")


def content_of(page: Path) -> dict[str, Any]:
    """The document in a page."""
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def names_of(page: Path) -> list[str]:
    """The names of a page's sections."""
    return [section["name"] for section in content_of(page)["sections"]]


def test_a_page_is_written_into_the_run_and_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["report", "run", *FEW]) == 0
        written = capsys.readouterr()
        assert written.out.startswith("report: run/report.html\nopen it: ")
    assert names_of(run / "report.html") == ["samples", "answers", "calibration", "task", "learning", "run"]
    assert len(content_of(run / "report.html")["sections"][0]["samples"]) == 2
    assert content_of(run / "report.html")["notes"] == [
        "The model answers in one pass: there are no ticks to look into."
    ]


def test_only_a_report_is_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.html").write_text("<!DOCTYPE html>mine")
    assert main(["report", "run", "--out", "notes.html"]) == 2
    assert "notes.html exists and is no report; it stays" in capsys.readouterr().err
    assert Path("notes.html").read_text() == "<!DOCTYPE html>mine"
    Path("page.html").symlink_to("elsewhere.html")
    assert main(["report", "run", "--out", "page.html"]) == 2
    assert main(["report", "run", "--out", "missing/page.html"]) == 2
    assert "there is no directory missing" in capsys.readouterr().err
    assert main(["report", "run", "--out", "run"]) == 2


def test_a_run_that_cannot_be_written_has_its_page_in_the_current_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run and is_allowed(path, mode))
    assert reports.choose_file(run, None) == Path.cwd() / "report.html"
    with pytest.raises(UserError, match="run is not writable; name another file by --out"):
        reports.choose_file(run, "run/page.html")


def test_nothing_is_written_into_the_zoo_beside_a_folder_of_its_name(
    run: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = place / "installed" / "small"
    entry.parent.mkdir()
    run.rename(entry)
    (entry / entries.RESULTS_FILE).write_text("{}")
    monkeypatch.setattr(entries, "FOLDER", entry.parent)
    Path("zoo:small").mkdir()
    assert main(["report", "zoo:small", *FEW]) == 0
    assert not (entry / "report.html").exists()
    assert "ctm-rl evaluate zoo:small" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "nothing is not a run directory: there is no such directory."),
        (("run/checkpoints",), "it has no config.json"),
        (("run", "--samples", "0"), "--samples must be from 1 to 100, got 0."),
        (("run", "--episodes", "0"), "--episodes must be at least 1, got 0."),
        (("run", "--seed", "-1"), "--seed must be at least 0"),
        (("run", "--human-labels", "none.npy"), "human labels were looked for in none.npy"),
        (("run", "--checkpoint", "7"), "has no checkpoint of iteration 7; kept are 4"),
        (("run", "--checkpoint", "best"), "run has no best checkpoint"),
        (("run", "--env.kwargs", '{"length": 9}', "--episodes", "9"), "needs num_groups 9, and the model has 4"),
        ((), "DIR"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not (run / "report.html").exists()


def no_checkpoint(run: Path) -> None:
    shutil.rmtree(run / store.FOLDER)


def half_written(run: Path) -> None:
    place = store.path_of(run, 4) / store.TENSORS_FILE
    os.truncate(place, place.stat().st_size // 2)
    with (run / METRICS_FILE).open("a") as file:
        file.write('{"iteration": 3, "env_')


def broken_config(run: Path) -> None:
    (run / CONFIG_FILE).write_text('{"name": "x", "signal"')


def other_version(run: Path) -> None:
    config = json.loads((run / CONFIG_FILE).read_text())
    (run / CONFIG_FILE).write_text(json.dumps({**config, "unknown": 1}))


def no_environment(run: Path) -> None:
    config = json.loads((run / CONFIG_FILE).read_text())
    config["env"]["id"] = "Gone-v3"
    (run / CONFIG_FILE).write_text(json.dumps(config))


def own_module(run: Path) -> None:
    config = json.loads((run / CONFIG_FILE).read_text())
    Path("mine.py").write_text("raise SystemExit('imported')")
    config["env"]["id"] = "mine:Task"
    (run / CONFIG_FILE).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (no_checkpoint, "has no checkpoint"),
        (half_written, "no checkpoint of run can be read"),
        (broken_config, "config.json is not JSON"),
        (other_version, "unknown is not a field of the experiment"),
        (no_environment, "env.id 'Gone-v3' cannot be made"),
        (own_module, "--trust"),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_shown(
    spoil: Any, note: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert main(["report", "run", *FEW]) == 0
    lines = capsys.readouterr().err.splitlines()
    notes = content_of(run / "report.html")["notes"]
    assert len([line for line in lines if note in line]) == 1
    assert [f"ctm-rl: {text}" for text in notes] == lines
    assert "learning" in names_of(run / "report.html")


def test_a_run_without_metrics_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / METRICS_FILE).unlink()
    assert main(["report", "run", *FEW]) == 0
    assert "run has no line in metrics.jsonl yet: there are no learning curves." in capsys.readouterr().err
    assert "learning" not in names_of(run / "report.html")
