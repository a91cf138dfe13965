"""The script that writes the pages of docs/live/."""

import shutil
from pathlib import Path

import make_live_pages
import pytest
from paths import GOLDEN, ROOT

from ctm_rl.agents.report import browser_model
from ctm_rl.errors import UserError

RUNS = [str(GOLDEN / "runs" / name) for name in ("answering", "acting")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "docs" / "live" / "index.md", tmp_path)
    return tmp_path


def test_pages_and_their_list_are_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_live_pages.main(RUNS, folder)
    make_live_pages.main(RUNS[:1], folder)  # the list stays as long
    assert (folder / "parity.html").read_text().startswith("<!DOCTYPE html>")
    text = (folder / "index.md").read_text()
    listed = ["- [A sequence for the machine](parity.html)", "- [A pole for the machine](cartpole.html)"]
    assert "\n".join(listed) in text
    assert "parity.html: " in capsys.readouterr().out


def test_large_pages_are_halved_or_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_model, "MIN_HALVED", 10)
    make_live_pages.main(RUNS[:1], folder)
    exact = (folder / "parity.html").stat().st_size
    monkeypatch.setattr(make_live_pages, "MAX_BYTES", exact - 1)
    make_live_pages.main(RUNS[:1], folder)
    assert (folder / "parity.html").stat().st_size < exact
    monkeypatch.setattr(make_live_pages, "MAX_BYTES", 1_000)
    with pytest.raises(UserError, match="docs/ has room for 1,000"):
        make_live_pages.main(RUNS[:1], folder)
