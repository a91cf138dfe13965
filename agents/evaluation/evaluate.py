"""Evaluates a trained policy on an exact number of episodes, or a model that answers on held-out samples."""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ctm_rl.agents.evaluation.answers import EvaluationTask, describe_answers, evaluate_answers, evaluation_task_of
from ctm_rl.agents.evaluation.halting_curve import HALT_THRESHOLDS, describe_points
from ctm_rl.agents.evaluation.run_environment import changed_env, held_out_task
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.settings import MAX_SEED
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.finished_episodes import FAULT
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.rllib.vector_loop import VectorLoop
from ctm_rl.agents.run_directory.directory import check_is_run, read_config
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.agents.run_directory.trust import check_trusted, env_claims
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError
from ctm_rl.inference.batched_actor import check_can_halt, check_can_take
from ctm_rl.inference.load_model import MODEL_ENTRY, rebuild_model
from ctm_rl.inference.policy import Policy, official_of
from ctm_rl.machine.halting import check_halt_certainty
from ctm_rl.machine.synchronisation import Synchronisation
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel
from ctm_rl.spaces.actions import Actions
from ctm_rl.spaces.observations import Layout

Trained = Policy | ContinuousThoughtMachine | FeedForwardModel | OfficialModel

MAX_ENVS = 32
"""Number of environments that are stepped together, at most."""
MAX_EPISODE_STEPS = 100_000
"""Steps of an episode, at most, unless another limit is given: an episode may have no end of its own."""
_SEED_FLOOR = 2**31
"""Lowest seed of evaluation; those of training are below."""


class _PlayOptions(NamedTuple):
    """How actions are chosen."""

    deterministic: bool
    """Take the most likely actions."""
    seed: int
    """Seed for sampling actions."""
    halt_certainty: float | None
    """Certainty at which a row halts; ``None``: no halting."""
    num_ticks: int | None
    """Number of ticks of a row, at most; ``None``: as trained."""
    max_episode_steps: int
    """Steps after which an episode is truncated."""


