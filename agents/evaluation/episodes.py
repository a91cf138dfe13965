"""Plays episodes with a trained policy, exactly as many as asked for, and says how they went."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ctm_rl.agents.evaluation.answers import Asked, asked_of, describe_answers, evaluate_answers
from ctm_rl.agents.evaluation.halting_curve import HALT_THRESHOLDS, threshold_name
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.answering import AnsweringExperiment, TaskConfig
from ctm_rl.agents.experiments.settings import MAX_SEED
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.agents.rllib.vector_loop import VectorLoop
from ctm_rl.agents.run_directory.directory import check_is_run, read_config
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError
from ctm_rl.inference.actor import check_can_halt, check_can_take
from ctm_rl.inference.load_model import MODEL_ENTRY, rebuild_model
from ctm_rl.inference.policy import Policy, official_of
from ctm_rl.machine.halting import check_halt_certainty
from ctm_rl.machine.synchronisation import Synchronisation
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel
from ctm_rl.spaces.actions import Actions
from ctm_rl.spaces.observations import Layout

Env = TypeVar("Env", EnvConfig, TaskConfig)

MAX_ENVS = 32
"""How many environments are played side by side."""
_SEED_FLOOR = 2**31
"""Evaluation seeds are not below this, so that they are not among those of training."""


class _Way(NamedTuple):
    """How episodes are played."""

    deterministic: bool
    """Take the likeliest actions."""
    seed: int
    """Of drawing them."""
    halt_certainty: float | None
    """Certainty at which a row stops ticking; None: none."""
    num_ticks: int | None
    """How many ticks a row takes, at most; None: as trained."""


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
) -> dict[str, Any]:
    """Plays exactly ``episodes`` episodes, or has an imported model that answers instead answer as many samples.

    Every environment plays its own share of them, settled beforehand: taking those that end first would favour short
    ones. Every episode has its own seed.

    Args:
        run_dir: a run's directory (its newest checkpoint is taken) or one checkpoint in it.
        episodes: how many, at least 1.
        seed: the same seed plays the same episodes.
        deterministic: take the likeliest action instead of drawing one.
        device: where the policy computes: cpu, cuda or cuda:N.
        env_kwargs: arguments of the environment that are to differ from those it was trained with.
        decay_rate: answering models only: set the decay rate of every pair to this; large rates cut the memory that
            synchronisation is.
        human: answering models only: the share of people who chose each class, [N, C], for the held-out samples in
            their order.
        halt_certainty: let each row stop ticking once it is this certain, from 0 to 1; a policy must have been trained
            with ``train_random_ticks``.
        halt_curve: tell ``halting``: results, ticks and time for several such certainties.
        num_ticks: of such a policy: it takes so many ticks, or at most so many where rows halt. A model that answers
            tells ``accuracy_by_tick`` without being asked.

    Returns:
        ``episodes``, mean, standard deviation, least and greatest of the raw returns, mean length, ``env_steps``,
        ``seconds``, and the iteration of the checkpoint; for answers see ``evaluate_answers``. Where rows halt, also
        ``halt_certainty`` and ``ticks_mean``, ticks of a step or sample, the latter with ``num_ticks`` too; for answers
        ``accuracy`` and ``accuracy_whole`` are then those of each sample's last tick.

    Raises:
        UserError: a value is not allowed, there is no usable checkpoint, or the environment does not fit it.
    """
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, got {episodes}.")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed must be at least 0 and at most {MAX_SEED}, got {seed}.")
    thresholds = _thresholds(halt_certainty, halt_curve)
    place = Path(run_dir)
    run = place.parents[1] if place.parent.name == checkpoint.FOLDER else place
    check_is_run(run)
    found = check_device(device)
    place = checkpoint.find(place)
    state = checkpoint.load(place)
    official = official_of(place, state)
    if MODEL_ENTRY in state or (official is not None and official.task != "rl"):
        if num_ticks is not None:
            raise UserError("num_ticks is for policies that act; one that answers tells accuracy_by_tick with --json.")
        model, asked = _answering(run, place, state, official)
        asked = asked._replace(env=_changed(asked.env, env_kwargs))
        if decay_rate is not None:
            _set_decay_rates(model, decay_rate)
        people = None if human is None else torch.from_numpy(human)
        result = evaluate_answers(
            model, asked, episodes=episodes, seed=seed, device=found, human=people, thresholds=thresholds
        )
        if not halt_curve:
            result |= _only_point(result.pop("halting", []))
        return {**result, "iteration": checkpoint.iteration_of(place)}
    if decay_rate is not None or human is not None:
        raise UserError("decay_rate and human answers are for models that answer; this one acts.")
    policy = Policy.from_state(place, state, found)
    _checked(lambda: check_can_take(policy.agent, num_ticks))
    experiment = read_config(run)
    assert isinstance(experiment, ActingExperiment)
    env = _changed(experiment.env, env_kwargs)
    seeds = [_SEED_FLOOR + int(word) // 2 for word in np.random.SeedSequence(seed).generate_state(episodes)]
    if thresholds:
        _check_can_halt(policy)
    halting = thresholds if halt_curve else ()
    result = _play_all(policy, env, seeds, _Way(deterministic, seed, halt_certainty, num_ticks), halting)
    return {**result, "iteration": policy.iteration, "seed": seed, "deterministic": deterministic}


def _play_all(
    policy: Policy, config: EnvConfig, seeds: list[int], way: "_Way", thresholds: Sequence[float | None]
) -> dict[str, Any]:
    """Plays one episode for each seed, and once more for each certainty that rows are to halt at."""
    episodes = len(seeds)
    shares = [_Share(_make_fitting(config, policy)) for _ in range(min(episodes, MAX_ENVS))]
    vector = SyncVectorEnv([lambda share=share: share for share in shares], autoreset_mode=AutoresetMode.SAME_STEP)
    loop = VectorLoop(vector, policy.layout)
    started = time.perf_counter()
    num_threads = torch.get_num_threads()
    # The products are too small to be shared out: with more threads on a busy machine they take ten times as long.
    torch.set_num_threads(1)
    try:
        returns, lengths, ticks = _play(policy, shares, loop, seeds, way)
        seconds = time.perf_counter() - started
        halting = [_play_halting(policy, shares, loop, seeds, way._replace(halt_certainty=at)) for at in thresholds]
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
        **_told(way, ticks / int(lengths.sum())),
        **({"halting": halting} if halting else {}),
    }


def check_device(device: str) -> torch.device:
    """Gives the device of that name.

    Raises:
        UserError: there is no such device here.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu, cuda or cuda:N, got {device!r}.")
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        raise UserError(f"device {device!r} is not here: this machine has {count} CUDA devices; cpu always works.")
    return found


