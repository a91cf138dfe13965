"""Generalised advantage estimation over fragments, in which episodes begin and end anywhere."""

import numpy as np


def estimate_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    is_last: np.ndarray,
    gamma: float,
    gae_lambda: float,
    ratios: np.ndarray | None = None,
) -> np.ndarray:
    """Computes ``A_t = rho_t (d_t + gamma lambda A_(t+1))`` with ``d_t = r_t + gamma v(next)_t - v_t``.

    The sum ends where an episode does, and at the end of the fragment. Source: arXiv:1506.02438; with the ratios it is
    V-trace, arXiv:1802.01561: ``v + A`` is its target, and A its advantage times rho_t, for rho_t of at most 1.

    Args:
        rewards: [B, T].
        values: of the observation before the step, [B, T].
        next_values: of the observation after it, [B, T]; 0 where the episode terminated.
        is_last: whether the episode ended with the step, terminated or truncated, [B, T].
        gamma: discount, in [0, 1].
        gae_lambda: lambda, in [0, 1].
        ratios: rho, the probability ratio of each action between the policy to be evaluated and the behaviour policy,
            at most 1, [B, T]; ``None``: they are the same policy.

    Returns:
        Advantages, [B, T], float32. Those of autoreset steps have no meaning, and affect no other step.
    """
    deltas = np.ascontiguousarray((rewards + gamma * next_values - values).T, dtype=np.float32)  # [T, B]
    goes_on = np.ascontiguousarray(~np.asarray(is_last).T)
    decay = np.float32(gamma * gae_lambda)
    weights = None if ratios is None else np.ascontiguousarray(ratios.T, dtype=np.float32)
    advantages = np.empty_like(deltas)
    following = np.zeros_like(deltas[0])
    for step in reversed(range(len(deltas))):
        # Selects, does not multiply: NaN in an autoreset step must affect no other step.
        following = deltas[step] + np.where(goes_on[step], decay * following, np.float32(0))
        if weights is not None:
            following = weights[step] * following
        advantages[step] = following
    return np.ascontiguousarray(advantages.T)
