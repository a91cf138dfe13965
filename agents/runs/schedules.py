"""Values that change over a run, such as the learning rate, and how a new budget changes them."""

import numpy as np

from ctm_rl.agents.experiments.acting import ActingExperiment, PPOSettings
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment

Schedule = float | list[list[float]]
"""As RLlib takes it: a number, or the corners of a piecewise linear function of environment steps."""


def learning_rate_schedule(ppo: PPOSettings, num_env_steps: int) -> Schedule:
    """The learning rate over a budget: each iteration learns with its value at the iteration's first step.

    It reaches 0 with the last step of the budget, after the last gradient step.
    """
    if not ppo.lr_warmup_steps and not ppo.is_lr_annealed:
        return ppo.lr
    warm = [[0, 0.0]] if ppo.lr_warmup_steps else []
    end = [[num_env_steps, 0.0]] if ppo.is_lr_annealed else []
    return [*warm, [ppo.lr_warmup_steps, ppo.lr], *end]


def entropy_schedule(ppo: PPOSettings, num_env_steps: int) -> Schedule:
    """The weight of the entropy over a budget."""
    first, last = ppo.entropy_coefficient, ppo.entropy_coefficient_final
    return first if last is None else [[0, first], [num_env_steps, last]]


def clip_schedule(ppo: PPOSettings, num_env_steps: int) -> Schedule:
    """How far the probability ratio may move from 1 over a budget."""
    return [[0, ppo.clip], [num_env_steps, 0.0]] if ppo.is_clip_annealed else ppo.clip


def describe_jumps(saved: AnyExperiment, given: AnyExperiment, env_steps: int, lr_factor: float = 1.0) -> str | None:
    """Describes which scheduled values jump when a run is resumed with another budget or other settings.

    Args:
        saved: the experiment of the checkpoint.
        given: that of the resumed run.
        env_steps: of the checkpoint.
        lr_factor: of the checkpoint: the factor of a learning rate that follows the KL divergence.

    Returns:
        A line that names each value before and after; ``None``: nothing jumps.
    """
    before, after = (_scheduled_values(experiment, env_steps, lr_factor) for experiment in (saved, given))
    jumps = [
        f"the {name} goes from {before[name]:.3g} to {after[name]:.3g}"
        for name in after
        if not np.isclose(before[name], after[name], rtol=1e-6, atol=0.0)
    ]
    if not jumps:
        return None
    budgets = given.budget.env_steps, saved.budget.env_steps
    if budgets[0] == budgets[1]:
        return " and ".join(jumps)
    schedules = "its schedule ends" if len(jumps) == 1 else "their schedules end"
    return f"{' and '.join(jumps)}: {schedules} at {budgets[0]:,} env steps instead of {budgets[1]:,}"


def _scheduled_values(experiment: AnyExperiment, env_steps: int, lr_factor: float) -> dict[str, float]:
    """The scheduled values after a number of environment steps, by name."""
    if isinstance(experiment, ActingExperiment):
        ppo, budget = experiment.ppo, experiment.budget.env_steps
        factor = 1.0 if ppo.lr_kl_target is None else lr_factor
        return {
            "learning rate": factor * _value_at(learning_rate_schedule(ppo, budget), env_steps),
            "entropy coefficient": _value_at(entropy_schedule(ppo, budget), env_steps),
            "clip range": _value_at(clip_schedule(ppo, budget), env_steps),
        }
    return _answering_values(experiment, env_steps)


def _answering_values(experiment: AnsweringExperiment, env_steps: int) -> dict[str, float]:
    """The same of a run that answers, whose schedules advance by optimiser steps."""
    from ctm_rl.agents.supervised.optimisation import learning_rate

    learning, bandit = experiment.learning, experiment.bandit
    num_epochs = bandit.num_epochs if experiment.signal == "reward" else 1
    step = env_steps // learning.batch_size * num_epochs
    values = {"learning rate": learning_rate(learning, step, experiment.num_steps)}
    if experiment.signal == "reward":
        first, last = bandit.entropy_coefficient, bandit.entropy_coefficient_final
        schedule: Schedule = first if last is None else [[0, first], [experiment.num_steps, last]]
        values["entropy coefficient"] = _value_at(schedule, step)
    return values


def _value_at(schedule: Schedule, steps: int) -> float:
    """The value of a schedule after a number of steps."""
    if isinstance(schedule, (int, float)):
        return float(schedule)
    places, values = zip(*schedule, strict=True)
    return float(np.interp(steps, places, values))
