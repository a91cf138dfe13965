"""Mean and standard deviation of advantages over the minibatches of all learners."""

from typing import NamedTuple

from torch import Tensor

from ctm_rl.agents.rllib.column_learner import sum_over_learners

_TINY = 1e-8


class Moments(NamedTuple):
    """Count, mean and standard deviation of one group of values for each element."""

    num_values: Tensor
    """How many values there are, at least 1."""
    mean: Tensor
    """Their mean."""
    std: Tensor
    """Their standard deviation, as ``torch.std`` computes it: divided by one less than there are."""

    def normalise(self, values: Tensor) -> Tensor:
        """Shifts and scales values to mean 0 and standard deviation 1; values that are all equal become 0."""
        return (values - self.mean) / (self.std + _TINY)


def moments_of_sums(sums: Tensor, num_learners: int) -> Moments:
    """Computes moments from sums over the values of this learner.

    Args:
        sums: count, sum and sum of squares of each group, [3, ...], float64; overwritten by those of all learners.
        num_learners: how many learners take part, each with groups of its own.

    Returns:
        Moments of each group over all learners, [...].
    """
    count, total, square = sum_over_learners(sums, num_learners)
    count = count.clamp(min=1.0)
    mean = total / count
    variance = (square - total * mean).clamp(min=0.0) / (count - 1).clamp(min=1.0)
    return Moments(count, mean, variance.sqrt())
