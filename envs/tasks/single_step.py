"""Single-step environments: an input is observed, one answer is given and scored, and the episode ends."""

import abc
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Inputs = np.ndarray | dict[str, np.ndarray]
"""Observations: an array, or several by name."""


class Samples(NamedTuple):
    """N inputs and their targets."""

    inputs: Inputs
    """[N, ...], or arrays [N, ...] by name; each row lies in the task's observation space."""
    targets: np.ndarray
    """[N, ...]; each row lies in the task's action space."""


class SingleStepTask(abc.ABC):
    """The samples of a single-step environment, and how answers to them are scored.

    Args:
        observation_space: of one input.
        action_space: of one answer.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    @property
    def num_samples(self) -> int | None:
        """How many different samples there are; None: they are generated without limit."""
        return None

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws samples.

        Args:
            rng: source of randomness; the same state draws the same samples.
            num_samples: N.

        Returns:
            The samples.
        """

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Returns the samples at some indices.

        Args:
            rng: source of randomness of their augmentation, if any.
            indices: each from 0 to below ``num_samples``, [N].

        Returns:
            The samples, in that order.

        Raises:
            ValueError: the samples are generated and have no indices.
        """
        raise ValueError(f"{type(self).__name__} generates its samples; they have no index: leave index out.")

    def score(self, answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Scores answers.

        Args:
            answers: [N, ...].
            targets: [N, ...].

        Returns:
            The share of correct elements of each answer, in [0, 1], [N].
        """
        is_correct = np.asarray(answers) == targets
        return is_correct.reshape(len(is_correct), -1).mean(1)

    def _draw(self, rng: np.random.Generator, num_samples: int, options: dict[str, Any] | None = None) -> Samples:
        """Samples for a reset, whose options may contain ``indices``, or ``index`` for a single one."""
        requested = (options or {}).get("indices", (options or {}).get("index"))
        if requested is None:
            return _checked(self.sample(rng, num_samples))
        indices = np.atleast_1d(np.asarray(requested))
        if indices.shape != (num_samples,):
            raise ValueError(f"options must name {num_samples} samples, got {len(indices)}.")
        if self.num_samples is not None and ((indices < 0) | (indices >= self.num_samples)).any():
            raise ValueError(f"there are {self.num_samples} samples, counted from 0, got {indices.tolist()}.")
        return _checked(self.take(rng, indices))


