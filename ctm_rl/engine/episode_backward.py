"""The way back over a recorded sweep: hand-written, tick by tick.

Since ticks share their weights, the gradients of the dense layers' weights are one product each over many ticks: every
few ticks, while what they left is still near the processor.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.engine.episode_forward import SweepWeights, Tape
from ctm_rl.engine.episode_sync import Steps

_CHUNK = 16
"""Ticks whose gradients are gathered before they are multiplied."""
_LARGEST_GROUP = 4
"""As many ticks of a step at most share a product of the neuron-level models; more would multiply too much in vain."""

_INPUT_ONLY = [True, False, False]
"""Of a norm's gradients."""
_norm_backward = torch.ops.aten.native_layer_norm_backward


class Rewind:
    """Runs back over the ticks of a tape, which stays as it was.

    Args:
        weights: what the ticks ran with.
        tape: what they left.
        d_history: gradient of the history after the last tick, [D, M, B].
        steps: which the ticks belong to.
    """

    def __init__(
        self,
        weights: SweepWeights,
        tape: Tape,
        d_history: Float[Tensor, "D M B"],
        steps: Steps,
    ) -> None:
        self._weights, self._tape = weights, tape
        self._restarts = {begin: rows for begin, rows in zip(steps.begins, steps.restarts, strict=False) if rows}
        self._chunks = _chunks_of(steps.begins)
        num_neurons, self._length, num_rows = d_history.shape
        self._total = len(tape.last_gate)
        chunk = max(steps.begins[part.stop] - begin for begin, part in self._chunks.items())
        # the places of a group's windows may only change between two groups
        self._group = max(size for size in range(1, _LARGEST_GROUP + 1) if math.gcd(*steps.ticks) % size == 0)
        # windows get back what restarts have overwritten, which must not show on the tape
        self._places = tape.places.clone() if len(tape.kept) else tape.places
        self._num_kept = len(tape.kept)
        new = d_history.new_empty
        self._begins = steps.begins
        self.d_inputs = new(len(steps.restarts), num_rows, 2 * num_neurons)
        """Gradient of what the features send in, the same for all ticks of a step, [T, B, E]."""
        self._d_dense = [new(chunk, num_rows, 2 * num_neurons) for _ in tape.gated]
        self._d_pre = new(chunk, num_rows, num_neurons)
        self._norm_shape = (num_neurons,)
        self._ticks = _TapeTicks(tape)
        self._d_pre_ticks = self._d_pre.unbind(0)
        self._d_dense_ticks = [d_dense.unbind(0) for d_dense in self._d_dense]
        self._grads = SweepWeights(*(None if part is None else _zeros(part) for part in weights[:-1]), weights.sync)  # pyright: ignore
        self._recurrent = weights.recurrent.T.contiguous()
        self._ring = HistoryGrads(weights.first_nlm, d_history, self._total)
        self._first_nlm = _WindowWeightGrads(weights.first_nlm, self._places, self._group)
        self._d_first = self._first_nlm.grads
        if weights.second_nlm is not None:
            d_last = new(num_neurons, 2, num_rows)
            self._d_last, self._d_last_sum = d_last, torch.zeros_like(d_last)
            self._second_nlm = SmallTransposedProduct(weights.second_nlm, d_last)
            self._hidden_gate_grads = [GateGrad(d_first, 1) for d_first in self._d_first]
            self._last_gate_grads = [GateGrad(d_last.transpose(0, 1), 0)] * self._group
        else:
            self._last_gate_grads = [GateGrad(d_first.transpose(0, 1), 0) for d_first in self._d_first]
        self._dense_gate_grads = [[GateGrad(tick, 1) for tick in ticks.unbind(0)] for ticks in self._d_dense]

    def run(
        self, d_synced: Float[Tensor, "L S B"], neurons: Int[Tensor, " S"], d_last: Float[Tensor, "D B"]
    ) -> Float[Tensor, "D B"]:
        """Runs back through all ticks.

        Args:
            d_synced: gradient of the synchronised neurons' z after every tick.
            neurons: which these are.
            d_last: gradient of z after the last tick.

        Returns:
            The gradient of z before the first tick.
        """
        d_z, d_synced_ticks = d_last.clone(), d_synced.unbind(0)
        for begin, steps in reversed(self._chunks.items()):
            for tick in reversed(range(begin, self._begins[steps.stop])):
                d_z.index_add_(0, neurons, d_synced_ticks[tick])
                d_z = self._tick(tick, tick - begin, d_z)
                for row in reversed(self._restarts.get(tick, ())):
                    self._restart(tick, row, d_z)
            self._flush(steps)
        return d_z

    def _tick(self, tick: int, slot: int, d_z: Tensor) -> Tensor:
        """From the gradient of z after a tick to that of z before it; ``slot``: its place in its chunk."""
        weights, ticks, place = self._weights, self._ticks, tick % self._group
        self._last_gate_grads[place](d_z[None], ticks.last_gate[tick], ticks.activations[tick + 1])
        if weights.second_nlm is not None:
            hidden = ticks.hidden[tick]
            self._d_last_sum += self._d_last
            assert self._grads.second_nlm is not None
            self._grads.second_nlm.baddbmm_(self._d_last, hidden.transpose(1, 2))
            self._hidden_gate_grads[place](self._second_nlm(), ticks.hidden_gate[tick], hidden)
        if not place:
            self._first_nlm.add(tick)
        d_pre = self._d_pre_ticks[slot]
        self._ring.step(tick, self._d_first[place], d_pre)
        if weights.second is None:
            d_dense = self._unnorm(0, tick, slot, d_pre, weights.scale)
        else:
            d_second = self._unnorm(1, tick, slot, d_pre, weights.scale)
            d_dense = self._unnorm(0, tick, slot, torch.mm(d_second, weights.second), None)
        return torch.mm(self._recurrent, d_dense.T)

    def _unnorm(self, block: int, tick: int, slot: int, grad: Tensor, scale: Tensor | None) -> Float[Tensor, "B E"]:
        """The gradient of a dense layer's output from that of the norm's, which has a scale unless it is folded in."""
        gated, gate, mean, rstd = (part[tick] for part in self._ticks.blocks[block])
        d_gated, _, _ = _norm_backward(grad, gated, self._norm_shape, mean, rstd, scale, None, _INPUT_ONLY)
        self._dense_gate_grads[block][slot](d_gated, gate, gated)
        return self._d_dense_ticks[block][slot]

    def _restart(self, tick: int, row: int, d_z: Tensor) -> None:
        """What lies before a restart gets no gradient; the learned start gets it."""
        self._ring.restart(tick, row)
        got = d_z.select(1, row)
        self._grads.start_activation.add_(got)
        got.zero_()
        self._num_kept -= 1
        self._places.select(2, row)[:, tick : tick + self._length] = self._tape.kept[self._num_kept]

    def _flush(self, steps: range) -> None:
        """Adds what the ticks of a chunk's steps have gathered to the gradients."""
        weights, tape, grads = self._weights, self._tape, self._grads
        bounds = self._begins[steps.start : steps.stop + 1]
        begin, count = bounds[0], bounds[-1] - bounds[0]
        ticks = slice(begin, bounds[-1])
        read = tape.activations[ticks].transpose(1, 2).contiguous()  # [L, B, D]
        for tick in bounds[:-1]:
            for row in self._restarts.get(tick, ()):
                read[tick - begin, row] = weights.start_activation
        d_dense = self._d_dense[0][:count]
        grads.recurrent.addmm_(d_dense.flatten(0, 1).T, read.flatten(0, 1))
        for step, (first, last) in zip(steps, pairwise(bounds), strict=True):
            torch.sum(d_dense[first - begin : last - begin], 0, out=self.d_inputs[step])
        if grads.second is not None and grads.second_bias is not None:
            flat = self._d_dense[1][:count].flatten(0, 1)
            grads.second.addmm_(flat.T, tape.normed(0, ticks).flatten(0, 1))
            grads.second_bias.add_(flat.sum(0))
        d_pre = self._d_pre[:count]
        grads.shift.add_(d_pre.sum((0, 1)))
        grads.scale.add_(tape.normed(-1, ticks).mul_(d_pre).sum((0, 1)))

    def weight_grads(self) -> tuple[Tensor | None, ...]:
        """The gradients of all weights but those of the synchronisation, in their order."""
        bias = None if self._weights.second_nlm is None else self._d_last_sum.sum(-1)
        weight, first_bias = self._first_nlm.sums()
        grads = self._grads._replace(
            start_history=self._ring.d_start(), first_nlm=weight, first_nlm_bias=first_bias, second_nlm_bias=bias
        )
        return grads[:-1]

    def d_history(self) -> Float[Tensor, "D M B"]:
        """The gradient of the history before the first tick."""
        return self._ring.d_history()


