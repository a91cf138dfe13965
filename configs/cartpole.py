"""CartPole that needs memory: velocities are hidden, so that a policy without memory stays near 50 steps."""

from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import PolicyConfig


def cartpole() -> ActingExperiment:
    """CartPole with hidden velocities, 500 steps; synchronisation over the whole episode."""
    return ActingExperiment(
        name="cartpole",
        env=EnvConfig(id="CartPole-v1", wrappers=("hide-velocities",), max_episode_steps=500),
        model=PolicyConfig.recommended(),
        # short iterations of few, large minibatches: recent data, in half the time
        ppo=PPOSettings(
            lr=5e-4, is_lr_annealed=True, num_epochs=8, num_rollout_steps=32, num_minibatches=2, is_clip_annealed=True
        ),
        budget=BudgetConfig(env_steps=100_000),
        num_env_runners=0,
        num_envs_per_env_runner=32,
    )


def cartpole_window() -> ActingExperiment:
    """CartPole with synchronisation over the last ticks only, as published."""
    base = cartpole()
    return replace(base, name="cartpole-window", model=replace(base.model, sync_window=True))


def cartpole_paper() -> ActingExperiment:
    """CartPole with hidden velocities as published: two ticks, 128 neurons, 200 steps, 10M in all."""
    base = cartpole()
    return replace(
        base,
        name="cartpole-paper",
        env=replace(base.env, max_episode_steps=200),
        model=PolicyConfig(
            num_neurons=128,
            history_length=20,
            num_ticks=2,
            nlm_hidden_dim=4,
            num_output_sync_neurons=16,
            feature_dim=128,
            sync_window=True,
            max_seq_len=100,
        ),
        ppo=PPOSettings(
            lr=1e-3,
            is_lr_annealed=True,
            normalize_rewards=True,
            clip=0.1,
            entropy_coefficient=0.1,
            value_coefficient=0.25,
            num_epochs=4,
            num_minibatches=4,
            num_rollout_steps=100,
        ),
        budget=BudgetConfig(env_steps=10_000_000),
        num_envs_per_env_runner=256,
    )
