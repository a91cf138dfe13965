"""A dense layer on the features of a grid: the same without forming the features, forward and backward."""

import pytest
import torch
from torch import Tensor

import ctm_rl.encoders.projection as projection
from ctm_rl.encoders import PartsEncoder
from ctm_rl.encoders.control import ControlEncoder
from ctm_rl.encoders.grid import GridEncoder
from ctm_rl.encoders.projection import Projection, reads_grid
from ctm_rl.spaces.observations import Layout, Part

SIZES = (7, 3, 2)
NUM_OUTPUTS = 6


def make(seed: int = 0) -> tuple[GridEncoder, Tensor, Tensor]:
    """An encoder of 2 x 4 cells in float64, and a dense layer for its features."""
    torch.manual_seed(seed)
    encoder = GridEncoder((2, 4, 3), 5, SIZES).double()
    weight = torch.randn(NUM_OUTPUTS, encoder.out_dim + 3, dtype=torch.double)[:, :-3].requires_grad_()
    return encoder, weight, torch.randn(NUM_OUTPUTS, dtype=torch.double, requires_grad=True)


def grids(num_rows: int, sizes: tuple[int, ...] = SIZES, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randint(size, (num_rows, 2, 4), generator=generator) for size in sizes]
    return torch.stack(parts, -1).byte()


def check_projection(encoder: torch.nn.Module, observations: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compares with the dense layer on the features, forward and backward; returns the output of that layer."""
    inputs = [weight, bias, *encoder.parameters()]
    expected = torch.nn.functional.linear(encoder(observations), weight, bias)
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, grad)
    projected = Projection(encoder, weight, bias)(observations)
    torch.testing.assert_close(projected, expected, rtol=1e-12, atol=1e-12)
    for got, wanted in zip(torch.autograd.grad(projected, inputs, grad), expected_grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-12)
    return expected


@pytest.mark.parametrize("few_kinds", [0, 1000], ids=["rows gathered", "product with ones"])
def test_a_projection_equals_the_dense_layer_on_features_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, few_kinds: int
) -> None:
    monkeypatch.setattr(projection, "_FEW_KINDS", few_kinds)
    encoder, weight, bias = make()
    observations = grids(9)
    check_projection(encoder, observations, weight, bias)


@torch.no_grad()
def test_a_projection_that_is_kept_learns_of_kinds_that_occur_later() -> None:
    encoder, weight, bias = make()
    kept = Projection(encoder, weight, bias)
    for sizes in ((1, 1, 1), (3, 2, 1), (2, 1, 1), SIZES):
        observations = grids(5, sizes)
        expected = torch.nn.functional.linear(encoder(observations), weight, bias)
        got = kept(observations)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_vectors_are_projected_through_their_features() -> None:
    torch.manual_seed(0)
    encoder, observations = ControlEncoder((4,), 5), torch.randn(3, 4)
    weight, bias = torch.randn(NUM_OUTPUTS, 5), torch.randn(NUM_OUTPUTS)
    expected = torch.nn.functional.linear(encoder(observations), weight, bias)
    assert torch.equal(Projection(encoder, weight, bias)(observations), expected)


PARTS = Layout((
    Part(encoder="categories", shape=(2,), path=("direction",), sizes=(4, 3)),
    Part(encoder="grid", shape=(2, 4, 3), path=("image",), sizes=SIZES),
    Part(encoder="control", shape=(3,), path=("place",)),
))  # fmt: skip


def test_a_grid_among_other_parts_is_projected_too() -> None:
    torch.manual_seed(0)
    encoder = PartsEncoder(PARTS, 5).double()
    weight = torch.randn(NUM_OUTPUTS, encoder.out_dim, dtype=torch.double, requires_grad=True)
    bias = torch.randn(NUM_OUTPUTS, dtype=torch.double, requires_grad=True)
    categories, numbers = torch.tensor([[3, 2], [0, 1], [1, 0]]), torch.randn(3, 3, dtype=torch.double)
    observations = torch.cat((categories, grids(3).flatten(1), numbers), -1)
    expected = check_projection(encoder, observations, weight, bias)
    kept = Projection(encoder, weight, bias)
    for rows in (observations[:1], observations):
        torch.testing.assert_close(kept(rows), expected[: len(rows)], rtol=1e-12, atol=1e-12)
    assert reads_grid(encoder)
    assert not reads_grid(PartsEncoder(Layout((PARTS.parts[0], PARTS.parts[2])), 5))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_grid_beyond_the_sizes_is_refused(layer: int) -> None:
    encoder, weight, bias = make()
    observations = grids(2)
    observations[1, 1, 3, layer] = SIZES[layer]
    with pytest.raises(IndexError, match=r"objects, colours and states must be below \(7, 3, 2\), got up to"):
        Projection(encoder, weight, bias)(observations)
