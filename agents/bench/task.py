"""What an experiment's environment means for its model, looked at once."""

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import Fitted, fit
from ctm_rl.errors import UserError
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.baseline_width import settle_width
from ctm_rl.spaces.actions import Choices


def task_of(experiment: ActingExperiment) -> Fitted:
    """Makes one environment and looks at its spaces.

    Raises:
        UserError: it cannot be made, its spaces are not supported, or it takes more than one choice.
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
