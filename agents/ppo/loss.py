"""The loss of proximal policy optimisation over the valid steps of a minibatch. Source: arXiv:1707.06347."""

from typing import NamedTuple

import torch
from torch import Tensor

from ctm_rl.spaces.actions import Chosen


class PPOLoss(NamedTuple):
    """The loss and what it is made of, scalars; each a mean over the valid steps of all learners' minibatches.

    A learner's own number is its sum over its own steps, times the number of learners, over the count of all: the mean
    over learners is then the mean over steps, of the gradient too.
    """

    total: Tensor
    """What is minimised."""
    policy: Tensor
    """The clipped surrogate, negative."""
    value: Tensor
    """Half the squared error of the values."""
    entropy: Tensor
    """Of the action distribution."""
    kl: Tensor
    """Approximate divergence from the policy that acted: mean of (ratio - 1) - log ratio."""
    clip_fraction: Tensor
    """Share of steps whose ratio lies outside the clipping limits."""


def ppo_loss(
    now: Chosen,
    values: Tensor,
    *,
    logp: Tensor,
    old_values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    weights: Tensor,
    clip: float,
    value_clip: float | None,
    value_coefficient: float,
    entropy_coefficient: float | Tensor,
) -> PPOLoss:
    """Computes the loss.

    Args:
        now: of the policy as it is, [B, T]; T is 1, or left out everywhere, where an episode is one step.
        values: as estimated now, [B, T].
        logp: log-probability of it when it was done, [B, T].
        old_values: as estimated then, [B, T].
        advantages: normalised, [B, T].
        returns: what values should have been, [B, T].
        weights: how much each step counts, [B, T]: 0 for holes, otherwise number of learners / number of valid steps.
        clip: how far the ratio may move from 1.
        value_clip: how far a value may move from the old one before it gets no credit for moving; ``None``: anywhere.
        value_coefficient: weight of the value loss.
        entropy_coefficient: weight of the entropy.

    Returns:
        The loss and its parts.
    """
    log_ratio = now.logp - logp
    ratio = log_ratio.exp()
    surrogate = torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
    errors = (values - returns).square()
    if value_clip is not None:
        held = old_values + (values - old_values).clamp(-value_clip, value_clip)
        errors = torch.maximum(errors, (held - returns).square())
    policy = -(surrogate * weights).sum()
    value = 0.5 * (errors * weights).sum()
    entropy = (now.entropy * weights).sum()
    with torch.no_grad():
        kl = ((ratio - 1 - log_ratio) * weights).sum()
        clip_fraction = (((ratio - 1).abs() > clip) * weights).sum()
    total = policy + value_coefficient * value - entropy_coefficient * entropy
    return PPOLoss(total, policy, value, entropy, kl, clip_fraction)
