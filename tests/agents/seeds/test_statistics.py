"""Means over seeds: Student's interval against published quantiles and its definition, and curves by hand."""

import numpy as np
import pytest

from ctm_rl.agents.seeds.statistics import aggregate, curve, student_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (11, 2.201), (20, 2.086), (120, 1.980)]
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(degrees) == pytest.approx(quantile, abs=5e-4)


def test_the_interval_holds_the_mean_of_95_in_100_samples() -> None:
    rng = np.random.default_rng(3)
    samples = rng.normal(5.0, 2.0, (2000, 3))
    found = [aggregate(sample.tolist()) for sample in samples]
    assert np.mean([one["low"] <= 5.0 <= one["high"] for one in found]) == pytest.approx(0.95, abs=0.015)
    assert found[0]["mean"] == pytest.approx(samples[0].mean())
    assert found[0]["std"] == pytest.approx(samples[0].std(ddof=1))


def test_one_seed_has_no_interval_and_none_no_mean() -> None:
    assert aggregate([2.0]) == {"num_seeds": 1, "mean": 2.0, "std": None, "low": None, "high": None}
    assert aggregate([])["mean"] is None


def test_the_interval_of_shares_ends_at_0_and_1() -> None:
    found = aggregate([0.9, 1.0], is_share=True)
    assert (found["high"], found["low"]) == (1.0, pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-4))


def test_a_curve_takes_the_last_value_of_each_seed_at_the_same_steps() -> None:
    found = curve([[(10, 1.0), (20, 3.0), (30, 5.0)], [(12, 2.0), (22, 4.0), (40, 9.0)]])
    assert found["env_steps"] == [12, 21, 30]
    assert found["mean"] == [1.5, 2.5, 4.5]
    assert len(found["low"]) == len(found["high"]) == 3
    assert curve([]) == curve([[], [(1, 2.0)]]) == curve([[(5, 1.0)], [(1, 1.0)]])
