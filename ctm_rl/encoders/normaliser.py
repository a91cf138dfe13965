"""Running mean and deviation of what has been seen, kept in buffers, so that they travel with the weights."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_LIMIT = 10.0
_TINY = 1e-8


class RunningNormaliser(nn.Module):
    """Subtracts the mean of all that has been observed and divides by its deviation; results are kept within 10.

    Args:
        size: how many numbers are normalised, each on its own.
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
        """Normalises [B, N]; before anything has been observed the numbers come out as they are."""
        return ((numbers - self.mean) / (self.variance + _TINY).sqrt()).clamp(-_LIMIT, _LIMIT)

    @torch.no_grad()
    def observe_(self, moments: Float[Tensor, " moments"]) -> None:
        """Takes notice of observations, given the moments of one batch of them, or of several added up."""
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
        """Count of a batch, sum of the distances from ``mean``, sum of their squares; several batches' can be added up.

        Args:
            numbers: [B, N].
            weights: 1 for what counts and 0 for what does not, [B].

        Returns:
            All in one tensor, in double precision.
        """
        distances = numbers.double() - self.mean.double()
        weights = weights.double()
        return torch.cat((weights.sum()[None], weights @ distances, weights @ distances.square()))
