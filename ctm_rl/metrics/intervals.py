"""Intervals that hold a true share or mean with a probability of 95 %."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.metrics.sums import require_samples

_NORMAL = 1.959963984540054
"""The quantile of the normal distribution that 2.5 % of it lie above."""
CHUNK_SIZE = 2**22
"""Number of draws of the bootstrap that are held at once."""
_NUM_RESAMPLES = 2000


def bootstrap_means(
    values: Float[Tensor, "N V"], num_resamples: int, generator: torch.Generator
) -> Float[Tensor, "R V"]:
    """Means of bootstrap resamples: N out of N samples with replacement, all values of a sample together.

    Args:
        values: of each sample, [N, V].
        num_resamples: R, number of resamples.
        generator: of the draws, on the CPU.

    Returns:
        One mean for each resample and value, float64, [R, V].
    """
    num_samples = len(values)
    values = values.double()
    means = []
    # count how often each sample was drawn, then one product; in parts, as the draws of all resamples would not fit
    per_chunk = max(CHUNK_SIZE // num_samples, 1)
    for start in range(0, num_resamples, per_chunk):
        num_rows = min(per_chunk, num_resamples - start)
        drawn = torch.randint(num_samples, (num_rows, num_samples), generator=generator)
        counts = torch.zeros(num_rows, num_samples, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand_as(drawn))
        means.append(counts @ values / num_samples)
    return torch.cat(means)


def wilson_interval(share: float, num_samples: float) -> list[float]:
    """The interval of a share of independent samples, by Wilson: inside 0 to 1, and not empty for 0 or 1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Args:
        share: from 0 to 1.
        num_samples: above 0; of samples that are not independent the number that are worth as much.

    Returns:
        Its ends, low and high.
    """
    square = _NORMAL**2 / num_samples
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return [max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))]


def share_interval(num_right: int, sum_of_squares: int, num_samples: int, size: int) -> list[float]:
    """The interval of the share of right elements, where a sample has several: they are not independent.

    It is Wilson's for as many elements as would vary as little as the samples' shares do.

    Args:
        num_right: right elements of all samples.
        sum_of_squares: sum over the samples of the square of the number of right elements.
        num_samples: N, at least 1.
        size: elements of a sample.

    Returns:
        Its ends, low and high.
    """
    share = num_right / (require_samples(num_samples) * size)
    variance = sum_of_squares / (num_samples * size**2) - share**2
    spread = share * (1 - share)
    # Without a variance, as where all are right, the samples count, each once.
    return wilson_interval(share, num_samples * max(1.0, spread / variance) if variance > 1e-12 else num_samples)


def mean_interval(values: Float[Tensor, " N"], seed: int = 0) -> list[float] | None:
    """The interval of a mean: the middle 95 % of the means of bootstrap resamples.

    Args:
        values: independent samples, of any distribution.
        seed: of the bootstrap; the same seed and values return the same interval.

    Returns:
        Its ends, low and high; ``None`` for fewer than two values.
    """
    if len(values) < 2:
        return None
    means = bootstrap_means(values[:, None], _NUM_RESAMPLES, torch.Generator().manual_seed(seed))[:, 0]
    return means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


def interquartile_mean(values: Float[Tensor, "*A N"]) -> Float[Tensor, "*A"]:
    """The mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    As ``scipy.stats.trim_mean(values, 0.25)``. Source: R. Agarwal and others, Deep reinforcement learning at the edge
    of the statistical precipice, 2021.

    Args:
        values: at least one, along the last axis.
    """
    num_cut = values.shape[-1] // 4
    return values.sort(dim=-1).values[..., num_cut : values.shape[-1] - num_cut].mean(dim=-1)


def stratified_interval(
    strata: Sequence[Float[Tensor, " _"]], statistic: Callable[[list[Tensor]], Tensor], seed: int = 0
) -> list[float] | None:
    """The interval of any statistic of several groups: the middle 95 % of it over stratified bootstrap resamples.

    Each group is resampled by itself, so that every resample has as many values of it. Groups of equal values, as
    where all seeds reach the highest return, give an interval without width.

    Args:
        strata: the values of each group, such as one of each seed on a task.
        statistic: maps the resampled groups, [R, N] each, to a number for each resample, [R].
        seed: of the bootstrap; the same seed and values return the same interval.

    Returns:
        Its ends, low and high; ``None`` where a group has fewer than two values, which say nothing of their spread.
    """
    if not strata or min(map(len, strata)) < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        values.double()[torch.randint(len(values), (_NUM_RESAMPLES, len(values)), generator=generator)]
        for values in strata
    ]
    return statistic(drawn).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