def _chunks_of(begins: Sequence[int]) -> dict[int, range]:
    """Steps gathered into chunks of about as many ticks, whole steps each, by the first tick."""
    chunks: dict[int, range] = {}
    first = 0
    for step in range(1, len(begins)):
        is_last = step == len(begins) - 1
        if is_last or begins[step + 1] - begins[first] > _CHUNK:
            chunks[begins[first]] = range(first, step)
            first = step
    return chunks


class _TapeTicks:
    """A tape cut into its ticks at once: a view costs as much as a small product.

    Args:
        tape: what to cut.
    """

    def __init__(self, tape: Tape) -> None:
        parts = zip(tape.gated, tape.gates, tape.means, tape.rstds, strict=True)
        self.blocks = [tuple(part.unbind(0) for part in block) for block in parts]
        self.hidden, self.hidden_gate = tape.hidden.unbind(0), tape.hidden_gate.unbind(0)
        self.last_gate = tape.last_gate.unsqueeze(1).unbind(0)
        self.activations = tape.activations.unsqueeze(1).unbind(0)


def _zeros(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight, memory_format=torch.contiguous_format)


class GateGrad:
    """The gradient of ``a sigmoid(b)`` with respect to a and b, into the halves of a buffer.

    ``d_a = g sigmoid(b)`` and ``d_b = g a sigmoid(b) (1 - sigmoid(b))``, of which the forward pass kept the output,
    ``a sigmoid(b)``, and the sigmoid.

    Args:
        out: where both go, the halves along ``dim``.
        dim: the dimension.
    """

    def __init__(self, out: Tensor, dim: int) -> None:
        self._first, self._second = out.chunk(2, dim)

    def __call__(self, grad: Tensor, gate: Tensor, output: Tensor) -> None:
        """Writes both, from the gradient of the output, which is used up; all three are shaped as a half."""
        torch.mul(grad, gate, out=self._first)
        grad.mul_(output)
        torch.addcmul(grad, grad, gate, value=-1.0, out=self._second)


