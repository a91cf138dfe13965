"""Neuron-level models over a sliding buffer of pre-activations, run by hand tick by tick, there and back.

The buffer is [D, M + K, B]: each tick reads its window without a copy, so that memory grows with M + K and not with
their product. Neurons come before rows, since each has weights of its own; norms and dropout are not covered.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.engine.episode_backward import GateGrad, HistoryGrads, SmallTransposedProduct
from ctm_rl.engine.episode_forward import SmallProduct


class NeuronWeights(NamedTuple):
    """The neuron-level models' parameters as the ticks want them, temperatures folded in; O = 2 H, or 2 if shallow."""

    first: Float[Tensor, "D O M"]
    """First layer."""
    first_bias: Float[Tensor, "D O"]
    """Its bias."""
    second: Float[Tensor, "D 2 H"] | None
    """Second layer; None for shallow models."""
    second_bias: Float[Tensor, "D 2"] | None
    """Its bias."""


def move_rows(buffer: Tensor, rows: Int[Tensor, " n"], dim: int) -> None:
    """Brings some rows, in this order, to the front of a buffer; those that are there already cost nothing."""
    (moved,) = (rows != torch.arange(len(rows), device=rows.device)).nonzero(as_tuple=True)
    buffer.index_copy_(dim, moved, buffer.index_select(dim, rows[moved]))


