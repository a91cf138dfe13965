"""Curves over one axis, and what seeds have in common."""

import numpy as np
import pytest
import torch

from ctm_rl.agents.report.compare.contenders import Contender
from ctm_rl.agents.report.compare.overlay import MAX_POINTS, Curve, difference, lay_over, over_seeds, spread
from ctm_rl.metrics import interquartile_mean

VALUES = [1.0, 2.0, 3.0, 4.0, 100.0]


def contender(number: int) -> Contender:
    return Contender(f"line {number}", number, [])


def test_spread_is_the_interquartile_mean_with_its_bootstrap() -> None:
    found = spread(VALUES)
    assert found.value == 3.0  # one value is left out at each end
    draws = torch.tensor(VALUES)[torch.randint(5, (5000, 5), generator=torch.Generator().manual_seed(3))]
    low, high = interquartile_mean(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(low, abs=0.5)
    assert found.high == pytest.approx(high, abs=5)
    assert spread([7.0]) == (7.0, None, None)


def test_a_difference_needs_two_values_of_both_for_an_interval() -> None:
    found = difference([1.0, 2.0], [5.0, 5.0])
    assert found == (-3.5, -4.0, -3.0)
    assert difference([1.0, 2.0], [5.0]) == (-3.5, None, None)


def test_seeds_count_where_all_of_them_have_values() -> None:
    curve = over_seeds([[(0, 1.0), (10, 2.0), (20, 3.0)], [(10, 4.0), (20, 5.0), (30, 6.0)]])
    assert curve is not None
    assert (curve.x[0], curve.x[-1]) == (10, 20)
    assert (curve.y[0], curve.y[-1]) == (3.0, 4.0)
    assert over_seeds([[(0, 1.0)], [(5, 1.0)]]) is None
    single = over_seeds([[(3, 1.5), (7, 2.5)]])
    assert single is not None
    assert (single.x.tolist(), single.y.tolist(), single.low) == ([3, 7], [1.5, 2.5], None)


def test_lines_over_one_axis_pass_through_their_own_points() -> None:
    one = Curve(np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    other = Curve(np.array([5.0, 20.0]), np.array([2.0, 8.0]), np.array([1.0, 7.0]), np.array([3.0, 9.0]))
    x, (first, second) = lay_over([(contender(4), one), (contender(0), other)])
    assert x.tolist() == [0, 5, 10, 20]
    np.testing.assert_allclose(first.y, [0, 0.5, 1, np.nan])
    np.testing.assert_allclose(second.y, [np.nan, 2, 4, 8])
    np.testing.assert_allclose(np.asarray(second.low), [np.nan, 1, 3, 7])
    assert (first.colour, second.colour, first.low) == (4, 0, None)


def test_long_curves_are_thinned() -> None:
    long = Curve(np.arange(3000.0), np.arange(3000.0))
    x, (found,) = lay_over([(contender(0), long)])
    assert len(x) == MAX_POINTS
    assert (x[0], x[-1]) == (0, 2999)
    np.testing.assert_allclose(found.y, x)
