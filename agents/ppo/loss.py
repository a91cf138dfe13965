"""The loss of proximal policy optimisation over the valid steps of a minibatch. Source: arXiv:1707.06347."""

from typing import NamedTuple

import torch
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from torch import Tensor

from ctm_rl.spaces.actions import Chosen

KL_KEY = "kl"
PART_KEYS = (POLICY_LOSS_KEY, VF_LOSS_KEY, ENTROPY_KEY, KL_KEY, "clip_fraction")
"""Names, as metrics, of the parts of a ``PPOLoss`` after the total."""


class PPOLoss(NamedTuple):
    """The loss and its parts, scalars; each a mean over the valid steps of all learners' minibatches.

    A learner's value is the sum over its own steps, times the number of learners, divided by the number of steps of all
    learners: the mean over learners is then the mean over steps, for the gradient too.
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
    """Approximate KL divergence from the behaviour policy: mean of (ratio - 1) - log ratio."""
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
        now: log-probability and entropy under the current policy, [B, T]; for single-step episodes also [B] everywhere.
        values: current estimates, [B, T].
        logp: log-probability under the behaviour policy, [B, T].
        old_values: estimates of the rollout, [B, T].
        advantages: normalised, [B, T].
        returns: targets of the values, [B, T].
        weights: weight of each step, [B, T]: 0 for autoreset steps, otherwise learners / valid steps.
        clip: how far the ratio may move from 1.
        value_clip: limit of the change of a value, beyond which its loss does not fall further; ``None``: no limit.
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
