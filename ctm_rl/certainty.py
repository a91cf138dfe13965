"""Certainty: how decided an answer is, from 0 (all classes alike) to 1 (sure)."""

import math

from jaxtyping import Float
from torch import Tensor


def certainty(logits: Float[Tensor, "*batch G C"]) -> Float[Tensor, "*batch"]:
    """One minus the normalised entropy, averaged over the groups.

    ``1 - H(softmax(y)) / log C``; where an answer is G separate distributions, the mean over them.
    Source: arXiv:2505.05522, section 3.6.

    Args:
        logits: [..., G, C].

    Returns:
        Values in [0, 1], [...].
    """
    log_probabilities = logits.log_softmax(-1)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
    return 1.0 - (entropy / math.log(logits.shape[-1])).mean(-1)
