"""Synchronisation: how pairs of neurons move together over time, the representation that the machine acts with."""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ctm_rl.machine.pairing import Pairing


class SyncState(NamedTuple):
    """State of one synchronisation; B rows, P terms, S neurons, M ticks."""

    alpha: Float[Tensor, "B P"]
    """Decayed sum of z_left z_right, or of the z of a neuron that is read alone."""
    beta: Float[Tensor, "B P"]
    """Decayed count of the ticks in ``alpha``."""
    history: Float[Tensor, "B S M"] | None = None
    """Windowed only: the last M post-activations of the neurons in use, newest last."""


class _Project(torch.autograd.Function):
    """Clamps to [0, limit]; outside, only a gradient that leads back inside passes."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rate: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(rate)
        ctx.limit = limit  # pyright: ignore[reportAttributeAccessIssue]
        return rate.clamp(0.0, limit)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (rate,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        (grad,) = grads
        limit = ctx.limit  # pyright: ignore[reportAttributeAccessIssue]
        leads_out = ((rate < 0) & (grad > 0)) | ((rate > limit) & (grad < 0))
        return torch.where(leads_out, torch.zeros_like(grad), grad), None


def decay_of(decay_rate: Float[Tensor, " P"], max_decay_rate: float) -> Float[Tensor, " P"]:
    """The factor applied to the past at each tick, exp(-r) with r taken into [0, max_decay_rate].

    A plain clamp would stop the gradient for good once an optimiser step has led r below 0. Here the gradient of a
    rate outside its limits passes whenever it leads back, so that learning continues even where the
    parameter is not projected after the step (the stock RLlib learners); inside the limits it is the plain derivative.

    Args:
        decay_rate: r, per tick, [P].
        max_decay_rate: upper limit of r.

    Returns:
        Factors in (0, 1], [P]; 1 forgets nothing.
    """
    return torch.exp(-_Project.apply(decay_rate, max_decay_rate))  # pyright: ignore[reportOperatorIssue]


def accumulate(
    previous: Float[Tensor, "*before"],
    addend: Float[Tensor, "*added"],
    decay: Float[Tensor, "..."],
    out: Float[Tensor, "*after"] | None = None,
) -> Float[Tensor, "*after"]:
    """Carries an accumulator one tick forward: ``sum' = exp(-r) sum + addend``.

    With ``z_left z_right`` as the addend this is alpha, with 1 it is beta: decayed sums over all past ticks, without
    storing these. Source: arXiv:2505.05522, appendix on recursive synchronisation.

    Args:
        previous: the accumulator after the previous tick.
        addend: what this tick adds, shaped alike.
        decay: exp(-r), broadcast to both.
        out: where to write the result, which may be ``addend``, in one operation that may round once less and has no
            gradient; ``None``: into a new tensor.

    Returns:
        The new accumulator.
    """
    if out is None:
        return decay * previous + addend
    return torch.addcmul(addend, previous, decay, out=out)


def multiply_pairs(left: Shaped[Tensor, "..."], right: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
    """``z_left z_right`` of p pairs along an axis; the neurons after them have no partner and stay as they are."""
    num_pairs = right.shape[dim]
    num_alone = left.shape[dim] - num_pairs
    if not num_alone:
        return left * right
    paired, alone = left.split([num_pairs, num_alone], dim)
    return torch.cat((paired * right, alone), dim)


def window_sums(
    left: Float[Tensor, "B P M"], right: Float[Tensor, "B p M"], decay: Float[Tensor, " P"]
) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]]:
    """Decayed sum and count over a window of M ticks.

    ``alpha = sum_age exp(-r age) z_left z_right`` and ``beta = sum_age exp(-r age)``, age 0 for the newest tick.
    Source: the published reinforcement learning experiments of arXiv:2505.05522.

    Args:
        left: z of the first neuron of each pair, then of neurons that are read alone, newest last, [B, P, M].
        right: z of the second neuron of each pair, [B, p, M].
        decay: exp(-r), [P].

    Returns:
        alpha and beta, [B, P] each.
    """
    weight = age_weights(decay, left.shape[2])
    return multiply_pairs(weight * left, right, 1).sum(-1), weight.sum(-1).expand(len(left), -1)


def age_weights(decay: Float[Tensor, " P"], length: int) -> Float[Tensor, "P M"]:
    """Weight of each place of a window of M ticks, newest last: ``decay ** age``."""
    age = torch.arange(length - 1, -1, -1, device=decay.device, dtype=decay.dtype)
    return decay[:, None] ** age


class Synchronisation(nn.Module):
    """The synchronisation of one set of pairs, over all ticks since the start or over a window of the last M.

    Neurons of the pairing without a partner give first-order terms, the decayed mean of their z, in the same way: as if
    their partner were a neuron whose z is always 1.

    Args:
        pairing: the pairs; kept as buffers, so that they are saved with the weights.
        max_decay_rate: upper limit of the learned decay rates.
        is_windowed: sum over a window of the last M ticks instead of over all.
        start_decay_rates: decay rates before training, which the terms take in turn.
    """

    left: Int[Tensor, " P"]
    right: Int[Tensor, " p"]
    neurons: Int[Tensor, " S"]
    left_slot: Int[Tensor, " P"]
    right_slot: Int[Tensor, " p"]

    def __init__(
        self, pairing: Pairing, max_decay_rate: float, is_windowed: bool, start_decay_rates: Sequence[float] = (0.0,)
    ) -> None:
        super().__init__()
        self.max_decay_rate = max_decay_rate
        self.is_windowed = is_windowed
        self.register_buffer("left", pairing.left)
        self.register_buffer("right", pairing.right)
        rates = list(islice(cycle(start_decay_rates), len(pairing.left)))
        self.decay_rate = nn.Parameter(torch.tensor(rates, dtype=torch.get_default_dtype()))
        if is_windowed:
            self._index_neurons()
            self.register_load_state_dict_post_hook(lambda module, _: module._index_neurons())

    @property
    def num_terms(self) -> int:
        """P: pairs, and neurons that are read alone."""
        return len(self.decay_rate)

    def start(self, post_activation: Float[Tensor, "B D"], post_history: Float[Tensor, "B D M"] | None) -> SyncState:
        """The memory of a fresh start, from the start value of z; windowed, from the start history instead."""
        if self.is_windowed:
            assert post_history is not None
            return self._read_window(post_history[:, self.neurons])
        products = self._products(post_activation)
        return SyncState(products, torch.ones_like(products))

    def advance(self, state: SyncState, post_activation: Float[Tensor, "B D"]) -> SyncState:
        """Adds the z of one more tick, [B, D]."""
        if self.is_windowed:
            assert state.history is not None
            newest = post_activation[:, self.neurons, None]
            return self._read_window(torch.cat((state.history[..., 1:], newest), -1))
        decay = decay_of(self.decay_rate, self.max_decay_rate)
        alpha = accumulate(state.alpha, self._products(post_activation), decay)
        return SyncState(alpha, accumulate(state.beta, torch.ones_like(state.beta), decay))

    @torch.no_grad()
    def project_(self) -> None:
        """Brings the decay rates back into their limits; call it after each optimiser step and after loading."""
        self.decay_rate.clamp_(0.0, self.max_decay_rate)

    def _products(self, post_activation: Tensor) -> Tensor:
        return multiply_pairs(post_activation[:, self.left], post_activation[:, self.right], 1)

    def _read_window(self, history: Tensor) -> SyncState:
        decay = decay_of(self.decay_rate, self.max_decay_rate)
        alpha, beta = window_sums(history[:, self.left_slot], history[:, self.right_slot], decay)
        return SyncState(alpha, beta, history)

    def slots(self) -> tuple[Int[Tensor, " S"], Int[Tensor, " P"], Int[Tensor, " p"]]:
        """The neurons in use, once each, and where each term finds its one or two among them."""
        if self.is_windowed:
            return self.neurons, self.left_slot, self.right_slot
        return self._find_slots()

    def _find_slots(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.left.is_meta:  # counting parameters on the meta device: indices have no values there
            return self.left, self.left, self.right
        neurons, slots = torch.unique(torch.cat((self.left, self.right)), return_inverse=True)
        left_slot, right_slot = slots.split([len(self.left), len(self.right)])
        return neurons, left_slot, right_slot

    def _index_neurons(self) -> None:
        """Derives from the pairs which neurons a window must keep."""
        for name, index in zip(("neurons", "left_slot", "right_slot"), self._find_slots(), strict=True):
            self.register_buffer(name, index, persistent=False)


def sync_of(alpha: Float[Tensor, "*batch"], beta: Float[Tensor, "..."]) -> Float[Tensor, "*batch"]:
    """Synchronisation, alpha / sqrt(beta), shaped as alpha; beta may be anything that broadcasts to it."""
    return alpha * beta.rsqrt()
