"""Neuron-level models over a sliding buffer of pre-activations: many ticks forward, and a hand-written backward pass.

The buffer is [D, M + K, B]. Each tick reads its window of M places without a copy, so that memory grows with M + K and
not with their product. Neurons come before rows, since each neuron has weights of its own and rows are then contiguous.
Norms and dropout inside the models are not covered.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.engine.gates_and_norms import GateBackward, gate
from ctm_rl.machine.neuron_models import NeuronLevelModels, NeuronLinear

_SMALLEST_PRODUCT = 400
"""torch sums batched products of fewer multiplications than this in plain loops; elementwise is faster."""


class NeuronModelWeights(NamedTuple):
    """Parameters of the neuron-level models, divided by their temperatures; O = 2 H, or 2 for shallow models."""

    first: Float[Tensor, "D O M"]
    """First layer."""
    first_bias: Float[Tensor, "D O"]
    """Its bias."""
    second: Float[Tensor, "D 2 H"] | None
    """Second layer; None for shallow models."""
    second_bias: Float[Tensor, "D 2"] | None
    """Its bias."""


def fold_neuron_models(models: NeuronLevelModels) -> NeuronModelWeights:
    """Divides the weights by the temperatures and puts neurons first, with gradient."""
    parts: list[Tensor] = []
    for layer in models.layers:
        assert isinstance(layer, NeuronLinear)
        parts += [(layer.weight / layer.temperature).transpose(1, 2), layer.bias / layer.temperature]
    return NeuronModelWeights(*parts, *[None] * (4 - len(parts)))  # pyright: ignore[reportArgumentType]


class NeuronModelTape(NamedTuple):
    """What the backward pass needs of L recorded ticks; B rows."""

    places: Float[Tensor, "D ML B"]
    """Pre-activations: the history before the first tick, then one place for each tick."""
    activations: Float[Tensor, "L1 D B"]
    """z before the first tick, and after each."""
    hidden: Float[Tensor, "L D H B"]
    """Output of the first gate; empty for shallow models."""
    hidden_gate: Float[Tensor, "L D H B"]
    """Sigmoid of the first gate; empty for shallow models."""
    last_gate: Float[Tensor, "L D B"]
    """Sigmoid of the gate that z is the output of."""


class NeuronModelsForward:
    """The forward pass of the neuron-level models, tick by tick.

    Args:
        weights: folded.
        history: pre-activations before the first tick, newest last, [D, M, B].
        activation: z before the first tick, [D, B].
        capacity: how many ticks fit before ``slide`` has to be called.
        is_recording: store what the backward pass needs; otherwise every tick overwrites most of the previous one.
    """

    def __init__(
        self,
        weights: NeuronModelWeights,
        history: Float[Tensor, "D M B"],
        activation: Float[Tensor, "D B"],
        capacity: int,
        is_recording: bool,
    ) -> None:
        self._weights, self._capacity, self._is_recording = weights, capacity, is_recording
        num_neurons, self._length, num_rows = history.shape
        num_outputs = weights.first.shape[1]
        is_deep = weights.second is not None
        room = capacity if is_recording else 1
        hidden_shape = (room if is_deep else 0, num_neurons, num_outputs // 2, num_rows)
        new = weights.first.new_empty
        self._tape = NeuronModelTape(
            places=new(num_neurons, self._length + capacity, num_rows),
            activations=new(capacity + 1, num_neurons, num_rows),
            hidden=new(hidden_shape),
            hidden_gate=new(hidden_shape),
            last_gate=new(room, num_neurons, num_rows),
        )
        self._tape.places[:, : self._length] = history
        self._tape.activations[0] = activation
        self._first_out = new(num_neurons, num_outputs, num_rows)
        self._last_out = new(num_neurons, 2, num_rows) if is_deep else self._first_out
        self.position = 0
        """How many ticks have been run since the beginning of the buffers."""
        self._split(num_rows)

    def _split(self, num_rows: int) -> None:
        """Splits the buffers into ticks, once for all ticks: a view costs as much as a small product."""
        weights, tape = self._weights, self._tape
        self._bias = weights.first_bias[..., None].expand(-1, -1, num_rows)
        self._first_halves = self._first_out.chunk(2, 1)
        self._last_halves = self._last_out.unbind(1)
        self._last_gates = self._by_tick(tape.last_gate)
        if weights.second is not None and weights.second_bias is not None:
            self._second = _SmallProduct(weights.second, weights.second_bias, num_rows)
            self._hidden, self._hidden_gates = self._by_tick(tape.hidden), self._by_tick(tape.hidden_gate)
        self._activations = tape.activations.unbind(0)
        self._newest = tape.places[:, self._length :].unbind(1)
        self._windows = tape.places.unfold(1, self._length, 1).transpose(2, 3).unbind(1)  # [D, M, B] each

    def _by_tick(self, buffer: Tensor) -> Sequence[Tensor]:
        return buffer.unbind(0) if self._is_recording else [buffer[0]] * self._capacity

    @property
    def newest(self) -> Float[Tensor, "D B"]:
        """Where the pre-activations of the next tick must be written before ``tick`` is called."""
        return self._newest[self.position]

    def tick(self) -> Float[Tensor, "D B"]:
        """Runs the models on the window that ends with ``newest``; returns z, a view of the buffer."""
        position = self.position
        self.position = position + 1
        torch.baddbmm(self._bias, self._weights.first, self._windows[position + 1], out=self._first_out)
        if self._weights.second is not None:
            hidden = gate(self._first_halves, self._hidden_gates[position], self._hidden[position])
            self._second(hidden, self._last_out)
        return gate(self._last_halves, self._last_gates[position], self._activations[position + 1])

    def has_room(self, num_ticks: int) -> bool:
        """Whether this many more ticks fit into the buffers."""
        return self.position + num_ticks <= self._capacity

    def slide(self) -> None:
        """Moves the last M places and the last z to the beginning of the buffers, where nothing is recorded."""
        self._tape.places[:, : self._length] = self.window.clone()
        self._tape.activations[0] = self.activation
        self.position = 0

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone, where nothing is recorded."""
        num_rows = len(rows)
        move_rows(self.window, rows, 2)
        activation = self.activation.index_select(1, rows)
        tape = self._tape
        self._tape = NeuronModelTape._make(
            [tape.places[..., :num_rows], *(_shrunk(part, num_rows) for part in tape[1:])]
        )
        self._first_out, self._last_out = (_shrunk(part, num_rows) for part in (self._first_out, self._last_out))
        self._split(num_rows)
        self.activation.copy_(activation)

    @property
    def window(self) -> Float[Tensor, "D M B"]:
        """Pre-activations of the last M ticks; a view of the buffer."""
        return self._tape.places[:, self.position : self.position + self._length]

    @property
    def activation(self) -> Float[Tensor, "D B"]:
        """The last z; a view of the buffer."""
        return self._activations[self.position]

    @property
    def activations(self) -> Float[Tensor, "L1 D B"]:
        """Z before the first and after every tick since the beginning of the buffers; a view of the buffer."""
        return self._tape.activations[: self.position + 1]

    def tape(self) -> NeuronModelTape:
        """What the backward pass needs."""
        return self._tape


