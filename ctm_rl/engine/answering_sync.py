"""The output synchronisation over all ticks of an answer, which nothing inside the ticks reads."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctm_rl.machine.synchronisation import accumulate


def tick_counts(decay: Float[Tensor, " P"], num_ticks: int) -> Float[Tensor, "K P"]:
    """Beta, the decayed count of ticks, at each of K ticks: 1 at first, the same for all rows from the start state."""
    beta = torch.ones_like(decay)
    ticks = [beta]
    for _ in range(num_ticks - 1):
        beta = torch.addcmul(ticks[0], beta, decay)  # as ``accumulate`` with ``out``, which has no gradient
        ticks.append(beta)
    return torch.stack(ticks)


class AccumulateAlpha(torch.autograd.Function):
    """``alpha' = d alpha + z_left z_right`` at every tick, beginning with the start z; [K + 1, P, B].

    Neurons of ``left`` beyond those of ``right`` have no partner and are added alone.
    """

    @staticmethod
    def forward(
        ctx: Any, activations: Float[Tensor, "K1 D B"], decay: Float[Tensor, " P"], left: Tensor, right: Tensor
    ) -> Float[Tensor, "K1 P B"]:
        """All ticks."""
        alphas = activations.index_select(1, left)
        alphas[:, : len(right)].mul_(activations.index_select(1, right))
        ticks, factor = alphas.unbind(0), decay[:, None]
        for tick in range(1, len(ticks)):
            accumulate(ticks[tick - 1], ticks[tick], factor, out=ticks[tick])
        ctx.save_for_backward(activations, decay, left, right, alphas)
        return alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """All ticks, from the last to the first."""
        activations, decay, left, right, alphas = ctx.saved_tensors
        d_alphas = grads[0].clone(memory_format=torch.contiguous_format)
        ticks, factor = d_alphas.unbind(0), decay[:, None]
        for tick in range(len(ticks) - 2, -1, -1):
            accumulate(ticks[tick + 1], ticks[tick], factor, out=ticks[tick])
        d_decay = (d_alphas[1:] * alphas[:-1]).sum((0, 2))
        d_activations = torch.zeros_like(activations)
        num_pairs = len(right)
        paired, alone = left.split([num_pairs, len(left) - num_pairs])
        for one, other in ((paired, right), (right, paired)):
            d_activations.index_add_(1, one, activations.index_select(1, other).mul_(d_alphas[:, :num_pairs]))
        if len(alone):
            d_activations.index_add_(1, alone, d_alphas[:, num_pairs:])
        return d_activations, d_decay, None, None
