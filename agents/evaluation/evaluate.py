"""Evaluates a trained policy on an exact number of episodes, or a model that answers on held-out samples."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctm_rl.agents.evaluation.answers import (
    EvaluationTask,
    describe_answers,
    describe_share,
    evaluate_answers,
    evaluation_task_of,
)
from ctm_rl.agents.evaluation.halting_curve import HALT_THRESHOLDS, describe_points
from ctm_rl.agents.evaluation.load import check_device, load_trained
from ctm_rl.agents.evaluation.play import MAX_EPISODE_STEPS, PlayOptions, play_all, seeds_of_episodes
from ctm_rl.agents.evaluation.run_environment import changed_env, held_out_task
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.settings import MAX_SEED
from ctm_rl.agents.run_directory.directory import check_is_run
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.agents.run_directory.trust import check_trusted, env_claims
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import find, run_of
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError
from ctm_rl.inference.batched_actor import check_can_halt, check_can_take
from ctm_rl.inference.policy import Policy
from ctm_rl.machine.halting import check_halt_certainty
from ctm_rl.machine.synchronisation import Synchronisation
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel

_NUM_EPISODES, _NUM_SAMPLES = 100, 2000
"""Episodes of a policy, and samples of a model that answers, unless another number is given."""


def evaluate(
    run_dir: str | Path,
    *,
    checkpoint: str | int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    deterministic: bool = False,
    device: str = "cpu",
    env_kwargs: Mapping[str, Any] | None = None,
    decay_rate: float | None = None,
    human: np.ndarray | None = None,
    halt_certainty: float | None = None,
    halt_curve: bool = False,
    num_ticks: int | None = None,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    trust: bool = False,
) -> dict[str, Any]:
    """Evaluates a policy on exactly ``episodes`` episodes, or a model that answers on as many samples.

    Every environment plays a fixed share of them: taking those that end first would favour short ones. Every episode
    has its own seed. Faults of the environment are handled as the run does: they end the evaluation, or, where the run
    tolerates them, the episode is played again from another seed.

    Args:
        run_dir: a run's directory, one checkpoint in it, or ``zoo:NAME``.
        checkpoint: of a run: best, last, or the number of an iteration; ``None``: the last one.
        episodes: number of episodes or samples, at least 1; ``None``: 100 episodes, or 2,000 samples (all of a smaller
            set), which give an accuracy within two percent.
        seed: the same seed plays the same episodes.
        deterministic: take the most likely action instead of sampling.
        device: cpu, cuda or cuda:N.
        env_kwargs: arguments of the environment that replace those of training.
        decay_rate: answering models only: set the decay rate of every pair to this; large rates remove the memory
            of synchronisation.
        human: answering models only: the share of people who chose each class, [N, C], for the held-out samples in
            their order.
        halt_certainty: halt each row once it is this certain, from 0 to 1; a policy must have been trained with
            ``train_random_ticks``.
        halt_curve: add ``halting``: results, ticks and time for several such certainties.
        num_ticks: number of ticks of such a policy, or the largest number where rows halt. Models that answer always
            return ``accuracy_by_tick``.
        max_episode_steps: policies only: an episode is truncated after so many steps; it counts with what it has
            returned until then.
        trust: whether the run may import a module of the current folder, or load data from the network, although no
            run of this user on this machine names it, see ``run_directory.trust``.

    Returns:
        ``episodes``, mean (with its 95 % interval, ``episode_return_interval``), standard deviation, minimum and
        maximum of the raw returns, mean length, ``success_rate`` with its interval where the last steps of episodes
        have ``info["is_success"]``, ``env_steps``, ``seconds``, and the iteration of the checkpoint; if there are any,
        ``episodes_truncated`` (after ``max_episode_steps``) and ``env_faults``; for answers see ``evaluate_answers``.
        Where rows halt, also ``halt_certainty`` and ``ticks_mean``, ticks of a step or sample, the latter with
        ``num_ticks`` too; for answers ``accuracy`` and ``accuracy_whole`` are then those of each sample's last tick.

    Raises:
        UserError: a value is not allowed, there is no usable checkpoint, or the environment is not trusted or does not
            fit it.
    """
    _check_numbers(episodes, seed, max_episode_steps)
    thresholds = _thresholds(halt_certainty, halt_curve)
    run = run_of(Path(run_dir))
    check_is_run(run)
    found = check_device(device)
    place = find(Path(run_dir), checkpoint)
    place, trained, experiment = load_trained(run, place, found, trust=trust)
    if experiment is not None:
        check_trusted(env_claims(experiment.env, replaced=env_kwargs or {}), run, is_trusted=trust)
    if not isinstance(trained, Policy):
        if num_ticks is not None:
            raise UserError(
                "num_ticks is for policies that act; for a model that answers, --json prints accuracy_by_tick."
            )
        model, task = _answering(trained, experiment)
        task = task._replace(env=changed_env(task.env, env_kwargs))
        if decay_rate is not None:
            _set_decay_rates(model, decay_rate)
        people = None if human is None else torch.from_numpy(human)
        episodes = _NUM_SAMPLES if episodes is None else episodes
        result = evaluate_answers(
            model, task, episodes=episodes, seed=seed, device=found, human=people, thresholds=thresholds
        )
        if not halt_curve:
            result |= _only_point(result.pop("halting", []))
        return {**result, "iteration": store.iteration_of(place)}
    if decay_rate is not None or human is not None:
        raise UserError("decay_rate and human are for models that answer, and this is a policy; leave them out.")
    policy = trained
    _checked(lambda: check_can_take(policy.agent, num_ticks))
    assert isinstance(experiment, ActingExperiment)
    env = changed_env(experiment.env, env_kwargs)
    seeds = seeds_of_episodes(seed, _NUM_EPISODES if episodes is None else episodes)
    if thresholds:
        _checked(lambda: check_can_halt(policy.agent))
    halting = thresholds if halt_curve else ()
    options = PlayOptions(deterministic, seed, halt_certainty, num_ticks, max_episode_steps)
    result = play_all(policy, env, seeds, options, halting)
    return {**result, "iteration": policy.iteration, "seed": seed, "deterministic": deterministic}


def _check_numbers(episodes: int | None, seed: int, max_episode_steps: int) -> None:
    """Refuses numbers that are out of range.

    Raises:
        UserError: one line with the number and its limit.
    """
    for name, value in (("episodes", episodes), ("max_episode_steps", max_episode_steps)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}.")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must be at least 0 and at most {MAX_SEED}, got {seed}.")


def _answering(
    trained: ContinuousThoughtMachine | FeedForwardModel | OfficialModel, experiment: AnyExperiment | None
) -> tuple[ContinuousThoughtMachine | FeedForwardModel, EvaluationTask]:
    """A model that answers, and its task."""
    if isinstance(trained, OfficialModel):
        assert not isinstance(trained.model, ActorCritic)
        return trained.model, evaluation_task_of(trained)
    assert isinstance(experiment, AnsweringExperiment)
    return trained, EvaluationTask(held_out_task(experiment), experiment.learning.loss, experiment.name)


def _set_decay_rates(model: torch.nn.Module, rate: float) -> None:
    """Sets the decay rate of every pair."""
    synchronisations = [part for part in model.modules() if isinstance(part, Synchronisation)]
    if not synchronisations:
        raise UserError("decay_rate needs kind ctm; baselines have no synchronisation.")
    limit = max(part.max_decay_rate for part in synchronisations)
    if not 0 <= rate <= limit:
        raise UserError(f"decay_rate must be at least 0 and at most {limit:g}, got {rate}.")
    for part in synchronisations:
        torch.nn.init.constant_(part.decay_rate, rate)


def _thresholds(halt_certainty: float | None, halt_curve: bool) -> tuple[float | None, ...]:
    """The certainties at which rows halt."""
    if halt_certainty is not None and halt_curve:
        raise UserError("halt_curve uses its own certainties; leave halt_certainty out.")
    _checked(lambda: check_halt_certainty(halt_certainty))
    if halt_curve:
        return HALT_THRESHOLDS
    return () if halt_certainty is None else (halt_certainty,)


def _only_point(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of a curve with at most one point."""
    return {
        "halt_certainty" if name == "threshold" else name: value for point in points for name, value in point.items()
    }


