"""Agreement of a model's probabilities with how people label the same images, as in CIFAR-10H."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.metrics.calibration import READINGS, read_probabilities
from ctm_rl.metrics.sums import Sums

MIN_STD = 1e-6
"""Standard deviation below which values count as constant: what is left is rounding."""


class HumanScores:
    """Distance and correlation between probabilities of a model and of people, over samples that weigh equally.

    With p the model's and h the people's probabilities: cross-entropy ``-sum_c h_c log p_c``, divergence
    ``KL(h || p) = sum_c h_c log(h_c / p_c)``, both in nats, mean over the samples. Comparison on CIFAR-10H:
    arXiv:2505.05522, CIFAR-10 experiments; the label distributions: arXiv:1908.07086.
    """

    def __init__(self) -> None:
        self._sums = {reading: Sums() for reading in READINGS}

    def add(
        self,
        predictions: Float[Tensor, "B C K"],
        certainties: Float[Tensor, "B K"],
        human: Float[Tensor, "B C"],
    ) -> None:
        """Adds one batch.

        Args:
            predictions: logits, [B, C, K].
            certainties: [B, K].
            human: the share of people who chose each class, [B, C]; rows sum to 1.

        Raises:
            ValueError: the rows of ``human`` are not distributions.
        """
        human = human.to(predictions.device, torch.float64)
        if bool((human < 0).any()) or not bool(((human.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError("human must hold a distribution in each row: shares of at least 0 that sum to 1.")
        human_entropy = _entropy(human)
        for reading, probabilities in read_probabilities(predictions.double(), certainties).items():
            # only a probability of 0 in float64 is raised, so that the cross-entropy is large and not infinite
            logs = probabilities.clamp(min=torch.finfo(torch.float64).tiny).log()
            self._sums[reading].add(
                num_samples=torch.tensor(len(human)),
                cross_entropy=-(human * logs).sum(),
                human_entropy=human_entropy.sum(),
                probability_moments=_moments(probabilities.flatten(), human.flatten()),
                entropy_moments=_moments(_entropy(probabilities), human_entropy),
            )

    def summary(self) -> dict[str, dict[str, Any]]:
        """Agreement so far.

        Returns:
            For each reading of ``metrics.calibration.read_probabilities``: ``cross_entropy``, ``kl``,
            ``correlation`` (Pearson's, over all pairs of sample and class) and ``entropy_correlation`` (Pearson's, over
            the samples: are both undecided about the same images); a correlation is None if one side is constant.

        Raises:
            ValueError: no sample was added.
        """
        summary = {}
        for reading, sums in self._sums.items():
            num_samples = sums.count()
            cross_entropy = float(sums["cross_entropy"]) / num_samples
            summary[reading] = {
                "cross_entropy": cross_entropy,
                "kl": cross_entropy - float(sums["human_entropy"]) / num_samples,
                "correlation": _correlation(sums["probability_moments"]),
                "entropy_correlation": _correlation(sums["entropy_moments"]),
            }
        return summary


def _entropy(probabilities: Float[Tensor, "B C"]) -> Float[Tensor, " B"]:
    """Entropy of each row, in nats."""
    return torch.special.entr(probabilities).sum(1)


def _moments(one: Float[Tensor, " N"], other: Float[Tensor, " N"]) -> Float[Tensor, " 6"]:
    """The sums of which a correlation is made: count, both sides, both squared, their product."""
    count = torch.full_like(one, 1.0).sum()
    return torch.stack([count, one.sum(), other.sum(), one @ one, other @ other, one @ other])


def _correlation(moments: Float[Tensor, " 6"]) -> float | None:
    """Pearson's correlation, from these sums; None if either side is constant."""
    one, other, one_squared, other_squared, product = (moments[1:] / moments[0]).tolist()
    variances = (one_squared - one**2, other_squared - other**2)
    if min(variances) < MIN_STD**2:
        return None
    return (product - one * other) / (variances[0] * variances[1]) ** 0.5
