"""Makes samples from a single-step vector environment: each reset returns observations and their right answers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.experiments.make_task import count_samples, make_samples_env, task_of
from ctm_rl.agents.rllib.columns import join, map_arrays
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.describe_space import describe_space
from ctm_rl.errors import UserError

OBSERVATIONS = "obs"
TARGETS = "targets"
REWARDS = "rewards"
"""Names of columns."""

_TRAINING, _HELD_OUT, _DRAWING = 0, 1, 2

_ROLE_SHIFT = 62
"""Seeds of training samples are below two to this power, those of held-out samples are not."""
_MAX_ENVS = 2**32


class EnvironmentFailed(UserError):
    """An environment raised an error while it made samples."""

    exit_code = 1


class LabelledSamples(NamedTuple):
    """N observations with their right answers."""

    observations: Any
    """[N, ...], or arrays [N, ...] by name."""
    targets: np.ndarray
    """[N, ...]."""

    def as_dict(self) -> dict[str, Any]:
        """The columns by name."""
        return {OBSERVATIONS: self.observations, TARGETS: self.targets}


class Sampler:
    """Makes samples that depend on the seed and their indices alone: every sampler makes the same ones.

    Args:
        env: the environment; the info of its reset holds the right answer under "target".
        num_rows: samples of one reset.
        num_steps: resets of one fragment.
        seed: of the training samples.
        held_out_seed: of the held-out samples.
    """

    def __init__(self, env: TaskConfig, *, num_rows: int, num_steps: int, seed: int, held_out_seed: int) -> None:
        self._config = env
        self._num_rows = num_rows
        self._num_steps = num_steps
        self._seeds = seed, held_out_seed
        self._envs: dict[int, VectorEnv] = {}

    def fragment(self, iteration: int, part: int) -> LabelledSamples:
        """Makes the samples of one learner for one iteration.

        Args:
            iteration: counted from 0.
            part: index of the learner.

        Returns:
            num_steps x num_rows samples; each num_rows of them were made in one reset.
        """
        env = self._env(_TRAINING)
        seed: int | None = _seed(_TRAINING, self._seeds[_TRAINING], iteration, part)
        parts = []
        for step in range(self._num_steps):
            report("resets", step, self._num_steps)
            parts.append(_reset(env, seed))
            seed = None
        observations, targets = zip(*parts, strict=True)
        return LabelledSamples(join(observations), np.concatenate(targets))

    def answered(
        self, iteration: int, part: int, step: int, answer: Callable[[Any, int], np.ndarray]
    ) -> tuple[Any, np.ndarray]:
        """Has one batch of observations answered; of the answers, only the rewards are returned.

        Args:
            iteration: counted from 0.
            part: index of the learner.
            step: index of the batch.
            answer: called with the observations [N, ...] and a seed for drawing; returns the actions [N, ...].

        Returns:
            The observations [N, ...], and the rewards [N], float32.

        Raises:
            UserError: the episode of an environment goes on after the answer.
        """
        env = self._env(_TRAINING)
        # A reset before each answer: whether and when environments reset themselves does not matter.
        observations, _ = env.reset(seed=_seed(_TRAINING, self._seeds[_TRAINING], iteration, part, step))
        # Vector environments may write the next observations into the same arrays.
        observations = map_arrays(observations, np.copy)
        actions = answer(observations, _seed(_DRAWING, self._seeds[_TRAINING], iteration, part, step))
        _, rewards, is_terminated, is_truncated, _ = env.step(actions)
        if not np.all(is_terminated | is_truncated):
            raise UserError(f"{_name(env)} cannot be learned from rewards: its episodes go on after the first step.")
        return observations, np.asarray(rewards, np.float32)

    def count_held_out(self, num_samples: int) -> int:
        """Number of held-out samples that are available, at most ``num_samples``."""
        finite = count_samples(self._env(_HELD_OUT))
        return num_samples if finite is None else min(num_samples, finite)

    def held_out(self, chunk: int, num_samples: int) -> LabelledSamples:
        """Makes a chunk of the held-out samples.

        Args:
            chunk: counted from 0; each has num_rows samples, the last one the rest.
            num_samples: of all chunks together.

        Returns:
            The samples; those of a finite set once each, in its order.
        """
        env, first = self._env(_HELD_OUT), chunk * self._num_rows
        count = min(self._num_rows, num_samples - first)
        if count_samples(env) is None:
            observations, targets = _reset(env, _seed(_HELD_OUT, self._seeds[_HELD_OUT], chunk))
        else:
            # A vector makes as many as it has environments; those beyond the last are cut off below.
            indices = np.minimum(np.arange(first, first + self._num_rows), num_samples - 1)
            observations, targets = _reset(env, self._seeds[_HELD_OUT], {"indices": indices})
        return LabelledSamples(map_arrays(observations, lambda part: part[:count]), targets[:count])

    def close(self) -> None:
        """Closes the environments."""
        for env in self._envs.values():
            env.close()
        self._envs = {}

    @property
    def spaces(self) -> tuple[gym.Space, gym.Space]:
        """The spaces of one held-out observation and of its answer."""
        env = self._env(_HELD_OUT)
        return env.single_observation_space, env.single_action_space

    @property
    def env(self) -> VectorEnv:
        """The environments that training samples come from."""
        return self._env(_TRAINING)

    @property
    def task(self) -> Any:
        """The object that makes the held-out samples, in our own environments; ``None`` in others."""
        return task_of(self._env(_HELD_OUT))

    def _env(self, role: int) -> VectorEnv:
        if role not in self._envs:
            self._envs[role] = make_samples_env(self._config, self._num_rows, is_held_out=role == _HELD_OUT)
        return self._envs[role]


def check_samples(env: VectorEnv) -> None:
    """Checks the observations and targets of one reset.

    Raises:
        UserError: the environment fails, has no targets, or has observations or targets outside its spaces.
    """
    observations, targets = _reset(env, seed=0)
    wanted, given = env.single_observation_space, observations
    if isinstance(wanted, Box) and (np.shape(given)[1:] != wanted.shape or (wanted.dtype == np.uint8 != given.dtype)):
        raise UserError(
            f"inputs of {_name(env)} must be {list(wanted.shape)} of {wanted.dtype}, its observation space, got "
            f"{list(np.shape(given)[1:])} of {np.asarray(given).dtype}."
        )
    space = env.single_action_space
    if targets.dtype.kind not in "iu" or not all(space.contains(target) for target in targets):
        raise UserError(
            f'info["target"] of {_name(env)} must be an answer in {describe_space(space)}, got {targets[0]}.'
        )


def _name(env: VectorEnv) -> str:
    """The environment's registered name, or that of its class."""
    return str(env) if env.spec is None else env.spec.kwargs.get("task_name", env.spec.id)


def _reset(env: VectorEnv, seed: int | None, options: dict[str, Any] | None = None) -> tuple[Any, np.ndarray]:
    """Resets all environments; returns observations and targets."""
    try:
        observations, info = env.reset(seed=seed, options=options)
    except Exception as error:  # an environment of the user's own may raise anything
        raise EnvironmentFailed(f"{_name(env)} failed when it was reset: {type(error).__name__}: {error}") from error
    if "target" not in info:
        raise UserError(f'{_name(env)} cannot be learned from labels: its reset returns no info["target"].')
    return observations, np.asarray(info["target"])


def _seed(*words: int) -> int:
    """A seed that is unrelated to others; the first word is the role.

    Gymnasium seeds environment i of a vector with the seed plus i: the ranges of the roles do not overlap with that.
    """
    low, high = (int(word) for word in np.random.SeedSequence(words).generate_state(2))
    return (words[0] << _ROLE_SHIFT) + (high << 32 | low) % (2**_ROLE_SHIFT - _MAX_ENVS)
