"""What a run was trained with, as its directory and its report tell it."""

import json
from pathlib import Path

import pytest

from ctm_rl.agents.report.document import Table
from ctm_rl.agents.report.run_facts import facts_section
from ctm_rl.agents.run_directory.directory import created_directory
from ctm_rl.agents.run_directory.made_with import MADE_WITH_FILE, describe_made_with, made_with, write_made_with

CONTENT = {
    "machine": {"cpu": "Some CPU", "cores": 1, "memory_gb": None, "system": "Linux x86_64"},
    "versions": {"python": "3.11.7", "ctm-rl": "0.1.0", "ray": None},
}


def test_a_run_keeps_this_machine_and_these_versions(tmp_path: Path) -> None:
    with created_directory(tmp_path / "run", {}) as directory:
        write_made_with(directory)
        directory.keep()
    assert json.loads((tmp_path / "run" / MADE_WITH_FILE).read_text()) == made_with()


def test_it_goes_with_a_directory_that_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), created_directory(tmp_path / "run", {}) as directory:
        write_made_with(directory)
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_a_report_tells_what_the_run_and_what_the_page_was_made_with(tmp_path: Path) -> None:
    def facts() -> dict[str, str]:
        table = facts_section(tmp_path, None, [], None, None).figures[0]
        assert isinstance(table, Table)
        return {str(name): str(value) for name, value in table.rows}

    assert "trained with" not in facts()
    (tmp_path / MADE_WITH_FILE).write_text(json.dumps(CONTENT))
    assert facts()["trained with"] == "Python 3.11.7, ctm-rl 0.1.0"
    assert facts()["trained on"] == "Linux x86_64, Some CPU, 1 core"
    assert facts()["report made with"].startswith("Python 3")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"versions": 3, "machine": 3}', '{"versions": {}, "machine": {}}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MADE_WITH_FILE).write_text(text)
    assert describe_made_with(tmp_path) is None
