"""The unroll of the LSTM baseline: T environment steps of K ticks as one node of the graph, episode starts inside.

The same bargain as ``engine.episode``: the features are multiplied for all steps at once, states lie in one buffer,
and the way back, written by hand, sums the recurrent weight's gradient over all ticks in one product.
"""

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctm_rl.engine.episode_sync import Resets, resets_of
from ctm_rl.machine.recurrent_baselines import LSTMCore
from ctm_rl.machine.state import LSTMState

_PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def can_unroll_lstm(core: object) -> bool:
    """Whether ``unroll_lstm`` knows this core: an LSTM of one layer."""
    return isinstance(core, LSTMCore) and core.lstm.num_layers == 1


def unroll_lstm(
    core: LSTMCore, features: Float[Tensor, "T B F"], is_first: Shaped[Tensor, "T B"], state: LSTMState, num_ticks: int
) -> tuple[Float[Tensor, "T B D"], LSTMState]:
    """Runs T environment steps of K ticks each.

    Args:
        core: one that ``can_unroll_lstm``.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        num_ticks: K.

    Returns:
        The hidden state after each step, [T, B, D], and the state after the last one. Equal to
        ``engine.episode.step_through`` in value and gradient.
    """
    lstm = core.lstm
    # torch orders the gates input, forget, cell, output; with the cell's last, the sigmoids are side by side
    size = lstm.hidden_size
    order = torch.arange(4 * size, device=features.device).view(4, size)[[0, 1, 3, 2]].flatten()
    of_features, recurrent, *biases = (cast(Tensor, getattr(lstm, name))[order] for name in _PARAMETERS)
    inputs = nn.functional.linear(features, of_features, biases[0] + biases[1])
    plan = Plan(num_ticks, resets_of(is_first))
    outputs, hidden, cell = _Steps.apply(
        plan,
        inputs,
        state.hidden[:, 0],
        state.cell[:, 0],
        core.start_hidden[0],
        core.start_cell[0],
        recurrent,
    )  # pyright: ignore[reportGeneralTypeIssues]
    return outputs, LSTMState(hidden[:, None], cell[:, None])


class Plan(NamedTuple):
    """What the unroll of a recurrent baseline has to know beside tensors that get gradient."""

    num_ticks: int
    """K."""
    resets: Resets
    """Which rows start an episode with each step."""


class _Steps(torch.autograd.Function):
    """All steps; the gates are input, forget, output, cell."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        inputs: Float[Tensor, "T B G"],
        hidden: Float[Tensor, "B D"],
        cell: Float[Tensor, "B D"],
        start_hidden: Float[Tensor, " D"],
        start_cell: Float[Tensor, " D"],
        weight: Float[Tensor, "G D"],
    ) -> tuple[Float[Tensor, "T B D"], Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Gives h after every step, and h and c after the last."""
        num_steps, num_rows, _ = inputs.shape
        total, size = num_steps * plan.num_ticks, hidden.shape[1]
        gates = inputs.new_empty(total, num_rows, 4 * size)
        hiddens, cells = (inputs.new_empty(total + 1, num_rows, size) for _ in range(2))  # as each tick reads them
        squashed = inputs.new_empty(total, num_rows, size)
        outputs = inputs.new_empty(num_steps, num_rows, size)
        hiddens[0], cells[0] = hidden, cell
        recurrent = weight.T.contiguous()
        tick = 0
        for step, rows in enumerate(plan.resets):
            for row in rows:  # what the step before ended with has been copied
                hiddens[tick, row] = start_hidden
                cells[tick, row] = start_cell
            for _ in range(plan.num_ticks):
                torch.addmm(inputs[step], hiddens[tick], recurrent, out=gates[tick])
                gates[tick, :, : 3 * size].sigmoid_()
                enter, keep, leave, candidate = gates[tick].split(size, 1)
                candidate.tanh_()
                torch.mul(keep, cells[tick], out=cells[tick + 1]).addcmul_(enter, candidate)
                torch.mul(leave, torch.tanh(cells[tick + 1], out=squashed[tick]), out=hiddens[tick + 1])
                tick += 1
            outputs[step] = hiddens[tick]
        ctx.save_for_backward(weight, gates, hiddens, cells, squashed)
        ctx.plan = plan
        return outputs, hiddens[-1].clone(), cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Runs back through all ticks, then forms the weight's gradient."""
        d_outputs, d_hidden, d_cell = grads
        weight, gates, hiddens, cells, squashed = ctx.saved_tensors
        num_ticks, resets = ctx.plan
        size = weight.shape[1]
        d_gates = torch.empty_like(gates)
        d_start_hidden, d_start_cell = weight.new_zeros(size), weight.new_zeros(size)
        for step in reversed(range(len(resets))):
            d_hidden = d_hidden + d_outputs[step]
            for tick in reversed(range(step * num_ticks, (step + 1) * num_ticks)):
                d_cell = _rewind_tick(d_gates[tick], gates[tick], cells[tick], squashed[tick], d_hidden, d_cell)
                d_hidden = d_gates[tick] @ weight
            if resets[step]:
                rows = torch.tensor(resets[step], device=weight.device)
                d_start_hidden += d_hidden[rows].sum(0)
                d_start_cell += d_cell[rows].sum(0)
                d_hidden[rows] = 0.0
                d_cell[rows] = 0.0
        d_weight = d_gates.flatten(0, 1).T @ hiddens[:-1].flatten(0, 1)
        d_inputs = d_gates.unflatten(0, (-1, num_ticks)).sum(1)
        return None, d_inputs, d_hidden, d_cell, d_start_hidden, d_start_cell, d_weight


def _rewind_tick(
    d_gates: Float[Tensor, "B G"],
    gates: Float[Tensor, "B G"],
    before: Float[Tensor, "B D"],
    squashed: Float[Tensor, "B D"],
    d_hidden: Float[Tensor, "B D"],
    d_cell: Float[Tensor, "B D"],
) -> Float[Tensor, "B D"]:
    """One tick back: the gradient of what the gates are made of into ``d_gates``; gives that of c before the tick.

    ``squashed`` is the hyperbolic tangent of c after the tick.
    """
    size = before.shape[1]
    enter, keep, leave, candidate = gates.split(size, 1)
    d_enter, d_keep, d_leave, d_candidate = d_gates.split(size, 1)
    torch.mul(d_hidden, squashed, out=d_leave)
    through = d_hidden * leave
    d_cell = (d_cell + through).addcmul_(through, squashed.square(), value=-1.0)
    torch.mul(d_cell, candidate, out=d_enter)
    torch.mul(d_cell, before, out=d_keep)
    torch.mul(d_cell, enter, out=d_candidate)
    sigmoids, d_sigmoids = gates[:, : 3 * size], d_gates[:, : 3 * size]
    d_sigmoids.mul_(sigmoids).addcmul_(d_sigmoids, sigmoids, value=-1.0)
    d_candidate.addcmul_(d_candidate, candidate.square(), value=-1.0)
    return d_cell.mul_(keep)
