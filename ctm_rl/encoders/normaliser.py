"""Running mean and standard deviation of observations, in buffers, so that they are saved with the weights."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LIMIT = 10.0
"""Normalised numbers lie within plus and minus this."""
TINY = 1e-8
"""Added to variances."""


class RunningNormaliser(nn.Module):
    """Subtracts the mean of all observations and divides by their standard deviation; results are clamped to +-10.

    Args:
        size: N, the numbers of a vector, each of which is normalised separately.
    """

    count: Int[Tensor, ""]
    mean: Float[Tensor, " N"]
    variance: Float[Tensor, " N"]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, numbers: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """Normalises [B, N]; the identity before the first ``observe_``."""
        return ((numbers - self.mean) / (self.variance + TINY).sqrt()).clamp(-LIMIT, LIMIT)

    @torch.no_grad()
    def observe_(self, moments: Float[Tensor, " moments"]) -> None:
        """Updates mean and variance by the moments of one batch of observations, or of several, summed."""
        count, (total, square) = moments[0], moments[1:].chunk(2)
        if not count > 0:
            return
        both = self.count + count
        shift = total / both
        within = self.variance * self.count + square - both * shift.square()
        self.mean += shift.to(self.mean.dtype)
        self.variance.copy_((within / both).clamp(min=0))
        self.count.copy_(both)

    @torch.no_grad()
    def moments(self, numbers: Float[Tensor, "B N"], weights: Float[Tensor, " B"]) -> Float[Tensor, " moments"]:
        """Count of a batch, sum of the distances from ``mean``, sum of their squares; those of several batches add up.

        Args:
            numbers: [B, N].
            weights: 1 for rows that count and 0 for others, [B].

        Returns:
            All in one tensor, in float64.
        """
        distances = numbers.double() - self.mean.double()
        weights = weights.double()
        return torch.cat((weights.sum()[None], weights @ distances, weights @ distances.square()))
