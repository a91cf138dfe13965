"""An LSTM policy of as many parameters as the machine it is compared with."""

from dataclasses import replace

from ctm_rl.actions import Actions
from ctm_rl.agent import ActorCritic
from ctm_rl.config import PolicyConfig
from ctm_rl.layout import Layout
from ctm_rl.matching import count_parameters, nearest_width


def policy_size(config: PolicyConfig, layout: Layout, actions: Actions) -> int:
    """Counts the parameters of a policy.

    Args:
        config: the policy, with its encoder settled.
        layout: of observations.
        actions: what can be done.

    Returns:
        How many numbers are learned.
    """
    return count_parameters(lambda: ActorCritic(config, layout, actions))


def matched_baseline_dim(config: PolicyConfig, layout: Layout, actions: Actions) -> int:
    """Finds the LSTM's width whose policy has a number of parameters nearest to the machine's.

    Args:
        config: the policy with the machine, its encoder settled; its ``baseline_dim`` does not matter.
        layout: of observations.
        actions: what can be done.

    Returns:
        ``baseline_dim`` for ``kind="lstm"``; the smaller one of two that are equally near.
    """

    def size(width: int) -> int:
        return policy_size(replace(config, kind="lstm", baseline_dim=width), layout, actions)

    return nearest_width(size, policy_size(replace(config, kind="ctm"), layout, actions))
