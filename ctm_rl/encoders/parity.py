"""Encoder of sequences of -1 and +1."""

from jaxtyping import Float, Shaped
from torch import Tensor, nn


class ParityEncoder(nn.Module):
    """One of two embeddings for each place, by whether it is +1. Source: arXiv:2505.05522, the parity experiments.

    Args:
        feature_dim: F, channels of the result.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim
        self.embedding = nn.Embedding(2, feature_dim)

    def forward(self, sequence: Shaped[Tensor, "B S"]) -> Float[Tensor, "B F S"]:
        """Maps sequences of -1 and 1, [B, S], to channels first, [B, F, S]."""
        return self.embedding((sequence == 1).long()).transpose(1, 2)