def _answering(
    run: Path, place: Path, state: Mapping[str, Any], official: OfficialModel | None
) -> tuple[ContinuousThoughtMachine | FeedForwardModel, Asked]:
    """A model that answers, and what it is asked."""
    if official is not None:
        assert not isinstance(official.model, ActorCritic)
        return official.model, asked_of(official)
    experiment = read_config(run)
    if not isinstance(experiment, AnsweringExperiment):
        raise UserError(f"{run / 'config.json'} is of a run that acts, and its checkpoint holds a model that answers.")
    env = experiment.env
    held_out = dataclasses.replace(env, kwargs={**env.kwargs, **env.held_out_kwargs}, held_out_kwargs={})
    return rebuild_model(place, state), Asked(held_out, experiment.learning.loss, experiment.name)


def _changed(env: Env, kwargs: Mapping[str, Any] | None) -> Env:
    """An environment with other arguments."""
    return dataclasses.replace(env, kwargs={**env.kwargs, **(kwargs or {})})


def _set_decay_rates(model: torch.nn.Module, rate: float) -> None:
    """Gives every pair the same decay rate."""
    synchronisations = [part for part in model.modules() if isinstance(part, Synchronisation)]
    if not synchronisations:
        raise UserError("decay_rate is for the machine; a baseline has no synchronisation.")
    limit = max(part.max_decay_rate for part in synchronisations)
    if not 0 <= rate <= limit:
        raise UserError(f"decay_rate must be at least 0 and at most {limit:g}, got {rate}.")
    for part in synchronisations:
        torch.nn.init.constant_(part.decay_rate, rate)


def _make_fitting(config: EnvConfig, policy: Policy) -> gym.Env:
    """Makes an environment that the policy can act on."""
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
    """What an environment's spaces have that a policy's have not."""
    if actions != policy.actions:
        return f"it acts by {policy.actions}, and the environment takes {actions}"
    for one, other in itertools.zip_longest(policy.layout.parts, layout.parts):
        if one != other:
            return f"it sees {one}, and the environment shows {other}"
    raise AssertionError("they are the same")


class _Share(gym.Wrapper[Any, Any, Any, Any]):
    """One environment's share of the episodes: plays one for each of its seeds, then stands still.

    Args:
        env: the environment.
    """

    def begin(self, seeds: Iterable[int]) -> None:
        """Sets the seeds of the next episodes."""
        self._seeds = iter(seeds)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins the next episode; after the last one the last observation stays."""
        following = next(self._seeds, None)
        self._is_over = following is None
        if not self._is_over:
            self._observation, _ = self.env.reset(seed=following)
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step, or none after the last episode."""
        if self._is_over:
            return self._observation, 0.0, False, False, {}
        self._observation, reward, is_terminated, is_truncated, _ = self.env.step(action)
        return self._observation, reward, is_terminated, is_truncated, {}


