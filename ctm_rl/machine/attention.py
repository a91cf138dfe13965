"""Readers: how the input enters a tick, through attention or directly as features."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Glimpse(NamedTuple):
    """What a tick reads from the input; B rows, F features, h heads, S places."""

    features: Float[Tensor, "B F"]
    """What was read."""
    attention: Float[Tensor, "B h S"] | None = None
    """Attention weights over the S places, each head summing to 1; None without attention."""


Reading = Callable[[Tensor], Glimpse]
"""Maps the query of a tick, [B, Q], to what the tick reads."""


class Memory(NamedTuple):
    """Keys and values of one input, computed once for all ticks; F = h x d."""

    keys: Float[Tensor, "B h S d"]
    values: Float[Tensor, "B h S d"]


@dataclass(frozen=True, slots=True, eq=False)
class ConstantReading:
    """The same features at every tick, whatever the query."""

    features: Float[Tensor, "B F"]
    """What every tick reads."""

    def __call__(self, query: Float[Tensor, "B Q"]) -> Glimpse:
        """One read."""
        return Glimpse(self.features)

    def rows(self, rows: Int[Tensor, " n"]) -> "ConstantReading":
        """The same for some rows."""
        return ConstantReading(self.features[rows])


@dataclass(frozen=True, slots=True, eq=False)
class AttentionReading:
    """One input, read through attention."""

    reader: "AttentionReader"
    """The attention layer."""
    memory: Memory
    """Keys and values of the input."""

    def __call__(self, query: Float[Tensor, "B Q"]) -> Glimpse:
        """One read."""
        return self.reader.read(query, self.memory)

    def rows(self, rows: Int[Tensor, " n"]) -> "AttentionReading":
        """The same for some rows."""
        return AttentionReading(self.reader, Memory(*(part[rows] for part in self.memory)))


RowReading = ConstantReading | AttentionReading
"""A reading that can be restricted to some rows."""


def rows_of_readings(readings: Sequence[RowReading], rows: Int[Tensor, " n"]) -> list[RowReading]:
    """Takes some rows of what many ticks read; what is read by several of them stays one object."""
    taken: dict[int, RowReading] = {}
    for reading in readings:
        if id(reading) not in taken:
            taken[id(reading)] = reading.rows(rows)
    return [taken[id(reading)] for reading in readings]


class AttentionReader(nn.Module):
    """Multi-head attention with one query per tick.

    ``kv = LayerNorm(Linear(tokens))`` once per input; at each tick ``q = Linear(query)``, then the usual scaled
    dot-product attention with input and output projections. Source: arXiv:2505.05522, section 3.5.

    Args:
        query_dim: Q, size of what the query is computed from.
        token_dim: C, size of each token.
        feature_dim: F, size of keys, values and result.
        num_heads: h; divides F.
        dropout: dropout of the attention weights, in training.
    """

    def __init__(self, query_dim: int, token_dim: int, feature_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.kv = nn.Sequential(nn.Linear(token_dim, feature_dim), nn.LayerNorm(feature_dim))
        self.query = nn.Linear(query_dim, feature_dim)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * feature_dim, feature_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * feature_dim))
        self.out = nn.Linear(feature_dim, feature_dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out.bias)

    def reading(self, tokens: Float[Tensor, "B S C"]) -> AttentionReading:
        """Prepares an input of S tokens, [B, S, C], to be read at many ticks."""
        return AttentionReading(self, self.memorise(tokens))

    def memorise(self, tokens: Float[Tensor, "B S C"]) -> Memory:
        """Keys and values of all tokens."""
        kv = self.kv(tokens)
        feature_dim = self.in_proj_weight.shape[1]
        keys, values = nn.functional.linear(
            kv, self.in_proj_weight[feature_dim:], self.in_proj_bias[feature_dim:]
        ).chunk(2, dim=-1)
        return Memory(self._split(keys), self._split(values))

    def read(self, query: Float[Tensor, "B Q"], memory: Memory) -> Glimpse:
        """Attends once to the memory: the result, [B, F], and the attention weights, [B, h, S]."""
        feature_dim = self.in_proj_weight.shape[1]
        projected = nn.functional.linear(
            self.query(query), self.in_proj_weight[:feature_dim], self.in_proj_bias[:feature_dim]
        )
        heads = self._split(projected[:, None])  # [B, h, 1, d]
        scores = heads @ memory.keys.transpose(-1, -2) / math.sqrt(heads.shape[-1])
        attention = self.dropout(scores.softmax(-1))  # [B, h, 1, S]
        mixed = (attention @ memory.values).flatten(1)
        return Glimpse(self.out(mixed), attention.squeeze(2))

    def _split(self, vectors: Tensor) -> Tensor:
        """[B, S, F] to [B, h, S, d]."""
        return vectors.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