def evaluate(
    run_dir: str | Path,
    *,
    episodes: int = 100,
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
        run_dir: a run's directory (its newest checkpoint is taken) or one checkpoint in it.
        episodes: number of episodes or samples, at least 1.
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
        ``episodes``, mean, standard deviation, minimum and maximum of the raw returns, mean length, ``env_steps``,
        ``seconds``, and the iteration of the checkpoint; if there are any, ``episodes_truncated`` (after
        ``max_episode_steps``) and ``env_faults``; for answers see ``evaluate_answers``. Where rows halt, also
        ``halt_certainty`` and ``ticks_mean``, ticks of a step or sample, the latter with ``num_ticks`` too; for answers
        ``accuracy`` and ``accuracy_whole`` are then those of each sample's last tick.

    Raises:
        UserError: a value is not allowed, there is no usable checkpoint, or the environment is not trusted or does not
            fit it.
    """
    _check_numbers(episodes, seed, max_episode_steps)
    thresholds = _thresholds(halt_certainty, halt_curve)
    place = Path(run_dir)
    run = place.parents[1] if place.parent.name == checkpoint.FOLDER else place
    check_is_run(run)
    found = check_device(device)
    place, trained, experiment = load_trained(run, place, found)
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
        result = evaluate_answers(
            model, task, episodes=episodes, seed=seed, device=found, human=people, thresholds=thresholds
        )
        if not halt_curve:
            result |= _only_point(result.pop("halting", []))
        return {**result, "iteration": checkpoint.iteration_of(place)}
    if decay_rate is not None or human is not None:
        raise UserError("decay_rate and human are for models that answer, and this is a policy; leave them out.")
    policy = trained
    _checked(lambda: check_can_take(policy.agent, num_ticks))
    assert isinstance(experiment, ActingExperiment)
    env = changed_env(experiment.env, env_kwargs)
    seeds = [_SEED_FLOOR + int(word) // 2 for word in np.random.SeedSequence(seed).generate_state(episodes)]
    if thresholds:
        _checked(lambda: check_can_halt(policy.agent))
    halting = thresholds if halt_curve else ()
    options = _PlayOptions(deterministic, seed, halt_certainty, num_ticks, max_episode_steps)
    result = _play_all(policy, env, seeds, options, halting)
    return {**result, "iteration": policy.iteration, "seed": seed, "deterministic": deterministic}


def _play_all(
    policy: Policy, config: EnvConfig, seeds: list[int], options: _PlayOptions, thresholds: Sequence[float | None]
) -> dict[str, Any]:
    """Plays one episode for each seed, and again for each certainty of the halting curve."""
    episodes = len(seeds)
    shares = [_Share(_make_fitting(config, policy), options.max_episode_steps) for _ in range(min(episodes, MAX_ENVS))]
    vector = SyncVectorEnv([lambda share=share: share for share in shares], autoreset_mode=AutoresetMode.SAME_STEP)
    loop = VectorLoop(vector, policy.layout)
    started = time.perf_counter()
    num_threads = torch.get_num_threads()
    # The products are too small for several threads, which take ten times as long on a busy machine.
    torch.set_num_threads(1)
    try:
        returns, lengths, ticks = _play(policy, shares, loop, seeds, options)
        seconds = time.perf_counter() - started
        halting = [_play_halting(policy, shares, loop, seeds, options._replace(halt_certainty=at)) for at in thresholds]
    finally:
        torch.set_num_threads(num_threads)
        vector.close()
    return {
        "episodes": episodes,
        "episode_return_mean": float(returns.mean()),
        "episode_return_std": float(returns.std()),
        "episode_return_min": float(returns.min()),
        "episode_return_max": float(returns.max()),
        "episode_length_mean": float(lengths.mean()),
        "env_steps": int(lengths.sum()),
        "seconds": round(seconds, 3),
        **_incidents(shares),
        **_ticks_taken(options, ticks / int(lengths.sum())),
        **({"halting": halting} if halting else {}),
    }


def _check_numbers(episodes: int, seed: int, max_episode_steps: int) -> None:
    """Refuses numbers that are out of range.

    Raises:
        UserError: one line with the number and its limit.
    """
    for name, value in (("episodes", episodes), ("max_episode_steps", max_episode_steps)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}.")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must be at least 0 and at most {MAX_SEED}, got {seed}.")


def check_device(device: str) -> torch.device:
    """Returns the device of that name.

    Raises:
        UserError: there is no such device.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu, cuda or cuda:N, got {device!r}.")
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        raise UserError(f"device {device!r} does not exist: this machine has {count} CUDA devices; cpu always works.")
    return found


def load_trained(run: Path, place: Path, device: torch.device) -> tuple[Path, Trained, AnyExperiment | None]:
    """Reads what a run has trained, from a checkpoint or from the newest usable one, and its experiment.

    Args:
        run: the run's directory.
        place: a run's directory or one checkpoint in it.
        device: where a policy computes.

    Returns:
        The checkpoint's path; the policy, the model that answers, or the imported one that answers; and the experiment,
        which the last one does not have.

    Raises:
        UserError: there is no usable checkpoint, or it is not of such an experiment.
    """

    def rebuild(place: Path, state: Mapping[str, Any]) -> tuple[Path, Trained]:
        official = official_of(place, state)
        if official is not None:
            agent = official.model
            if not isinstance(agent, ActorCritic):
                return place, official
            return place, Policy(agent.to(device), checkpoint.iteration_of(place))
        if MODEL_ENTRY in state:
            return place, rebuild_model(place, state)
        return place, Policy.from_state(place, state, device)

    place, trained = checkpoint.read_newest(place, rebuild)
    if isinstance(trained, OfficialModel):
        return place, trained, None
    experiment = read_config(run)
    if isinstance(experiment, ActingExperiment) != isinstance(trained, Policy):
        kinds = ("a model that answers", "a policy")
        described, held = kinds if isinstance(trained, Policy) else reversed(kinds)
        raise UserError(f"{run / 'config.json'} describes {described}, and the checkpoint holds {held}.")
    return place, trained, experiment


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


def _make_fitting(config: EnvConfig, policy: Policy) -> gym.Env:
    """Creates an environment and checks that it fits the policy."""
    env = make_env(config)
    try:
        fitted = fit(policy.agent.config, env.observation_space, env.action_space)
    except UserError as error:
        env.close()
        raise UserError(f"the checkpoint's policy cannot act on {config.id}: {error}") from error
    if fitted.layout != policy.layout or fitted.actions != policy.actions:
        env.close()
        raise UserError(
            f"the checkpoint's policy was trained on other spaces than those of {config.id}: "
            f"{_difference(policy, fitted.layout, fitted.actions)}."
        )
    return env


def _difference(policy: Policy, layout: Layout, actions: Actions) -> str:
    """How an environment's spaces differ from the policy's."""
    if actions != policy.actions:
        return f"it acts by {policy.actions}, and the environment takes {actions}"
    for one, other in itertools.zip_longest(policy.layout.parts, layout.parts):
        if one != other:
            return f"it sees {one}, and the environment shows {other}"
    raise AssertionError("they are the same")


class _Share(gym.Wrapper[Any, Any, Any, Any]):
    """One environment's share of the episodes: plays one for each of its seeds, then stands still.

    Args:
        env: the environment; if it tolerates faults, an episode that one has ended is played again.
        max_steps: an episode is truncated after so many steps.

    Attributes:
        num_truncated: how many episodes were truncated so.
        num_faults: how many faults were tolerated.
    """

    def __init__(self, env: gym.Env, max_steps: int) -> None:
        super().__init__(env)
        self._max_steps = max_steps
        self.num_truncated = self.num_faults = 0
        self._is_broken = False

    def begin(self, seeds: Iterable[int]) -> None:
        """Sets the seeds of the next episodes."""
        self._seeds = iter(seeds)
        self._is_broken = False

    def pop_broken(self) -> bool:
        """Whether the last episode was ended by a fault, and is played again."""
        is_broken, self._is_broken = self._is_broken, False
        return is_broken

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins the next episode; after the last one the last observation stays."""
        # Without a seed, an environment that has been recreated derives one from the last.
        following = None if self._is_broken else next(self._seeds, None)
        self._is_over = following is None and not self._is_broken
        self._num_steps = 0
        if not self._is_over:
            self._observation, info = self.env.reset(seed=following)
            self.num_faults += FAULT in info
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step, or none after the last episode."""
        if self._is_over:
            return self._observation, 0.0, False, False, {}
        self._observation, reward, is_terminated, is_truncated, info = self.env.step(action)
        self._num_steps += 1
        self._is_broken = FAULT in info
        self.num_faults += self._is_broken
        if self._num_steps == self._max_steps and not (is_terminated or is_truncated):
            self.num_truncated += 1
            is_truncated = True
        return self._observation, reward, is_terminated, is_truncated, {}


def _play(
    policy: Policy, shares: Sequence[_Share], loop: VectorLoop, seeds: list[int], options: _PlayOptions
) -> tuple[np.ndarray, np.ndarray, int]:
    """Plays one episode for each seed: environment i those of places i, i + n, i + 2 n, and so on.

    Returns:
        Returns and lengths, in the order of the seeds, and how many ticks all these steps took.
    """
    num_envs, num_episodes = len(shares), len(seeds)
    for index, share in enumerate(shares):
        share.begin(seeds[index::num_envs])
    loop.reset()
    generator = torch.Generator().manual_seed(options.seed)
    state = policy.initial_state(num_envs)

    def choose(observations: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        nonlocal state
        actions, state = policy.act_packed(
            observations,
            state,
            is_first=is_first,
            deterministic=options.deterministic,
            generator=generator,
            halt_certainty=options.halt_certainty,
            num_ticks=options.num_ticks,
        )
        return actions

    returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
    episode_of = np.arange(num_envs)  # which episode each environment plays; after its last one: num_episodes or more
    num_ticks = 0
    steps = loop.steps(choose)
    while (is_playing := episode_of < num_episodes).any():
        taken = next(steps)
        num_ticks += int(policy.ticks[is_playing].sum())
        rows = np.flatnonzero(taken.is_last).tolist()
        ended = np.array([row for row in rows if not shares[row].pop_broken()], dtype=np.int64)
        returns[episode_of[ended]], lengths[episode_of[ended]] = taken.returns[ended], taken.lengths[ended]
        episode_of[ended] += num_envs
    return returns, lengths, num_ticks


def _play_halting(
    policy: Policy, shares: Sequence[_Share], loop: VectorLoop, seeds: list[int], options: _PlayOptions
) -> dict[str, Any]:
    """Plays one episode for each seed with halting; returns a point of the halting curve."""
    started = time.perf_counter()
    returns, lengths, num_ticks = _play(policy, shares, loop, seeds, options)
    num_steps = int(lengths.sum())
    return {
        "threshold": options.halt_certainty,
        "ticks_mean": num_ticks / num_steps,
        "episode_return_mean": float(returns.mean()),
        "episode_length_mean": float(lengths.mean()),
        "seconds_per_step": (time.perf_counter() - started) / num_steps,
    }


def _incidents(shares: Sequence[_Share]) -> dict[str, int]:
    """How many episodes were truncated, and how many faults were tolerated, if any; halting curves included."""
    counts = {
        "episodes_truncated": sum(share.num_truncated for share in shares),
        "env_faults": sum(share.num_faults for share in shares),
    }
    return {name: count for name, count in counts.items() if count}


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


def _ticks_taken(options: _PlayOptions, ticks_mean: float) -> dict[str, Any]:
    """Options and mean number of ticks, where rows may take fewer than all of them."""
    values = {"halt_certainty": options.halt_certainty, "num_ticks": options.num_ticks}
    given = {name: value for name, value in values.items() if value is not None}
    return {**given, "ticks_mean": ticks_mean} if given else {}


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
        f"(std {describe_return(result['episode_return_std'])}, {describe_return(result['episode_return_min'])} to "
        f"{describe_return(result['episode_return_max'])}), length {result['episode_length_mean']:.1f}, "
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
