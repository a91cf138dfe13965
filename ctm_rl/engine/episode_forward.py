"""The sweep: the machine's ticks over some rows, step after step, in buffers of its own; what an unroll runs on.

Histories lie in one sliding buffer, [D, M + L, B], of which each tick reads its window without a copy. Neurons come
before rows wherever each neuron has weights of its own, so that rows are contiguous. A row that starts an episode gets
the learned start history written over its last M places; when the way back is recorded, what stood there is kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.engine.episode_sync import Accumulators, AccumulatorWeights, Pairs, Steps, Window, WindowWeights

NORM_EPSILON = 1e-5
"""As in ``nn.LayerNorm``, whose default the synapse's blocks use."""
_SMALLEST_PRODUCT = 400
"""Batched products of fewer multiplications than this are summed in plain loops by torch; elementwise is faster."""


class SweepWeights(NamedTuple):
    """The core's parameters as the ticks want them, E = 2 D; norms and temperatures are folded in."""

    start_history: Float[Tensor, "D M"]
    """Pre-activation history of a fresh start."""
    start_activation: Float[Tensor, " D"]
    """z of a fresh start."""
    recurrent: Float[Tensor, "E D"]
    """The post-activations' half of the first dense layer."""
    scale: Float[Tensor, " D"]
    """Of the last norm."""
    shift: Float[Tensor, " D"]
    """Of the last norm."""
    second: Float[Tensor, "E D"] | None
    """The second dense layer, with the scale of the norm before it; None with a single block."""
    second_bias: Float[Tensor, " E"] | None
    """Its bias, with the shift of the norm before it."""
    first_nlm: Float[Tensor, "D O M"]
    """First layer of the neuron-level models, divided by its temperature; O = 2 H, or 2 for shallow models."""
    first_nlm_bias: Float[Tensor, "D O"]
    """Its bias, likewise."""
    second_nlm: Float[Tensor, "D 2 H"] | None
    """Second layer; None for shallow models."""
    second_nlm_bias: Float[Tensor, "D 2"] | None
    """Its bias."""
    sync: AccumulatorWeights | WindowWeights
    """What the synchronisation weighs with."""


class SweepState(NamedTuple):
    """State of some rows between two steps, as buffers begin with it."""

    history: Float[Tensor, "D M B"]
    """Pre-activations, newest last."""
    activation: Float[Tensor, "D B"]
    """z."""
    alpha: Float[Tensor, "P B"]
    """Of the output sync."""
    beta: Float[Tensor, "P B"]
    """Of the output sync; not read by a window."""
    post_history: Float[Tensor, "S M B"] | None
    """Windowed only: z of the synchronised neurons in the last M ticks."""


class Tape(NamedTuple):
    """What recorded ticks leave for the way back; L ticks, B rows, D neurons, N restarts.

    Of a gated linear unit, ``a sigmoid(b)``, output and sigmoid are kept: its gradient needs no more. The lists hold
    one entry for each block of the synapse.
    """

    gated: list[Float[Tensor, "L B D"]]
    """What the gate of each block let through."""
    gates: list[Float[Tensor, "L B D"]]
    """The sigmoid of that gate."""
    means: list[Float[Tensor, "L B 1"]]
    """Mean over the neurons of what was let through, for the norm."""
    rstds: list[Float[Tensor, "L B 1"]]
    """One over its deviation."""
    hidden: Float[Tensor, "L D H B"]
    """What the gate in the neuron-level models let through; empty for shallow ones."""
    hidden_gate: Float[Tensor, "L D H B"]
    """The sigmoid of that gate."""
    last_gate: Float[Tensor, "L D B"]
    """The sigmoid of the gate that z comes out of."""
    places: Float[Tensor, "D ML B"]
    """The buffer of pre-activations: the history before the first tick, then one place a tick."""
    activations: Float[Tensor, "L1 D B"]
    """z before the first tick, and after each."""
    kept: Float[Tensor, "N D M"]
    """What stood in the window of each row that restarted, in the order of the restarts."""

    def flat(self) -> list[Tensor]:
        """All of it in a row, for autograd to keep; ``from_flat`` takes it apart again."""
        return [*self.gated, *self.gates, *self.means, *self.rstds, *self[4:]]

    @staticmethod
    def from_flat(tensors: Sequence[Tensor], num_blocks: int) -> "Tape":
        """Undoes ``flat``."""
        lists = [list(tensors[part * num_blocks : (part + 1) * num_blocks]) for part in range(4)]
        return Tape(*lists, *tensors[4 * num_blocks :])  # pyright: ignore[reportArgumentType, reportCallIssue]

    def normed(self, block: int, ticks: slice) -> Float[Tensor, "l B D"]:
        """What a block's norm gave in some ticks, without its scale and shift."""
        return (self.gated[block][ticks] - self.means[block][ticks]).mul_(self.rstds[block][ticks])