class Neurons:
    """The neuron-level models on their way there.

    Args:
        weights: folded.
        start_history: pre-activations before the first tick, the same for all rows, [D, M].
        start_activation: z before the first tick, likewise, [D].
        num_rows: B.
        num_ticks: K.
        is_recording: keep what the way back needs; otherwise every tick writes over the one before.
    """

    def __init__(
        self,
        weights: NeuronWeights,
        start_history: Float[Tensor, "D M"],
        start_activation: Float[Tensor, " D"],
        num_rows: int,
        num_ticks: int,
        is_recording: bool,
    ) -> None:
        self._weights = weights
        self._length = start_history.shape[1]
        self._room = num_ticks if is_recording else 1
        self._capacity = num_ticks if is_recording else min(num_ticks, self._length)
        self._is_recording, self._num_ticks = is_recording, num_ticks
        num_neurons, num_outputs, _ = weights.first.shape
        new = start_history.new_empty
        self.places = new(num_neurons, self._length + self._capacity, num_rows)
        """Pre-activations: the start history, then one place a tick."""
        self.places[:, : self._length] = start_history[..., None]
        self.activations = new(self._room + 1 if is_recording else 1, num_neurons, num_rows)
        """z before the first tick, and after each; only the last one when nothing is recorded."""
        self.activations[0] = start_activation[:, None]
        is_deep = weights.second is not None
        hidden_shape = (self._room if is_deep else 0, num_neurons, num_outputs // 2, num_rows)
        self._hidden, self._hidden_gate = new(hidden_shape), new(hidden_shape)
        self._last_gate = new(self._room, num_neurons, num_rows)
        self._first_out = new(num_neurons, num_outputs, num_rows)
        self._last_out = new(num_neurons, 2, num_rows) if is_deep else self._first_out
        self._position = 0
        self._cut(num_rows)

    def _cut(self, num_rows: int) -> None:
        """Cuts the buffers into ticks, once for all of these."""
        weights = self._weights
        self._bias = weights.first_bias[..., None].expand(-1, -1, num_rows)
        self._first_halves = self._first_out.chunk(2, 1)
        if weights.second is not None and weights.second_bias is not None:
            self._second = SmallProduct(weights.second, weights.second_bias, num_rows)
            self._hidden_ticks, self._hidden_gate_ticks = self._by_tick(self._hidden), self._by_tick(self._hidden_gate)
        self._last_halves = self._last_out.unbind(1)
        self._last_gate_ticks = self._by_tick(self._last_gate)
        after = self.activations[1:] if self._is_recording else self.activations
        self._activation_ticks = [self.activations[0], *self._by_tick(after)]
        self._newest = self.places[:, self._length :].unbind(1)
        self._windows = self.places.unfold(1, self._length, 1).transpose(2, 3).unbind(1)

    def _by_tick(self, buffer: Tensor) -> Sequence[Tensor]:
        return buffer.unbind(0) if self._is_recording else [buffer[0]] * self._num_ticks

    def before(self, tick: int) -> Float[Tensor, "D B"]:
        """Z before a tick; before the one after the last, z after that."""
        return self._activation_ticks[tick]

    def run(self, tick: int, pre_activation: Float[Tensor, "B D"]) -> Float[Tensor, "D B"]:
        """Takes in the pre-activations of a tick; gives its z."""
        if self._position == self._capacity:
            # a window never reaches further back than M
            self.places[:, : self._length] = self.places[:, self._position :].clone()
            self._position = 0
        self._newest[self._position].copy_(pre_activation.T)
        self._position += 1
        torch.baddbmm(self._bias, self._weights.first, self._windows[self._position], out=self._first_out)
        if self._weights.second is not None:
            values, gate_inputs = self._first_halves
            gate = torch.sigmoid(gate_inputs, out=self._hidden_gate_ticks[tick])
            self._second(torch.mul(values, gate, out=self._hidden_ticks[tick]), self._last_out)
        values, gate_inputs = self._last_halves
        gate = torch.sigmoid(gate_inputs, out=self._last_gate_ticks[tick])
        return torch.mul(values, gate, out=self._activation_ticks[tick + 1])

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Goes on with these rows alone, where nothing is recorded."""
        num_rows = len(rows)
        move_rows(self.places[:, self._position : self._position + self._length], rows, 2)
        self.places = self.places[..., :num_rows]
        self.activations = self.activations.index_select(2, rows)
        for name in ("_hidden", "_hidden_gate", "_last_gate", "_first_out", "_last_out"):
            # contiguous, or products would go neuron by neuron
            flat = getattr(self, name).view(-1)
            shape = (*getattr(self, name).shape[:-1], num_rows)
            setattr(self, name, flat[: math.prod(shape)].view(shape))
        self._cut(num_rows)

    def tape(self) -> list[Tensor]:
        """What the way back needs."""
        return [self.places, self.activations, self._hidden, self._hidden_gate, self._last_gate]


class NeuronsBack:
    """The way back of ``Neurons``.

    Args:
        weights: what the ticks ran with.
        tape: what they left.
    """

    def __init__(self, weights: NeuronWeights, tape: Sequence[Tensor]) -> None:
        self._weights = weights
        places, self.activations, hidden, hidden_gate, last_gate = tape
        num_ticks, num_neurons, num_rows = last_gate.shape
        length = weights.first.shape[2]
        new = places.new_empty
        self._d_first = new(num_neurons, weights.first.shape[1], num_rows)
        self._d_first_sum = torch.zeros_like(self._d_first)
        self._d_last = self._d_first
        self._ring = HistoryGrads(weights.first, places.new_zeros(num_neurons, length, num_rows), num_ticks)
        self._grad_first = new(num_neurons, length, weights.first.shape[1]).zero_()  # this way round it is faster
        self._windows = places.unfold(1, length, 1).transpose(2, 3).unbind(1)  # [D, M, B] each
        self._activation_ticks = self.activations.unsqueeze(1).unbind(0)
        self._last_gates = last_gate.unsqueeze(1).unbind(0)
        if weights.second is not None:
            self._hidden, self._hidden_gates = hidden.unbind(0), hidden_gate.unbind(0)
            self._d_last = new(num_neurons, 2, num_rows)
            self._d_last_sum = torch.zeros_like(self._d_last)
            self._grad_second = torch.zeros_like(weights.second, memory_format=torch.contiguous_format)
            self._second = SmallTransposedProduct(weights.second, self._d_last)
            self._hidden_gate_grad = GateGrad(self._d_first, 1)
        self._last_gate_grad = GateGrad(self._d_last.transpose(0, 1), 0)
        self._d_pre_activation = new(num_rows, num_neurons)

    def run(self, tick: int, d_z: Float[Tensor, "D B"]) -> Float[Tensor, "B D"]:
        """From the gradient of z after a tick, which is used up, to that of its pre-activations, in a buffer."""
        self._last_gate_grad(d_z[None], self._last_gates[tick], self._activation_ticks[tick + 1])
        if self._weights.second is not None:
            hidden = self._hidden[tick]
            self._d_last_sum += self._d_last
            self._grad_second.baddbmm_(self._d_last, hidden.transpose(1, 2))
            self._hidden_gate_grad(self._second(), self._hidden_gates[tick], hidden)
        self._d_first_sum += self._d_first
        self._grad_first.baddbmm_(self._windows[tick + 1], self._d_first.transpose(1, 2))
        self._ring.step(tick, self._d_first, self._d_pre_activation)
        return self._d_pre_activation

    def grads(self) -> list[Tensor | None]:
        """The gradients of the weights, in their order."""
        first = self._grad_first.transpose(1, 2), self._d_first_sum.sum(-1)
        if self._weights.second is None:
            return [*first, None, None]
        return [*first, self._grad_second, self._d_last_sum.sum(-1)]

    def d_start(self) -> Float[Tensor, "D M"]:
        """The gradient of the start history."""
        return self._ring.d_history().sum(-1)
