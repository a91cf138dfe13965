"""The published sizes of CartPole with two ticks: what ``ctm-rl bench`` measures unless told otherwise."""

import dataclasses

from ctm_rl.agents.experiment import EnvConfig, Experiment, PPOSettings
from ctm_rl.config import PolicyConfig
from ctm_rl.configs.cartpole import cartpole


def published_cartpole() -> Experiment:
    """CartPole with hidden velocities, 200 steps, at the sizes of the published experiment with two ticks."""
    return dataclasses.replace(
        cartpole(),
        name="cartpole-paper",
        env=EnvConfig(id="CartPole-v1", hide_velocities=True, max_episode_steps=200),
        model=PolicyConfig(
            num_neurons=128,
            history_length=20,
            num_ticks=2,
            nlm_hidden_dim=4,
            num_output_sync_neurons=16,
            sync_window=True,
            feature_dim=128,
            max_seq_len=100,
        ),
        ppo=PPOSettings(
            lr=1e-3,
            is_lr_annealed=True,
            clip=0.1,
            entropy_coefficient=0.1,
            value_coefficient=0.25,
            num_epochs=4,
            num_minibatches=4,
            num_rollout_steps=100,
        ),
        num_env_runners=0,
        num_envs_per_env_runner=256,
    )
