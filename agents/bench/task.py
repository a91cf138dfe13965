"""What an experiment's environment means for its model, looked at once."""

from ctm_rl.agents.environment import make_env
from ctm_rl.agents.experiment import Experiment
from ctm_rl.agents.spaces import Fitted, fit


def task_of(experiment: Experiment) -> Fitted:
    """Makes one environment and looks at its spaces.

    Raises:
        UserError: it cannot be made, or its spaces are not supported.
    """
    env = make_env(experiment.env)
    try:
        return fit(experiment.model, env.observation_space, env.action_space)
    finally:
        env.close()
