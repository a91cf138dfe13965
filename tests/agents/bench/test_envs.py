"""The benchmark of the single-step environments: every row is measured and reported as JSON or text."""

import json
from pathlib import Path

import pytest

from ctm_rl.agents.bench import envs
from ctm_rl.cli.main import main


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures small batches, once each."""
    monkeypatch.setattr(envs, "CASES", tuple(case._replace(num_rows=4) for case in envs.CASES))
    monkeypatch.setattr(envs, "SECONDS", 0.0)


def test_every_environment_has_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "envs.json"
    assert main(["bench", "envs", "--rounds", "1", "--json", "--out", str(out)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(out.read_text())
    assert [row["name"] for row in result["rows"][:-1]] == [case.name for case in envs.CASES]
    assert all(row["samples_per_second"] > 0 for row in result["rows"])
    assert result["rows"][-1]["times_pillow"] > 0
    assert result["command"].startswith("ctm-rl bench envs")


def test_the_text_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "envs", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(envs.CASES) + 1
    assert "at least 1,000,000" in lines[0]
    assert "times Pillow alone" in lines[-1]
