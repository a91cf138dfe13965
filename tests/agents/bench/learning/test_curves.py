"""Learning curves at the same steps for all, whatever the size of an iteration."""

import pytest

from ctm_rl.agents.bench.learning.curves import curve_of, steps_of


def test_a_curve_has_fifty_points_up_to_its_steps() -> None:
    assert steps_of(1000)[:2] == [20.0, 40.0]
    assert steps_of(1000)[-1] == 1000.0
    assert len(curve_of([(100, 1.0)], 1000)) == 50


def test_between_iterations_it_is_interpolated_and_beyond_the_budget_cut() -> None:
    # the last iteration goes beyond the 1,000 steps: at 1,000 half of the way from 20 to 40
    curve = curve_of([(200, 0.0), (800, 20.0), (1200, 40.0)], 1000)
    assert curve[9] == 0.0
    assert curve[24] == pytest.approx(10.0)
    assert curve[-1] == pytest.approx(30.0)


def test_before_the_first_episode_nothing_is_known() -> None:
    curve = curve_of([(100, None), (300, 7.0), (1000, 7.0)], 1000)
    assert curve[:14] == [None] * 14
    assert curve[14:] == [7.0] * 36
    assert curve_of([(500, None)], 1000) == [None] * 50


def test_a_run_that_ended_early_keeps_its_last_value() -> None:
    assert curve_of([(100, 1.0), (500, 3.0)], 1000)[-1] == 3.0
