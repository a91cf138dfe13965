"""What happens over the ticks of an answer: intervals of the accuracy, the first right tick, calibration by tick."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.metrics.answers import most_certain_tick, right_by_tick
from ctm_rl.metrics.calibration import CalibrationScores
from ctm_rl.metrics.intervals import share_interval
from ctm_rl.metrics.sums import Sums, shares

BAND = (0.1, 0.5, 0.9)
"""Quantiles of the certainty."""
_MIN_SHARE = 0.1
"""Share of the samples that a peak must have around it."""
_MAX_VALLEY = 0.5
"""Height of the valley between two peaks, at most, relative to the lower one."""


class TickScores:
    """Accuracy by tick with intervals, the first right tick and the most certain one, over samples that weigh equally.

    An element is one of the G classes of an answer, see ``AnswerScores``, whose shares these intervals belong to. Keeps
    K numbers for each sample.
    """

    def __init__(self) -> None:
        self._sums = Sums()
        self._certainties: list[Float[Tensor, "B K"]] = []

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G and K must be the same in all batches.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
        """
        is_right = right_by_tick(predictions, targets)
        is_whole = is_right.all(1)  # [B, K]
        num_ticks = is_whole.shape[1]
        elements = is_right.sum(1)
        first = torch.where(is_whole.any(1), is_whole.long().argmax(1), num_ticks)
        self._sums.add(
            num_samples=torch.tensor(len(targets)),
            num_elements=torch.tensor(targets.numel()),
            elements=elements.sum(0),
            squares=elements.square().sum(0),
            whole=is_whole.sum(0),
            first_right=first.bincount(minlength=num_ticks + 1),
            most_certain=most_certain_tick(certainties).bincount(minlength=num_ticks),
            by_element=is_right.sum(0),
        )
        self._certainties.append(certainties.detach().cpu())

    def summary(self) -> dict[str, Any]:
        """All counts and intervals so far.

        Returns:
            ``num_samples``; after each tick ``accuracy_by_tick_interval`` and ``accuracy_whole_by_tick_interval``,
            [low, high] each, and ``certainty_band``, for each quantile of ``BAND`` K numbers; ``first_right_tick``, K
            counts of samples that were right in every element at that tick for the first time, and ``never_right``, the
            number of the others; ``most_certain_tick``, K counts of samples that were most certain at that tick; and
            ``accuracy_by_element``, for each of the G elements its K shares.

        Raises:
            ValueError: no sample was added.
        """
        num_samples, num_elements = self._sums.count(), self._sums.count("num_elements")
        size = num_elements // num_samples
        columns = (self._sums["elements"].tolist(), self._sums["squares"].tolist(), self._sums["whole"].tolist())
        *first_right, never_right = self._sums["first_right"].tolist()
        quantiles = torch.tensor(BAND, dtype=torch.float64)
        return {
            "num_samples": num_samples,
            "accuracy_by_tick_interval": [
                share_interval(right, squares, num_samples, size) for right, squares, _ in zip(*columns, strict=True)
            ],
            "accuracy_whole_by_tick_interval": [share_interval(whole, whole, num_samples, 1) for whole in columns[2]],
            "certainty_band": torch.cat(self._certainties).double().quantile(quantiles, dim=0).tolist(),
            "first_right_tick": first_right,
            "never_right": never_right,
            "most_certain_tick": self._sums["most_certain"].tolist(),
            "accuracy_by_element": [shares(row, num_samples) for row in self._sums["by_element"]],
        }


class TickCalibration:
    """Calibration after several numbers of ticks, over samples that weigh equally.

    After k ticks an answer is read at tick k, or as the mean probabilities of the ticks up to k, see
    ``calibration.read_probabilities``.

    Args:
        ticks: increasing numbers of ticks, from 1.
        num_resamples: of the bootstrap.
    """

    def __init__(self, ticks: Sequence[int], num_resamples: int = 200) -> None:
        self._scores = {tick: CalibrationScores(num_resamples=num_resamples) for tick in ticks}

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G must be the same in all batches.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
        """
        for tick, scores in self._scores.items():
            scores.add(predictions[..., :tick], certainties[:, :tick], targets)

    def summary(self) -> list[dict[str, Any]]:
        """Calibration after each number of ticks so far.

        Returns:
            For each number of ticks ``tick``, and the results of ``CalibrationScores`` for the readings ``last`` and
            ``averaged``.

        Raises:
            ValueError: no sample was added.
        """
        summaries = {tick: scores.summary() for tick, scores in self._scores.items()}
        return [
            {"tick": tick, "last": summary["last"], "averaged": summary["averaged"]}
            for tick, summary in summaries.items()
        ]


def find_peaks(counts: Sequence[float]) -> list[int]:
    """Finds the peaks of a histogram, at most two.

    The histogram is smoothed over three bins. Two of its highest local maxima are peaks of their own if the lowest bin
    between them is at most half as high as the lower one, and at least a tenth of all samples lie on either side of it.

    Args:
        counts: of each bin.

    Returns:
        The bins of the peaks, ascending; one where there are no two, none where all bins are empty.
    """
    total = float(sum(counts))
    if not total:
        return []
    values = torch.tensor([float(count) for count in counts], dtype=torch.float64)
    smooth = torch.nn.functional.avg_pool1d(values[None, None], 3, 1, 1, count_include_pad=False)[0, 0].tolist()
    best: tuple[float, list[int]] = (0.0, [int(values.argmax())])
    for left in range(len(smooth)):
        for right in range(left + 2, len(smooth)):
            valley = min(range(left + 1, right), key=smooth.__getitem__)
            lower = min(smooth[left], smooth[right])
            shares_of_sides = float(values[:valley].sum()) / total, float(values[valley + 1 :].sum()) / total
            is_deep = smooth[valley] <= _MAX_VALLEY * lower
            if is_deep and min(shares_of_sides) >= _MIN_SHARE and lower > best[0]:
                best = lower, [int(values[:valley].argmax()), valley + 1 + int(values[valley + 1 :].argmax())]
    return best[1]
