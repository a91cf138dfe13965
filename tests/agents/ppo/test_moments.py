"""Moments of advantages, from sums over groups of values."""

import torch

from ctm_rl.agents.ppo.moments import Moments, moments_of_sums


def moments_of(values: torch.Tensor) -> Moments:
    """Moments of each row, [G] each."""
    values = values.double()
    count = torch.full_like(values[:, 0], values.shape[1])
    return moments_of_sums(torch.stack((count, values.sum(1), values.square().sum(1))), num_learners=1)


def test_moments_equal_those_of_torch() -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).double() * 3 + 2
    found = moments_of(values)
    torch.testing.assert_close(found.num_values, torch.full((5,), 7.0).double())
    torch.testing.assert_close(found.mean, values.mean(1))
    torch.testing.assert_close(found.std, values.std(1))


def test_normalised_values_have_mean_0_and_standard_deviation_1() -> None:
    values = torch.randn(1, 9, generator=torch.Generator().manual_seed(2)).double() - 4
    normalised = moments_of(values).normalise(values)
    torch.testing.assert_close(normalised.mean(), torch.zeros(()).double())
    torch.testing.assert_close(normalised.std(), torch.ones(()).double())


def test_equal_values_and_no_values_become_nothing_infinite() -> None:
    values = torch.full((1, 4), 0.5)
    assert not moments_of(values).normalise(values).any()
    nothing = moments_of_sums(torch.zeros(3, 1).double(), num_learners=1)
    assert (nothing.num_values.item(), nothing.mean.item(), nothing.std.item()) == (1.0, 0.0, 0.0)