def _checked(function: Callable[[], Any]) -> Any:
    """Calls a function; its ``ValueError`` becomes a ``UserError``."""
    try:
        return function()
    except ValueError as error:
        raise UserError(str(error)) from error


def to_text(result: dict[str, Any]) -> str:
    """The result as one line of text."""
    if "task" in result:
        return describe_answers(result)
    return (
        f"{result['episodes']} episodes: return {describe_return(result['episode_return_mean'])} "
        f"({_describe_interval(result['episode_return_interval'])}std {describe_return(result['episode_return_std'])}, "
        f"{describe_return(result['episode_return_min'])} to {describe_return(result['episode_return_max'])}), "
        + (f"{describe_share(result, 'success_rate')} successes, " if "success_rate" in result else "")
        + f"length {result['episode_length_mean']:.1f}, "
        f"{result['env_steps']} steps in {result['seconds']:.1f} s, checkpoint of iteration {result['iteration']}"
        + (f", {result['ticks_mean']:.2f} ticks per step" if "ticks_mean" in result else "")
        + (f", {result['env_faults']} env faults tolerated" if "env_faults" in result else "")
        + (
            f", {result['episodes_truncated']} episodes truncated (--max-episode-steps)"
            if "episodes_truncated" in result
            else ""
        )
        + describe_points(result, _describe_point)
    )


def _describe_interval(interval: Sequence[float] | None) -> str:
    """The interval of a mean return; nothing where one episode has none."""
    if interval is None:
        return ""
    low, high = map(describe_return, interval)
    return f"95 % interval {low} to {high}, "


def _describe_point(point: dict[str, Any]) -> str:
    """A point of the halting curve, after its number of ticks."""
    return (
        f" a step, return {describe_return(point['episode_return_mean'])}, "
        f"length {point['episode_length_mean']:.1f}, {1e3 * point['seconds_per_step']:.3f} ms per step"
    )


def to_json(result: dict[str, Any]) -> str:
    """The result as one line of JSON; numbers that are not finite, for which JSON has no word, are null."""
    return json.dumps(_for_json(result), allow_nan=False)


def _for_json(value: Any) -> Any:
    """Nested results with ``None`` in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
