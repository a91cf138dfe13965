"""Attention of many ticks run by hand: the action sync carried on, and one look at the input for each query.

All projections beside attention itself are folded: into the query's weight the input projection and the scale of the
scores, into whatever reads the result the output projection. Keys and values get their gradients in one product each
over all ticks that looked at them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.engine.unrolled_neuron_models import move_rows
from ctm_rl.machine.synchronisation import accumulate

_softmax_backward = torch.ops.aten._softmax_backward_data


class GazeWeights(NamedTuple):
    """What queries are made with; L ticks, up to the last look."""

    decay: Float[Tensor, " P"]
    """Factor of the past at each tick, of the action sync."""
    root: Float[Tensor, "L P"]
    """1 / sqrt(beta) at each tick, the same for all rows."""
    query: Float[Tensor, "F P"]
    """From the action sync to the scaled query of all heads."""
    query_bias: Float[Tensor, " F"]
    """Its bias."""


class GazePlan(NamedTuple):
    """What gazing has to know beside tensors."""

    sources: Sequence[int | None]
    """At each tick, which memory is looked at; None: no look."""
    left: Int[Tensor, " P"]
    """First neuron of each pair of the action sync."""
    right: Int[Tensor, " P"]
    """Second neuron of each pair."""

    @property
    def num_ticks(self) -> int:
        """L: ticks up to the last look."""
        return max((tick + 1 for tick, source in enumerate(self.sources) if source is not None), default=0)

    @property
    def looks(self) -> list[int]:
        """The ticks that look."""
        return [tick for tick, source in enumerate(self.sources) if source is not None]


class Memories:
    """Keys and values, laid out for products in either direction.

    Args:
        tensors: keys and values of each memory, one after the other, [B, h, S, d] each.
    """

    def __init__(self, tensors: Sequence[Float[Tensor, "B h S d"]]) -> None:
        flat = [tensor.reshape(-1, *tensor.shape[2:]).contiguous() for tensor in tensors]
        self.keys, self.values = flat[::2], flat[1::2]  # [Bh, S, d]

    @staticmethod
    def turned(parts: Sequence[Float[Tensor, "Bh S d"]]) -> list[Float[Tensor, "Bh d S"]]:
        """The same with tokens last, contiguous: small products are three times slower otherwise."""
        return [part.transpose(1, 2).contiguous() for part in parts]


class Gaze:
    """Attention on its way there.

    Args:
        weights: folded.
        plan: who is looked at, and which neurons make the query.
        memories: what is looked at.
        mask: factors of dropout for the attention of each look, [G, Bh, 1, S], or None.
        num_rows: B.
        is_recording: whether there is to be a way back.
    """

    def __init__(
        self,
        weights: GazeWeights,
        plan: GazePlan,
        memories: Memories,
        mask: Float[Tensor, "G Bh 1 S"] | None,
        num_rows: int,
        is_recording: bool,
    ) -> None:
        self._plan, self._memories, self._mask = plan, memories, mask
        self._values, self._keys = memories.values, Memories.turned(memories.keys)
        self._decay = weights.decay[:, None]
        self._roots = weights.root[..., None].unbind(0)
        self._query, self._query_bias = weights.query.T, weights.query_bias
        num_features, num_pairs = weights.query.shape
        num_looks, num_ticks = len(plan.looks), plan.num_ticks
        batch, tokens, _ = memories.keys[0].shape
        new = weights.query.new_empty
        room, look_room = (num_ticks, num_looks) if is_recording else (1, 1)
        self.alphas = new(room, num_pairs, num_rows)
        self.queries = new(look_room, num_rows, num_features)
        self.attention = new(look_room, batch, 1, tokens)
        self.mixed = new(look_room, num_rows, num_features)
        self._scores = new(batch, 1, tokens)
        self._look = 0
        self._is_recording = is_recording
        self._cut()

    def _cut(self) -> None:
        """Cuts the buffers into ticks and looks, once for all of these."""
        count = 1 if self._is_recording else len(self._plan.looks)
        self._alpha_ticks = list(self.alphas.unbind(0)) * (1 if self._is_recording else self._plan.num_ticks)
        self._query_looks = list(self.queries.unbind(0)) * count
        self._attention_looks = list(self.attention.unbind(0)) * count
        self._mixed_looks = list(self.mixed.unbind(0)) * count
        self._head_shape = (len(self._scores), 1, self._values[0].shape[2])

    def run(self, tick: int, activation: Float[Tensor, "D B"]) -> Float[Tensor, "B F"] | None:
        """Takes in z before a tick; gives what is seen at it, or None without a look."""
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
        look = self._look
        self._look += 1
        query = torch.addmm(self._query_bias, (alpha * self._roots[tick]).T, self._query, out=self._query_looks[look])
        torch.bmm(query.view(self._head_shape), self._keys[source], out=self._scores)
        attention = torch.softmax(self._scores, -1, out=self._attention_looks[look])
        if self._mask is not None:
            attention = attention * self._mask[look]
        mixed = self._mixed_looks[look]
        torch.bmm(attention, self._values[source], out=mixed.view(self._head_shape))
        return mixed

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Goes on with these rows alone, where nothing is recorded nor dropped; what is looked at is used up."""
        if self._look == len(self._plan.looks):
            return
        num_heads = len(self._scores) // self.alphas.shape[2]
        batch = len(rows) * num_heads
        for part in (*self._keys, *self._values):
            move_rows(part.unflatten(0, (-1, num_heads)), rows, 0)
        self._keys, self._values = ([part[:batch] for part in parts] for parts in (self._keys, self._values))
        self.alphas = self.alphas.index_select(2, rows)
        self.queries, self.mixed = self.queries[:, : len(rows)], self.mixed[:, : len(rows)]
        self.attention, self._scores = self.attention[:, :batch], self._scores[:batch]
        self._cut()

    def tape(self) -> list[Tensor]:
        """What the way back needs."""
        return [self.alphas, self.queries, self.attention, self.mixed]


