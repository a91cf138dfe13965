"""Makes the environment of a run again: to play in, or the samples that a model answers, as ``evaluate`` has them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from ctm_rl.agents.evaluation.answers import BATCH_SIZE
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.answering import AnsweringExperiment, TaskConfig
from ctm_rl.agents.rllib.columns import join, map_arrays
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.agents.run_directory.trust import check_trusted, env_claims
from ctm_rl.agents.supervised.sampler import LabelledSamples, Sampler
from ctm_rl.checkpoints.best import run_of
from ctm_rl.errors import UserError

Env = TypeVar("Env", EnvConfig, TaskConfig)
Split = Literal["held-out", "training"]
_ENDLESS = 2**62


def environment_of(
    run_dir: str | Path,
    *,
    num_envs: int | None = None,
    split: Split = "held-out",
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Any:
    """Makes the environment of a run, with its arguments and wrappers.

    Of a run that acts, it is the environment that ``evaluate`` plays: rewards are not clipped, and episodes not
    staggered. Of a run that answers, it returns samples: each ``reset`` the next ones, with the right answers under
    ``info["target"]``; a ``step`` scores answers and ends the episodes. The first N held-out samples are those of
    ``evaluate(episodes=N)`` with the same seed, if N is at least 100. Those of a finite set begin again after the last.

    Args:
        run_dir: a run's directory, one checkpoint in it, or ``zoo:NAME``.
        num_envs: ``None``: a single environment; otherwise a vector of so many. A vector that acts resets itself in the
            step in which an episode ends (SameStep); one of samples is reset by the caller.
        split: of a run that answers: its held-out samples, or those that it learned from, in that order.
        seed: of held-out samples.
        env_kwargs: arguments of the environment that replace those of training, such as ``render_mode``.
        trust: whether the run may import a module of the current folder, or load data from the network, although no
            run of this user on this machine names it, see ``run_directory.trust``.

    Returns:
        A ``gymnasium.Env``, or with ``num_envs`` a ``gymnasium.vector.VectorEnv``, not reset yet.

    Raises:
        UserError: there is no such run, its environment is not trusted or cannot be made, or a value is not allowed.
    """
    run = run_of(Path(run_dir))
    if num_envs is not None and num_envs < 1:
        raise UserError(f"num_envs must be at least 1, got {num_envs}; leave it out for a single environment.")
    if split not in ("held-out", "training"):
        raise UserError(f"split must be held-out or training, got {split!r}.")
    experiment = read_config(run)
    check_trusted(env_claims(experiment.env, replaced=env_kwargs or {}), run, is_trusted=trust)
    if isinstance(experiment, ActingExperiment):
        if split != "held-out" or seed:
            raise UserError(f"split and seed are for runs that answer, and {run} acts; seed its environment by reset.")
        make = functools.partial(make_env, changed_env(experiment.env, env_kwargs))
        return make() if num_envs is None else SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    samples = _Samples(experiment, split, seed, env_kwargs)
    return SamplesEnv(samples) if num_envs is None else SamplesVectorEnv(samples, num_envs)


def changed_env(env: Env, kwargs: Mapping[str, Any] | None) -> Env:
    """An environment's configuration with other arguments."""
    return dataclasses.replace(env, kwargs={**env.kwargs, **(kwargs or {})})


def held_out_task(experiment: AnsweringExperiment) -> TaskConfig:
    """The environment of an experiment's held-out samples."""
    return dataclasses.replace(changed_env(experiment.env, experiment.env.held_out_kwargs), held_out_kwargs={})


