"""Evaluates the runs that are compared: all on the same held-out samples, or the same episodes."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ctm_rl.agents.evaluation.answers import EvaluationTask
from ctm_rl.agents.evaluation.play import MAX_EPISODE_STEPS, PlayOptions, play_all, seeds_of_episodes
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.report.compare.contenders import ComparedRun
from ctm_rl.agents.report.report import ReportOptions, answering_of
from ctm_rl.agents.report.scored import SECONDS, AnsweringModel, Scored, affordable_samples, score
from ctm_rl.agents.run_directory.trust import check_trusted, env_claims
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy

Result = TypeVar("Result")

ALL_SECONDS = 60.0
"""Time for the numbers of all runs together, where nobody has said how many samples or episodes."""
MIN_SECONDS = 3.0
"""Time of one run, at least."""
NUM_EPISODES = 100
"""Episodes unless another number is given, as ``evaluate`` has it, if there is the time."""
_TRIED = 5
"""Episodes that are played to see how long one takes."""


class Played(NamedTuple):
    """Evaluated episodes of a policy."""

    result: dict[str, Any]
    """As ``evaluate`` returns it."""
    returns: np.ndarray
    """Of each episode, in the order of the seeds, [N]."""


Measured = Scored | Played


def measure(runs: Sequence[ComparedRun], options: ReportOptions, notes: list[str]) -> dict[str, Measured]:
    """Evaluates runs; all of them on as many samples, or episodes, as the slowest has time for.

    Args:
        runs: those without a model are left out.
        options: ``episodes`` and ``seed`` of samples or episodes.
        notes: gets what cannot be evaluated.

    Returns:
        The results by the names of runs.
    """
    seconds = min(SECONDS, max(MIN_SECONDS, ALL_SECONDS / max(1, len(runs))))
    answering: list[_Answering] = []
    acting: list[_Acting] = []
    for run in runs:
        try:
            _sort_in(run, options, answering, acting)
        except UserError as error:
            _note(run, error, notes)
    found: dict[str, Measured] = {}
    for members in (answering, acting):
        found |= _measure_alike(members, options, seconds, notes)
    return found


class _Answering(NamedTuple):
    """A model that answers, with its task."""

    run: ComparedRun
    model: AnsweringModel
    task: EvaluationTask

    def affordable(self, seed: int, seconds: float) -> int:
        """How many samples there is time for."""
        return affordable_samples(self.model, self.task, seed=seed, seconds=seconds)

    def measure(self, episodes: int, seed: int, seconds: float) -> Scored:
        """Evaluates it, without samples to be shown."""
        scored = score(self.model, self.task, episodes=episodes, seed=seed, seconds=seconds)
        return scored._replace(candidates=[])


class _Acting(NamedTuple):
    """A policy, with its environment."""

    run: ComparedRun
    policy: Policy
    env: EnvConfig

    def affordable(self, seed: int, seconds: float) -> int:
        """How many episodes there is time for."""
        started = time.process_time()
        self.measure(_TRIED, seed, seconds)
        each = max(time.process_time() - started, 1e-3) / _TRIED
        return min(NUM_EPISODES, max(1, int(seconds / each / 10)) * 10)

    def measure(self, episodes: int, seed: int, seconds: float) -> Played:
        """Plays the first episodes that ``evaluate`` plays with this seed."""
        returns: list[float] = []
        options = PlayOptions(False, seed, None, None, MAX_EPISODE_STEPS)
        result = play_all(
            self.policy,
            self.env,
            seeds_of_episodes(seed, episodes),
            options,
            observe=lambda played: returns.extend(one.episode_return for one in played),
        )
        return Played({**result, "seed": seed}, np.array(returns))


def _sort_in(run: ComparedRun, options: ReportOptions, answering: list[_Answering], acting: list[_Acting]) -> None:
    """Adds a run to those of its kind."""
    trained, experiment = run.found.trained, run.found.experiment
    if trained is None:
        return
    if experiment is not None:
        check_trusted(env_claims(experiment.env, replaced={}), run.run, is_trusted=options.trust)
    if not isinstance(trained, Policy):
        answering.append(_Answering(run, *answering_of(trained, experiment)))
    elif isinstance(experiment, ActingExperiment):
        acting.append(_Acting(run, trained, experiment.env))


def _measure_alike(
    members: Sequence[_Answering] | Sequence[_Acting], options: ReportOptions, seconds: float, notes: list[str]
) -> dict[str, Measured]:
    """Evaluates runs of one kind."""
    episodes, usable = options.episodes, list(members)
    if episodes is None:
        tried = {member.run.name: _tried(member, _affordable(options.seed, seconds), notes) for member in members}
        usable = [member for member in members if tried[member.run.name] is not None]
        episodes = min((number for number in tried.values() if number is not None), default=1)
    found = {member.run.name: _tried(member, _measuring(episodes, options.seed, seconds), notes) for member in usable}
    return {name: result for name, result in found.items() if result is not None}


def _affordable(seed: int, seconds: float) -> Callable[[_Answering | _Acting], int]:
    """What asks a run how many samples or episodes there is time for."""
    return lambda member: member.affordable(seed, seconds)


def _measuring(episodes: int, seed: int, seconds: float) -> Callable[[_Answering | _Acting], Measured]:
    """What evaluates a run."""
    return lambda member: member.measure(episodes, seed, seconds)


def _tried(
    member: _Answering | _Acting, make: Callable[[_Answering | _Acting], Result], notes: list[str]
) -> Result | None:
    """What a function makes of a run; ``None`` and a note if it cannot."""
    try:
        return make(member)
    except UserError as error:
        _note(member.run, error, notes)
        return None


def _note(run: ComparedRun, error: UserError, notes: list[str]) -> None:
    """Notes what is wrong with a run."""
    notes.append(f"{run.name}: {' '.join(str(error).split())}")