def move_rows(buffer: Tensor, rows: Int[Tensor, " n"], dim: int) -> None:
    """Moves some rows, in this order, to the front of a buffer; those already in their place cost nothing."""
    (moved,) = (rows != torch.arange(len(rows), device=rows.device)).nonzero(as_tuple=True)
    buffer.index_copy_(dim, moved, buffer.index_select(dim, rows[moved]))


def _shrunk(buffer: Float[Tensor, "*shape B"], num_rows: int) -> Float[Tensor, "*shape n"]:
    """The same memory for fewer rows: contiguous, since products would otherwise go neuron by neuron."""
    shape = (*buffer.shape[:-1], num_rows)
    return buffer.view(-1)[: math.prod(shape)].view(shape)


class NeuronModelsBackward:
    """The backward pass of ``NeuronModelsForward``, from the last tick to the first.

    Args:
        weights: as in the forward pass.
        tape: from the forward pass.
        d_history: gradient of the history after the last tick, [D, M, B].
        group: how many ticks share a product; the number of ticks is a multiple of it.
        cores: ``(C,)`` if these are the neurons of C machines, one after the other; then gradients of pre-activations
            are written for each machine, [C, B, D / C].
    """

    def __init__(
        self,
        weights: NeuronModelWeights,
        tape: NeuronModelTape,
        d_history: Float[Tensor, "D M B"],
        group: int = 1,
        cores: tuple[int, ...] = (),
    ) -> None:
        self._weights, self._group = weights, group
        self._places = tape.places
        self._activations = tape.activations.unsqueeze(1).unbind(0)
        self._last_gates = tape.last_gate.unsqueeze(1).unbind(0)
        self._history = _HistoryBackward(weights.first, d_history, len(tape.last_gate), cores)
        self._first = _WindowWeightBackward(weights.first, tape.places, group)
        self._d_first = self._first.grads
        if weights.second is not None:
            self._hidden, self._hidden_gates = tape.hidden.unbind(0), tape.hidden_gate.unbind(0)
            num_neurons, _, num_rows = d_history.shape
            self._d_last = d_history.new_empty(num_neurons, 2, num_rows)
            self._d_last_sum = torch.zeros_like(self._d_last)
            self._grad_second = torch.zeros_like(weights.second, memory_format=torch.contiguous_format)
            self._second = _SmallTransposedProduct(weights.second, self._d_last)
            self._hidden_gate_grads = [GateBackward(d_first, 1) for d_first in self._d_first]
            self._last_gate_grads = [GateBackward(self._d_last.transpose(0, 1), 0)] * group
        else:
            self._last_gate_grads = [GateBackward(d_first.transpose(0, 1), 0) for d_first in self._d_first]

    def tick(self, tick: int, d_z: Float[Tensor, "D B"], out: Float[Tensor, "*C B d"]) -> None:
        """Writes the gradient of a tick's pre-activations into ``out``, from that of its z, which is overwritten."""
        place = tick % self._group
        self._last_gate_grads[place](d_z[None], self._last_gates[tick], self._activations[tick + 1])
        if self._weights.second is not None:
            hidden = self._hidden[tick]
            self._d_last_sum += self._d_last
            self._grad_second.baddbmm_(self._d_last, hidden.transpose(1, 2))
            self._hidden_gate_grads[place](self._second(), self._hidden_gates[tick], hidden)
        if not place:
            self._first.add(tick)
        self._history.tick(tick, self._d_first[place], out)

    def reset(self, tick: int, row: int, window: Float[Tensor, "D M"]) -> None:
        """Undoes the reset of a row before ``tick``: the start history gets the gradient of the window so far.

        Args:
            tick: the first tick after the reset.
            row: which row.
            window: what the reset had overwritten; it is written back into the places of the tape.
        """
        self._history.reset(tick, row)
        self._places.select(2, row)[:, tick : tick + window.shape[1]] = window

    def grads(self) -> NeuronModelWeights:
        """The gradients of the weights, after the first tick."""
        first, first_bias = self._first.sums()
        if self._weights.second is None:
            return NeuronModelWeights(first, first_bias, None, None)
        return NeuronModelWeights(first, first_bias, self._grad_second, self._d_last_sum.sum(-1))

    def d_start(self) -> Float[Tensor, "D M"]:
        """The gradient of the start history, from the resets."""
        return self._history.d_start()

    def d_history(self) -> Float[Tensor, "D M B"]:
        """The gradient of the history before the first tick, whose oldest place is in no window."""
        return self._history.ring