class GazeBack:
    """The way back of ``Gaze``; see there for the arguments."""

    def __init__(
        self,
        weights: GazeWeights,
        plan: GazePlan,
        memories: Memories,
        mask: Float[Tensor, "G Bh 1 S"] | None,
        tape: Sequence[Tensor],
    ) -> None:
        self._weights, self._plan, self._memories, self._mask = weights, plan, memories, mask
        self._alphas, self._queries, self._attention, self.mixed = tape
        self._keys, self._values = memories.keys, Memories.turned(memories.values)
        self._decay = weights.decay[:, None]
        self._roots = weights.root[..., None].unbind(0)
        self._d_alphas = torch.empty_like(self._alphas)
        self._d_syncs = self._alphas.new_zeros(self._alphas.shape)
        self._d_alpha_ticks, self._d_sync_ticks = self._d_alphas.unbind(0), self._d_syncs.unbind(0)
        self._d_queries, self._d_scores = torch.empty_like(self._queries), torch.empty_like(self._attention)
        self.d_mixed = torch.empty_like(self.mixed)
        """Gradient of what every look saw, [G, B, F]; whoever runs back writes it before each look."""
        self.d_mixed_looks = self.d_mixed.unbind(0)
        self._look = len(plan.looks)

    def next_look(self) -> int:
        """Number of the look that comes next on the way back."""
        self._look -= 1
        return self._look

    def run(self, tick: int, look: int | None, activation: Float[Tensor, "D B"], d_z: Float[Tensor, "D B"]) -> None:
        """Adds to the gradient of z before a tick what it gets from all looks from that tick on."""
        plan = self._plan
        if tick >= plan.num_ticks:
            return
        d_alpha = self._d_alpha_ticks[tick]
        if tick + 1 < plan.num_ticks:
            torch.mul(self._d_alpha_ticks[tick + 1], self._decay, out=d_alpha)
        else:
            d_alpha.zero_()
        if look is not None:
            d_query = self._query_grad(tick, look)
            d_sync = torch.mm(self._weights.query.T, d_query.T, out=self._d_sync_ticks[tick])
            d_alpha.addcmul_(d_sync, self._roots[tick])
        left, right = activation.index_select(0, plan.left), activation.index_select(0, plan.right)
        d_z.index_add_(0, plan.left, right.mul_(d_alpha))
        d_z.index_add_(0, plan.right, left.mul_(d_alpha))

    def _query_grad(self, tick: int, look: int) -> Float[Tensor, "B F"]:
        source = self._plan.sources[tick]
        assert source is not None
        keys, attention = self._keys[source], self._attention[look]
        shape = (len(keys), 1, keys.shape[2])
        d_attention = torch.bmm(self.d_mixed_looks[look].view(shape), self._values[source])
        if self._mask is not None:
            d_attention.mul_(self._mask[look])
        d_scores = self._d_scores[look]
        d_scores.copy_(_softmax_backward(d_attention, attention, -1, attention.dtype))
        d_query = self._d_queries[look]
        torch.bmm(d_scores, keys, out=d_query.view(shape))
        return d_query

    def grads(self) -> list[Tensor]:
        """The gradients of the weights, in their order."""
        looks = self._plan.looks
        sync = self._alphas * self._weights.root[..., None]
        if len(looks) < len(sync):
            sync = sync[looks]
        d_queries = self._d_queries.flatten(0, 1)
        d_query = d_queries.T @ sync.transpose(1, 2).flatten(0, 1)
        d_decay = (self._d_alphas[1:] * self._alphas[:-1]).sum((0, 2))
        d_root = (self._d_syncs * self._alphas).sum(2)
        return [d_decay, d_root, d_query, d_queries.sum(0)]

    def memory_grads(self, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """The gradients of keys and values, shaped as these were."""
        attention = self._attention if self._mask is None else self._attention * self._mask
        sources = [self._plan.sources[tick] for tick in self._plan.looks]
        grads = []
        for memory, keys in enumerate(self._memories.keys):
            looks: list[int] | slice = [look for look, source in enumerate(sources) if source == memory]
            if len(looks) == len(sources):
                looks = slice(None)
            for across, along in ((self._d_scores, self._queries), (attention, self.d_mixed)):
                across, along = across[looks], along[looks]
                count = len(along)
                tokens = across.view(count, *keys.shape[:2]).permute(1, 2, 0)  # [Bh, S, G]
                grad = torch.bmm(tokens, along.view(count, len(keys), -1).transpose(0, 1))
                grads.append(grad.view(shapes[len(grads)]))
        return grads
