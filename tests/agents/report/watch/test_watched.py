"""The page of a run that is watched: made again when the run has written something, and never by writing there."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from answering_runs import small_experiment, untrained, write_run

from ctm_rl.agents.report.document import Document
from ctm_rl.agents.report.page import render_page
from ctm_rl.agents.report.report import ReportOptions
from ctm_rl.agents.report.watch import watched as watching
from ctm_rl.agents.report.watch.watched import REST, Watched, describe_state
from ctm_rl.agents.run_directory.directory import METRICS_FILE, is_in_use, locked
from ctm_rl.checkpoints import store
from ctm_rl.errors import UserError
from ctm_rl.inference.load_model import MODEL_ENTRY, describe

OPTIONS = ReportOptions(samples=1, episodes=10)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def add_row(run: Path, number: int) -> None:
    """Trains one more iteration."""
    row = {"iteration": number, "env_steps": 100 * number, "seconds": 1.0 * number, "total_loss": 1 / number}
    with (run / METRICS_FILE).open("a") as file:
        file.write(json.dumps(row) + "\n")


def add_checkpoint(run: Path, number: int) -> None:
    """Saves one more checkpoint."""
    store.save(run, number, {MODEL_ENTRY: describe(untrained(small_experiment("parity", kind="mlp"), number))}, None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has just begun."""
    path = write_run(tmp_path / "run", small_experiment("parity", kind="mlp"), iterations=())
    add_row(path, 1)
    return path


def content_of(watched: Watched) -> dict[str, Any]:
    """The document of the page."""
    found = re.search(r'id="report">(.*?)</script>', watched.current.page.decode(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def names_of(watched: Watched) -> list[str]:
    """The names of the page's sections."""
    return [section["name"] for section in content_of(watched)["sections"]]


def shown_iteration(watched: Watched) -> str:
    """Which checkpoint the page says that it shows."""
    rows = dict(content_of(watched)["sections"][-1]["figures"][0]["rows"])
    return rows["checkpoint shown"]


def files_in(run: Path) -> dict[str, tuple[int, int]]:
    """All files of a run with their sizes and times."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in run.rglob("*")}


def test_a_page_is_made_only_when_something_was_written(run: Path) -> None:
    watched = Watched(run, OPTIONS)
    before = files_in(run)
    assert watched.update()
    assert names_of(watched) == ["learning", "run"]
    assert any("has no checkpoint" in note for note in content_of(watched)["notes"])
    assert not watched.update()
    assert files_in(run) == before
    add_row(run, 2)
    assert watched.update()
    assert watched.current.version == 2
    assert content_of(watched)["sections"][-1]["figures"][0]["rows"][-3][0] != ""
    assert not watched.update()


def test_figures_of_a_model_follow_a_checkpoint_one_page_later(run: Path) -> None:
    add_checkpoint(run, 1)
    watched = Watched(run, OPTIONS)
    watched.update()
    assert names_of(watched) == ["learning", "run"]
    assert watched.update()
    assert "samples" in names_of(watched)
    add_row(run, 2)
    assert watched.update()
    assert "samples" in names_of(watched)


def test_new_iterations_do_not_make_figures_of_the_same_model_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), []

    def model_sections(found: Any, *_: object) -> list[Any]:
        calls.append(found.iteration)
        clock.now += 5
        return []

    monkeypatch.setattr(watching, "model_sections", model_sections)
    add_checkpoint(run, 1)
    watched = Watched(run, OPTIONS, clock)
    watched.update()
    watched.update()
    clock.now += 5 * REST
    add_row(run, 2)
    watched.update()
    assert calls == [1]
    add_checkpoint(run, 2)
    watched.update()
    assert calls == [1, 2]
    # Figures that took five seconds are not made again at once.
    add_checkpoint(run, 3)
    assert watched.update()
    assert (calls, shown_iteration(watched)) == ([1, 2], "iteration 3")
    assert not watched.update()
    clock.now += 5 * REST
    assert watched.update()
    assert calls == [1, 2, 3]
    assert not watched.update()


@pytest.mark.parametrize("error", [UserError("cannot be made."), TypeError("no number"), FileNotFoundError()])
def test_a_failure_is_a_note(run: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    add_checkpoint(run, 1)
    monkeypatch.setattr(watching, "model_sections", fail)
    watched = Watched(run, OPTIONS)
    watched.update()
    assert watched.update()
    assert names_of(watched) == ["learning", "run"]
    (note,) = [note for note in content_of(watched)["notes"] if note.startswith("There are no figures of the model: ")]
    assert str(error) in note


def test_a_page_that_would_be_too_large_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(document: Document) -> str:
        if any(section.samples for section in document.sections):
            raise UserError("the page would take 9 MB.")
        return render_page(document)

    add_checkpoint(run, 1)
    monkeypatch.setattr(watching, "render_page", render)
    watched = Watched(run, OPTIONS)
    watched.update()
    assert watched.update()
    assert names_of(watched) == ["learning", "run"]
    assert content_of(watched)["notes"][-1] == "the page would take 9 MB."


def test_a_run_that_is_gone_keeps_its_last_page(run: Path) -> None:
    watched = Watched(run, OPTIONS)
    watched.update()
    shutil.rmtree(run)
    assert not watched.update()
    assert watched.current.version == 1
    assert describe_state(run, watched.experiment) == "the run's directory is gone; this is its last page"


def test_the_state_says_whether_the_run_trains(run: Path) -> None:
    watched = Watched(run, OPTIONS)
    watched.update()
    assert describe_state(run, watched.experiment) == "iteration 1, no process of this machine trains it now"
    with locked(run):
        assert is_in_use(run)
        assert describe_state(run, watched.experiment) == "iteration 1, training"
    assert not is_in_use(run)
    experiment = watched.experiment
    assert experiment is not None
    add_row(run, experiment.budget.env_steps // 100)
    assert describe_state(run, experiment).endswith(", the run has ended: its budget is used up")
