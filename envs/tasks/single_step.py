"""Single-step environments: an input is shown, one answer is given and scored, and it is over."""

import abc
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Inputs = np.ndarray | dict[str, np.ndarray]
"""What is shown: an array, or several by name."""


class Samples(NamedTuple):
    """Inputs and their right answers, N of each."""

    inputs: Inputs
    """[N, ...], or arrays [N, ...] by name; each row lies in the task's observation space."""
    targets: np.ndarray
    """[N, ...]; each row lies in the task's action space."""


class SingleStepTask(abc.ABC):
    """What is asked, and how an answer is scored: the part of a single-step environment that knows its subject.

    Args:
        observation_space: of one input.
        action_space: of one answer.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    @property
    def num_samples(self) -> int | None:
        """How many different samples there are; None: they are made, without end."""
        return None

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Draws samples.

        Args:
            rng: where randomness comes from; the same state draws the same samples.
            num_samples: N.

        Returns:
            The samples.
        """

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Takes certain samples out of those there are.

        Args:
            rng: where the randomness of how they are shown comes from, where there is some.
            indices: which, each from 0 to below ``num_samples``, [N].

        Returns:
            The samples, in that order.

        Raises:
            ValueError: the samples are made, and none has a place.
        """
        raise ValueError(f"{type(self).__name__} makes its samples; none of them has an index.")

    def score(self, answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Says how right answers are.

        Args:
            answers: [N, ...].
            targets: [N, ...].

        Returns:
            The share of each answer that is right, in [0, 1], [N].
        """
        is_right = np.asarray(answers) == targets
        return is_right.reshape(len(is_right), -1).mean(1)

    def _draw(self, rng: np.random.Generator, num_samples: int, options: dict[str, Any] | None) -> Samples:
        """Samples for a reset, whose options may say which: ``indices``, or ``index`` for a single one."""
        wanted = (options or {}).get("indices", (options or {}).get("index"))
        if wanted is None:
            return self.sample(rng, num_samples)
        indices = np.atleast_1d(np.asarray(wanted))
        if indices.shape != (num_samples,):
            raise ValueError(f"options must name {num_samples} samples, got {len(indices)}.")
        if self.num_samples is not None and ((indices < 0) | (indices >= self.num_samples)).any():
            raise ValueError(f"there are {self.num_samples} samples, counted from 0, got {indices.tolist()}.")
        return self.take(rng, indices)


class SingleStepEnv(gym.Env[Any, Any]):
    """A task as an environment of one step.

    ``reset`` shows an input, the one action answers it, the reward is the share of the answer that is right, in
    [0, 1], and the episode has ended. ``info["target"]`` holds the truth, at the reset and after the answer.
    ``reset(options={"index": 3})`` shows a certain input, of a task that has a number of them.

    Args:
        *args: of the task.
        **kwargs: of the task.
    """

    task_class: ClassVar[type[SingleStepTask]]
    """What a subclass asks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task = self.task_class(*args, **kwargs)
        self.observation_space = self.task.observation_space
        self.action_space = self.task.action_space
        self._shown: Samples | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Shows a new input.

        Args:
            seed: makes the inputs from here on the same every time.
            options: ``{"index": i}`` shows that input, of a task that has a number of them.

        Returns:
            The input, and ``{"target": ...}``.
        """
        super().reset(seed=seed)
        self._shown = self.task._draw(self.np_random, 1, options)
        return _first(self._shown.inputs), {"target": self._shown.targets[0]}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Scores an answer; the episode is over.

        Args:
            action: the answer.

        Returns:
            The input again, the share that is right in [0, 1], ended, not cut off, and ``{"target": ...}``.

        Raises:
            gymnasium.error.ResetNeeded: nothing has been shown since the last answer.
        """
        if self._shown is None:
            raise gym.error.ResetNeeded("reset the environment before answering: each input is answered once.")
        inputs, targets = self._shown
        self._shown = None
        reward = float(self.task.score(np.asarray(action)[None], targets)[0])
        return _first(inputs), reward, True, False, {"target": targets[0]}


class SingleStepVectorEnv(VectorEnv[Any, Any, Any]):
    """Many environments of one step, whose inputs are made all at once.

    Every step ends all episodes and begins new ones (autoreset mode SameStep): it gives the next inputs, the rewards
    of the answers, and under ``final_obs`` and ``final_info`` what they were answers to. ``info["target"]`` holds the
    truth of the inputs shown, [N, ...]; ``reset(options={"indices": [...]})`` shows certain ones.

    Args:
        num_envs: N.
        *args: of the task.
        **kwargs: of the task.
    """

    task_class: ClassVar[type[SingleStepTask]]
    """What a subclass asks."""

    def __init__(self, num_envs: int, *args: Any, **kwargs: Any) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.task = task = self.task_class(*args, **kwargs)
        self.num_envs = num_envs
        self.single_observation_space = task.observation_space
        self.single_action_space = task.action_space
        self.observation_space = batch_space(task.observation_space, num_envs)
        self.action_space = batch_space(task.action_space, num_envs)
        self._shown: Samples | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Shows N new inputs.

        Args:
            seed: makes the inputs from here on the same every time.
            options: ``{"indices": [...]}`` shows these inputs, N of them, of a task that has a number of them.

        Returns:
            The inputs [N, ...], and ``{"target": [N, ...]}``.
        """
        super().reset(seed=seed)
        self._shown = self.task._draw(self.np_random, self.num_envs, options)
        return self._shown.inputs, _info(self._shown)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Scores N answers and shows the next inputs.

        Args:
            actions: the answers, [N, ...].

        Returns:
            The next inputs [N, ...], the share of each answer that is right [N], all ended, none cut off, and
            ``{"target": [N, ...], "final_obs": ..., "final_info": {"target": [N, ...]}}``.

        Raises:
            gymnasium.error.ResetNeeded: nothing has been shown yet.
        """
        if self._shown is None:
            raise gym.error.ResetNeeded("reset the environments before answering.")
        answered = self._shown
        rewards = self.task.score(np.asarray(actions), answered.targets)
        self._shown = self.task.sample(self.np_random, self.num_envs)
        everyone, nobody = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos = {
            **_info(self._shown),
            "final_obs": answered.inputs,
            "_final_obs": everyone,
            "final_info": _info(answered),
            "_final_info": everyone,
        }
        return self._shown.inputs, rewards, everyone.copy(), nobody, infos


def _first(inputs: Inputs) -> Any:
    """The first of some inputs."""
    return {name: part[0] for name, part in inputs.items()} if isinstance(inputs, dict) else inputs[0]


def _info(samples: Samples) -> dict[str, np.ndarray]:
    """What is told of the inputs shown; Gymnasium marks with an underscore for whom an entry holds."""
    return {"target": samples.targets, "_target": np.ones(len(samples.targets), bool)}