class _Samples:
    """The samples of a run, one after the other, in as many at a time as are wanted.

    Args:
        experiment: of the run.
        split: which samples.
        seed: of held-out samples.
        env_kwargs: arguments that replace those of the run.
    """

    def __init__(
        self, experiment: AnsweringExperiment, split: Split, seed: int, env_kwargs: Mapping[str, Any] | None
    ) -> None:
        self._is_held_out = split == "held-out"
        task = (
            held_out_task(experiment) if self._is_held_out else dataclasses.replace(experiment.env, held_out_kwargs={})
        )
        self._sampler = Sampler(
            changed_env(task, env_kwargs),
            num_rows=BATCH_SIZE if self._is_held_out else experiment.num_rows,
            num_steps=1 if self._is_held_out else experiment.learning.num_steps_per_iteration,
            seed=experiment.seed or 0,
            held_out_seed=seed,
        )
        self.spaces = self._sampler.spaces
        self._chunks = self._all_chunks()
        self._rest: LabelledSamples | None = None

    def take(self, count: int) -> LabelledSamples:
        """The next samples."""
        parts: list[LabelledSamples] = []
        while count:
            chunk = self._rest if self._rest is not None else next(self._chunks)
            parts.append(_rows(chunk, slice(0, count)))
            self._rest = _rows(chunk, slice(count, None)) if count < len(chunk.targets) else None
            count -= len(parts[-1].targets)
        return LabelledSamples(
            join([part.observations for part in parts]), np.concatenate([part.targets for part in parts])
        )

    def score(self, answers: Any, targets: np.ndarray) -> np.ndarray:
        """The share of right elements of each answer, [N]."""
        task = self._sampler.task
        given = np.asarray(answers).reshape(targets.shape)
        if task is not None:
            return task.score(given, targets)
        return (given == targets).reshape(len(targets), -1).mean(1)

    def close(self) -> None:
        """Closes the environments that make the samples."""
        self._sampler.close()

    def _all_chunks(self) -> Iterator[LabelledSamples]:
        """Chunks without end."""
        number = 0
        if not self._is_held_out:
            while True:
                yield self._sampler.fragment(number, 0)
                number += 1
        num_samples = self._sampler.count_held_out(_ENDLESS)
        num_chunks = -(-num_samples // BATCH_SIZE)
        while True:
            yield self._sampler.held_out(number % num_chunks, num_samples)
            number += 1


def _rows(samples: LabelledSamples, rows: slice) -> LabelledSamples:
    """Some of the samples."""
    return LabelledSamples(map_arrays(samples.observations, lambda part: part[rows]), samples.targets[rows])


class SamplesEnv(gym.Env[Any, Any]):
    """The samples of a run, one at a time; see ``environment_of``."""

    def __init__(self, samples: _Samples) -> None:
        self.observation_space, self.action_space = samples.spaces
        self._samples = samples
        self._shown: LabelledSamples | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Returns the next sample.

        Args:
            seed: must be ``None``: samples come in the order in which they are evaluated or were learned from.
            options: must be ``None``.

        Returns:
            The observation, and ``{"target": ...}``.

        Raises:
            ValueError: there is a seed or an option.
        """
        _check_reset(seed, options)
        self._shown = self._samples.take(1)
        return map_arrays(self._shown.observations, lambda part: part[0]), {"target": self._shown.targets[0]}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Scores an answer; the episode ends.

        Args:
            action: the answer.

        Returns:
            The observation again, the share of right elements, terminated, not truncated, and ``{"target": ...}``.

        Raises:
            gymnasium.error.ResetNeeded: there was no reset since the last answer.
        """
        if self._shown is None:
            raise gym.error.ResetNeeded("reset the environment before answering: each sample is answered once.")
        (observations, targets), self._shown = self._shown, None
        reward = float(self._samples.score(action, targets)[0])
        return map_arrays(observations, lambda part: part[0]), reward, True, False, {"target": targets[0]}

    def close(self) -> None:
        """Closes the environments that make the samples."""
        self._samples.close()


class SamplesVectorEnv(VectorEnv[Any, Any, Any]):
    """The samples of a run, N at a time; see ``environment_of``. It never resets itself (autoreset mode Disabled)."""

    def __init__(self, samples: _Samples, num_envs: int) -> None:
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = samples.spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._samples = samples
        self._shown: LabelledSamples | None = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Returns the next N samples.

        Args:
            seed: must be ``None``: samples come in the order in which they are evaluated or were learned from.
            options: must be ``None``.

        Returns:
            The observations [N, ...], and ``{"target": [N, ...]}``.

        Raises:
            ValueError: there is a seed or an option.
        """
        _check_reset(seed, options)
        self._shown = self._samples.take(self.num_envs)
        return self._shown.observations, {"target": self._shown.targets}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Scores N answers; all episodes end.

        Args:
            actions: the answers, [N, ...].

        Returns:
            The observations again [N, ...], the share of right elements of each answer [N], all terminated, none
            truncated, and ``{"target": [N, ...]}``.

        Raises:
            gymnasium.error.ResetNeeded: there was no reset since the last answers.
        """
        if self._shown is None:
            raise gym.error.ResetNeeded("reset the environments before answering: each sample is answered once.")
        (observations, targets), self._shown = self._shown, None
        ended = np.ones(self.num_envs, bool)
        return observations, self._samples.score(actions, targets), ended, ~ended, {"target": targets}

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments that make the samples."""
        self._samples.close()


def _check_reset(seed: object, options: object) -> None:
    """Refuses what would choose samples."""
    if seed is not None or options:
        raise ValueError(
            "reset takes no seed and no options: samples come in the order in which they are evaluated or were learned "
            "from; environment_of(run, seed=...) chooses others."
        )
