"""What an experiment's environment means for its model, looked at once."""

from typing import NamedTuple

from ctm_rl.agent import ActorCritic
from ctm_rl.agents.environment import make_env
from ctm_rl.agents.experiment import Experiment
from ctm_rl.agents.spaces import count_actions, fit_config
from ctm_rl.config import PolicyConfig
from ctm_rl.matching import settle_width


class Task(NamedTuple):
    """A model and what it acts on."""

    config: PolicyConfig
    """The policy, with its encoder and a baseline's width settled."""
    observation_shape: tuple[int, ...]
    """Shape of one observation."""
    num_actions: int
    """A."""


def task_of(experiment: Experiment) -> Task:
    """Makes one environment and looks at its spaces.

    Raises:
        UserError: it cannot be made, or its spaces are not supported.
    """
    env = make_env(experiment.env)
    try:
        num_actions = count_actions(env.action_space)
        config = fit_config(experiment.model, env.observation_space)
        shape = env.observation_space.shape
    finally:
        env.close()
    assert shape is not None
    config = settle_width(config, lambda other: ActorCritic(other, shape, num_actions))
    return Task(config, shape, num_actions)
