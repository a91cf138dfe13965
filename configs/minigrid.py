"""MiniGrid: a grid world seen in part, of which the policy has to remember what it has left behind."""

import dataclasses

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.config import PolicyConfig
from ctm_rl.configs.cartpole import cartpole_paper


def _small(
    name: str,
    env_id: str,
    env_steps: int,
    *,
    num_ticks: int = 2,
    entropy: float = 0.01,
    entropy_final: float | None = None,
) -> ActingExperiment:
    """A small machine on the image alone, which is all that changes in these tasks."""
    return ActingExperiment(
        name=name,
        env=EnvConfig(id=env_id, wrappers=("grid-image",), stagger_episodes=True),
        model=PolicyConfig(
            num_neurons=64,
            history_length=10,
            num_ticks=num_ticks,
            nlm_hidden_dim=4,
            num_output_sync_neurons=16,
            feature_dim=16,
            max_seq_len=32,
        ),
        ppo=PPOSettings(
            lr=1e-3,
            is_lr_annealed=True,
            # a goal is worth at most 1, once: scaled down, it would be lost in what values err by at the start
            reward_scale=1.0,
            entropy_coefficient=entropy,
            entropy_coefficient_final=entropy_final,
            num_epochs=4,
            num_minibatches=4,
            num_rollout_steps=32,
        ),
        budget=BudgetConfig(env_steps=env_steps),
        num_envs_per_env_runner=64,
    )


def minigrid_empty() -> ActingExperiment:
    """An empty room of 8 x 8: the way to the goal in the corner."""
    return _small("minigrid-empty", "MiniGrid-Empty-8x8-v0", 300_000)


def minigrid_doorkey() -> ActingExperiment:
    """DoorKey of 5 x 5: take the key, open the door, reach the goal."""
    return _small("minigrid-doorkey", "MiniGrid-DoorKey-5x5-v0", 1_000_000)


def minigrid_memory() -> ActingExperiment:
    """Memory S7: see an object, walk away from it, and choose the like of it where the corridor forks."""
    # going straight to the fork is worth half: without much entropy nobody looks back for what there is to remember
    base = _small("minigrid-memory", "MiniGrid-MemoryS7-v0", 2_000_000, num_ticks=1, entropy=0.03, entropy_final=0.005)
    # a machine as it is published begins with neurons that hardly answer to what is seen, and what they synchronise is
    # lost in a step; these gains and a short window let a sight be told apart four steps later, before any learning
    model = dataclasses.replace(base.model, nlm_gain=4.0, history_length=4, sync_window=True)
    # Adam's very first step, at this rate, can leave a policy that is certain and a value that is far off
    ppo = dataclasses.replace(base.ppo, lr=2e-3, is_lr_annealed=False, lr_warmup_steps=20_000, target_kl=0.02)
    return dataclasses.replace(base, model=model, ppo=ppo)


def minigrid_keycorridor() -> ActingExperiment:
    """KeyCorridor S3R1: find the key, open the locked room, pick up the object in it."""
    return _small("minigrid-keycorridor", "MiniGrid-KeyCorridorS3R1-v0", 3_000_000)


def minigrid_fourrooms() -> ActingExperiment:
    """FourRooms, 100 steps: find the goal in one of four rooms; small and quick."""
    return _small("minigrid-fourrooms", "MiniGrid-FourRooms-v0", 3_000_000, num_ticks=1)


def minigrid_fourrooms_paper() -> ActingExperiment:
    """FourRooms as published: one tick, 512 neurons, 300 steps, 300 million in all."""
    return ActingExperiment(
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
            max_seq_len=50,
        ),
        ppo=dataclasses.replace(cartpole_paper().ppo, lr=1e-4, num_epochs=1, num_rollout_steps=50),
        budget=BudgetConfig(env_steps=300_000_000),
        # MiniGrid is Python: two processes play on two cores at once, and both cores learn while they wait
        num_env_runners=2,
        num_envs_per_env_runner=128,
        num_threads=2,
    )
