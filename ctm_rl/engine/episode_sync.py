"""Synchronisation over many environment steps of many ticks, with resets inside; equal to ``machine.synchronisation``.

Layout: neurons and pairs before rows, [..., P, B], so that the reset of a row touches one column. From the z of the
ticks of some steps, ``Accumulators`` and ``Window`` compute alpha and beta after each step, and their gradients.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from ctm_rl.machine.synchronisation import accumulate, age_weights

_CHUNK = 16

Resets = Sequence[Sequence[int]]
"""For each environment step the rows that start an episode before it."""


def resets_of(is_first: Shaped[Tensor, "T B"]) -> Resets:
    """The rows that start an episode with each step, from a flag for each; one transfer for all."""
    return [np.flatnonzero(step).tolist() for step in is_first.bool().cpu().numpy()]


class EpisodeSteps(NamedTuple):
    """T environment steps with L ticks in all."""

    resets: Resets
    """Which rows start an episode with each step, T."""
    begins: Sequence[int]
    """The first tick of each step, then L: T + 1 numbers."""

    @staticmethod
    def of(resets: Resets, ticks: Sequence[int]) -> "EpisodeSteps":
        """From the number of ticks of each step, [T]."""
        return EpisodeSteps(resets, [0, *itertools.accumulate(ticks)])

    @property
    def ticks(self) -> list[int]:
        """How many ticks each step has, [T]."""
        return [end - begin for begin, end in itertools.pairwise(self.begins)]


class SyncPairs(NamedTuple):
    """Which neurons a synchronisation joins, S of them in p pairs, and which it reads alone: P terms in all."""

    neurons: Int[Tensor, " S"]
    """All neurons in use, once each."""
    left: Int[Tensor, " P"]
    """First neuron of each pair, then the neurons read alone, by their place in ``neurons``."""
    right: Int[Tensor, " p"]
    """Second neuron of each pair, likewise."""
    partners: Int[Tensor, " 2p"]
    """``right``, then ``left`` of the pairs: what the gradients of ``left``, then of ``right`` are multiplied with."""
    shares: Float[Tensor, "S 2p+alone"]
    """1 where a neuron is the first of a pair, then where it is the second, then where it is read alone: from terms to
    sums over neurons."""

    def products(self, synced: Float[Tensor, "L S B"]) -> Float[Tensor, "L P B"]:
        """z_left z_right of every tick, or z of a neuron that is read alone."""
        products = synced.index_select(1, self.left)
        products[:, : len(self.right)].mul_(synced.index_select(1, self.right))
        return products

    def unpair(self, grad: Float[Tensor, "L P B"], synced: Float[Tensor, "L S B"]) -> Float[Tensor, "L S B"]:
        """The gradient of the neurons from that of the products."""
        num_pairs = len(self.right)
        parts = synced.index_select(1, self.partners)
        parts.unflatten(1, (2, -1)).mul_(grad[:, None, :num_pairs])
        if num_pairs < len(self.left):
            parts = torch.cat((parts, grad[:, num_pairs:]), 1)
        return torch.matmul(self.shares, parts)


class JoinedPairs(NamedTuple):
    """The pairs of several synchronisations, each of a machine of its own; see ``engine.side_by_side``.

    Neurons in use and terms lie one machine after the other.
    """

    neurons: Int[Tensor, " S"]
    """All neurons in use, by their place among those of all machines."""
    each: Sequence[SyncPairs]
    """Of each machine."""

    @staticmethod
    def of(each: Sequence[SyncPairs], num_neurons: int) -> "JoinedPairs":
        """From the pairs of each machine of D neurons."""
        return JoinedPairs(torch.cat([pairs.neurons + i * num_neurons for i, pairs in enumerate(each)]), each)

    def products(self, synced: Float[Tensor, "L S B"]) -> Float[Tensor, "L P B"]:
        """See ``SyncPairs``."""
        parts = zip(self.each, self._split(synced), strict=True)
        return torch.cat([pairs.products(part) for pairs, part in parts], 1)

    def unpair(self, grad: Float[Tensor, "L P B"], synced: Float[Tensor, "L S B"]) -> Float[Tensor, "L S B"]:
        """See ``SyncPairs``."""
        grads = grad.split([len(pairs.left) for pairs in self.each], 1)
        parts = zip(self.each, grads, self._split(synced), strict=True)
        return torch.cat([pairs.unpair(part_grad, part) for pairs, part_grad, part in parts], 1)

    def _split(self, synced: Float[Tensor, "L S B"]) -> Sequence[Tensor]:
        return synced.split([len(pairs.neurons) for pairs in self.each], 1)


class SyncStateGrads(NamedTuple):
    """Gradients of the state before the first step; None where it is not read."""

    alpha: Float[Tensor, "P B"]
    beta: Float[Tensor, "P B"] | None
    post_history: Float[Tensor, "S M B"] | None


class AccumulatorWeights(NamedTuple):
    """Parameters of the accumulators."""

    decay: Float[Tensor, " P"]
    """Factor of the past at each tick."""
    fresh_alpha: Float[Tensor, " P"]
    """Alpha at the start of an episode; beta is then 1."""


class Accumulators:
    """``alpha' = d alpha + z_left z_right`` and ``beta' = d beta + 1`` at every tick.

    Args:
        weights: decay and start value.
        pairs: which neurons.
        alpha: before the first step, [P, B].
        beta: before the first step, [P, B].
        capacity: how many ticks fit into the buffer.
    """

    def __init__(
        self, weights: AccumulatorWeights, pairs: SyncPairs | JoinedPairs, alpha: Tensor, beta: Tensor, capacity: int
    ) -> None:
        self._pairs = pairs
        self._factor = weights.decay[:, None]
        self._fresh = torch.stack((weights.fresh_alpha, torch.ones_like(weights.fresh_alpha)))
        self._sums = alpha.new_empty(capacity + 1, 2, *alpha.shape)  # alpha and beta
        self._sums[0, 0], self._sums[0, 1] = alpha, beta
        self._position = 0

    def run(self, steps: EpisodeSteps, synced: Float[Tensor, "L S B"]) -> Float[Tensor, "T 2 P B"]:
        """Adds the ticks of some steps; returns alpha and beta after each step."""
        sums = self._sums[self._position : self._position + len(synced) + 1]
        for ticks in _chunks(len(synced)):
            sums[1:][ticks, 0] = self._pairs.products(synced[ticks])
        sums[1:, 1] = 1.0
        self._position += len(synced)
        return _run_sums(sums, self._fresh, self._factor, steps, synced.dtype)

    def slide(self) -> None:
        """Continues at the beginning of the buffer."""
        self._sums[0] = self._sums[self._position]
        self._position = 0

    def tape(self) -> tuple[Tensor]:
        """What the backward pass needs."""
        return (self._sums,)

    @staticmethod
    def backward(
        weights: AccumulatorWeights,
        pairs: SyncPairs | JoinedPairs,
        synced: Float[Tensor, "L S B"],
        tape: Sequence[Tensor],
        grads: Float[Tensor, "T 2 P B"],
        steps: EpisodeSteps,
    ) -> tuple[Float[Tensor, "L S B"], AccumulatorWeights, SyncStateGrads]:
        """The gradients of every tick's z, of the weights, and of the state before the first step.

        Args:
            weights: decay and start value.
            pairs: which neurons.
            synced: z of these after every tick.
            tape: from the forward pass.
            grads: of the results of ``run``.
            steps: the environment steps of the ticks.
        """
        (sums,) = tape
        d_sums, d_first, d_fresh = _sums_backward(grads, weights.decay, steps)
        d_decay, d_synced = torch.zeros_like(weights.decay), torch.empty_like(synced)
        for ticks in _chunks(len(synced)):
            d_decay += (d_sums[ticks] * sums[ticks]).sum((0, 1, 3))
            d_synced[ticks] = pairs.unpair(d_sums[ticks, 0], synced[ticks])
        d_alpha, d_beta = d_first.unbind(0)
        return d_synced, AccumulatorWeights(d_decay, d_fresh[0]), SyncStateGrads(d_alpha, d_beta, None)


class WindowWeights(NamedTuple):
    """Parameters of a windowed synchronisation."""

    decay: Float64[Tensor, " P"]
    """Factor of the past at each tick."""
    last_factor: Float64[Tensor, " P"]
    """Factor of the tick that leaves the window, ``decay ** M``."""
    fresh_alpha: Float64[Tensor, " P"]
    """Alpha at the start of an episode."""
    fresh: Float[Tensor, "S M"]
    """z of the start history."""


class Window:
    """The decayed sum over the products of the last M ticks, carried on from tick to tick.

    ``alpha' = d alpha + z_left z_right - d^M (z_left z_right of M ticks before)``. In a row that is reset, the start
    history is written over the last M places. Places are only read when they leave the window, so in the end a place
    holds what has left it. In double precision, so that no rounding error of a value outlives it in the window.

    Args:
        weights: factors and start values.
        pairs: which neurons.
        alpha: before the first step, [P, B].
        post_history: z of the M ticks before the first step, [S, M, B].
        capacity: how many ticks fit into the buffer.
    """

    def __init__(
        self, weights: WindowWeights, pairs: SyncPairs | JoinedPairs, alpha: Tensor, post_history: Tensor, capacity: int
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

    def run(self, steps: EpisodeSteps, synced: Float[Tensor, "L S B"]) -> Float[Tensor, "T P B"]:
        """Adds the ticks of some steps; returns alpha after each step."""
        total = len(synced)
        places = self._places[self._position : self._position + self._length + total]
        places[self._length :] = synced
        for begin, rows in zip(steps.begins, steps.resets, strict=False):
            for row in rows:
                places[begin : begin + self._length, :, row] = self._fresh
        alphas = self._alphas[self._position : self._position + total + 1]
        for ticks in _chunks(total):
            entering, leaving = (self._pairs.products(part[ticks].double()) for part in (synced, places))
            torch.addcmul(entering, leaving, self._minus_last, out=alphas[1:][ticks])
        self._position += total
        return _run_sums(alphas, self._weights.fresh_alpha, self._factor, steps, synced.dtype)

    def slide(self) -> None:
        """Moves the window to the beginning of the buffer."""
        self._places[: self._length] = self.window.clone()
        self._alphas[0] = self._alphas[self._position]
        self._position = 0

    @property
    def window(self) -> Float[Tensor, "M S B"]:
        """Z of the last M ticks; a view of the buffer."""
        return self._places[self._position : self._position + self._length]

    def tape(self) -> tuple[Tensor, Tensor]:
        """What the backward pass needs."""
        return self._alphas, self._places

    @staticmethod
    def backward(
        weights: WindowWeights,
        pairs: SyncPairs | JoinedPairs,
        synced: Float[Tensor, "L S B"],
        tape: Sequence[Tensor],
        grads: Float[Tensor, "T P B"],
        steps: EpisodeSteps,
    ) -> tuple[Float[Tensor, "L S B"], WindowWeights, SyncStateGrads]:
        """The gradients of every tick's z, of the weights, and of the state before the first step.

        See ``Accumulators.backward`` for the arguments.
        """
        dtype, (total, _, num_rows) = synced.dtype, synced.shape
        alphas, places = tape
        d_entering, d_alpha, d_fresh_alpha = _sums_backward(grads, weights.decay.to(dtype), steps)
        minus_last = -weights.last_factor.to(dtype)[:, None]
        d_decay, d_last = torch.zeros_like(weights.decay), torch.zeros_like(weights.decay)
        d_synced = torch.empty_like(synced)
        d_left = torch.empty_like(synced)  # of the tick that left the window at each tick
        for ticks in _chunks(total):
            grad = d_entering[ticks]
            d_decay += (grad * alphas[ticks]).sum((0, 2))
            d_synced[ticks] = pairs.unpair(grad, synced[ticks])
            d_last -= pairs.products(places[ticks]).mul_(grad).sum((0, 2))
            d_left[ticks] = pairs.unpair(grad * minus_last, places[ticks])
        length = weights.fresh.shape[1]
        d_fresh = torch.zeros_like(weights.fresh)
        begun = [total] * num_rows  # when the row's next episode begins
        for step in reversed(range(len(steps.resets))):
            begin = steps.begins[step]
            for row in steps.resets[step]:
                end = min(begin + length, begun[row])
                d_fresh[:, : end - begin] += d_left[begin:end, :, row].T
                d_left[begin:end, :, row] = 0.0
                begun[row] = begin
        d_synced[: max(total - length, 0)] += d_left[length:]
        d_before = d_left.new_zeros(length, *d_left.shape[1:])
        d_before[: min(total, length)] = d_left[:length]
        d_weights = WindowWeights(d_decay, d_last, d_fresh_alpha.double(), d_fresh)
        return d_synced, d_weights, SyncStateGrads(d_alpha.double(), None, d_before.transpose(0, 1))


def sum_window(products: Float[Tensor, "P M B"], decay: Float64[Tensor, " P"]) -> Float64[Tensor, "P B"]:
    """The decayed sum over the M ticks of a window, newest last."""
    return (products * age_weights(decay, products.shape[1])[..., None]).sum(1)


def _chunks(total: int) -> list[slice]:
    """Groups of ticks whose products stay in the processor's cache."""
    return [slice(begin, min(begin + _CHUNK, total)) for begin in range(0, total, _CHUNK)]


