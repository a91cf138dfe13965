"""The hand-written backward pass over recorded environment steps, from the last tick to the first.

Since ticks share their weights, the gradients of the dense layers' weights are one product each over many ticks, taken
every few ticks while the gradients of these are still in the processor's cache.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.engine.episode_forward import EpisodeTape, EpisodeWeights
from ctm_rl.engine.episode_sync import AccumulatorWeights, EpisodeSteps, WindowWeights
from ctm_rl.engine.unrolled_neuron_models import NeuronModelsBackward
from ctm_rl.engine.unrolled_synapse import BlockSynapseBackward

_CHUNK = 16
"""Ticks whose gradients are collected before they are multiplied."""
_LARGEST_GROUP = 4
"""At most this many ticks share a product of the neuron-level models; more would compute too many unused parts."""


class EpisodeBackward:
    """Runs the backward pass over a tape, which stays unchanged.

    Args:
        weights: as in the forward pass.
        tape: from the forward pass.
        d_history: gradient of the history after the last tick, [C D, M, B].
        steps: the environment steps of the ticks.
    """

    def __init__(
        self, weights: EpisodeWeights, tape: EpisodeTape, d_history: Float[Tensor, "CD M B"], steps: EpisodeSteps
    ) -> None:
        self._weights, self._tape, self._begins = weights, tape, steps.begins
        self._resets = {begin: rows for begin, rows in zip(steps.begins, steps.resets, strict=False) if rows}
        self._num_overwritten = len(tape.overwritten)
        self._chunks = _chunks_of(steps.begins)
        cores, num_neurons, num_rows = weights.cores, weights.scale.shape[-1], d_history.shape[2]
        chunk = max(steps.begins[part.stop] - begin for begin, part in self._chunks.items())
        self.d_inputs = d_history.new_empty(len(steps.resets), *cores, num_rows, 2 * num_neurons)
        """Gradient of what the features send in, the same for all ticks of a step, [T, *C, B, E]."""
        self._d_pre = d_history.new_empty(chunk, *cores, num_rows, num_neurons)
        self._d_pre_ticks = self._d_pre.unbind(0)
        # a norm has one scale: those of several machines are multiplied before
        self._scale = weights.scale[:, None] if cores else None
        dense, norms = [], [(None if cores else weights.scale, None)]
        if weights.second is not None and weights.second_bias is not None:
            dense, norms = [(weights.second, weights.second_bias)], [(None, None), *norms]
        self._synapse = BlockSynapseBackward(dense, norms, tape.synapse, chunk, has_norm_grads=False)
        self._recurrent = weights.recurrent.mT.contiguous()
        self._product = torch.bmm if cores else torch.mm
        zeros: Any = [_zeros(weight) for weight in weights[:-2]]
        self._grads = EpisodeWeights._make([*zeros, *weights[-2:]])
        models = tape.neuron_models
        if self._num_overwritten:  # undone resets must not show on the tape
            models = models._replace(places=models.places.clone())
        # the places in a group's windows may only change between two groups
        group = max(size for size in range(1, _LARGEST_GROUP + 1) if math.gcd(*steps.ticks) % size == 0)
        self._neuron_models = NeuronModelsBackward(weights.neuron_models, models, d_history, group, cores)

    def run(
        self, d_synced: Float[Tensor, "L S B"], neurons: Int[Tensor, " S"], d_last: Float[Tensor, "CD B"]
    ) -> Float[Tensor, "CD B"]:
        """Runs the backward pass of all ticks.

        Args:
            d_synced: gradient of the synchronised neurons' z after every tick.
            neurons: which these are.
            d_last: gradient of z after the last tick.

        Returns:
            The gradient of z before the first tick.
        """
        d_z, d_synced_ticks = d_last.clone(), d_synced.unbind(0)
        for begin, steps in reversed(self._chunks.items()):
            for tick in reversed(range(begin, self._begins[steps.stop])):
                d_z.index_add_(0, neurons, d_synced_ticks[tick])
                d_pre = self._d_pre_ticks[tick - begin]
                self._neuron_models.tick(tick, d_z, d_pre)
                d_norm = d_pre if self._scale is None else d_pre * self._scale
                d_dense = self._synapse.run(tick, d_norm, tick - begin)
                d_z = self._product(self._recurrent, d_dense.mT)
                if self._scale is not None:
                    d_z = d_z.flatten(0, 1)
                for row in reversed(self._resets.get(tick, ())):
                    self._reset(tick, row, d_z)
            self._add_chunk(steps)
        return d_z

    def _reset(self, tick: int, row: int, d_z: Tensor) -> None:
        """Nothing before a reset gets a gradient from after it; the learned start gets it."""
        grad = d_z.select(1, row)
        self._grads.start_activation.add_(grad)
        grad.zero_()
        self._num_overwritten -= 1
        self._neuron_models.reset(tick, row, self._tape.overwritten[self._num_overwritten])

    def _add_chunk(self, steps: range) -> None:
        """Adds what the ticks of a chunk's steps contribute to the gradients."""
        weights, tape, grads = self._weights, self._tape, self._grads
        bounds = self._begins[steps.start : steps.stop + 1]
        begin, count = bounds[0], bounds[-1] - bounds[0]
        ticks = slice(begin, bounds[-1])
        start = weights.start_activation.view_as(weights.scale)
        read = tape.neuron_models.activations[ticks].unflatten(1, start.shape).mT  # [L, *C, B, D]
        read = read.movedim(0, -3).clone(memory_format=torch.contiguous_format)  # one row is contiguous as it is
        for tick in bounds[:-1]:
            for row in self._resets.get(tick, ()):
                read[..., tick - begin, row, :] = start
        d_dense = self._synapse.d_first[:count]
        _add_products(grads.recurrent, _all_rows(d_dense), read.flatten(-3, -2))
        for step, (first, last) in zip(steps, pairwise(bounds), strict=True):
            torch.sum(d_dense[first - begin : last - begin], 0, out=self.d_inputs[step])
        if grads.second is not None and grads.second_bias is not None:
            flat = _all_rows(self._synapse.d_dense[1][:count])
            _add_products(grads.second, flat, _all_rows(tape.synapse.normalised(0, ticks)))
            grads.second_bias.add_(flat.sum(-2))
        d_pre = self._d_pre[:count]
        grads.shift.add_(d_pre.sum((0, -2)))
        grads.scale.add_(tape.synapse.normalised(-1, ticks).mul_(d_pre).sum((0, -2)))

    def weight_grads(self, d_sync: AccumulatorWeights | WindowWeights) -> EpisodeWeights:
        """The gradients of all weights, of which those of the synchronisation are given."""
        models = self._neuron_models
        return self._grads._replace(start_history=models.d_start(), neuron_models=models.grads(), sync=d_sync)

    def d_history(self) -> Float[Tensor, "CD M B"]:
        """The gradient of the history before the first tick."""
        return self._neuron_models.d_history()


def _all_rows(ticks: Float[Tensor, "L *C B N"]) -> Float[Tensor, "*C LB N"]:
    """The rows of all ticks, for each machine."""
    return ticks.movedim(0, -3).flatten(-3, -2)


def _add_products(
    total: Float[Tensor, "*C E D"], grads: Float[Tensor, "*C R E"], inputs: Float[Tensor, "*C R D"]
) -> None:
    """Adds a dense layer's weight gradient over R rows."""
    if total.dim() == 2:
        total.addmm_(grads.T, inputs)
    else:
        total.baddbmm_(grads.mT, inputs)


def _zeros(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else torch.zeros_like(weight, memory_format=torch.contiguous_format)


def _chunks_of(begins: Sequence[int]) -> dict[int, range]:
    """Groups steps into chunks of about as many ticks, whole steps each, by the first tick."""
    chunks: dict[int, range] = {}
    first = 0
    for step in range(1, len(begins)):
        is_last = step == len(begins) - 1
        if is_last or begins[step + 1] - begins[first] > _CHUNK:
            chunks[begins[first]] = range(first, step)
            first = step
    return chunks
