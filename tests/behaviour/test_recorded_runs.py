"""Runs reproduce their recorded metrics: a refactoring must not change any number."""

import pytest
from recorded_runs import NUM_ROWS, RUNS, assert_equal, play, recorded

RECORDED = recorded()


@pytest.mark.usefixtures("ray_session", "place")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_metrics_that_were_recorded(name: str) -> None:
    columns = RECORDED[name]
    expected = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    assert len(expected) == NUM_ROWS
    assert_equal(play(name, "a"), expected, RECORDED["machine"])
