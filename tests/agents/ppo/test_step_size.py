"""The step size that follows the KL divergence."""

import pytest

from ctm_rl.agents.ppo.step_size import follow_kl


@pytest.mark.parametrize(
    ("factor", "kl", "expected"),
    [
        (1.0, 0.021, 1 / 1.5),
        (1.0, 0.019, 1.0),
        (1.0, 0.0051, 1.0),
        (1.0, 0.0049, 1.5),
        (0.012, 1.0, 0.01),
        (8.0, 0.0, 10.0),
        (1.0, float("inf"), 1 / 1.5),
        (1.0, float("nan"), 1.0),
    ],
)
def test_the_factor_moves_by_a_half_between_its_limits(factor: float, kl: float, expected: float) -> None:
    assert follow_kl(factor, kl, 0.01, highest=10.0) == expected


def test_a_lower_limit_from_above_holds_for_factors_beyond_it() -> None:
    assert follow_kl(1.0, 0.0, 0.01, highest=1.0) == 1.0
    assert follow_kl(4.0, 0.01, 0.01, highest=1.0) == 1.0
