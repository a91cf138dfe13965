"""Encoder of one or several categories: Discrete and MultiDiscrete observations."""

import torch
from jaxtyping import Shaped
from torch import Tensor, nn


class CategoriesEncoder(nn.Module):
    """The encoder of vectors, applied to concatenated one-hot vectors, whose first product is a sum of rows.

    Args:
        sizes: number of values of each of the N categories.
        feature_dim: F.
    """

    starts: Tensor

    def __init__(self, sizes: tuple[int, ...], feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim
        self.register_buffer("starts", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        self.rows = nn.EmbeddingBag(sum(sizes), 2 * feature_dim, mode="sum")
        # torch's own scales are 1 for embeddings and a linear layer's by its number of inputs; this one lies between
        nn.init.normal_(self.rows.weight, std=len(sizes) ** -0.5)
        self.layers = nn.Sequential(
            nn.GLU(),
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, 2 * feature_dim),
            nn.GLU(),
            nn.LayerNorm(feature_dim),
        )

    def forward(self, observations: Shaped[Tensor, "N categories"]) -> Tensor:
        """Maps integers [N, categories], counted from 0, to features [N, F]."""
        return self.layers(self.rows(observations.long() + self.starts))
