"""Sorting: what a model emits over the ticks, its accuracy, and the ticks it waits before each number."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ctm_rl.metrics.intervals import share_interval
from ctm_rl.metrics.sums import Sums, share

GAP_EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Edges of the bins of gaps between neighbouring numbers; the last bin has no upper edge."""


class Emissions(NamedTuple):
    """What was emitted over K ticks, in order; -1 after the last emission of a row."""

    indices: Int[Tensor, "B K"]
    """The index that was emitted at each place."""
    ticks: Int[Tensor, "B K"]
    """The tick at which each place was emitted, from 0."""
    counts: Int[Tensor, " B"]
    """Number of indices each sample emitted."""


def emissions(predictions: Float[Tensor, "B C K"]) -> Emissions:
    """Decodes what was emitted: the likeliest class of each tick, repetitions merged, blanks left out.

    The best path of connectionist temporal classification: a class is emitted at the first of consecutive ticks that
    prefer it, and once more after a blank. Source: arXiv:2505.05522, sorting experiments.

    Args:
        predictions: logits of N indices and, last, the blank, [B, N + 1, K].

    Returns:
        Indices and ticks in the order of emission.
    """
    num_ticks = predictions.shape[2]
    best = predictions.max(1).indices  # [B, K]; on a CPU much faster than argmax
    is_emitted = best != predictions.shape[1] - 1
    is_emitted[:, 1:] &= best[:, 1:] != best[:, :-1]
    counts = is_emitted.sum(1)
    # a stable sort brings the ticks that emit to the front and keeps their order
    ticks = is_emitted.logical_not().long().argsort(stable=True, dim=1)
    is_empty = torch.arange(num_ticks, device=best.device) >= counts[:, None]
    return Emissions(best.gather(1, ticks).masked_fill(is_empty, -1), ticks.masked_fill(is_empty, -1), counts)


class SortingScores:
    """Shares of right answers, and waiting times by place and by gap, over samples that weigh equally.

    The waiting time of an emission is the number of ticks since the one before, which emitted nothing new
    (blanks and repetitions): 0 for emissions at consecutive ticks; the first counts from the start, so that it is 0 at
    the first tick. Source: arXiv:2505.05522, sorting experiments, which compare waiting times with gaps of the data.

    Args:
        gap_edges: increasing edges of the bins of gaps, the first at least 0; bin i holds ``edge_i <= gap < edge_i+1``,
            the last bin all larger gaps.
    """

    def __init__(self, gap_edges: Sequence[float] = GAP_EDGES) -> None:
        edges = list(gap_edges)
        if not edges or edges[0] < 0 or any(high <= low for low, high in pairwise(edges)):
            raise ValueError(f"gap_edges must increase from at least 0, got {edges}.")
        self.gap_edges = tuple(edges)
        self._sums = Sums()

    def add(
        self, predictions: Float[Tensor, "B C K"], numbers: Float[Tensor, "B N"], targets: Int[Tensor, "B N"]
    ) -> None:
        """Adds one batch; N must be the same in all batches.

        Args:
            predictions: logits of N indices and, last, the blank, [B, N + 1, K].
            numbers: the numbers to be sorted, [B, N].
            targets: argsort of the numbers, [B, N].
        """
        length = targets.shape[1]
        indices, ticks, counts = emissions(predictions)
        indices, ticks = (pad(part, (0, length), value=-1)[:, :length] for part in (indices, ticks))  # [B, N]
        is_right = indices == targets
        is_emitted = indices >= 0
        waits = ticks - pad(ticks, (1, 0), value=-1)[:, :-1] - 1
        waits = waits.masked_fill(~is_emitted, 0)
        self._sums.add(
            num_samples=torch.tensor(len(targets)),
            num_elements=torch.tensor(targets.numel()),
            elements=is_right.sum(),
            squares=is_right.sum(1).square().sum(),
            whole=(is_right.all(1) & (counts == length)).sum(),
            place_count=is_emitted.sum(0),
            place_wait=waits.sum(0),
            **self._by_gap(waits, is_right, numbers.gather(1, targets.long())),
        )

    def _by_gap(
        self, waits: Int[Tensor, "B N"], is_right: Bool[Tensor, "B N"], ordered: Float[Tensor, "B N"]
    ) -> dict[str, Int[Tensor, " S"]]:
        """Waits summed by the gap between both numbers, from the second place on and where both places are right."""
        edges = torch.tensor(self.gap_edges, dtype=torch.float64, device=waits.device)
        gaps = ordered.diff(dim=1).double().contiguous()
        bins = torch.bucketize(gaps, edges, right=True) - 1  # -1: below the first edge
        is_counted = is_right[:, 1:] & is_right[:, :-1] & (bins >= 0)
        bins, chosen = bins[is_counted], waits[:, 1:][is_counted]
        zeros = waits.new_zeros(len(edges))
        return {
            "gap_count": zeros.index_add(0, bins, torch.ones_like(chosen)),
            "gap_wait": zeros.index_add(0, bins, chosen),
        }

    def summary(self) -> dict[str, Any]:
        """All shares and waiting times so far.

        Returns:
            ``num_samples``; ``accuracy``, the share of places at which the right index was emitted (missing ones are
            wrong); ``accuracy_whole``, the share of samples that emitted exactly the order; the interval of each,
            ``accuracy_interval`` and ``accuracy_whole_interval``, [low, high]; ``wait_by_place``, N mean
            waiting times, of all emissions at that place, right or wrong; and ``wait_by_gap``, for each bin of the gap
            between a number and the next smaller one its edges ``low`` and ``high`` (None for the last), ``count``
            and mean ``wait``, of emissions that are right and follow a right one. A mean of nothing is None.

        Raises:
            ValueError: no sample was added.
        """
        num_samples, num_elements = self._sums.count(), self._sums.count("num_elements")
        elements, squares, whole = (int(self._sums[name]) for name in ("elements", "squares", "whole"))
        bins = zip(
            self.gap_edges, [*self.gap_edges[1:], None], self._sums["gap_wait"], self._sums["gap_count"], strict=True
        )
        return {
            "num_samples": num_samples,
            "accuracy": elements / num_elements,
            "accuracy_interval": share_interval(elements, squares, num_samples, num_elements // num_samples),
            "accuracy_whole": whole / num_samples,
            "accuracy_whole_interval": share_interval(whole, whole, num_samples, 1),
            "wait_by_place": [
                share(wait, count)
                for wait, count in zip(self._sums["place_wait"], self._sums["place_count"], strict=True)
            ],
            "wait_by_gap": [
                {"low": low, "high": high, "count": int(count), "wait": share(wait, count)}
                for low, high, wait, count in bins
            ],
        }
