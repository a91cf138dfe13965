"""Certainty: how decided an answer is, from 0 (all classes equally likely) to 1 (sure)."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor


def certainty(
    logits: Float[Tensor, "..."], dim: int = -1, sizes: Sequence[int] | Int[Tensor, "... G"] | None = None
) -> Float[Tensor, "..."]:
    """One minus the normalised entropy, averaged over the groups.

    ``1 - H(softmax(y)) / log C``; where an answer is G separate distributions, the mean over them.
    Source: arXiv:2505.05522, section 3.6.

    Args:
        logits: [..., G, C], or with further axes after that of C.
        dim: the axis of C, counted from the last, -1; that of G stands before it. Axes behind make it faster.
        sizes: how many of the C classes each group has, [G] or [..., G], where the logits of the others have no
            probability; only with ``dim`` -1. ``None``: all C. A group of one class is certain.

    Returns:
        Values in [0, 1], without the axes of G and C.
    """
    log_probabilities = logits.log_softmax(dim)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim)
    if sizes is None:
        return 1.0 - (entropy / math.log(logits.shape[dim])).mean(dim)
    if isinstance(sizes, Tensor):
        return 1.0 - (entropy / sizes.clamp(min=2).to(entropy.dtype).log()).mean(dim)
    limits = entropy.new_tensor([math.log(max(size, 2)) for size in sizes])
    return 1.0 - (entropy / limits).mean(dim)
