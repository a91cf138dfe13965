"""MountainCar that needs memory: the velocity is hidden, so that one observation does not show which way it rolls."""

from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.configs.any_env import for_env


def mountaincar_no_velocity() -> ActingExperiment:
    """MountainCarContinuous with the velocity hidden, 999 steps: swing up to the flag by little force."""
    env_id = "MountainCarContinuous-v0"
    base = for_env(env_id)
    return replace(
        base,
        name="mountaincar-no-velocity",
        env=EnvConfig(id=env_id, wrappers=("hide-velocities",)),
        # the flag, hundreds of steps away, pays once, and is never reached by noise that is new at every step
        ppo=replace(base.ppo, gamma=0.999, noise_correlation=0.95),
        budget=BudgetConfig(env_steps=300_000),
    )
