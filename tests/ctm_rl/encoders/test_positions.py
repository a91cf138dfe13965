"""Position encodings, computed from their formulas place by place."""

import math
from typing import get_args

import pytest
import torch
from reference import glu, layer_norm, linear
from torch import Tensor, nn

from ctm_rl.config import PositionKind
from ctm_rl.encoders.positions import (
    FourierPositions,
    MultiFourierPositions,
    RotationalPositions,
    SequenceRotationalPositions,
    build_positions,
)

B, C, H, W, S = 2, 5, 3, 4, 6
MAPS: dict[str, tuple[int, ...]] = {
    "none": (B, C, H, W),
    "fourier": (B, C, H, W),
    "multi-fourier": (B, C, H, W),
    "rotational": (B, C, W, W),
    "rotational-1d": (B, C, S),
}


def make(kind: str) -> nn.Module:
    torch.manual_seed(5)
    return build_positions(kind, C).double()


def feature_map(kind: str) -> Tensor:
    return torch.randn(MAPS[kind], generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def encoding(positions: nn.Module, features: Tensor) -> Tensor:
    """The encoding that is added to a map, the same for the whole batch."""
    added = positions(features) - features
    for row in added:
        torch.testing.assert_close(row, added[0])
    return added[0]


def slow_fourier(positions: FourierPositions, row: int, column: int, height: int, width: int) -> Tensor:
    """The encoding [C] of one place."""
    x = column / (width - 1) if width > 1 else 0.0
    y = row / (height - 1) if height > 1 else 0.0
    waves = [float(wx) * x + float(wy) * y for wx, wy in positions.frequencies.weight.detach()]
    features = [math.cos(wave) / 16 for wave in waves] + [math.sin(wave) / 16 for wave in waves]
    wide, _, narrow, norm = positions.mlp
    hidden = glu(linear(torch.tensor(features, dtype=torch.float64), wide))  # pyright: ignore[reportArgumentType]
    return layer_norm(linear(hidden, narrow), norm)  # pyright: ignore[reportArgumentType]


def turned(start: tuple[float, float], step: int, num_places: int) -> list[float]:
    """``start`` rotated counter-clockwise by its share of half a circle."""
    angle = math.pi * step / (num_places - 1)
    x, y = start
    return [math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y]


def test_every_kind_can_be_built_and_others_are_refused() -> None:
    assert set(MAPS) == set(get_args(PositionKind))
    for kind in MAPS:
        assert isinstance(build_positions(kind, C), nn.Module)
    with pytest.raises(ValueError, match=r"positions must be one of none, fourier, .*; got 'absolute'"):
        build_positions("absolute", C)


def test_none_returns_the_map_unchanged() -> None:
    features = feature_map("none")
    assert build_positions("none", C)(features) is features


@pytest.mark.parametrize("size", [(H, W), (W, H), (1, W), (H, 1), (1, 1)])
def test_fourier_features_of_each_place(size: tuple[int, int]) -> None:
    positions = make("fourier")
    assert isinstance(positions, FourierPositions)
    added = encoding(positions, torch.zeros(B, C, *size, dtype=torch.float64))
    for row in range(size[0]):
        for column in range(size[1]):
            torch.testing.assert_close(added[:, row, column], slow_fourier(positions, row, column, *size))


def test_several_fourier_encodings_are_weighted_by_a_softmax() -> None:
    positions = make("multi-fourier")
    assert isinstance(positions, MultiFourierPositions)
    with torch.no_grad():
        positions.mix.copy_(torch.arange(10) / 3)
    added = encoding(positions, feature_map("multi-fourier"))
    shares = [math.exp(i / 3) / sum(math.exp(j / 3) for j in range(10)) for i in range(10)]
    for row, column in ((0, 0), (1, 3), (2, 1)):
        expected = torch.zeros(C, dtype=torch.float64)
        for share, encoder in zip(shares, positions.encoders, strict=True):
            assert isinstance(encoder, FourierPositions)
            expected = expected + share * slow_fourier(encoder, row, column, H, W)
        torch.testing.assert_close(added[:, row, column], expected)


def test_fourier_frequencies_start_with_the_standard_deviation_of_their_scale() -> None:
    torch.manual_seed(7)
    many = torch.stack([FourierPositions(C).frequencies.weight for _ in range(20)])
    assert many.shape[1:] == (128, 2)
    assert abs(float(many.detach().std()) / 2.5**2 - 1) < 0.05
    multi = [MultiFourierPositions(C) for _ in range(20)]
    for index in range(10):
        weights = torch.stack([module.encoders[index].frequencies.weight for module in multi])  # pyright: ignore
        assert abs(float(weights.detach().std()) * (1.0 - 0.1 * index) ** 2 - 1) < 0.05
    assert torch.equal(multi[0].mix, torch.ones(10))


def test_rotational_encoding_joins_the_rotated_vectors_of_row_and_column() -> None:
    positions = make("rotational")
    assert isinstance(positions, RotationalPositions)
    assert positions.start.tolist() == [0.0, 1.0]
    with torch.no_grad():
        positions.start.copy_(torch.tensor([0.3, -1.2]))
    added = encoding(positions, feature_map("rotational"))
    for row in range(W):
        for column in range(W):
            vector = turned((0.3, -1.2), row, W) + turned((0.3, -1.2), column, W)
            expected = linear(torch.tensor(vector, dtype=torch.float64), positions.projection)
            torch.testing.assert_close(added[:, row, column], expected)


def test_rotational_encoding_of_a_sequence_rotates_from_up_to_down() -> None:
    positions = make("rotational-1d")
    assert isinstance(positions, SequenceRotationalPositions)
    added = encoding(positions, feature_map("rotational-1d"))
    for place in range(S):
        vector = turned((0.0, 1.0), place, S)
        expected = linear(torch.tensor(vector, dtype=torch.float64), positions.projection)
        torch.testing.assert_close(added[:, place], expected)
    assert turned((0.0, 1.0), S - 1, S)[1] == pytest.approx(-1.0)


def test_rotational_positions_refuse_a_map_that_is_not_square() -> None:
    with pytest.raises(ValueError, match="need a square map, got 3 x 4"):
        make("rotational")(torch.zeros(B, C, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("kind", MAPS)
def test_a_position_encoding_does_not_depend_on_the_features(kind: str) -> None:
    positions, features = make(kind), feature_map(kind)
    torch.testing.assert_close(encoding(positions, features), encoding(positions, -3 * features))
    assert torch.equal(positions(features), positions(features))


@pytest.mark.parametrize("kind", [kind for kind in MAPS if kind != "none"])
def test_every_parameter_of_a_position_encoding_gets_a_gradient(kind: str) -> None:
    positions, features = make(kind), feature_map(kind).requires_grad_()
    positions(features).square().sum().backward()
    assert features.grad is not None
    for name, parameter in positions.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_parameter_names_of_the_position_encodings() -> None:
    fourier = ["frequencies.weight", *(f"mlp.{i}.{kind}" for i in (0, 2, 3) for kind in ("weight", "bias"))]
    linear_names = ["projection.weight", "projection.bias"]
    assert list(make("fourier").state_dict()) == fourier
    assert list(make("multi-fourier").state_dict()) == [
        "mix",
        *(f"encoders.{i}.{n}" for i in range(10) for n in fourier),
    ]
    assert list(make("rotational").state_dict()) == ["start", *linear_names]
    assert list(make("rotational-1d").state_dict()) == linear_names
