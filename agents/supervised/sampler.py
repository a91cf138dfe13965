"""Makes the samples that answering is learned from: what a vector environment shows when it is reset."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.errors import UserError

OBSERVATIONS = "obs"
TARGETS = "targets"
REWARDS = "rewards"
"""Names of the columns."""

_TRAINING, _HELD_OUT, _DRAWING = 0, 1, 2

_ROLE_SHIFT = 62
"""Seeds learned from lie below two to this power, those of held-out samples do not."""
_MAX_ENVS = 2**32


class EnvironmentFailed(UserError):
    """An environment raised something while it made samples."""

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
    """Makes samples that depend on nothing but the seed and their number: whoever makes them makes the same.

    Args:
        env: the environment; its info holds the right answer under "target" when it is reset.
        num_rows: samples of one reset.
        num_steps: resets of one fragment.
        seed: of the samples learned from.
        held_out_seed: of those kept back.
    """

    def __init__(self, env: TaskConfig, *, num_rows: int, num_steps: int, seed: int, held_out_seed: int) -> None:
        self._config = env
        self._num_rows = num_rows
        self._num_steps = num_steps
        self._seeds = seed, held_out_seed
        self._envs: dict[int, VectorEnv] = {}

    def fragment(self, iteration: int, part: int) -> LabelledSamples:
        """The samples that one learner learns from in one iteration.

        Args:
            iteration: which, from 0.
            part: of which learner, from 0.

        Returns:
            num_steps x num_rows samples; each num_rows of them were made in one reset.
        """
        env = self._env(_TRAINING)
        seed: int | None = _seed(_TRAINING, self._seeds[_TRAINING], iteration, part)
        parts = []
        for _ in range(self._num_steps):
            parts.append(_reset(env, seed))
            seed = None
        return LabelledSamples(join([shown for shown, _ in parts]), np.concatenate([targets for _, targets in parts]))

    def answered(
        self, iteration: int, part: int, step: int, answer: Callable[[Any, int], np.ndarray]
    ) -> tuple[Any, np.ndarray]:
        """Has one batch of samples answered; nothing is told of it but how good each answer was.

        Args:
            iteration: which, from 0.
            part: of which learner, from 0.
            step: which batch of these, from 0.
            answer: is given the observations [N, ...] and a seed for drawing, and gives the actions [N, ...].

        Returns:
            The observations [N, ...], and the rewards [N], float32.

        Raises:
            UserError: there are environments whose episode goes on after the answer.
        """
        env = self._env(_TRAINING)
        # A reset before each answer: whether and when environments reset themselves does not matter then.
        shown, _ = env.reset(seed=_seed(_TRAINING, self._seeds[_TRAINING], iteration, part, step))
        # Vector environments may show the next inputs in the same arrays.
        shown = map_arrays(shown, np.copy)
        actions = answer(shown, _seed(_DRAWING, self._seeds[_TRAINING], iteration, part, step))
        _, rewards, is_terminated, is_truncated, _ = env.step(actions)
        if not np.all(is_terminated | is_truncated):
            raise UserError(f"{_name(env)} cannot be learned as a bandit: its episodes go on after the first step.")
        return shown, np.asarray(rewards, np.float32)

    def count_held_out(self, num_samples: int) -> int:
        """How many held-out samples there are to be had, at most ``num_samples``."""
        finite = count_samples(self._env(_HELD_OUT))
        return num_samples if finite is None else min(num_samples, finite)

    def held_out(self, chunk: int, num_samples: int) -> LabelledSamples:
        """Some of the samples that are never learned from.

        Args:
            chunk: which, from 0; each has num_rows samples, the last one what is left.
            num_samples: how many there are in all chunks together.

        Returns:
            The samples; of a finite set each once, in its order.
        """
        env, first = self._env(_HELD_OUT), chunk * self._num_rows
        count = min(self._num_rows, num_samples - first)
        if count_samples(env) is None:
            shown, targets = _reset(env, _seed(_HELD_OUT, self._seeds[_HELD_OUT], chunk))
        else:
            # A vector shows as many as it has environments; what is too much is left out below.
            indices = np.minimum(np.arange(first, first + self._num_rows), num_samples - 1)
            shown, targets = _reset(env, self._seeds[_HELD_OUT], {"indices": indices})
        return LabelledSamples(map_arrays(shown, lambda part: part[:count]), targets[:count])

    def close(self) -> None:
        """Closes the environments."""
        for env in self._envs.values():
            env.close()
        self._envs = {}

    @property
    def spaces(self) -> tuple[gym.Space, gym.Space]:
        """Of one held-out sample and its answer."""
        env = self._env(_HELD_OUT)
        return env.single_observation_space, env.single_action_space

    @property
    def env(self) -> VectorEnv:
        """The environments that training samples come from."""
        return self._env(_TRAINING)

    @property
    def task(self) -> Any:
        """The object that makes the held-out samples, in our own environments; ``None`` in others."""
        return _task_of(self._env(_HELD_OUT))

    def _env(self, role: int) -> VectorEnv:
        if role not in self._envs:
            self._envs[role] = make_samples_env(self._config, self._num_rows, is_held_out=role == _HELD_OUT)
        return self._envs[role]


def make_samples_env(config: TaskConfig, num_rows: int, *, is_held_out: bool = False) -> VectorEnv:
    """Makes the vector environment of a task.

    Args:
        config: what the experiment names.
        num_rows: how many environments.
        is_held_out: with the arguments for held-out samples.

    Returns:
        The environments, not reset yet.

    Raises:
        UserError: they cannot be made.
    """
    kwargs = {**config.kwargs, **(config.held_out_kwargs if is_held_out else {})}
    try:
        return gym.make_vec(config.id, num_rows, vectorization_mode=None, **kwargs)
    except Exception as error:  # what an environment of the user's own raises can be anything
        reason = " ".join(str(error).split())
        raise UserError(f"env.id {config.id!r} cannot be made: {reason}") from error


def count_samples(env: VectorEnv) -> int | None:
    """How many different samples there are to be shown, if their number has an end."""
    return getattr(_task_of(env), "num_samples", None)


def _task_of(env: VectorEnv) -> Any:
    return getattr(env.unwrapped, "task", None)


def check_samples(env: VectorEnv) -> None:
    """Has one reset show that there is something to learn from.

    Raises:
        UserError: the environment fails, tells no right answers, or tells others than it lets be given.
    """
    _, targets = _reset(env, seed=0)
    space = env.single_action_space
    if targets.dtype.kind not in "iu" or not all(space.contains(target) for target in targets):
        raise UserError(f'info["target"] of {_name(env)} must be an answer out of {space}, got {targets[0]}.')


def _name(env: VectorEnv) -> str:
    """What an environment is called."""
    return env.spec.id if env.spec is not None else str(env)


def _reset(env: VectorEnv, seed: int | None, options: dict[str, Any] | None = None) -> tuple[Any, np.ndarray]:
    """Shows new samples."""
    try:
        shown, info = env.reset(seed=seed, options=options)
    except Exception as error:  # what an environment of the user's own raises can be anything
        raise EnvironmentFailed(f"{_name(env)} failed when it was reset: {type(error).__name__}: {error}") from error
    if "target" not in info:
        raise UserError(f'{_name(env)} cannot be learned from labels: its reset gives no info["target"].')
    return shown, np.asarray(info["target"])


def _seed(*words: int) -> int:
    """A seed that has nothing to do with others; the first word is the role.

    Gymnasium gives environment i of a vector the seed plus i: the seeds of the two roles lie apart, and stay so.
    """
    low, high = (int(word) for word in np.random.SeedSequence(words).generate_state(2))
    return (words[0] << _ROLE_SHIFT) + (high << 32 | low) % (2**_ROLE_SHIFT - _MAX_ENVS)


def join(parts: list[Any]) -> Any:
    """Many batches as one: arrays, or arrays by name."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def map_arrays(columns: Any, change: Callable[[Any], Any]) -> Any:
    """Applies a function to an array or tensor, or to each of those in nested dictionaries."""
    if isinstance(columns, dict):
        return {name: map_arrays(column, change) for name, column in columns.items()}
    return change(columns)