class _WindowWeightGrads:
    """The gradient of what neuron-level models multiply their windows with.

    The windows of ticks that follow one another share all but one place. So a group of G ticks is one product of all
    their gradients with the M + G - 1 places they cover, of which every tick's own M are taken out in the end.

    Args:
        weight: what gets the gradient, [D, O, M].
        places: the buffer that windows lie in, [D, M + L, B]; between two groups it may change.
        group: G, of which the number of ticks is a multiple.
    """

    def __init__(self, weight: Float[Tensor, "D O M"], places: Float[Tensor, "D ML B"], group: int) -> None:
        num_neurons, num_outputs, self._length = weight.shape
        covered = self._length + group - 1
        grads = weight.new_empty(num_neurons, group, num_outputs, places.shape[2])
        self.grads = grads.unbind(1)
        """Where the gradient of each tick of a group is to be written, [D, O, B] each."""
        self._group = group
        self._grads, self._grads_sum = grads.flatten(1, 2), torch.zeros_like(grads)
        self._flat_sum, self._turned = self._grads_sum.flatten(1, 2), self._grads.transpose(1, 2)
        self._covered = places[:, 1:].unfold(1, covered, group).transpose(2, 3).unbind(1)  # [D, M + G - 1, B]
        self._products = weight.new_zeros(num_neurons, covered, group * num_outputs)

    def add(self, tick: int) -> None:
        """Takes in the group that begins with ``tick``."""
        self._flat_sum += self._grads
        self._products.baddbmm_(self._covered[tick // self._group], self._turned)

    def sums(self) -> tuple[Float[Tensor, "D O M"], Float[Tensor, "D O"]]:
        """The gradients of weight and bias."""
        products = self._products.unflatten(2, (self._group, -1)).unbind(2)  # [D, M + G - 1, O]
        own = [product[:, place : place + self._length] for place, product in enumerate(products)]
        return torch.stack(own).sum(0).transpose(1, 2), self._grads_sum.sum((1, 3))


class HistoryGrads:
    """The gradient of the M places that a tick's window covers.

    Place p of the buffer has slot p mod M of a ring, so that nothing moves when the window slides back by one place:
    the weights turn instead, read from two copies laid end to end.
    """

    def __init__(self, weight: Float[Tensor, "D O M"], final: Float[Tensor, "D M B"], total: int) -> None:
        self._length = final.shape[1]
        transposed = weight.transpose(1, 2)
        doubled = torch.cat((transposed, transposed), 1).contiguous()
        self._weights = doubled.unfold(1, self._length, 1).transpose(2, 3).unbind(1)  # [D, M, O] for each turn
        self._ring = final.roll(total % self._length, 1)  # slot of place p, of which the first is ``total``
        self._slots = self._ring.unbind(1)
        self._turned_slots = self._ring.transpose(0, 2).unbind(1)
        self._starts = final.new_zeros(self._length, *final.shape[:2])

    def step(self, tick: int, grad: Float[Tensor, "D O B"], out: Float[Tensor, "B D"]) -> None:
        """Adds one tick's share; writes the gradient of that tick's own place, which is then complete."""
        self._ring.baddbmm_(self._weights[(-tick - 1) % self._length], grad)
        slot = tick % self._length
        out.copy_(self._turned_slots[slot])
        self._slots[slot].zero_()  # from now on the slot of the place M before

    def restart(self, tick: int, row: int) -> None:
        """Hands what the window before ``tick`` got in one row to the start history."""
        got = self._ring.select(2, row)
        self._starts[tick % self._length] += got
        got.zero_()

    def d_start(self) -> Float[Tensor, "D M"]:
        """The gradient of the start history."""
        return torch.stack([start.roll(-turn, 1) for turn, start in enumerate(self._starts.unbind(0))]).sum(0)

    def d_history(self) -> Float[Tensor, "D M B"]:
        """The gradient of the history before tick 0, of which the oldest place is in nobody's window."""
        return self._ring


class SmallTransposedProduct:
    """``W_d^T g_d`` for every neuron d, for a W of two rows.

    Args:
        weight: W, [D, 2, H].
        grad: the buffer that g stands in at every call, [D, 2, B].
    """

    def __init__(self, weight: Float[Tensor, "D 2 H"], grad: Float[Tensor, "D 2 B"]) -> None:
        self._first, self._second = (column[..., None] for column in weight.unbind(1))  # [D, H, 1]
        self._first_grad, self._second_grad = grad.split(1, 1)
        self._out = weight.new_empty(weight.shape[0], weight.shape[2], grad.shape[2])

    def __call__(self) -> Float[Tensor, "D H B"]:
        """Gives the product, in a buffer that the next call uses again."""
        torch.mul(self._first, self._first_grad, out=self._out)
        return self._out.addcmul_(self._second, self._second_grad)
