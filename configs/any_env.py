"""One experiment for any environment, with settings for small control tasks."""

import re
from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import PolicyConfig


def for_env(env_id: str) -> ActingExperiment:
    """Returns the experiment of ``ctm-rl train --env ID``, with settings for small control tasks.

    Args:
        env_id: Gymnasium's id of the environment, such as Acrobot-v1; module:Name-v0 imports the module first, and
            module:Name is a class or function in it.

    Returns:
        The experiment, named after the environment.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", env_id.rsplit(":", 1)[-1]).strip("-._")
    return ActingExperiment(
        name=name.lower() or "env",
        env=EnvConfig(id=env_id),
        model=PolicyConfig.recommended(),
        ppo=replace(PPOSettings.recommended(), is_lr_annealed=True),
        budget=BudgetConfig(env_steps=1_000_000),
        num_envs_per_env_runner=32,
    )
