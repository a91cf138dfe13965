"""An LSTM policy of as many parameters as the machine it is compared with."""

from dataclasses import replace

from ctm_rl.agent import ActorCritic
from ctm_rl.config import PolicyConfig
from ctm_rl.matching import count_parameters, nearest_width


def policy_size(config: PolicyConfig, observation_shape: tuple[int, ...], num_actions: int) -> int:
    """Counts the parameters of a policy.

    Args:
        config: the policy, with its encoder settled.
        observation_shape: shape of one observation.
        num_actions: A.

    Returns:
        How many numbers are learned.
    """
    return count_parameters(lambda: ActorCritic(config, observation_shape, num_actions))


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
        return policy_size(replace(config, kind="lstm", baseline_dim=width), observation_shape, num_actions)

    return nearest_width(size, policy_size(replace(config, kind="ctm"), observation_shape, num_actions))
