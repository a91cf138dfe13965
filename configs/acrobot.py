"""Acrobot that needs memory: velocities are hidden, so that one observation does not show which way it swings."""

from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.configs.cartpole import cartpole, cartpole_paper


def acrobot() -> ActingExperiment:
    """Acrobot with hidden velocities, 500 steps, one tick each."""
    base = cartpole()
    return replace(
        base,
        name="acrobot",
        env=EnvConfig(id="Acrobot-v1", wrappers=("hide-velocities",), max_episode_steps=500, stagger_episodes=True),
        model=replace(base.model, num_ticks=1),
        ppo=PPOSettings(is_lr_annealed=True),
        budget=BudgetConfig(env_steps=150_000),
    )


def acrobot_paper() -> ActingExperiment:
    """Acrobot with hidden velocities as published: one tick, 256 neurons, 2 million steps."""
    base = cartpole_paper()
    return replace(
        base,
        name="acrobot-paper",
        env=EnvConfig(id="Acrobot-v1", wrappers=("hide-velocities",), max_episode_steps=500),
        model=replace(base.model, num_neurons=256, history_length=5, num_ticks=1, feature_dim=64),
        ppo=replace(base.ppo, lr=5e-4, num_epochs=1),
        budget=BudgetConfig(env_steps=2_000_000),
        num_envs_per_env_runner=12,
    )
