"""Synchronisation of many ticks at once: the sums of :mod:`ctm_rl.sync`, for a whole unroll, with restarts inside.

Layout here: pairs before rows, [..., P, B], so that a row's restart touches one column.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Restarts = Sequence[Tensor | None]
"""For each environment step the rows that start an episode before it, or None."""


class Accumulate(torch.autograd.Function):
    """The accumulators of every tick, of which those after each step are given back.

    ``alpha' = d alpha + products``, ``beta' = d beta + 1``; a restarting row begins again with its fresh alpha and a
    beta of 1. Backward the same recursion runs the other way.
    """

    @staticmethod
    def forward(
        ctx: Any,
        products: Float[Tensor, "L P B"],
        decay: Float[Tensor, " P"],
        alpha: Float[Tensor, "P B"],
        beta: Float[Tensor, "P B"],
        fresh_alpha: Float[Tensor, " P"],
        restarts: Restarts,
        num_ticks: int,
    ) -> tuple[Float[Tensor, "T P B"], Float[Tensor, "T P B"]]:
        """Runs through L = T K ticks."""
        factor = decay[:, None]
        befores = torch.empty_like(products), torch.empty_like(products)
        alphas, betas = [], []
        for step, rows in enumerate(restarts):
            if rows is not None:
                alpha = alpha.index_copy(1, rows, fresh_alpha[:, None].expand(-1, len(rows)))
                beta = beta.index_fill(1, rows, 1.0)
            for tick in range(step * num_ticks, (step + 1) * num_ticks):
                befores[0][tick], befores[1][tick] = alpha, beta
                alpha = torch.addcmul(products[tick], alpha, factor)
                beta = beta * factor + 1.0
            alphas.append(alpha)
            betas.append(beta)
        ctx.save_for_backward(decay, *befores)
        ctx.plan = restarts, num_ticks
        return torch.stack(alphas), torch.stack(betas)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Runs back; gives the gradients of products, decay, alpha, beta and fresh alpha."""
        d_alphas, d_betas = grads
        decay, alpha_before, beta_before = ctx.saved_tensors
        restarts, num_ticks = ctx.plan
        factor = decay[:, None]
        d_products, d_counts = torch.empty_like(alpha_before), torch.empty_like(beta_before)
        d_fresh = torch.zeros_like(decay)
        d_alpha, d_beta = torch.zeros_like(d_alphas[0]), torch.zeros_like(d_betas[0])
        for step in reversed(range(len(restarts))):
            d_alpha, d_beta = d_alpha + d_alphas[step], d_beta + d_betas[step]
            for tick in reversed(range(step * num_ticks, (step + 1) * num_ticks)):
                d_products[tick], d_counts[tick] = d_alpha, d_beta
                d_alpha, d_beta = d_alpha * factor, d_beta * factor
            rows = restarts[step]
            if rows is not None:
                d_fresh += d_alpha[:, rows].sum(-1)
                d_alpha.index_fill_(1, rows, 0.0)
                d_beta.index_fill_(1, rows, 0.0)
        d_decay = (d_products * alpha_before).sum((0, 2)) + (d_counts * beta_before).sum((0, 2))
        return d_products, d_decay, d_alpha, d_beta, d_fresh, None, None


class Window(torch.autograd.Function):
    """The weighted sum over the last M ticks, after each step.

    A restarting row sees the products of the start history where its episode is not yet M ticks old: they are written
    over its last M places, and what stood there is put back when the backward pass comes by.
    """

    @staticmethod
    def forward(
        ctx: Any,
        products: Float[Tensor, "P ML B"],
        fresh: Float[Tensor, "P M"],
        weight: Float[Tensor, "P M"],
        restarts: Restarts,
        num_ticks: int,
    ) -> Float[Tensor, "T P B"]:
        """Reads the windows that end with each step; ``products`` begins with the M ticks before the first step."""
        places = products.clone(memory_format=torch.contiguous_format)
        length = weight.shape[1]
        sums = products.new_empty(len(restarts), len(weight), products.shape[2])
        overwritten: list[Tensor] = []
        for step, rows in enumerate(restarts):
            start = step * num_ticks
            if rows is not None:
                overwritten.append(places[:, start : start + length, rows])
                places[:, start : start + length, rows] = fresh[..., None]
            start += num_ticks
            torch.bmm(weight[:, None], places[:, start : start + length], out=sums[step].unsqueeze(1))
        ctx.save_for_backward(weight, places, *overwritten)
        ctx.plan = restarts, num_ticks
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gives the gradients of products, fresh products and weight."""
        (d_sums,) = grads
        weight, places, *overwritten = ctx.saved_tensors
        places = places.clone() if overwritten else places
        restarts, num_ticks = ctx.plan
        length = weight.shape[1]
        d_places, d_fresh, d_weight = torch.zeros_like(places), torch.zeros_like(weight), torch.zeros_like(weight)
        for step in reversed(range(len(restarts))):
            start = (step + 1) * num_ticks
            window = slice(start, start + length)
            d_weight += torch.bmm(places[:, window], d_sums[step][..., None]).squeeze(-1)
            d_places[:, window].addcmul_(weight[..., None], d_sums[step][:, None])
            rows = restarts[step]
            if rows is not None:
                window = slice(start - num_ticks, start - num_ticks + length)
                d_fresh += d_places[:, window, rows].sum(-1)
                d_places[:, window, rows] = 0.0
                places[:, window, rows] = overwritten.pop()
        return d_places, d_fresh, d_weight, None, None
