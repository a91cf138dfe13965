"""Encoder of what is one of several, once or several times over: Discrete and MultiDiscrete observations."""

import torch
from jaxtyping import Shaped
from torch import Tensor, nn


class CategoriesEncoder(nn.Module):
    """The encoder of vectors on one-hot vectors side by side, whose first product is a sum of rows.

    Args:
        sizes: how many possibilities each of the N categories has.
        feature_dim: F.
    """

    starts: Tensor

    def __init__(self, sizes: tuple[int, ...], feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim
        self.register_buffer("starts", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        self.rows = nn.EmbeddingBag(sum(sizes), 2 * feature_dim, mode="sum")
        # between the extremes of torch's own: a row is no linear layer of so many inputs, and not of scale 1 either
        nn.init.normal_(self.rows.weight, std=len(sizes) ** -0.5)
        self.layers = nn.Sequential(
            nn.GLU(),
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, 2 * feature_dim),
            nn.GLU(),
            nn.LayerNorm(feature_dim),
        )

    def forward(self, observations: Shaped[Tensor, "N categories"]) -> Tensor:
        """Maps whole numbers [N, categories], counted from 0, to features [N, F]."""
        return self.layers(self.rows(observations.long() + self.starts))
