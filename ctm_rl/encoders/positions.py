"""Position encodings, which are added to the features of a map or a sequence."""

import math
from collections.abc import Callable
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.config import PositionKind, check_choice

FOURIER_DIM = 256
HIDDEN_DIM = 128
GAMMA = 1 / 2.5
NUM_SCALES = 10


class FourierPositions(nn.Module):
    """Learnable Fourier features of the coordinates, through a small network. Source: arXiv:2106.02795, algorithm 1.

    ``mlp([cos(W p), sin(W p)] / sqrt(256))``, p = (x, y) in [0, 1], W normal with standard deviation gamma^-2.

    Args:
        out_dim: C, channels of the map.
        gamma: scale; a smaller one starts with higher frequencies.
    """

    def __init__(self, out_dim: int, gamma: float = GAMMA) -> None:
        super().__init__()
        self.frequencies = nn.Linear(2, FOURIER_DIM // 2, bias=False)
        nn.init.normal_(self.frequencies.weight, std=gamma**-2)
        self.mlp = nn.Sequential(
            nn.Linear(FOURIER_DIM, HIDDEN_DIM), nn.GLU(), nn.Linear(HIDDEN_DIM // 2, out_dim), nn.LayerNorm(out_dim)
        )

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Adds the encoding to a map [B, C, H, W]."""
        return feature_map + self.encode(feature_map)

    def encode(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "C H W"]:
        """The encoding of every place of the map, [C, H, W]."""
        height, width = feature_map.shape[-2:]
        y = torch.arange(height, device=feature_map.device, dtype=feature_map.dtype) / max(height - 1, 1)
        x = torch.arange(width, device=feature_map.device, dtype=feature_map.dtype) / max(width - 1, 1)
        places = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)
        projected = self.frequencies(places)
        features = torch.cat((projected.cos(), projected.sin()), -1) / math.sqrt(FOURIER_DIM)
        return self.mlp(features).permute(2, 0, 1)


class MultiFourierPositions(nn.Module):
    """Ten Fourier encodings of gamma 1.0 to 0.1, weighted by a softmax of learned weights.

    Args:
        out_dim: C, channels of the map.
    """

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        gammas = torch.linspace(1.0, 0.1, NUM_SCALES).tolist()
        self.encoders = nn.ModuleList(FourierPositions(out_dim, gamma) for gamma in gammas)
        self.mix = nn.Parameter(torch.ones(NUM_SCALES))

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Adds the weighted encoding to a map [B, C, H, W]."""
        encodings = torch.stack([encoder.encode(feature_map) for encoder in self.encoders])  # pyright: ignore
        return feature_map + torch.einsum("s,schw->chw", self.mix.softmax(0), encodings)


class RotationalPositions(nn.Module):
    """A learned 2-D vector, rotated by 0 to 180 degrees along the rows and along the columns; square maps only.

    Source: arXiv:2505.05522, image experiments.

    Args:
        out_dim: C, channels of the map.
    """

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.tensor([0.0, 1.0]))
        self.projection = nn.Linear(4, out_dim)

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Adds the encoding to a map [B, C, H, W] with H = W."""
        height, width = feature_map.shape[-2:]
        if height != width:
            raise ValueError(f"rotational positions need a square map, got {height} x {width}.")
        rotated = _rotate(self.start, width)  # [W, 2]
        rows = rotated[:, None].expand(-1, width, -1)
        columns = rotated[None].expand(width, -1, -1)
        encoding = self.projection(torch.cat((rows, columns), -1))  # [H, W, C]
        return feature_map + encoding.permute(2, 0, 1)


class SequenceRotationalPositions(nn.Module):
    """The vector (0, 1), rotated by 0 to 180 degrees along a sequence. Source: arXiv:2505.05522, parity.

    Args:
        out_dim: C, channels of the sequence.
    """

    start: Float[Tensor, "2"]

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor([0.0, 1.0]), persistent=False)
        self.projection = nn.Linear(2, out_dim)

    def forward(self, sequence: Float[Tensor, "B C S"]) -> Float[Tensor, "B C S"]:
        """Adds the encoding to a sequence [B, C, S]."""
        return sequence + self.projection(_rotate(self.start.to(sequence.dtype), sequence.shape[-1])).T


def build_positions(kind: str, out_dim: int) -> nn.Module:
    """The position encoding called ``kind`` for maps of ``out_dim`` channels."""
    check_choice("positions", kind, get_args(PositionKind))
    builders: dict[str, Callable[[int], nn.Module]] = {
        "none": nn.Identity,
        "fourier": FourierPositions,
        "multi-fourier": MultiFourierPositions,
        "rotational": RotationalPositions,
        "rotational-1d": SequenceRotationalPositions,
    }
    return builders[kind](out_dim)


def _rotate(start: Float[Tensor, "2"], num_places: int) -> Float[Tensor, "places 2"]:
    """A vector rotated counter-clockwise by evenly spaced angles from 0 to 180 degrees, [num_places, 2]."""
    angle = torch.deg2rad(torch.linspace(0, 180, num_places, device=start.device, dtype=start.dtype))
    cosine, sine = angle.cos(), angle.sin()
    x, y = start
    return torch.stack((cosine * x - sine * y, sine * x + cosine * y), -1)
