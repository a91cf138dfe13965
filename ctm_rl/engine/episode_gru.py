"""The unroll of the GRU baseline: T environment steps of K ticks as one node of the graph, episode starts inside.

The same bargain as ``engine.episode_lstm``. The candidate's recurrent part lies inside the reset gate, so it is kept
for the way back, and its bias cannot be put to the features.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctm_rl.engine.episode_lstm import Plan
from ctm_rl.engine.episode_sync import resets_of
from ctm_rl.machine.recurrent_baselines import GRUCore
from ctm_rl.machine.state import GRUState


def can_unroll_gru(core: object) -> bool:
    """Whether ``unroll_gru`` knows this core: a GRU of one layer."""
    return isinstance(core, GRUCore) and core.gru.num_layers == 1


def unroll_gru(
    core: GRUCore, features: Float[Tensor, "T B F"], is_first: Shaped[Tensor, "T B"], state: GRUState, num_ticks: int
) -> tuple[Float[Tensor, "T B D"], GRUState]:
    """Runs T environment steps of K ticks each.

    One tick, torch's gates in torch's order: ``r, z = sigmoid(x + W h)``, ``n = tanh(x_n + r (W_n h + b_n))``,
    ``h' = n + z (h - n)``.

    Args:
        core: one that ``can_unroll_gru``.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        num_ticks: K.

    Returns:
        The hidden state after each step, [T, B, D], and the state after the last one. Equal to
        ``engine.episode.step_through`` in value and gradient.
    """
    gru: Any = core.gru
    inputs = nn.functional.linear(features, gru.weight_ih_l0, gru.bias_ih_l0)
    plan = Plan(num_ticks, resets_of(is_first))
    outputs, hidden = _Steps.apply(
        plan, inputs, state.hidden[:, 0], core.start_hidden[0], gru.weight_hh_l0, gru.bias_hh_l0
    )  # pyright: ignore[reportGeneralTypeIssues]
    return outputs, GRUState(hidden[:, None])


class _Steps(torch.autograd.Function):
    """All steps; the gates are reset, update, candidate."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        inputs: Float[Tensor, "T B G"],
        hidden: Float[Tensor, "B D"],
        start_hidden: Float[Tensor, " D"],
        weight: Float[Tensor, "G D"],
        bias: Float[Tensor, " G"],
    ) -> tuple[Float[Tensor, "T B D"], Float[Tensor, "B D"]]:
        """Gives h after every step, and after the last."""
        num_steps, num_rows, _ = inputs.shape
        total, size = num_steps * plan.num_ticks, hidden.shape[1]
        gates = inputs.new_empty(total, num_rows, 3 * size)
        hiddens = inputs.new_empty(total + 1, num_rows, size)  # as each tick reads them
        inner = inputs.new_empty(total, num_rows, size)
        outputs = inputs.new_empty(num_steps, num_rows, size)
        hiddens[0] = hidden
        recurrent = weight.T.contiguous()
        tick = 0
        for step, rows in enumerate(plan.resets):
            for row in rows:  # what the step before ended with has been copied
                hiddens[tick, row] = start_hidden
            of_gates, of_candidate = inputs[step].split((2 * size, size), 1)
            for _ in range(plan.num_ticks):
                torch.addmm(bias, hiddens[tick], recurrent, out=gates[tick])
                sigmoids, candidate = gates[tick].split((2 * size, size), 1)
                inner[tick] = candidate
                sigmoids.add_(of_gates).sigmoid_()
                reset, update = sigmoids.split(size, 1)
                candidate.mul_(reset).add_(of_candidate).tanh_()
                torch.lerp(candidate, hiddens[tick], update, out=hiddens[tick + 1])
                tick += 1
            outputs[step] = hiddens[tick]
        ctx.save_for_backward(weight, gates, hiddens, inner)
        ctx.plan = plan
        return outputs, hiddens[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Runs back through all ticks, then forms the gradients of weight and bias."""
        d_outputs, d_hidden = grads
        weight, gates, hiddens, inner = ctx.saved_tensors
        num_ticks, resets = ctx.plan
        size = weight.shape[1]
        d_recurrent = torch.empty_like(gates)  # of what W h + b gives
        d_candidates = torch.empty_like(inner)  # of what the candidate is the hyperbolic tangent of
        d_start = weight.new_zeros(size)
        for step in reversed(range(len(resets))):
            d_hidden = d_hidden + d_outputs[step]
            for tick in reversed(range(step * num_ticks, (step + 1) * num_ticks)):
                d_hidden = _rewind_tick(
                    d_recurrent[tick], d_candidates[tick], gates[tick], hiddens[tick], inner[tick], d_hidden
                ).addmm_(d_recurrent[tick], weight)
            if resets[step]:
                rows = torch.tensor(resets[step], device=weight.device)
                d_start += d_hidden[rows].sum(0)
                d_hidden[rows] = 0.0
        d_weight = d_recurrent.flatten(0, 1).T @ hiddens[:-1].flatten(0, 1)
        d_bias = d_recurrent.sum((0, 1))
        d_ticks = torch.cat((d_recurrent[..., : 2 * size], d_candidates), -1)
        d_inputs = d_ticks.unflatten(0, (-1, num_ticks)).sum(1)
        return None, d_inputs, d_hidden, d_start, d_weight, d_bias


def _rewind_tick(
    d_recurrent: Float[Tensor, "B G"],
    d_candidate: Float[Tensor, "B D"],
    gates: Float[Tensor, "B G"],
    before: Float[Tensor, "B D"],
    inner: Float[Tensor, "B D"],
    d_hidden: Float[Tensor, "B D"],
) -> Float[Tensor, "B D"]:
    """One tick back: writes the gradients of what its gates are made of; gives that of h before, W left aside.

    ``inner`` is what the reset gate was multiplied with.
    """
    size = before.shape[1]
    reset, update, candidate = gates.split(size, 1)
    d_reset, d_update, d_inner = d_recurrent.split(size, 1)
    through = d_hidden * update
    torch.mul(d_hidden, before - candidate, out=d_update)
    torch.sub(d_hidden, through, out=d_candidate)
    d_candidate.addcmul_(d_candidate, candidate.square(), value=-1.0)
    torch.mul(d_candidate, inner, out=d_reset)
    torch.mul(d_candidate, reset, out=d_inner)
    sigmoids, d_sigmoids = gates[:, : 2 * size], d_recurrent[:, : 2 * size]
    d_sigmoids.mul_(sigmoids).addcmul_(d_sigmoids, sigmoids, value=-1.0)
    return through
