"""A step size that follows the KL divergence: the factor of the learning rate. Source: arXiv:2109.11978."""

LOWEST_FACTOR, HIGHEST_FACTOR = 0.01, 10.0
"""Limits of the factor."""
_CHANGE = 1.5
_TOLERANCE = 2.0


def follow_kl(factor: float, kl: float, target: float, *, highest: float) -> float:
    """Returns the factor of the next iteration's learning rate.

    It is divided by 1.5 if the policy has moved more than twice as far as it should, and multiplied by 1.5 if less than
    half as far.

    Args:
        factor: of the last iteration.
        kl: the last iteration's mean KL divergence.
        target: what it should be.
        highest: upper limit of the factor; the lower one is 1/100.
    """
    if kl > _TOLERANCE * target:
        factor /= _CHANGE
    elif kl < target / _TOLERANCE:
        factor *= _CHANGE
    return min(max(factor, LOWEST_FACTOR), highest)
