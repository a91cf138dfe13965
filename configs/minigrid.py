"""MiniGrid: a grid world seen in part, of which the policy has to remember what it has left behind."""

import dataclasses

from ctm_rl.agents.experiment import EnvConfig, Experiment, PPOSettings
from ctm_rl.agents.run_settings import BudgetConfig
from ctm_rl.config import PolicyConfig
from ctm_rl.configs.cartpole import cartpole_paper


def minigrid_fourrooms() -> Experiment:
    """FourRooms, 100 steps: find the goal in one of four rooms; small and quick."""
    return Experiment(
        name="minigrid-fourrooms",
        env=EnvConfig(id="MiniGrid-FourRooms-v0", wrappers=("grid-image",), stagger_episodes=True),
        model=PolicyConfig(
            num_neurons=128,
            history_length=10,
            num_ticks=1,
            nlm_hidden_dim=4,
            num_output_sync_neurons=16,
            feature_dim=32,
            baseline_dim=100,
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
        budget=BudgetConfig(env_steps=3_000_000),
        num_env_runners=0,
        num_envs_per_env_runner=128,
    )


def minigrid_fourrooms_paper() -> Experiment:
    """FourRooms as published: one tick, 512 neurons, 300 steps, 300 million in all."""
    return Experiment(
        name="minigrid-fourrooms-paper",
        env=EnvConfig(id="MiniGrid-FourRooms-v0", wrappers=("grid-image",), max_episode_steps=300),
        model=PolicyConfig(
            num_neurons=512,
            history_length=10,
            num_ticks=1,
            nlm_hidden_dim=16,
            num_output_sync_neurons=32,
            sync_window=True,
            feature_dim=128,
            baseline_dim=294,
            max_seq_len=50,
        ),
        ppo=dataclasses.replace(cartpole_paper().ppo, lr=1e-4, num_epochs=1, num_rollout_steps=50),
        budget=BudgetConfig(env_steps=300_000_000),
        # MiniGrid is Python: two processes play on two cores at once, one would step all environments in turn
        num_env_runners=2,
        num_envs_per_env_runner=128,
    )
