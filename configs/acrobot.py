"""Acrobot that has to be remembered: velocities are hidden, so a policy cannot see which way it swings."""

import dataclasses

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import PolicyConfig
from ctm_rl.configs.cartpole import cartpole_paper


def acrobot() -> ActingExperiment:
    """Acrobot with hidden velocities, 500 steps; synchronisation over the last ticks."""
    return ActingExperiment(
        name="acrobot",
        env=EnvConfig(id="Acrobot-v1", wrappers=("hide-velocities",), max_episode_steps=500, stagger_episodes=True),
        model=PolicyConfig(
            num_neurons=64,
            history_length=10,
            num_ticks=1,
            nlm_hidden_dim=4,
            num_output_sync_neurons=16,
            sync_window=True,
            # tossing a coin at every step never swings it up; a policy that keeps to an action for a while does
            policy_gain=30.0,
            feature_dim=64,
            max_seq_len=32,
        ),
        ppo=PPOSettings(
            lr=1e-3,
            is_lr_annealed=True,
            entropy_coefficient=0.01,
            num_epochs=4,
            num_minibatches=4,
            num_rollout_steps=32,
        ),
        budget=BudgetConfig(env_steps=1_000_000),
        num_env_runners=0,
        num_envs_per_env_runner=64,
    )


def acrobot_paper() -> ActingExperiment:
    """Acrobot with hidden velocities as published: one tick, 256 neurons, 2 million steps."""
    return ActingExperiment(
        name="acrobot-paper",
        env=EnvConfig(id="Acrobot-v1", wrappers=("hide-velocities",), max_episode_steps=500),
        model=PolicyConfig(
            num_neurons=256,
            history_length=5,
            num_ticks=1,
            nlm_hidden_dim=4,
            num_output_sync_neurons=16,
            sync_window=True,
            feature_dim=64,
            max_seq_len=100,
        ),
        ppo=dataclasses.replace(cartpole_paper().ppo, lr=5e-4, num_epochs=1),
        budget=BudgetConfig(env_steps=2_000_000),
        num_env_runners=0,
        num_envs_per_env_runner=12,
    )
