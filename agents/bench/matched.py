"""An LSTM baseline of as many parameters as the machine it is compared with."""

from dataclasses import replace

import torch

from ctm_rl.agent import ActorCritic
from ctm_rl.config import PolicyConfig


def count_parameters(config: PolicyConfig, observation_shape: tuple[int, ...], num_actions: int) -> int:
    """Counts the parameters of a policy; no random generator moves.

    Args:
        config: the policy, with its encoder settled.
        observation_shape: shape of one observation.
        num_actions: A.

    Returns:
        How many numbers are learned.
    """
    with torch.random.fork_rng(devices=[]):
        agent = ActorCritic(config, observation_shape, num_actions)
    return sum(parameter.numel() for parameter in agent.parameters())


def matched_baseline_dim(config: PolicyConfig, observation_shape: tuple[int, ...], num_actions: int) -> int:
    """Finds the LSTM's width whose policy has a number of parameters nearest to the machine's.

    Args:
        config: the policy with the machine, its encoder settled; its ``baseline_dim`` does not matter.
        observation_shape: shape of one observation.
        num_actions: A.

    Returns:
        ``baseline_dim`` for ``kind="lstm"``; the smaller one of two that are equally near.
    """

    def size(width: int) -> int:
        return count_parameters(replace(config, kind="lstm", baseline_dim=width), observation_shape, num_actions)

    target = count_parameters(replace(config, kind="ctm"), observation_shape, num_actions)
    above = 1
    while size(above) < target:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if size(middle) < target else (below, middle)
    return above if below < 1 or target - size(below) > size(above) - target else below
