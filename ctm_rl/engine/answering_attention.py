"""Attention at many ticks, with a hand-written backward pass: the action sync, and one query for each read.

All projections beside attention itself are folded: the input projection and the scale of the scores into the query's
weight, the output projection into the synapse's first dense layer. Keys and values get their gradients in one product
each over all ticks that attended to them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.engine.answering_sync import tick_counts
from ctm_rl.engine.unrolled_neuron_models import move_rows
from ctm_rl.machine.attention import AttentionReading, Reading
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.synchronisation import accumulate, decay_of

_softmax_backward = torch.ops.aten._softmax_backward_data


class AttentionWeights(NamedTuple):
    """What queries are computed with; L ticks, up to the last read."""

    decay: Float[Tensor, " P"]
    """Factor of the past at each tick, of the action sync."""
    root: Float[Tensor, "L P"]
    """1 / sqrt(beta) at each tick, the same for all rows."""
    query: Float[Tensor, "F P"]
    """Weight that maps the action sync to the scaled query of all heads."""
    query_bias: Float[Tensor, " F"]
    """Its bias."""


class AttentionPlan(NamedTuple):
    """Which ticks attend to what."""

    sources: Sequence[int | None]
    """At each tick, which memory is attended to; None: no read."""
    left: Int[Tensor, " P"]
    """First neuron of each pair of the action sync."""
    right: Int[Tensor, " P"]
    """Second neuron of each pair."""

    @property
    def num_ticks(self) -> int:
        """L: ticks up to the last read."""
        return max((tick + 1 for tick, source in enumerate(self.sources) if source is not None), default=0)

    @property
    def reads(self) -> list[int]:
        """The ticks that attend."""
        return [tick for tick, source in enumerate(self.sources) if source is not None]


def fold_attention(
    core: CTMCore, readings: Sequence[Reading]
) -> tuple[AttentionPlan | None, AttentionWeights | None, list[Tensor]]:
    """The plan, the weights of queries, keys and values of all memories; nothing where no tick attends."""
    places: dict[int, int] = {}
    memories: list[Tensor] = []
    sources: list[int | None] = []
    reader = None
    for reading in readings:
        if not isinstance(reading, AttentionReading):
            sources.append(None)
            continue
        reader = reading.reader
        if id(reading) not in places:
            places[id(reading)] = len(memories) // 2
            memories += reading.memory
        sources.append(places[id(reading)])
    if reader is None:
        return None, None, []
    sync = core.action_sync
    assert sync is not None
    plan = AttentionPlan(sources, sync.left, sync.right)
    decay = decay_of(sync.decay_rate, sync.max_decay_rate)
    num_features = len(reader.query.bias)
    scale = (num_features // reader.num_heads) ** -0.5
    project = reader.in_proj_weight[:num_features] * scale
    bias = torch.addmv(reader.in_proj_bias[:num_features] * scale, project, reader.query.bias)
    root = tick_counts(decay, plan.num_ticks).rsqrt()
    weights = AttentionWeights(decay, root, project @ reader.query.weight, bias)
    return plan, weights, [memory.to(decay.dtype) for memory in memories]


def _flattened(parts: Sequence[Float[Tensor, "B h S d"]]) -> list[Float[Tensor, "Bh S d"]]:
    """Keys or values with rows and heads as one axis."""
    return [part.reshape(-1, *part.shape[2:]).contiguous() for part in parts]


def _transposed(parts: Sequence[Float[Tensor, "Bh S d"]]) -> list[Float[Tensor, "Bh d S"]]:
    """Keys or values with tokens last, contiguous: small products are three times slower otherwise."""
    return [part.transpose(1, 2).contiguous() for part in parts]


class AttentionForward:
    """The forward pass of attention, tick by tick.

    Args:
        weights: folded.
        plan: which ticks attend to what, and which neurons the query is computed from.
        memories: keys and values of each memory, alternating, [B, h, S, d] each.
        mask: dropout factors for the attention of each read, [G, Bh, 1, S], or None.
        num_rows: B.
        is_recording: whether there will be a backward pass.
    """

    def __init__(
        self,
        weights: AttentionWeights,
        plan: AttentionPlan,
        memories: Sequence[Float[Tensor, "B h S d"]],
        mask: Float[Tensor, "G Bh 1 S"] | None,
        num_rows: int,
        is_recording: bool,
    ) -> None:
        self._plan, self._mask = plan, mask
        keys, self._values = _flattened(memories[::2]), _flattened(memories[1::2])
        self._keys = _transposed(keys)
        self._decay = weights.decay[:, None]
        self._roots = weights.root[..., None].unbind(0)
        self._query, self._query_bias = weights.query.T, weights.query_bias
        num_features, num_pairs = weights.query.shape
        num_reads, num_ticks = len(plan.reads), plan.num_ticks
        batch, tokens, _ = keys[0].shape
        new = weights.query.new_empty
        room, read_room = (num_ticks, num_reads) if is_recording else (1, 1)
        self.alphas = new(room, num_pairs, num_rows)
        self.queries = new(read_room, num_rows, num_features)
        self.attention = new(read_room, batch, 1, tokens)
        self.mixed = new(read_room, num_rows, num_features)
        self._scores = new(batch, 1, tokens)
        self._read = 0
        self._is_recording = is_recording
        self._split()

    def _split(self) -> None:
        """Splits the buffers into ticks and reads, once for all of them."""
        count = 1 if self._is_recording else len(self._plan.reads)
        self._alpha_ticks = list(self.alphas.unbind(0)) * (1 if self._is_recording else self._plan.num_ticks)
        self._query_reads = list(self.queries.unbind(0)) * count
        self._attention_reads = list(self.attention.unbind(0)) * count
        self._mixed_reads = list(self.mixed.unbind(0)) * count
        self._head_shape = (len(self._scores), 1, self._values[0].shape[2])

    def run(self, tick: int, activation: Float[Tensor, "D B"]) -> Float[Tensor, "B F"] | None:
        """What a tick attends to, before the output projection, from the z before it; None where it does not attend."""
        if tick >= self._plan.num_ticks:
            return None
        products = activation.index_select(0, self._plan.left).mul_(activation.index_select(0, self._plan.right))
        alpha = self._alpha_ticks[tick]
        if tick:
            accumulate(self._alpha_ticks[tick - 1], products, self._decay, out=alpha)
        else:
            alpha.copy_(products)
        source = self._plan.sources[tick]
        if source is None:
            return None
        read = self._read
        self._read += 1
        query = torch.addmm(self._query_bias, (alpha * self._roots[tick]).T, self._query, out=self._query_reads[read])
        torch.bmm(query.view(self._head_shape), self._keys[source], out=self._scores)
        attention = torch.softmax(self._scores, -1, out=self._attention_reads[read])
        if self._mask is not None:
            attention = attention * self._mask[read]
        mixed = self._mixed_reads[read]
        torch.bmm(attention, self._values[source], out=mixed.view(self._head_shape))
        return mixed

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone, where nothing is recorded or dropped; the memories are overwritten."""
        if self._read == len(self._plan.reads):
            return
        num_heads = len(self._scores) // self.alphas.shape[2]
        batch = len(rows) * num_heads
        for part in (*self._keys, *self._values):
            move_rows(part.unflatten(0, (-1, num_heads)), rows, 0)
        self._keys, self._values = ([part[:batch] for part in parts] for parts in (self._keys, self._values))
        self.alphas = self.alphas.index_select(2, rows)
        self.queries, self.mixed = self.queries[:, : len(rows)], self.mixed[:, : len(rows)]
        self.attention, self._scores = self.attention[:, :batch], self._scores[:batch]
        self._split()

    def tape(self) -> list[Tensor]:
        """What the backward pass needs."""
        return [self.alphas, self.queries, self.attention, self.mixed]


