"""Pendulum: a torque, which is a real number, swings it up and holds it there."""

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig, PPOSettings
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.configs.cartpole import cartpole


def pendulum() -> ActingExperiment:
    """Pendulum, 200 steps: swing up and stay up by a torque between -2 and 2; nothing is hidden."""
    return ActingExperiment(
        name="pendulum",
        env=EnvConfig(id="Pendulum-v1", stagger_episodes=True),
        model=cartpole().model,
        ppo=PPOSettings(
            lr=1e-3,
            is_lr_annealed=True,
            # what a torque is good for shows within some ten steps; a longer view drowns it
            gamma=0.9,
            entropy_coefficient=0.0,
            num_epochs=4,
            num_minibatches=4,
            num_rollout_steps=32,
        ),
        budget=BudgetConfig(env_steps=800_000),
        num_envs_per_env_runner=64,
    )
