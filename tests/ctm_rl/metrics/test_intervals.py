"""Intervals: they hold the true value about as often as they claim, and are not empty at the ends."""

import numpy as np
import pytest
import torch

from ctm_rl.metrics import interquartile_mean, mean_interval, share_interval, stratified_interval, wilson_interval


def test_wilson_gives_the_published_values() -> None:
    # R: prop.test(x, n, correct = FALSE)
    assert wilson_interval(0.9, 20) == pytest.approx([0.6989664, 0.9721335], abs=1e-6)
    assert wilson_interval(0.0, 100) == pytest.approx([0.0, 0.0369935], abs=1e-6)
    assert wilson_interval(1.0, 100) == pytest.approx([0.9630065, 1.0], abs=1e-6)


def test_elements_of_one_sample_count_less_the_more_they_agree() -> None:
    # 50 samples of 10 elements: all elements of a sample agree; then every sample has half of them right.
    together = share_interval(250, 25 * 100, 50, 10)
    apart = share_interval(250, 50 * 25, 50, 10)
    assert together == pytest.approx(wilson_interval(0.5, 50))
    assert apart == pytest.approx(wilson_interval(0.5, 50))  # no variance at all: the samples count
    between = share_interval(250, sum(n * n for n in (4, 6)) * 25, 50, 10)
    assert between[1] - between[0] < 0.3 * (together[1] - together[0])
    assert share_interval(500, 50 * 100, 50, 10) == pytest.approx(wilson_interval(1.0, 50))


def test_intervals_hold_the_true_value_in_about_95_of_100_cases() -> None:
    rng = np.random.default_rng(3)
    shares = rng.binomial(200, 0.8, 400) / 200
    held = np.mean([low <= 0.8 <= high for low, high in (wilson_interval(share, 200) for share in shares)])
    assert 0.92 <= held <= 0.98
    draws = torch.from_numpy(rng.exponential(3.0, (100, 60)))
    intervals = [mean_interval(row) for row in draws]
    held = np.mean([interval is not None and interval[0] <= 3.0 <= interval[1] for interval in intervals])
    assert 0.85 <= held <= 0.99


def test_one_value_has_no_interval_and_equal_values_a_narrow_one() -> None:
    assert mean_interval(torch.tensor([4.0])) is None
    assert mean_interval(torch.full((9,), 4.0)) == pytest.approx([4.0, 4.0])
    assert mean_interval(torch.arange(9.0)) == mean_interval(torch.arange(9.0))


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    # as scipy.stats.trim_mean(values, 0.25), by hand: of eight values two at each end, of seven one, of three none
    values = torch.tensor([100.0, 0.0, 8.0, 1.0, 0.0, 4.0, 1000.0, 2.0])
    assert float(interquartile_mean(values)) == pytest.approx((1 + 2 + 4 + 8) / 4)
    assert float(interquartile_mean(values[1:])) == pytest.approx((0 + 1 + 2 + 4 + 8) / 5)
    assert float(interquartile_mean(torch.tensor([1.0, 2.0, 9.0]))) == pytest.approx(4.0)
    two = torch.stack([values, values + 1])
    assert interquartile_mean(two).tolist() == pytest.approx([3.75, 4.75])


def mean_of(strata: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(strata, dim=1).mean(dim=1)


def test_groups_of_equal_values_have_an_interval_without_width() -> None:
    assert stratified_interval([torch.full((3,), 500.0)], mean_of) == [500.0, 500.0]
    assert stratified_interval([torch.full((3,), 2.0), torch.full((3,), 4.0)], mean_of) == [3.0, 3.0]


def test_a_group_of_one_value_has_no_interval() -> None:
    assert stratified_interval([torch.tensor([1.0, 2.0]), torch.tensor([1.0])], mean_of) is None
    assert stratified_interval([], mean_of) is None


def test_each_group_is_resampled_by_itself() -> None:
    # If the groups were drawn from together, resamples would differ: one group's values are far above the other's.
    low, high = stratified_interval([torch.tensor([0.0, 1.0]), torch.tensor([100.0, 101.0])], mean_of) or (0.0, 0.0)
    assert (low, high) == (50.0, 51.0)


def test_the_interval_of_one_mean_is_that_of_mean_interval() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert stratified_interval([values], mean_of) == pytest.approx(mean_interval(values), rel=0.05)