class _WindowWeightBackward:
    """The gradient of the first layer, which is multiplied with windows.

    The windows of consecutive ticks share all but one place. So a group of G ticks takes one product of all their
    gradients with the M + G - 1 places they cover; each tick's own M places are taken out of it at the end.

    Args:
        weight: the layer's, [D, O, M].
        places: the buffer of the windows, [D, M + L, B]; it may change between two groups.
        group: G, of which the number of ticks is a multiple.
    """

    def __init__(self, weight: Float[Tensor, "D O M"], places: Float[Tensor, "D ML B"], group: int) -> None:
        num_neurons, num_outputs, self._length = weight.shape
        covered = self._length + group - 1
        grads = weight.new_empty(num_neurons, group, num_outputs, places.shape[2])
        self.grads = grads.unbind(1)
        """Where the gradient of each tick of a group must be written, [D, O, B] each."""
        self._group = group
        self._grads, self._grads_sum = grads.flatten(1, 2), torch.zeros_like(grads)
        self._flat_sum, self._transposed = self._grads_sum.flatten(1, 2), self._grads.transpose(1, 2)
        self._covered = places[:, 1:].unfold(1, covered, group).transpose(2, 3).unbind(1)  # [D, M + G - 1, B]
        self._products = weight.new_zeros(num_neurons, covered, group * num_outputs)  # faster than transposed

    def add(self, tick: int) -> None:
        """Adds the group that begins with ``tick``."""
        self._flat_sum += self._grads
        self._products.baddbmm_(self._covered[tick // self._group], self._transposed)

    def sums(self) -> tuple[Float[Tensor, "D O M"], Float[Tensor, "D O"]]:
        """The gradients of weight and bias."""
        products = self._products.unflatten(2, (self._group, -1)).unbind(2)  # [D, M + G - 1, O]
        own = [product[:, place : place + self._length] for place, product in enumerate(products)]
        return torch.stack(own).sum(0).transpose(1, 2), self._grads_sum.sum((1, 3))


class _HistoryBackward:
    """The gradient of the M places that a tick's window covers, in a ring buffer.

    Place p of the pre-activations has slot p mod M, so that nothing moves when the window slides back by one place:
    the weights rotate instead, read from two copies laid end to end.

    Args:
        weight: the first layer's, [D, O, M].
        d_history: gradient of the history after the last tick, [D, M, B].
        total: L, the number of ticks.
        cores: see ``NeuronModelsBackward``.
    """

    def __init__(
        self,
        weight: Float[Tensor, "D O M"],
        d_history: Float[Tensor, "D M B"],
        total: int,
        cores: tuple[int, ...] = (),
    ) -> None:
        self._length = d_history.shape[1]
        transposed = weight.transpose(1, 2)
        doubled = torch.cat((transposed, transposed), 1).contiguous()
        self._weights = doubled.unfold(1, self._length, 1).transpose(2, 3).unbind(1)  # [D, M, O] for each rotation
        self.ring = d_history.roll(total % self._length, 1)  # the first place of the history is place ``total``
        """The gradient by slot, [D, M, B]."""
        self._slots = self.ring.unbind(1)
        by_core = self.ring.view(*cores, -1, *self.ring.shape[1:])
        self._transposed_slots = by_core.transpose(-3, -1).unbind(-2)  # [*C, B, d] each
        self._starts = d_history.new_zeros(self._length, *d_history.shape[:2])  # by rotation

    def tick(self, tick: int, grad: Float[Tensor, "D O B"], out: Float[Tensor, "*C B d"]) -> None:
        """Adds one tick's share; writes the gradient of that tick's own place, which is then complete."""
        self.ring.baddbmm_(self._weights[(-tick - 1) % self._length], grad)
        slot = tick % self._length
        out.copy_(self._transposed_slots[slot])
        self._slots[slot].zero_()  # from now on the slot of the place M before

    def reset(self, tick: int, row: int) -> None:
        """Moves the gradient of the window before ``tick`` in one row to the start history."""
        grad = self.ring.select(2, row)
        self._starts[tick % self._length] += grad
        grad.zero_()

    def d_start(self) -> Float[Tensor, "D M"]:
        """The gradient of the start history."""
        return torch.stack([start.roll(-turn, 1) for turn, start in enumerate(self._starts.unbind(0))]).sum(0)


class _SmallProduct:
    """``W_d x_d + b_d`` for every neuron d, by the method that is faster for these sizes.

    Args:
        weight: W, [D, O, I].
        bias: b, [D, O].
        num_rows: B.
    """

    def __init__(self, weight: Float[Tensor, "D O I"], bias: Float[Tensor, "D O"], num_rows: int) -> None:
        num_neurons, num_outputs, num_inputs = weight.shape
        self._weight = weight
        self._bias = bias[..., None].expand(-1, -1, num_rows)
        self._terms: Tensor | None = None
        if num_outputs * num_inputs * num_rows < _SMALLEST_PRODUCT:
            self._terms = weight.new_empty(num_neurons, num_outputs, num_inputs, num_rows)
            self._weight = weight[..., None].contiguous()

    def __call__(self, inputs: Float[Tensor, "D I B"], out: Float[Tensor, "D O B"]) -> Float[Tensor, "D O B"]:
        """Writes the outputs into ``out``."""
        if self._terms is None:
            return torch.baddbmm(self._bias, self._weight, inputs, out=out)
        torch.mul(self._weight, inputs[:, None], out=self._terms)
        return torch.sum(self._terms, 2, out=out).add_(self._bias)


class _SmallTransposedProduct:
    """``W_d^T g_d`` for every neuron d, for a W of two rows.

    Args:
        weight: W, [D, 2, H].
        grad: the buffer that holds g at every call, [D, 2, B].
    """

    def __init__(self, weight: Float[Tensor, "D 2 H"], grad: Float[Tensor, "D 2 B"]) -> None:
        self._first, self._second = (column[..., None] for column in weight.unbind(1))  # [D, H, 1]
        self._first_grad, self._second_grad = grad.split(1, 1)
        self._out = weight.new_empty(weight.shape[0], weight.shape[2], grad.shape[2])

    def __call__(self) -> Float[Tensor, "D H B"]:
        """Returns the product, in a buffer that the next call overwrites."""
        torch.mul(self._first, self._first_grad, out=self._out)
        return self._out.addcmul_(self._second, self._second_grad)
