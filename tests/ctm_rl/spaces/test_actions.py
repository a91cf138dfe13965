"""Actions: scores are those of torch's distributions, and columns convert to actions of the environment."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from ctm_rl.checkpoints.schema import check_actions
from ctm_rl.spaces.actions import Actions, Choices, Numbers, to_plain

B = 6
ONE = Choices(sizes=(4,))
FROM_TWO = Choices(sizes=(3,), starts=(2,))
UNEQUAL = Choices(sizes=(2, 5, 3), shape=(3,))
BITS = Choices(sizes=(2, 2, 2, 2), shape=(2, 2), dtype="int8")
BOUNDED = Numbers(low=(-2.0, 0.0), high=(2.0, 1.0), shape=(2,))
HALF_BOUNDED = Numbers(low=(-1.0, 0.0, -math.inf), high=(1.0, math.inf, math.inf), shape=(3, 1), dtype="float64")
ALL = {"one": ONE, "from two": FROM_TWO, "unequal": UNEQUAL, "bits": BITS, "bounded": BOUNDED, "half": HALF_BOUNDED}
EVERY = pytest.mark.parametrize("actions", ALL.values(), ids=ALL)


def outputs_of(actions: Actions, seed: int = 3) -> Tensor:
    return torch.randn(B, actions.num_outputs, generator=torch.Generator().manual_seed(seed))


@EVERY
def test_samples_have_the_shapes_of_columns_and_of_the_environment(actions: Actions) -> None:
    outputs = outputs_of(actions)
    for drawn in (actions.sample(outputs, torch.Generator().manual_seed(1)), actions.mode(outputs)):
        assert drawn.shape == (B, *actions.column_shape)
        assert drawn.numpy().dtype == actions.column_dtype
        scored = actions.score(outputs, drawn)
        assert scored.logp.shape == scored.entropy.shape == (B,)
        given = actions.to_env(drawn.numpy())
        assert given.shape == (B, *actions.shape)
        assert given.dtype == actions.dtype


@EVERY
def test_a_description_survives_plain_values(actions: Actions) -> None:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in to_plain(actions).items()}
    assert check_actions(plain) == actions


def test_several_choices_score_as_independent_categoricals() -> None:
    outputs = outputs_of(UNEQUAL).double()
    drawn = UNEQUAL.sample(outputs, None)
    each = [Categorical(logits=logits) for logits in outputs.split(UNEQUAL.sizes, -1)]
    scored = UNEQUAL.score(outputs, drawn)
    torch.testing.assert_close(scored.logp, sum(one.log_prob(drawn[:, i]) for i, one in enumerate(each)))
    torch.testing.assert_close(scored.entropy, sum(one.entropy() for one in each))
    likeliest = torch.stack([one.logits.argmax(-1) for one in each], -1)
    assert torch.equal(UNEQUAL.mode(outputs), likeliest)


def test_choices_are_sampled_as_often_as_they_are_likely() -> None:
    outputs = torch.tensor([[0.0, 1.0, 0.5, 0.0, 0.0, 0.0, -1.0, 2.0, 0.0, 0.0]]).expand(20_000, -1)
    drawn = UNEQUAL.sample(outputs, torch.Generator().manual_seed(0))
    for place, logits in enumerate(outputs[0].split(UNEQUAL.sizes)):
        shares = drawn[:, place].bincount(minlength=len(logits)) / len(drawn)
        torch.testing.assert_close(shares, logits.softmax(-1), atol=0.015, rtol=0)


def test_a_start_is_added_for_the_environment_only() -> None:
    assert FROM_TWO.to_env(np.array([0, 2])).tolist() == [2, 4]
    shifted = Choices(sizes=(2, 2), starts=(1, 5), shape=(2,))
    assert shifted.to_env(np.array([[0, 1]])).tolist() == [[1, 6]]


def test_squashed_numbers_score_as_a_transformed_normal() -> None:
    # not too wide: torch's own squashing has no inverse where it saturates
    outputs = outputs_of(BOUNDED).double() * torch.tensor([1.0, 1.0, 0.4, 0.4])
    mean, log_std = outputs.chunk(2, -1)
    expected = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    drawn = mean + log_std.exp() * torch.randn(mean.shape, dtype=mean.dtype).clamp(-1, 1)
    torch.testing.assert_close(BOUNDED.score(outputs, drawn).logp, expected.log_prob(drawn.tanh()).sum(-1))
    many = expected.sample(torch.Size((100_000,)))
    assert isinstance(many, Tensor)
    # the entropy has no closed form: it is compared with a mean over many samples
    entropy = -expected.log_prob(torch.clamp(many, -1 + 1e-9, 1 - 1e-9)).sum(-1).mean(0)
    torch.testing.assert_close(BOUNDED.score(outputs, drawn).entropy, entropy, atol=0.02, rtol=0)


def test_numbers_without_two_bounds_are_not_squashed_but_kept_inside() -> None:
    outputs = outputs_of(HALF_BOUNDED)
    mean, log_std = outputs.chunk(2, -1)
    normal = Normal(mean[:, 1:], log_std[:, 1:].exp())
    drawn = HALF_BOUNDED.sample(outputs, torch.Generator().manual_seed(2))
    rest = Numbers(low=(-1.0,), high=(1.0,), shape=(1,)).score(
        torch.stack((mean[:, 0], log_std[:, 0]), -1), drawn[:, :1]
    )
    torch.testing.assert_close(
        HALF_BOUNDED.score(outputs, drawn).logp, normal.log_prob(drawn[:, 1:]).sum(-1) + rest.logp
    )
    given = HALF_BOUNDED.to_env(np.array([[50.0, -3.0, -7.5], [0.0, 4.0, 1e9]]))
    np.testing.assert_allclose(given[..., 0], [[1.0, 0.0, -7.5], [0.0, 4.0, 1e9]])


def test_extreme_numbers_have_finite_scores_and_gradients() -> None:
    outputs = torch.tensor([[30.0, -40.0, 3.0, -9.0]], requires_grad=True)
    scored = BOUNDED.score(outputs, torch.tensor([[25.0, -41.0]]))
    (scored.logp + scored.entropy).sum().backward()
    assert torch.isfinite(scored.logp).all()
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


@EVERY
def test_divergence_is_the_mean_log_ratio(actions: Actions) -> None:
    one, other = outputs_of(actions)[:1].double(), outputs_of(actions, 4)[:1].double()
    repeated = one.expand(50_000, -1)
    drawn = actions.sample(repeated, torch.Generator().manual_seed(5))
    ratios = actions.score(repeated, drawn).logp - actions.score(other.expand(50_000, -1), drawn).logp
    error = 5 * float(ratios.std()) / len(ratios) ** 0.5
    assert abs(float(actions.divergence(one, other)) - float(ratios.mean())) < error
    assert float(actions.divergence(one, one).abs()) < 1e-9
