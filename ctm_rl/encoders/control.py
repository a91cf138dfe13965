"""Encoder of plain vectors: classic control and everything shaped like it."""

import math

from jaxtyping import Shaped
from torch import Tensor, nn


class ControlEncoder(nn.Module):
    """Flatten, then twice Linear, GLU, LayerNorm. Source: the published RL experiments of arXiv:2505.05522.

    Args:
        observation_shape: shape of one observation.
        feature_dim: F.
    """

    def __init__(self, observation_shape: tuple[int, ...], feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim
        layers: list[nn.Module] = [nn.Flatten()]
        for width in (math.prod(observation_shape), feature_dim):
            layers += [nn.Linear(width, 2 * feature_dim), nn.GLU(), nn.LayerNorm(feature_dim)]
        self.layers = nn.Sequential(*layers)

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Tensor:
        """Maps observations [N, ...] of any number type to features [N, F]."""
        return self.layers(observations.to(next(self.parameters()).dtype))
