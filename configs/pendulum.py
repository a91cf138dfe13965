"""Pendulum: a continuous torque swings it up and balances it."""

from dataclasses import replace

from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.settings import BudgetConfig
from ctm_rl.configs.cartpole import cartpole


def pendulum() -> ActingExperiment:
    """Pendulum, 200 steps: swing up and stay up by a torque between -2 and 2; nothing is hidden."""
    base = cartpole()
    return replace(
        base,
        name="pendulum",
        env=EnvConfig(id="Pendulum-v1", stagger_episodes=True),
        # the effect of a torque shows within about ten steps; a longer horizon only adds noise
        ppo=replace(base.ppo, lr=1e-3, gamma=0.9, entropy_coefficient=0.0, num_epochs=10, num_minibatches=4),
        budget=BudgetConfig(env_steps=200_000),
    )


def pendulum_no_velocity() -> ActingExperiment:
    """Pendulum with the velocity hidden, 200 steps: swing up and stay up by a torque."""
    base = pendulum()
    return replace(
        base,
        name="pendulum-no-velocity",
        env=replace(base.env, wrappers=("hide-velocities",)),
        # noise that lasts some four steps swings the pendulum up in fewer episodes; some entropy keeps it from becoming
        # so small that a policy no longer explores
        ppo=replace(base.ppo, noise_correlation=0.75, entropy_coefficient=0.01),
        budget=BudgetConfig(env_steps=100_000),
    )