def _play(
    policy: Policy, shares: Sequence[_Share], loop: VectorLoop, seeds: list[int], how: _Way
) -> tuple[np.ndarray, np.ndarray, int]:
    """Plays one episode for each seed: environment i those of places i, i + n, i + 2 n, and so on.

    Returns:
        Returns and lengths, in the order of the seeds, and how many ticks all these steps took.
    """
    num_envs, num_episodes = len(shares), len(seeds)
    for index, share in enumerate(shares):
        share.begin(seeds[index::num_envs])
    loop.reset()
    generator = torch.Generator().manual_seed(how.seed)
    state = policy.initial_state(num_envs)

    def choose(observations: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        nonlocal state
        actions, state = policy.act_packed(
            observations,
            state,
            is_first=is_first,
            deterministic=how.deterministic,
            generator=generator,
            halt_certainty=how.halt_certainty,
            num_ticks=how.num_ticks,
        )
        return actions

    returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
    episode_of = np.arange(num_envs)  # which episode each environment plays; after its last one: num_episodes or more
    num_ticks = 0
    steps = loop.steps(choose)
    while (is_playing := episode_of < num_episodes).any():
        taken = next(steps)
        num_ticks += int(policy.ticks[is_playing].sum())
        ended = np.flatnonzero(taken.is_last)
        returns[episode_of[ended]], lengths[episode_of[ended]] = taken.returns[ended], taken.lengths[ended]
        episode_of[ended] += num_envs
    return returns, lengths, num_ticks


def _play_halting(
    policy: Policy, shares: Sequence[_Share], loop: VectorLoop, seeds: list[int], way: _Way
) -> dict[str, Any]:
    """Plays one episode for each seed where every row halts at a certainty; a point of the curve."""
    started = time.perf_counter()
    returns, lengths, num_ticks = _play(policy, shares, loop, seeds, way)
    num_steps = int(lengths.sum())
    return {
        "threshold": way.halt_certainty,
        "ticks_mean": num_ticks / num_steps,
        "episode_return_mean": float(returns.mean()),
        "episode_length_mean": float(lengths.mean()),
        "seconds_per_step": (time.perf_counter() - started) / num_steps,
    }


def _thresholds(halt_certainty: float | None, halt_curve: bool) -> tuple[float | None, ...]:
    """The certainties at which rows are to halt."""
    if halt_certainty is not None and halt_curve:
        raise UserError("halt_curve has certainties of its own; leave halt_certainty out.")
    _checked(lambda: check_halt_certainty(halt_certainty))
    if halt_curve:
        return HALT_THRESHOLDS
    return () if halt_certainty is None else (halt_certainty,)


def _only_point(points: list[dict[str, Any]]) -> dict[str, Any]:
    """What a curve of at most one point tells."""
    return {"halt_certainty" if name == "threshold" else name: told for point in points for name, told in point.items()}


def _told(way: _Way, ticks_mean: float) -> dict[str, Any]:
    """What is told of rows that do not take all of their ticks."""
    asked = {"halt_certainty": way.halt_certainty, "num_ticks": way.num_ticks}
    given = {name: value for name, value in asked.items() if value is not None}
    return {**given, "ticks_mean": ticks_mean} if given else {}


def _check_can_halt(policy: Policy) -> None:
    """Refuses a policy that has only ever seen all of its ticks."""
    _checked(lambda: check_can_halt(policy.agent))


def _checked(function: Callable[[], Any]) -> Any:
    """Does what a person asked for; its refusal is theirs to read."""
    try:
        return function()
    except ValueError as error:
        raise UserError(str(error)) from error


def to_text(result: dict[str, Any]) -> str:
    """One line for a person."""
    if "task" in result:
        return describe_answers(result)
    return (
        f"{result['episodes']} episodes: return {describe_return(result['episode_return_mean'])} "
        f"(std {describe_return(result['episode_return_std'])}, {describe_return(result['episode_return_min'])} to "
        f"{describe_return(result['episode_return_max'])}), length {result['episode_length_mean']:.1f}, "
        f"{result['env_steps']} steps in {result['seconds']:.1f} s, checkpoint of iteration {result['iteration']}"
        + (f", {result['ticks_mean']:.2f} ticks a step" if "ticks_mean" in result else "")
        + "".join(map(_describe_halting, result.get("halting", ())))
    )


def _describe_halting(point: dict[str, Any]) -> str:
    """One more line for each certainty that rows halted at."""
    name = threshold_name(point["threshold"])
    return (
        f"\n  {name}: {point['ticks_mean']:.2f} ticks a step, return {describe_return(point['episode_return_mean'])}, "
        f"length {point['episode_length_mean']:.1f}, {1e3 * point['seconds_per_step']:.3f} ms a step"
    )


def to_json(result: dict[str, Any]) -> str:
    """One line for a program."""
    return json.dumps(result)