class Sweep:
    """Runs steps of any number of ticks over some rows.

    Args:
        weights: the folded parameters.
        pairs: which neurons are synchronised.
        state: before the first step.
        capacity: how many ticks there is room for.
        num_restarts: how often a row restarts in recorded steps.
        is_recording: keep what the way back needs; otherwise every tick writes over the one before.
    """

    def __init__(
        self,
        weights: SweepWeights,
        pairs: Pairs,
        state: SweepState,
        capacity: int,
        num_restarts: int = 0,
        is_recording: bool = False,
    ) -> None:
        self._weights = weights
        self._capacity = capacity
        self._is_recording = is_recording
        self._position = 0
        self._num_kept = 0
        self._neurons = pairs.neurons
        num_neurons, self._length, num_rows = state.history.shape
        num_outputs = weights.first_nlm.shape[1]
        num_blocks = 1 if weights.second is None else 2
        new = state.history.new_empty
        room = capacity if is_recording else 1
        hidden_shape = (room if weights.second_nlm is not None else 0, num_neurons, num_outputs // 2, num_rows)
        self._tape = Tape(
            gated=[new(room, num_rows, num_neurons) for _ in range(num_blocks)],
            gates=[new(room, num_rows, num_neurons) for _ in range(num_blocks)],
            means=[],
            rstds=[],
            hidden=new(hidden_shape),
            hidden_gate=new(hidden_shape),
            last_gate=new(room, num_neurons, num_rows),
            places=new(num_neurons, self._length + capacity, num_rows),
            activations=new(capacity + 1, num_neurons, num_rows),
            kept=new(num_restarts if is_recording else 0, num_neurons, self._length),
        )
        self._tape.places[:, : self._length] = state.history
        self._tape.activations[0] = state.activation
        self._means: list[list[Tensor]] = [[] for _ in range(num_blocks)]
        self._rstds: list[list[Tensor]] = [[] for _ in range(num_blocks)]
        if isinstance(weights.sync, WindowWeights):
            assert state.post_history is not None
            self.scan = Window(weights.sync, pairs, state.alpha, state.post_history, capacity)
        else:
            self.scan = Accumulators(weights.sync, pairs, state.alpha, state.beta, capacity)
        # weights in the order that the products like
        self._dense = [weights.recurrent.T.contiguous()]
        if weights.second is not None:
            self._dense.append(weights.second.T.contiguous())
        self._shift, self._scale = weights.shift[:, None], weights.scale[:, None]
        self._bias = weights.first_nlm_bias[..., None].expand(-1, -1, num_rows)
        if weights.second_nlm is not None and weights.second_nlm_bias is not None:
            self._second_nlm = SmallProduct(weights.second_nlm, weights.second_nlm_bias, num_rows)
        # what nobody keeps, and the buffers cut into ticks once
        self._dense_out = new(num_rows, 2 * num_neurons)
        self._dense_halves = self._dense_out.split(num_neurons, 1)
        self._first_out = new(num_neurons, num_outputs, num_rows)
        self._first_halves = self._first_out.split(num_outputs // 2, 1)
        self._last_out = self._first_out if weights.second_nlm is None else new(num_neurons, 2, num_rows)
        self._last_halves = self._last_out.unbind(1)
        self._gated, self._gates = ([self._by_tick(part) for part in parts] for parts in self._tape[:2])
        self._last_gate = self._by_tick(self._tape.last_gate)
        if weights.second_nlm is not None:
            self._hidden, self._hidden_gate = self._by_tick(self._tape.hidden), self._by_tick(self._tape.hidden_gate)
        self._newest = self._tape.places[:, self._length :].unbind(1)
        self._windows = self._tape.places.unfold(1, self._length, 1).transpose(2, 3).unbind(1)
        self._activations = self._tape.activations.unbind(0)

    def _by_tick(self, buffer: Tensor) -> Sequence[Tensor]:
        return buffer.unbind(0) if self._is_recording else [buffer[0]] * self._capacity

    def step(
        self, rows: Sequence[int], inputs: Float[Tensor, "B E"], num_ticks: int
    ) -> tuple[Float[Tensor, "P B"], Float[Tensor, "P B"] | None]:
        """Runs the ticks of one step, and synchronises.

        Args:
            rows: which rows start an episode with it.
            inputs: what the features send into the first dense layer, bias included.
            num_ticks: K.

        Returns:
            Alpha after the step, and beta unless it is windowed (then it never changes).
        """
        self.advance(rows, inputs, num_ticks)
        fresh = self._tape.activations[self._position - num_ticks + 1 : self._position + 1]
        (sums,) = self.scan.run(Steps.of([rows], [num_ticks]), fresh.index_select(1, self._neurons))
        return (sums, None) if isinstance(self.scan, Window) else (sums[0], sums[1])

    def advance(self, rows: Sequence[int], inputs: Float[Tensor, "B E"], num_ticks: int) -> None:
        """Runs the ticks of one step as ``step`` does, but leaves the synchronisation to the caller."""
        begin = self._position
        activation = self._restart(rows) if rows else self._activations[begin]
        for tick in range(begin, begin + num_ticks):
            self._tick(tick, inputs, activation)
            activation = self._activations[tick + 1]
        self._position = begin + num_ticks

    def _tick(self, tick: int, inputs: Tensor, activation: Tensor) -> None:
        added, below = inputs, activation.T
        values, gate_inputs = self._dense_halves
        shape = values.shape[1:]
        for block, weight in enumerate(self._dense):
            if block:
                assert self._weights.second_bias is not None
                added = self._weights.second_bias
            torch.addmm(added, below, weight, out=self._dense_out)
            gate = torch.sigmoid(gate_inputs, out=self._gates[block][tick])
            gated = torch.mul(values, gate, out=self._gated[block][tick])
            below, mean, rstd = torch.native_layer_norm(gated, shape, None, None, NORM_EPSILON)
            if self._is_recording:
                self._means[block].append(mean)
                self._rstds[block].append(rstd)
        torch.addcmul(self._shift, below.T, self._scale, out=self._newest[tick])
        torch.baddbmm(self._bias, self._weights.first_nlm, self._windows[tick + 1], out=self._first_out)
        if self._weights.second_nlm is not None:
            values, gate_inputs = self._first_halves
            gate = torch.sigmoid(gate_inputs, out=self._hidden_gate[tick])
            self._second_nlm(torch.mul(values, gate, out=self._hidden[tick]), self._last_out)
        values, gate_inputs = self._last_halves
        gate = torch.sigmoid(gate_inputs, out=self._last_gate[tick])
        torch.mul(values, gate, out=self._activations[tick + 1])

    def _restart(self, rows: Sequence[int]) -> Tensor:
        """Writes the learned start into some rows; gives z as the next tick is to read it."""
        window = self._tape.places[:, self._position : self._position + self._length]
        # a copy: what the step before ended with stays on the tape
        activation = self._activations[self._position].clone()
        for row in rows:
            column = window.select(2, row)
            if self._is_recording:
                self._tape.kept[self._num_kept] = column
                self._num_kept += 1
            column.copy_(self._weights.start_history)
            activation.select(1, row).copy_(self._weights.start_activation)
        return activation

    def has_room(self, num_ticks: int) -> bool:
        """Whether there is room for another step of so many ticks."""
        return self._position + num_ticks <= self._capacity

    def slide(self) -> None:
        """Moves the last M places and the last z to the beginning, so that there is room again."""
        begin = self._position
        self._tape.places[:, : self._length] = self._tape.places[:, begin : begin + self._length].clone()
        self._tape.activations[0] = self._tape.activations[begin]
        self._position = 0
        self.scan.slide()

    def tape(self) -> Tape:
        """What has been recorded."""
        means, rstds = ([torch.stack(ticks) for ticks in parts] for parts in (self._means, self._rstds))
        return self._tape._replace(means=means, rstds=rstds)

    @property
    def history(self) -> Float[Tensor, "D M B"]:
        """Pre-activations of the last M ticks; a view of the buffer."""
        return self._tape.places[:, self._position : self._position + self._length]

    @property
    def activations(self) -> Float[Tensor, "L D B"]:
        """Z after every tick since the beginning of the room; a view of the buffer."""
        return self._tape.activations[1 : self._position + 1]

    @property
    def activation(self) -> Float[Tensor, "D B"]:
        """Z after the last tick; a view of the buffer."""
        return self._tape.activations[self._position]


class SmallProduct:
    """``W_d x_d + b_d`` for every neuron d, whichever way is fast for the sizes at hand.

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
