"""The unroll of a recurrent baseline: T environment steps of K ticks as one autograd node, with resets inside.

As in ``engine.episode``, the features are multiplied for all steps at once, states lie in one buffer, and the
hand-written backward pass sums the recurrent weight's gradient over all ticks in one product. What differs between an
LSTM and a GRU is an ``EpisodeCell``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctm_rl.engine.episode_sync import Resets, resets_of


class EpisodeCell(ABC):
    """One kind of recurrent cell of one layer: its ticks, forward and backward, over buffers that hold all L ticks.

    Buffers are split into ticks and gates once for all ticks: a view costs as much as a small product.

    Args:
        weights: the recurrent weight [G, D], then whatever else the ticks multiply or add.
        gates: activated gates of every tick, [L, B, G].
        states: hidden state, then others, as each tick reads them, [L + 1, B, D] each.
        inner: one more result of every tick that the backward pass needs, [L, B, D].
    """

    num_states: ClassVar[int]
    """How many tensors the state consists of."""
    num_sigmoids: ClassVar[int]
    """How many gates are sigmoids; the last gate is a hyperbolic tangent."""

    def __init__(self, weights: Sequence[Tensor], gates: Tensor, states: Sequence[Tensor], inner: Tensor) -> None:
        self.weights, self.hiddens = weights, states[0]
        self.gates = self._split(gates)
        self.states = [buffer.unbind(0) for buffer in states]
        self.inner = inner.unbind(0)

    def start_forward(self, inputs: Float[Tensor, "T B G"]) -> None:
        """Prepares the ticks, from what the features send into the gates at all ticks of each step."""
        self.inputs = self._split(inputs)
        self.recurrent = self.weights[0].T.contiguous()

    @abstractmethod
    def forward(self, step: int, tick: int) -> None:
        """Runs one tick, counted over all steps; writes its buffers."""

    def start_backward(self, gates: Float[Tensor, "L B G"]) -> None:
        """Prepares the backward pass, from the buffer of the gates."""
        self.d_gates = torch.empty_like(gates)
        self.d_gate_ticks = self._split(self.d_gates)

    @abstractmethod
    def backward(self, tick: int, d_states: Sequence[Float[Tensor, "B D"]]) -> list[Float[Tensor, "B D"]]:
        """From the gradients of the states after a tick to those of the states before it."""

    def grads(self) -> tuple[Float[Tensor, "L B G"], list[Tensor]]:
        """The gradients of the inputs at every tick and of the weights, after the first tick."""
        return self.d_gates, [self.d_gates.flatten(0, 1).T @ self.hiddens[:-1].flatten(0, 1)]

    def _split(self, gates: Float[Tensor, "L B G"]) -> list[tuple[Tensor, ...]]:
        """At every tick all gates, those that are sigmoids, and each gate."""
        size = self.hiddens.shape[2]
        views = gates, gates[..., : self.num_sigmoids * size], *gates.split(size, 2)
        return list(zip(*(view.unbind(0) for view in views), strict=True))


class _RecurrentPlan(NamedTuple):
    """What the unroll needs beside tensors that get a gradient."""

    cell: type[EpisodeCell]
    """Which kind."""
    num_ticks: int
    """K."""
    resets: Resets
    """Which rows start an episode with each step."""


def unroll_cell(
    cell: type[EpisodeCell],
    inputs: Float[Tensor, "T B G"],
    is_first: Shaped[Tensor, "T B"],
    state: Sequence[Float[Tensor, "B 1 D"]],
    start: Sequence[Float[Tensor, "1 D"]],
    weights: Sequence[Tensor],
    num_ticks: int,
) -> tuple[Float[Tensor, "T B D"], list[Float[Tensor, "B 1 D"]]]:
    """Runs T environment steps of K ticks each.

    Args:
        cell: which kind.
        inputs: what the features send into the gates, the same for the K ticks of a step, [T, B, G].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the start state.
        state: before the first step, B rows.
        start: the learned start state.
        weights: of the cell.
        num_ticks: K.

    Returns:
        The hidden state after each step, [T, B, D], and the state after the last step.
    """
    plan = _RecurrentPlan(cell, num_ticks, resets_of(is_first))
    states = [part[:, 0] for part in state]
    results: Any = _RecurrentFunction.apply(plan, inputs, *states, *(part[0] for part in start), *weights)
    outputs, *last = results
    return outputs, [part[:, None] for part in last]


class _RecurrentFunction(torch.autograd.Function):
    """All steps."""

    @staticmethod
    def forward(ctx: Any, plan: _RecurrentPlan, inputs: Float[Tensor, "T B G"], *given: Tensor) -> tuple[Tensor, ...]:
        """Returns the hidden state after every step, and all states after the last."""
        num_states = plan.cell.num_states
        first, start, weights = given[:num_states], given[num_states : 2 * num_states], given[2 * num_states :]
        num_steps, num_rows, num_gates = inputs.shape
        total, size = num_steps * plan.num_ticks, first[0].shape[1]
        gates = inputs.new_empty(total, num_rows, num_gates)
        states = [inputs.new_empty(total + 1, num_rows, size) for _ in first]
        inner = inputs.new_empty(total, num_rows, size)
        outputs = inputs.new_empty(num_steps, num_rows, size)
        for buffer, part in zip(states, first, strict=True):
            buffer[0] = part
        cell = plan.cell(weights, gates, states, inner)
        cell.start_forward(inputs)
        for step, rows in enumerate(plan.resets):
            begin, end = step * plan.num_ticks, (step + 1) * plan.num_ticks
            for row in rows:  # the hidden state that the previous step ended with has been copied
                for buffer, part in zip(states, start, strict=True):
                    buffer[begin, row] = part
            for tick in range(begin, end):
                cell.forward(step, tick)
            outputs[step] = states[0][end]
        ctx.save_for_backward(*weights, gates, inner, *states)
        ctx.plan = plan
        return outputs, *(part[-1].clone() for part in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """All ticks, then the gradients of the weights."""
        plan: _RecurrentPlan = ctx.plan
        num_states, num_ticks = plan.cell.num_states, plan.num_ticks
        *weights, gates, inner = ctx.saved_tensors[:-num_states]
        cell = plan.cell(weights, gates, ctx.saved_tensors[-num_states:], inner)
        cell.start_backward(gates)
        d_outputs, *d_states = grads
        d_start = [inner.new_zeros(inner.shape[2]) for _ in d_states]
        for step in reversed(range(len(plan.resets))):
            d_states[0] = d_states[0] + d_outputs[step]
            for tick in reversed(range(step * num_ticks, (step + 1) * num_ticks)):
                d_states = cell.backward(tick, d_states)
            if plan.resets[step]:
                rows = torch.tensor(plan.resets[step], device=inner.device)
                for total, grad in zip(d_start, d_states, strict=True):
                    total += grad[rows].sum(0)
                    grad[rows] = 0.0
        d_ticks, d_weights = cell.grads()
        d_inputs = d_ticks.unflatten(0, (-1, num_ticks)).sum(1)
        return None, d_inputs, *d_states, *d_start, *d_weights