class AttentionBackward:
    """The backward pass of ``AttentionForward``; see there for the arguments."""

    def __init__(
        self,
        weights: AttentionWeights,
        plan: AttentionPlan,
        memories: Sequence[Float[Tensor, "B h S d"]],
        mask: Float[Tensor, "G Bh 1 S"] | None,
        tape: Sequence[Tensor],
    ) -> None:
        self._weights, self._plan, self._mask = weights, plan, mask
        self._shape = memories[0].shape
        self._alphas, self._queries, self._attention, self.mixed = tape
        self._keys, self._values = _flattened(memories[::2]), _transposed(_flattened(memories[1::2]))
        self._decay = weights.decay[:, None]
        self._roots = weights.root[..., None].unbind(0)
        self._d_alphas = torch.empty_like(self._alphas)
        self._d_syncs = self._alphas.new_zeros(self._alphas.shape)
        self._d_alpha_ticks, self._d_sync_ticks = self._d_alphas.unbind(0), self._d_syncs.unbind(0)
        self._d_queries, self._d_scores = torch.empty_like(self._queries), torch.empty_like(self._attention)
        self.d_mixed = torch.empty_like(self.mixed)
        """Gradient of the result of every read, [G, B, F]; the caller writes it before it calls ``run``."""
        self.d_mixed_reads = self.d_mixed.unbind(0)
        self._read = len(plan.reads)

    def next_read(self) -> int:
        """Index of the read that comes next in the backward pass."""
        self._read -= 1
        return self._read

    def run(self, tick: int, read: int | None, activation: Float[Tensor, "D B"], d_z: Float[Tensor, "D B"]) -> None:
        """Adds the share of this tick's and all later reads to the gradient of z before a tick."""
        plan = self._plan
        if tick >= plan.num_ticks:
            return
        d_alpha = self._d_alpha_ticks[tick]
        if tick + 1 < plan.num_ticks:
            torch.mul(self._d_alpha_ticks[tick + 1], self._decay, out=d_alpha)
        else:
            d_alpha.zero_()
        if read is not None:
            d_query = self._query_grad(tick, read)
            d_sync = torch.mm(self._weights.query.T, d_query.T, out=self._d_sync_ticks[tick])
            d_alpha.addcmul_(d_sync, self._roots[tick])
        left, right = activation.index_select(0, plan.left), activation.index_select(0, plan.right)
        d_z.index_add_(0, plan.left, right.mul_(d_alpha))
        d_z.index_add_(0, plan.right, left.mul_(d_alpha))

    def _query_grad(self, tick: int, read: int) -> Float[Tensor, "B F"]:
        source = self._plan.sources[tick]
        assert source is not None
        keys, attention = self._keys[source], self._attention[read]
        shape = (len(keys), 1, keys.shape[2])
        d_attention = torch.bmm(self.d_mixed_reads[read].view(shape), self._values[source])
        if self._mask is not None:
            d_attention.mul_(self._mask[read])
        d_scores = self._d_scores[read]
        d_scores.copy_(_softmax_backward(d_attention, attention, -1, attention.dtype))
        d_query = self._d_queries[read]
        torch.bmm(d_scores, keys, out=d_query.view(shape))
        return d_query

    def grads(self) -> AttentionWeights:
        """The gradients of the weights."""
        reads = self._plan.reads
        sync = self._alphas * self._weights.root[..., None]
        if len(reads) < len(sync):
            sync = sync[reads]
        d_queries = self._d_queries.flatten(0, 1)
        d_query = d_queries.T @ sync.transpose(1, 2).flatten(0, 1)
        d_decay = (self._d_alphas[1:] * self._alphas[:-1]).sum((0, 2))
        d_root = (self._d_syncs * self._alphas).sum(2)
        return AttentionWeights(d_decay, d_root, d_query, d_queries.sum(0))

    def memory_grads(self) -> list[Tensor]:
        """The gradients of keys and values, shaped and ordered like the memories."""
        attention = self._attention if self._mask is None else self._attention * self._mask
        sources = [self._plan.sources[tick] for tick in self._plan.reads]
        grads = []
        for memory, keys in enumerate(self._keys):
            reads: list[int] | slice = [read for read, source in enumerate(sources) if source == memory]
            if len(reads) == len(sources):
                reads = slice(None)
            for across, along in ((self._d_scores, self._queries), (attention, self.d_mixed)):
                across, along = across[reads], along[reads]
                count = len(along)
                tokens = across.view(count, *keys.shape[:2]).permute(1, 2, 0)  # [Bh, S, G]
                grad = torch.bmm(tokens, along.view(count, len(keys), -1).transpose(0, 1))
                grads.append(grad.view(self._shape))
        return grads
