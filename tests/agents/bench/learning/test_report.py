"""The report's text and figure."""

import importlib.util
import re
from pathlib import Path

import pytest
from learning_runs import learned, played_randomly

from ctm_rl.agents.bench.learning.report import curve_with_range, draw, to_text
from ctm_rl.agents.bench.learning.scores import groups_of, summarise

RUNS = [
    played_randomly("cartpole", 20.0),
    *(learned("cartpole", "ctm", seed, [20.0, 500.0]) for seed in (1, 2)),
    *(learned("cartpole", "lstm", seed, [None, 260.0], evaluation=300.0) for seed in (1, 2)),
]


def test_the_text_has_a_table_for_each_task_and_what_they_have_in_common() -> None:
    lines = to_text(summarise(RUNS), RUNS).splitlines()
    assert lines[0] == "cartpole, 1,000 steps: random policy 20, reference 500"
    cells = [[cell for cell in line.split("  ") if cell] for line in lines]
    assert ["ctm", "2", "50.0 (50.0 to 50.0)", "500 (500 to 500)", "500 (500 to 500)", "1.0"] in map(_stripped, cells)
    assert ["lstm", "2", "25.0 (25.0 to 25.0)", "260 (260 to 260)", "300 (300 to 300)", "1.0"] in map(_stripped, cells)
    difference = ["cartpole, 1,000 steps", "ctm - lstm", "+25.0 (+25.0 to +25.0)", "+50.0 (+50.0 to +50.0)"]
    assert [*difference, "+41.7 (+41.7 to +41.7)", "200 %"] in map(_stripped, cells)
    assert ["ctm - lstm, area", "1 of 1", "1 of 1", "200 %"] in map(_stripped, cells)
    assert ["ctm", "1", "50.0 (50.0 to 50.0)", "100.0 (100.0 to 100.0)", "100.0 (100.0 to 100.0)"] in map(
        _stripped, cells
    )
    assert "of 100 episodes after training" in lines[-1]


def _stripped(cells: list[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def test_few_runs_make_a_shorter_text() -> None:
    assert to_text(summarise([]), []) == "no runs yet\n"
    alone = to_text(summarise(RUNS[:2]), RUNS[:2])
    assert "difference" not in alone
    assert re.search(r"\nctm +1 +50\.0 +500 +500 +1\.0\n", alone)  # one seed has no intervals
    left_out = to_text(summarise(RUNS[1:]), RUNS[1:])
    assert left_out.startswith(
        "cartpole: left out, since no random policy has played it, or no run is better than one\n"
    )
    mixed = [*RUNS[:2], {**RUNS[2], "settings": "b"}]
    assert "ctm on cartpole: its runs were made with different settings or versions" in to_text(summarise(mixed), mixed)


def test_a_drawn_curve_has_the_range_of_its_seeds_and_begins_where_all_are_known() -> None:
    runs = [RUNS[0], learned("cartpole", "ctm", 1, [None, 10.0]), learned("cartpole", "ctm", 2, [4.0, 20.0])]
    (group,), _ = groups_of(runs)
    steps, low, mean, high = curve_with_range(group, "ctm")
    assert (steps[0], low[0], mean[0], high[0]) == (520.0, 10.0, 15.0, 20.0)
    assert len(steps) == 25


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the figure needs matplotlib")
def test_a_figure_is_drawn_where_there_is_something_to_draw(tmp_path: Path) -> None:
    assert not draw([], tmp_path / "none.png")
    assert draw(RUNS, tmp_path / "some.png")
    assert (tmp_path / "some.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["some.png"]
