"""Fits an experiment's model to its environment, and describes contenders."""

import torch

from ctm_rl.agents.bench.memory import resident_mb
from ctm_rl.agents.bench.timing import Description
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import Fitted, fit
from ctm_rl.errors import UserError
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.baseline_width import settle_width
from ctm_rl.spaces.actions import Choices


def task_of(experiment: ActingExperiment) -> Fitted:
    """Fits the model to the spaces of the environment, which is created once.

    Raises:
        UserError: it cannot be made, its spaces are not supported, or an action is more than one choice.
    """
    env = make_env(experiment.env)
    try:
        fitted = fit(experiment.model, env.observation_space, env.action_space)
    finally:
        env.close()
    if not isinstance(fitted.actions, Choices) or fitted.actions.shape:
        raise UserError(
            f"the bench compares policies of one choice (Discrete), and {experiment.env.id}'s actions are "
            f"{fitted.actions}."
        )
    config = settle_width(fitted.config, lambda other: ActorCritic(other, fitted.layout, fitted.actions))
    return fitted._replace(config=config)


def describe(module: torch.nn.Module, note: str) -> Description:
    """Describes a contender that has just been built in this process.

    Args:
        module: its parameters are learned.
        note: what a reader should know about it.
    """
    built_mb = resident_mb()
    return Description(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        built_mb=None if built_mb is None else round(built_mb, 1),
        num_threads=torch.get_num_threads(),
        note=note,
    )


def sizes_of(num_envs: int, num_steps: int, num_epochs: int, num_minibatches: int) -> str:
    """Describes the size of an iteration."""
    return f"{num_envs} x {num_steps} steps, {num_epochs} epochs, {num_minibatches} minibatches"
