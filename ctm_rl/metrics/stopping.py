"""Stopping: accuracy against ticks if each sample stops once it is certain enough."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.metrics.answers import right_by_tick
from ctm_rl.metrics.sums import Sums, shares

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
"""Certainties at which a sample stops."""


def stopping_ticks(certainties: Float[Tensor, "B K"], thresholds: Float[Tensor, " S"]) -> Int[Tensor, "B S"]:
    """The first tick whose certainty reaches each threshold, else the last tick.

    ``min {k: certainty_k >= threshold}``, compared in the type of the certainties. Source: arXiv:2505.05522, which
    stops at a certainty of 0.8 on ImageNet.

    Args:
        certainties: [B, K].
        thresholds: S certainties, in any order.

    Returns:
        Ticks from 0 to K - 1, [B, S].
    """
    # the highest certainty so far never decreases, so the first tick that reaches a threshold can be searched for
    dtype = torch.promote_types(certainties.dtype, torch.float32)
    highest = certainties.cummax(1).values.to(dtype).contiguous()
    sought = thresholds.to(certainties).to(dtype).expand(len(certainties), -1).contiguous()
    return torch.searchsorted(highest, sought).clamp(max=certainties.shape[1] - 1)


class StoppingScores:
    """Accuracy against mean ticks, for several certainties at which samples stop; all samples weigh equally.

    Args:
        thresholds: certainties in [0, 1].
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        for threshold in thresholds:
            if not 0.0 <= threshold <= 1.0:
                raise ValueError(f"thresholds must be certainties from 0 to 1, got {threshold}.")
        self.thresholds = tuple(thresholds)
        self._sums = Sums()

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G must be the same in all batches.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
        """
        is_right = right_by_tick(predictions, targets)
        ticks = stopping_ticks(certainties, torch.tensor(self.thresholds, dtype=torch.float64))
        self._sums.add(
            num_samples=torch.tensor(len(targets)),
            num_elements=torch.tensor(targets.numel()),
            ticks=(ticks + 1).sum(0),
            elements=is_right.sum(1).gather(1, ticks).sum(0),
            whole=is_right.all(1).gather(1, ticks).sum(0),
        )

    def summary(self) -> list[dict[str, float]]:
        """The result of each threshold so far.

        Returns:
            For each threshold, in the order given: ``threshold``, ``mean_ticks`` (from 1 to K), ``accuracy`` (share of
            right elements) and ``accuracy_whole`` (share of samples right in every element), at the tick of the stop.

        Raises:
            ValueError: no sample was added.
        """
        num_samples, num_elements = self._sums.count(), self._sums.count("num_elements")
        columns = {
            "threshold": self.thresholds,
            "mean_ticks": shares(self._sums["ticks"], num_samples),
            "accuracy": shares(self._sums["elements"], num_elements),
            "accuracy_whole": shares(self._sums["whole"], num_samples),
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
