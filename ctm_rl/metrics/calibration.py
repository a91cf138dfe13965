"""Calibration: whether confidence equals accuracy, with intervals from the bootstrap."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctm_rl.config import check_at_least, check_share
from ctm_rl.metrics.answers import at_tick, most_certain_tick
from ctm_rl.metrics.intervals import bootstrap_means
from ctm_rl.metrics.sums import Sums, require_samples, share

NUM_BINS = 15
READINGS = ("last", "most_certain", "averaged")
"""How an answer is read: at the last tick, at the most certain one, or as the mean probabilities of all ticks."""


def read_probabilities(
    predictions: Float[Tensor, "B *groups C K"], certainties: Float[Tensor, "B K"]
) -> dict[str, Float[Tensor, "B *groups C"]]:
    """Probabilities of the answers in each reading, in at least float32.

    ``averaged`` is ``mean_k softmax(y_k)`` over all ticks. Source: arXiv:2505.05522, image experiments, whose
    calibration plots average probabilities over the ticks so far. The published code averages that of the class
    which the last of these ticks prefers; here the mean distribution itself answers, so that it has a Brier score too.

    Args:
        predictions: logits, [B, ..., C, K].
        certainties: [B, K].

    Returns:
        For each of ``READINGS``, [B, ..., C].
    """
    probabilities = predictions.to(torch.promote_types(predictions.dtype, torch.float32)).softmax(-2)
    return {
        "last": probabilities[..., -1],
        "most_certain": at_tick(probabilities, most_certain_tick(certainties)),
        "averaged": probabilities.mean(-1),
    }


def bin_indices(confidences: Float[Tensor, "*batch"], num_bins: int = NUM_BINS) -> Int[Tensor, "*batch"]:
    """The bin of each confidence: bin i of S equal ones holds ``i / S < confidence <= (i + 1) / S``, the first 0 too.

    Source: arXiv:1706.04599, section 2.

    Args:
        confidences: in [0, 1], [...].
        num_bins: S, at least 1.

    Returns:
        From 0 to S - 1, [...].
    """
    check_at_least("num_bins", num_bins, 1)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=confidences.device)[1:-1]
    return torch.bucketize(confidences.double(), edges)


def brier_scores(probabilities: Float[Tensor, "B G C"], targets: Int[Tensor, "B G"]) -> Float[Tensor, " B"]:
    """The squared distance of the probabilities from the truth, ``sum_c (p_c - [c = target])^2``, mean over the groups.

    Source: Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950).

    Args:
        probabilities: [B, G, C].
        targets: classes, [B, G].

    Returns:
        In [0, 2] for each sample: 0 for sure and right, 2 for sure and wrong, [B].
    """
    truth = torch.zeros_like(probabilities).scatter_(2, targets.long()[..., None], 1.0)
    return (probabilities - truth).square().sum(2).mean(1)


class CalibrationScores:
    """Expected calibration error and Brier score with intervals, and the reliability table, over all samples added.

    The calibration error is ``sum_i n_i / n |accuracy_i - confidence_i|`` over bins of the confidence, the largest
    probability of an element. Source: arXiv:1706.04599, section 2. An interval spans the middle ``interval`` of the
    values from resampled samples; elements of a sample stay together, as they are not independent. The calibration
    error of a resample tends to be too large (noise in a bin counts as a gap), so that with few samples its interval
    may lie above the error itself. Keeps 16 numbers for each sample and reading.

    Args:
        num_bins: equal bins of the confidence.
        num_resamples: of the bootstrap, at least 1.
        interval: the share of the resamples that an interval spans.
        seed: of the bootstrap; the same seed and samples return the same intervals.
    """

    def __init__(
        self, num_bins: int = NUM_BINS, num_resamples: int = 1000, interval: float = 0.95, seed: int = 0
    ) -> None:
        check_at_least("num_bins", num_bins, 1)
        check_at_least("num_resamples", num_resamples, 1)
        check_share("interval", interval)
        self.num_bins = num_bins
        self.num_resamples = num_resamples
        self.interval = interval
        self.seed = seed
        self._sums = {reading: Sums() for reading in READINGS}
        self._samples: list[Float[Tensor, "B V"]] = []
        self._num_groups: int | None = None

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G must be the same in all batches.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
        """
        num_groups = targets.shape[1]
        if self._num_groups not in (None, num_groups):
            raise ValueError(
                f"every batch must have the same number of elements: it was {self._num_groups}, now {num_groups}."
            )
        self._num_groups = num_groups
        samples = []
        for reading, probabilities in read_probabilities(predictions, certainties).items():
            bins = _sum_bins(probabilities, targets, self.num_bins)
            self._sums[reading].add(**{name: part.sum(0) for name, part in bins.items()})
            brier = brier_scores(probabilities, targets).double()
            samples += [bins["gaps"] / num_groups, brier[:, None]]
        self._samples.append(torch.cat(samples, 1).detach().cpu())

    def summary(self) -> dict[str, dict[str, Any]]:
        """Calibration so far.

        Returns:
            For each of ``READINGS``: ``ece``, ``brier``, ``ece_interval`` and ``brier_interval`` as [low, high], and
            ``reliability``, for each bin its edges ``low`` and ``high``, ``count`` of elements, their mean
            ``confidence`` and their ``accuracy`` (both None where there are none).

        Raises:
            ValueError: no sample was added.
        """
        require_samples(sum(map(len, self._samples)))
        samples = torch.cat(self._samples)  # [N, (bins + 1) x readings]
        point = self._scores(samples.mean(0, keepdim=True))[0]  # [readings, 2]
        resampled = bootstrap_means(samples, self.num_resamples, torch.Generator().manual_seed(self.seed))
        tail = (1 - self.interval) / 2
        quantiles = torch.tensor([tail, 1 - tail], dtype=torch.float64)
        intervals = self._scores(resampled).quantile(quantiles, dim=0)  # [2, readings, 2]
        return {
            reading: {
                "ece": float(point[index, 0]),
                "ece_interval": intervals[:, index, 0].tolist(),
                "brier": float(point[index, 1]),
                "brier_interval": intervals[:, index, 1].tolist(),
                "reliability": self._reliability(reading),
            }
            for index, reading in enumerate(READINGS)
        }

    def _scores(self, means: Float[Tensor, "R V"]) -> Float[Tensor, "R S 2"]:
        """Calibration error and Brier score from means of the values of each sample."""
        parts = means.unflatten(1, (len(READINGS), self.num_bins + 1))
        return torch.stack([parts[..., :-1].abs().sum(2), parts[..., -1]], 2)

    def _reliability(self, reading: str) -> list[dict[str, float | None]]:
        """The table of one reading, one row for each bin."""
        sums = self._sums[reading]
        return [
            {
                "low": index / self.num_bins,
                "high": (index + 1) / self.num_bins,
                "count": int(count),
                "confidence": share(confidence, count),
                "accuracy": share(right, count),
            }
            for index, (count, confidence, right) in enumerate(
                zip(sums["count"], sums["confidence"], sums["right"], strict=True)
            )
        ]


def _sum_bins(
    probabilities: Float[Tensor, "B G C"], targets: Int[Tensor, "B G"], num_bins: int
) -> dict[str, Float[Tensor, "B S"]]:
    """Sums over each sample's elements by bin: count, confidence, right ones, right minus confidence."""
    confidence, answer = probabilities.detach().double().max(2)
    is_right = (answer == targets).double()
    bins = bin_indices(confidence, num_bins)
    zeros = confidence.new_zeros(len(targets), num_bins)
    parts = {"count": torch.ones_like(confidence), "confidence": confidence, "right": is_right}
    sums = {name: zeros.scatter_add(1, bins, part) for name, part in parts.items()}
    return {**sums, "gaps": sums["right"] - sums["confidence"]}
