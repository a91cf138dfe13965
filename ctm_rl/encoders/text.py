"""Encoder of short texts, such as MiniGrid's missions, from hashes of their words."""

from jaxtyping import Shaped
from torch import Tensor, nn

from ctm_rl.spaces.observations import BYTES_PER_WORD, NUM_WORDS


class TextEncoder(nn.Module):
    """Embeddings of both bytes of a word's hash and of its position; Linear, GLU, mean over the words.

    No vocabulary is needed. The layer between sum and mean lets the meaning of a word depend on its position, which a
    mean of sums would not.

    Args:
        feature_dim: F.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim
        self.high = nn.Embedding(256, feature_dim)
        self.low = nn.Embedding(256, feature_dim)
        self.position = nn.Embedding(NUM_WORDS, feature_dim)
        self.word = nn.Sequential(nn.Linear(feature_dim, 2 * feature_dim), nn.GLU())
        self.layers = nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, feature_dim))

    def forward(self, observations: Shaped[Tensor, "N bytes"]) -> Tensor:
        """Maps packed texts, [N, NUM_WORDS x BYTES_PER_WORD], to features [N, F]."""
        # a batch repeats a few missions many times
        texts, which = observations.long().unique(dim=0, return_inverse=True)
        hashes = texts.unflatten(1, (NUM_WORDS, BYTES_PER_WORD))
        is_word = (hashes.sum(-1) > 0)[..., None]
        words = self.word(self.high(hashes[..., 0]) + self.low(hashes[..., 1]) + self.position.weight)
        mean = (words * is_word).sum(1) / is_word.sum(1).clamp(min=1)
        return self.layers(mean)[which]
