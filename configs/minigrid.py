"""MiniGrid: a grid world seen in part, so that the policy has to remember what it no longer sees."""

from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.configs.cartpole import cartpole, cartpole_paper


def _small(name: str, env_id: str, env_steps: int, *, num_ticks: int = 2) -> ActingExperiment:
    """A small machine on the image alone, the only part of the observation that changes in these tasks."""
    base = cartpole()
    return replace(
        base,
        name=name,
        env=EnvConfig(id=env_id, wrappers=("grid-image",), stagger_episodes=True),
        # a critic of its own costs as much again, and has not been measured here
        model=replace(base.model, num_ticks=num_ticks, feature_dim=16, critic="shared"),
        # a goal is worth at most 1, once: scaled down, it would be smaller than the first errors of the values
        ppo=PPOSettings(is_lr_annealed=True, num_epochs=8, reward_scale=1.0),
        budget=BudgetConfig(env_steps=env_steps),
    )


def minigrid_empty() -> ActingExperiment:
    """An empty room of 8 x 8: walk to the goal in the corner."""
    return _small("minigrid-empty", "MiniGrid-Empty-8x8-v0", 300_000)


def minigrid_doorkey() -> ActingExperiment:
    """DoorKey of 5 x 5: take the key, open the door, reach the goal."""
    return _small("minigrid-doorkey", "MiniGrid-DoorKey-5x5-v0", 150_000)


def minigrid_memory() -> ActingExperiment:
    """Memory S7: see an object, walk away from it, and choose the same object where the corridor forks."""
    base = _small("minigrid-memory", "MiniGrid-MemoryS7-v0", 500_000, num_ticks=1)
    # going straight to the fork returns half the reward: with less entropy the policy never looks at the object
    ppo = replace(base.ppo, entropy_coefficient=0.03, entropy_coefficient_final=0.005)
    return replace(base, ppo=ppo)


def minigrid_keycorridor() -> ActingExperiment:
    """KeyCorridor S3R1: find the key, open the locked room, pick up the object in it."""
    return _small("minigrid-keycorridor", "MiniGrid-KeyCorridorS3R1-v0", 3_000_000)


def minigrid_fourrooms() -> ActingExperiment:
    """FourRooms, 100 steps: find the goal in one of four rooms; a small, quick model."""
    return _small("minigrid-fourrooms", "MiniGrid-FourRooms-v0", 3_000_000, num_ticks=1)


def minigrid_fourrooms_paper() -> ActingExperiment:
    """FourRooms as published: one tick, 512 neurons, 300 steps, 300 million in all."""
    base = cartpole_paper()
    return replace(
        base,
        name="minigrid-fourrooms-paper",
        env=EnvConfig(id="MiniGrid-FourRooms-v0", wrappers=("grid-image",), max_episode_steps=300),
        model=replace(
            base.model,
            num_neurons=512,
            history_length=10,
            num_ticks=1,
            nlm_hidden_dim=16,
            num_output_sync_neurons=32,
            max_seq_len=50,
        ),
        ppo=replace(base.ppo, lr=1e-4, num_epochs=1, num_rollout_steps=50),
        budget=BudgetConfig(env_steps=300_000_000),
        # MiniGrid is written in Python: two processes run it on two cores, and both cores learn while they wait
        num_env_runners=2,
        num_envs_per_env_runner=128,
        num_threads=2,
    )