def _run_sums(
    sums: Shaped[Tensor, "L1 *N P B"],
    fresh: Shaped[Tensor, "*N P"],
    factor: Shaped[Tensor, "P 1"],
    steps: EpisodeSteps,
    dtype: torch.dtype,
) -> Float[Tensor, "T *N P B"]:
    """Runs ``sum' = d sum + addend`` in a buffer of the first sum and the addends; returns the sums after each step.

    In the end the place before each tick holds the sum that the tick continued, the start value where a row was reset.
    """
    after = sums.new_empty(len(steps.resets), *sums.shape[1:], dtype=dtype)
    ticks = sums.unbind(0)
    for rows, (begin, end), result in zip(steps.resets, itertools.pairwise(steps.begins), after.unbind(0), strict=True):
        for row in rows:
            ticks[begin][..., row] = fresh
        for tick in range(begin, end):
            accumulate(ticks[tick], ticks[tick + 1], factor, out=ticks[tick + 1])
        result.copy_(ticks[end])
    return after


def _sums_backward(
    grads: Float[Tensor, "T *N P B"], decay: Float[Tensor, " P"], schedule: EpisodeSteps
) -> tuple[Float[Tensor, "L *N P B"], Float[Tensor, "*N P B"], Float[Tensor, "*N P"]]:
    """The backward pass of ``_run_sums``: gradients of the addends, the first sum and the start value."""
    factor = decay[:, None]
    d_addends = grads.new_empty(schedule.begins[-1], *grads.shape[1:])
    carried = grads.new_zeros(grads.shape[1:])
    d_fresh = grads.new_zeros(grads.shape[1:-1])
    ticks, steps = d_addends.unbind(0), grads.unbind(0)
    for step in reversed(range(len(steps))):
        first, last = schedule.begins[step], schedule.begins[step + 1] - 1
        torch.add(carried, steps[step], out=ticks[last])
        for tick in range(last - 1, first - 1, -1):
            torch.mul(ticks[tick + 1], factor, out=ticks[tick])
        torch.mul(ticks[first], factor, out=carried)
        for row in schedule.resets[step]:
            grad = carried[..., row]
            d_fresh += grad
            grad.zero_()
    return d_addends, carried, d_fresh
