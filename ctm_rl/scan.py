"""Synchronisation over many steps of many ticks, with restarts inside: the sums of :mod:`ctm_rl.sync`, step by step.

Layout here: neurons and pairs before rows, [..., P, B], so that a row's restart touches one column. A scan is fed the z
of each step's ticks and tells alpha and beta after the step; ``rewind`` runs back over a recorded one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

_CHUNK = 16

Restarts = Sequence[Sequence[int]]
"""For each environment step the rows that start an episode before it."""


def restarts_of(is_first: Shaped[Tensor, "T B"]) -> Restarts:
    """The rows that start an episode with each step, from a flag for each; one transfer for all."""
    return [np.flatnonzero(step).tolist() for step in is_first.bool().cpu().numpy()]


class Pairs(NamedTuple):
    """Which neurons a synchronisation joins, S of them in P pairs."""

    neurons: Int[Tensor, " S"]
    """All neurons in use, once each."""
    left: Int[Tensor, " P"]
    """First neuron of each pair, by its place in ``neurons``."""
    right: Int[Tensor, " P"]
    """Second neuron of each pair, likewise."""
    left_share: Float[Tensor, "S P"]
    """1 where a neuron is the first of a pair: sums over pairs become sums over neurons."""
    right_share: Float[Tensor, "S P"]
    """The same for the second."""

    def products(self, synced: Float[Tensor, "L S B"]) -> Float[Tensor, "L P B"]:
        """z_left z_right of every tick."""
        return synced.index_select(1, self.left).mul_(synced.index_select(1, self.right))

    def split(self, synced: Float[Tensor, "L S B"]) -> tuple[Float[Tensor, "L P B"], Float[Tensor, "L P B"]]:
        """Z of the first neuron of each pair, and of the second."""
        return synced.index_select(1, self.left), synced.index_select(1, self.right)

    def unpair(
        self, grad: Float[Tensor, "L P B"], left: Float[Tensor, "L P B"], right: Float[Tensor, "L P B"]
    ) -> Float[Tensor, "L S B"]:
        """The gradient of the neurons from that of the products; uses the memory of ``left`` and ``right``."""
        return torch.matmul(self.left_share, right.mul_(grad)) + torch.matmul(self.right_share, left.mul_(grad))


class ScanGrads(NamedTuple):
    """Gradients of what a synchronisation begins with; None where it reads nothing."""

    alpha: Float[Tensor, "P B"]
    beta: Float[Tensor, "P B"] | None
    post_history: Float[Tensor, "S M B"] | None


class AccumulatorWeights(NamedTuple):
    """What the accumulators are made of, beside the products."""

    decay: Float[Tensor, " P"]
    """Factor of the past at each tick."""
    fresh_alpha: Float[Tensor, " P"]
    """Alpha of a fresh start; beta is then 1."""


class Accumulators:
    """``alpha' = d alpha + z_left z_right`` and ``beta' = d beta + 1`` at every tick.

    Args:
        weights: decay and fresh start.
        pairs: which neurons.
        alpha: before the first step, [P, B].
        beta: before the first step, [P, B].
        capacity: how many ticks there is room for.
    """

    def __init__(self, weights: AccumulatorWeights, pairs: Pairs, alpha: Tensor, beta: Tensor, capacity: int) -> None:
        self._pairs = pairs
        self._factor = weights.decay[:, None]
        self._fresh = weights.fresh_alpha
        self._alphas = alpha.new_empty(capacity + 1, *alpha.shape)
        self._betas = torch.empty_like(self._alphas)
        self._alphas[0], self._betas[0] = alpha, beta
        self._one = alpha.new_ones(())
        self._position = 0

    def step(
        self, rows: Sequence[int], synced: Float[Tensor, "K S B"]
    ) -> tuple[Float[Tensor, "P B"], Float[Tensor, "P B"]]:
        """Takes in the ticks of one step, which ``rows`` begin afresh; gives alpha and beta after it."""
        products = self._pairs.products(synced).unbind(0)
        window = slice(self._position, self._position + len(products) + 1)
        alphas, betas = self._alphas[window].unbind(0), self._betas[window].unbind(0)
        for row in rows:
            alphas[0][:, row] = self._fresh
            betas[0][:, row] = 1.0
        for tick, product in enumerate(products):
            torch.addcmul(product, alphas[tick], self._factor, out=alphas[tick + 1])
            torch.addcmul(self._one, betas[tick], self._factor, out=betas[tick + 1])
        self._position += len(products)
        return alphas[-1], betas[-1]

    def slide(self) -> None:
        """Goes on at the beginning of its room."""
        self._alphas[0], self._betas[0] = self._alphas[self._position], self._betas[self._position]
        self._position = 0

    def recorded(self) -> tuple[Tensor, Tensor]:
        """What the way back needs."""
        return self._alphas, self._betas

    @staticmethod
    def rewind(
        weights: AccumulatorWeights,
        pairs: Pairs,
        synced: Float[Tensor, "L S B"],
        recorded: Sequence[Tensor],
        grads: tuple[Float[Tensor, "T P B"], Float[Tensor, "T P B"]],
        restarts: Restarts,
        num_ticks: int,
    ) -> tuple[Float[Tensor, "L S B"], AccumulatorWeights, ScanGrads]:
        """The gradients of every tick's z, of the weights, and of what was there before the first step.

        Args:
            weights: decay and fresh start.
            pairs: which neurons.
            synced: z of these after every tick.
            recorded: what :meth:`recorded` gave.
            grads: of alpha and beta after every step.
            restarts: which rows started an episode before each step.
            num_ticks: K.
        """
        alphas, betas = recorded
        shape = alphas.shape[1:]
        d_alphas, d_alpha, d_fresh = _rewind_sums(shape, grads[0], weights.decay, restarts, num_ticks)
        d_betas, d_beta, _ = _rewind_sums(shape, grads[1], weights.decay, restarts, num_ticks)
        d_decay, d_synced = torch.zeros_like(weights.decay), torch.empty_like(synced)
        for ticks in _chunks(len(synced)):
            d_decay += (d_alphas[ticks] * alphas[ticks] + d_betas[ticks] * betas[ticks]).sum((0, 2))
            d_synced[ticks] = pairs.unpair(d_alphas[ticks], *pairs.split(synced[ticks]))
        return d_synced, AccumulatorWeights(d_decay, d_fresh), ScanGrads(d_alpha, d_beta, None)


class WindowWeights(NamedTuple):
    """What a window is weighed with, beside the products."""

    decay: Float64[Tensor, " P"]
    """Factor of the past at each tick."""
    last_factor: Float64[Tensor, " P"]
    """Factor of what leaves the window, ``decay ** M``."""
    fresh_alpha: Float64[Tensor, " P"]
    """Alpha of a fresh start."""
    fresh: Float[Tensor, "S M"]
    """z of the start history."""


class Window:
    """The decayed sum over the products of the last M ticks, carried on from tick to tick.

    ``alpha' = d alpha + z_left z_right - d^M (z_left z_right of M ticks before)``. A restarting row gets the start
    history written over its last M places; they are only read when they leave the window, so that what stands in a
    place in the end is what has left it. In double precision, so that nothing is left of what has gone, however large
    it was.

    Args:
        weights: factors, and the fresh start.
        pairs: which neurons.
        alpha: before the first step, [P, B].
        post_history: z of the M ticks before the first step, [S, M, B].
        capacity: how many ticks there is room for.
    """

    def __init__(
        self, weights: WindowWeights, pairs: Pairs, alpha: Tensor, post_history: Tensor, capacity: int
    ) -> None:
        self._pairs = pairs
        self._weights = weights
        self._fresh = weights.fresh.T
        num_synced, self._length, num_rows = post_history.shape
        self._factor, self._minus_last = weights.decay[:, None], -weights.last_factor[:, None]
        self._places = post_history.new_empty(self._length + capacity, num_synced, num_rows)
        self._places[: self._length] = post_history.transpose(0, 1)
        self._alphas = alpha.new_empty(capacity + 1, *alpha.shape)
        self._alphas[0] = alpha
        self._position = 0

    def step(self, rows: Sequence[int], synced: Float[Tensor, "K S B"]) -> tuple[Float64[Tensor, "P B"], None]:
        """Takes in the ticks of one step, which ``rows`` begin afresh; gives alpha after it."""
        begin, num_ticks = self._position, len(synced)
        for row in rows:
            self._places[begin : begin + self._length, :, row] = self._fresh
            self._alphas[begin, :, row] = self._weights.fresh_alpha
        self._places[begin + self._length : begin + self._length + num_ticks] = synced
        entering = self._pairs.products(synced.double()).unbind(0)
        leaving = self._pairs.products(self._places[begin : begin + num_ticks].double()).unbind(0)
        for tick in range(num_ticks):
            alpha = self._alphas[begin + tick + 1]
            torch.addcmul(entering[tick], self._alphas[begin + tick], self._factor, out=alpha)
            alpha.addcmul_(leaving[tick], self._minus_last)
        self._position = begin + num_ticks
        return self._alphas[self._position], None

    def slide(self) -> None:
        """Moves the window to the beginning of its room."""
        self._places[: self._length] = self.window.clone()
        self._alphas[0] = self._alphas[self._position]
        self._position = 0

    @property
    def window(self) -> Float[Tensor, "M S B"]:
        """Z of the last M ticks; a view of the buffer."""
        return self._places[self._position : self._position + self._length]

    def recorded(self) -> tuple[Tensor, Tensor]:
        """What the way back needs."""
        return self._alphas, self._places

    @staticmethod
    def rewind(
        weights: WindowWeights,
        pairs: Pairs,
        synced: Float[Tensor, "L S B"],
        recorded: Sequence[Tensor],
        grads: tuple[Float[Tensor, "T P B"], Float[Tensor, "T P B"]],
        restarts: Restarts,
        num_ticks: int,
    ) -> tuple[Float[Tensor, "L S B"], WindowWeights, ScanGrads]:
        """The gradients of every tick's z, of the weights, and of what was there before the first step.

        See :meth:`Accumulators.rewind` for the arguments.
        """
        dtype, (total, _, num_rows) = synced.dtype, synced.shape
        alphas, places = recorded
        d_entering, d_alpha, d_fresh_alpha = _rewind_sums(
            alphas.shape[1:], grads[0], weights.decay.to(dtype), restarts, num_ticks
        )
        minus_last = -weights.last_factor.to(dtype)[:, None]
        d_decay, d_last = torch.zeros_like(weights.decay), torch.zeros_like(weights.decay)
        d_synced = torch.empty_like(synced)
        d_left = torch.empty_like(synced)  # of what has left the window at each tick
        for ticks in _chunks(total):
            grad = d_entering[ticks]
            d_decay += (grad * alphas[ticks]).sum((0, 2))
            d_synced[ticks] = pairs.unpair(grad, *pairs.split(synced[ticks]))
            left, right = pairs.split(places[ticks])
            d_last -= (grad * left).mul_(right).sum((0, 2))
            d_left[ticks] = pairs.unpair(grad * minus_last, left, right)
        length = weights.fresh.shape[1]
        d_fresh = torch.zeros_like(weights.fresh)
        begun = [total] * num_rows  # when the row's next episode begins
        for step in reversed(range(len(restarts))):
            for row in restarts[step]:
                begin = step * num_ticks
                end = min(begin + length, begun[row])
                d_fresh[:, : end - begin] += d_left[begin:end, :, row].T
                d_left[begin:end, :, row] = 0.0
                begun[row] = begin
        d_synced[: max(total - length, 0)] += d_left[length:]
        d_before = d_left.new_zeros(length, *d_left.shape[1:])
        d_before[: min(total, length)] = d_left[:length]
        d_weights = WindowWeights(d_decay, d_last, d_fresh_alpha.double(), d_fresh)
        return d_synced, d_weights, ScanGrads(d_alpha.double(), None, d_before.transpose(0, 1))


def sum_window(products: Float[Tensor, "P M B"], decay: Float64[Tensor, " P"]) -> Float64[Tensor, "P B"]:
    """The decayed sum over the M ticks of a window, newest last."""
    return (products * age_weights(decay, products.shape[1])[..., None]).sum(1)


def age_weights(decay: Float[Tensor, " P"], length: int) -> Float[Tensor, "P M"]:
    """Weight of each place of a window of M ticks, newest last: ``decay ** age``."""
    age = torch.arange(length - 1, -1, -1, device=decay.device, dtype=decay.dtype)
    return decay[:, None] ** age


def _chunks(total: int) -> list[slice]:
    """Ticks in groups whose products stay near the processor."""
    return [slice(begin, min(begin + _CHUNK, total)) for begin in range(0, total, _CHUNK)]


def _rewind_sums(
    shape: Sequence[int],
    grads: Float[Tensor, "T P B"],
    decay: Float[Tensor, " P"],
    restarts: Restarts,
    num_ticks: int,
) -> tuple[Float[Tensor, "L P B"], Float[Tensor, "P B"], Float[Tensor, " P"]]:
    """Back through ``sum' = d sum + addend``: the gradients of addends, of the first sum and of a fresh one."""
    factor = decay[:, None]
    d_addends = grads.new_empty(len(restarts) * num_ticks, *shape)
    carried, d_fresh = grads.new_zeros(shape), torch.zeros_like(decay)
    ticks = d_addends.unbind(0)
    for step in reversed(range(len(restarts))):
        last = (step + 1) * num_ticks - 1
        torch.add(carried, grads[step], out=ticks[last])
        for tick in range(last - 1, last - num_ticks, -1):
            torch.mul(ticks[tick + 1], factor, out=ticks[tick])
        carried = ticks[last - num_ticks + 1] * factor
        for row in restarts[step]:
            d_fresh += carried[:, row]
            carried[:, row] = 0.0
    return d_addends, carried, d_fresh