class SingleStepEnv(gym.Env[Any, Any]):
    """A task as an environment of one step.

    ``reset`` returns an input, the only action answers it, the reward is the share of correct elements of the answer,
    in [0, 1], and the episode ends. ``info["target"]`` holds the correct answer, at the reset and after the step.
    ``reset(options={"index": 3})`` returns a chosen input, if the task has a finite number of them.

    Args:
        *args: the task; in a subclass with a ``task_class`` its arguments.
        **kwargs: arguments of the ``task_class``.
    """

    task_class: ClassVar[type[SingleStepTask] | None] = None
    """The task of a subclass, which is then made by its constructor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task = _make_task(self.task_class, *args, **kwargs)
        self.observation_space = self.task.observation_space
        self.action_space = self.task.action_space
        self._samples: Samples | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Returns a new input.

        Args:
            seed: seeds the inputs from here on.
            options: ``{"index": i}`` chooses that input, if the task has a finite number of them.

        Returns:
            The input, and ``{"target": ...}``.
        """
        super().reset(seed=seed)
        self._samples = self.task._draw(self.np_random, 1, options)
        return _first(self._samples.inputs), {"target": self._samples.targets[0]}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Scores an answer; the episode ends.

        Args:
            action: the answer.

        Returns:
            The input again, the share of correct elements, terminated, not truncated, and ``{"target": ...}``.

        Raises:
            gymnasium.error.ResetNeeded: there was no reset since the last answer.
        """
        if self._samples is None:
            raise gym.error.ResetNeeded("reset the environment before answering: each input is answered once.")
        inputs, targets = self._samples
        self._samples = None
        reward = float(self.task.score(np.asarray(action)[None], targets)[0])
        return _first(inputs), reward, True, False, {"target": targets[0]}


class SingleStepVectorEnv(VectorEnv[Any, Any, Any]):
    """A vector of single-step environments whose inputs are made in one batch.

    Every step ends all episodes and begins new ones (autoreset mode SameStep): it returns the next inputs, the rewards
    of the answers, and under ``final_obs`` and ``final_info`` the answered inputs and their targets.
    ``info["target"]`` holds the targets of the inputs returned, [N, ...]; ``reset(options={"indices": [...]})``
    chooses inputs.

    Args:
        *args: as of ``SingleStepEnv``, the task or the arguments of the ``task_class``, then ``num_envs``; before them
            in earlier versions, which still works. In a subclass with a ``task_class``, the first one is ``num_envs``
            unless that is named.
        num_envs: N.
        **kwargs: arguments of the ``task_class``.
    """

    task_class: ClassVar[type[SingleStepTask] | None] = None
    """The task of a subclass, which is then made by its constructor."""

    def __init__(self, *args: Any, num_envs: int | None = None, **kwargs: Any) -> None:
        if num_envs is None:
            num_envs, args = _count_envs(args, is_last=self.task_class is None)
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.task = task = _make_task(self.task_class, *args, **kwargs)
        self.num_envs = num_envs
        self.single_observation_space = task.observation_space
        self.single_action_space = task.action_space
        self.observation_space = batch_space(task.observation_space, num_envs)
        self.action_space = batch_space(task.action_space, num_envs)
        self._samples: Samples | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Returns N new inputs.

        Args:
            seed: seeds the inputs from here on.
            options: ``{"indices": [...]}`` chooses these N inputs, if the task has a finite number of them.

        Returns:
            The inputs [N, ...], and ``{"target": [N, ...]}``.
        """
        super().reset(seed=seed)
        self._samples = self.task._draw(self.np_random, self.num_envs, options)
        return self._samples.inputs, _info(self._samples)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Scores N answers and returns the next inputs.

        Args:
            actions: the answers, [N, ...].

        Returns:
            The next inputs [N, ...], the share of correct elements of each answer [N], all terminated, none truncated,
            and ``{"target": [N, ...], "final_obs": ..., "final_info": {"target": [N, ...]}}``.

        Raises:
            gymnasium.error.ResetNeeded: there was no reset yet.
        """
        if self._samples is None:
            raise gym.error.ResetNeeded("reset the environments before answering.")
        answered = self._samples
        rewards = self.task.score(np.asarray(actions), answered.targets)
        self._samples = self.task._draw(self.np_random, self.num_envs)
        all_rows, no_rows = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos = {
            **_info(self._samples),
            "final_obs": answered.inputs,
            "_final_obs": all_rows,
            "final_info": _info(answered),
            "_final_info": all_rows,
        }
        return self._samples.inputs, rewards, all_rows.copy(), no_rows, infos


def _make_task(task_class: type[SingleStepTask] | None, *args: Any, **kwargs: Any) -> SingleStepTask:
    """The task of an environment: of the subclass's class, or the one that is given."""
    if task_class is not None:
        return task_class(*args, **kwargs)
    if kwargs or len(args) != 1 or not isinstance(args[0], SingleStepTask):
        raise TypeError("a single-step environment takes one SingleStepTask.")
    if not hasattr(args[0], "observation_space"):
        name = type(args[0]).__name__
        raise TypeError(f"{name} has no spaces; call super().__init__(observation_space, action_space) in its own.")
    return args[0]


def _checked(drawn: Any) -> Samples:
    """What a task has drawn; a plain pair will do, and truth values as targets."""
    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise TypeError(f"a task must give Samples(inputs, targets), got {type(drawn).__name__}.")
    inputs, targets = drawn
    targets = np.asarray(targets)
    return Samples(inputs, targets.astype(np.int64) if targets.dtype == bool else targets)


def _count_envs(args: tuple[Any, ...], *, is_last: bool) -> tuple[int, tuple[Any, ...]]:
    """Takes the number of environments out of positional arguments; where it may be the last, its type tells."""
    places = (-1, 0) if is_last else (0,)
    place = next((place for place in places if args and isinstance(args[place], (int, np.integer))), None)
    if place is None:
        raise TypeError("a vector of single-step environments needs num_envs, how many there are.")
    rest = args[:-1] if place == -1 else args[1:]
    return int(args[place]), rest


def _first(inputs: Inputs) -> Any:
    """The first row of some inputs."""
    return {name: part[0] for name, part in inputs.items()} if isinstance(inputs, dict) else inputs[0]


def _info(samples: Samples) -> dict[str, np.ndarray]:
    """Information on some samples; an underscore marks Gymnasium's masks of the rows that have a value."""
    return {"target": samples.targets, "_target": np.ones(len(samples.targets), bool)}
