"""The previous action and the previous reward beside the observation: one environment, or a vector of them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, MultiBinary, Space
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from ctm_rl.describe_space import describe_space
from ctm_rl.envs.guard.mask_check import num_options
from ctm_rl.errors import UserError
from ctm_rl.spaces.action_masks import with_entry

PreviousPart = Literal["previous_action", "previous_reward"]
"""Name of a part of the observation."""


class _Code(NamedTuple):
    """How a part is written."""

    space: MultiBinary | Box
    """Of the part, in one observation; n numbers."""
    encode: Callable[[Any, Any], np.ndarray]
    """Actions [B, ...] and rewards [B] as numbers, [B, n]."""


class ShowPrevious(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Adds the previous action or the previous reward to the observation, a dictionary, under the name of the part.

    ``previous_action`` is one-hot for each choice of Discrete, MultiDiscrete and MultiBinary actions, and the numbers
    of a Box as they are; ``previous_reward`` is one number. Both are zeros in the first observation of an episode. An
    observation that is no dictionary becomes its entry ``observation``.

    Args:
        env: any environment. Wrappers outside of this one may change the reward (``clip-rewards``) without effect on
            what is shown.
        part: which of the two.

    Raises:
        UserError: actions are of another kind, or the observation has a part of this name already.

    Example:
        >>> import gymnasium as gym
        >>> env = ShowPrevious(gym.make("CartPole-v1"), "previous_action")
        >>> observation, _ = env.reset(seed=1)
        >>> observation["previous_action"]
        array([0, 0], dtype=int8)
        >>> observation, *_ = env.step(1)
        >>> observation["previous_action"]
        array([0, 1], dtype=int8)
    """

    def __init__(self, env: gym.Env, part: PreviousPart) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, part=part)
        gym.Wrapper.__init__(self, env)
        self._part = part
        self._code = _code_of(part, env.action_space)
        self.observation_space = _with_part(env.observation_space, part, self._code.space)
        self._none = np.zeros(self._code.space.shape, self._code.space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, with zeros."""
        observation, info = self.env.reset(seed=seed, options=options)
        return with_entry(observation, self._part, self._none.copy()), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step; the observation shows its action, or its reward."""
        observation, reward, *rest = self.env.step(action)
        (shown,) = self._code.encode([action], reward)
        return with_entry(observation, self._part, shown), reward, *rest  # pyright: ignore[reportReturnType]


class ShowPreviousVector(VectorWrapper):
    """Adds the previous actions or rewards to the observations of a vector, as ``ShowPrevious`` does to one.

    Args:
        env: a vector environment that resets an environment in the step after its last one.
        part: which of the two.

    Raises:
        UserError: as for ``ShowPrevious``.
        ValueError: environments are reset in another way.
    """

    def __init__(self, env: VectorEnv, part: PreviousPart) -> None:
        if env.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
            raise ValueError(f"{part} needs a vector of environments with autoreset mode NextStep.")
        super().__init__(env)
        self._part = part
        self._code = _code_of(part, env.single_action_space)
        self.single_observation_space = _with_part(env.single_observation_space, part, self._code.space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._has_ended = np.ones(self.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in every environment, with zeros."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self._has_ended = np.zeros(self.num_envs, bool)
        space = self._code.space
        return with_entry(observations, self._part, np.zeros((self.num_envs, *space.shape), space.dtype)), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes a step in every environment; those that are reset by it show zeros."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        shown = self._code.encode(actions, rewards)
        shown[self._has_ended] = 0
        self._has_ended = np.logical_or(terminated, truncated)
        return with_entry(observations, self._part, shown), rewards, terminated, truncated, infos


def _with_part(space: Space, part: PreviousPart, added: Space) -> Dict:
    """The space of observations with another part.

    Raises:
        UserError: it has one of this name.
    """
    if isinstance(space, Dict) and part in space.spaces:
        raise UserError(f"the observation has a part {part!r} already, so that wrapper {_name_of(part)} cannot add it.")
    return Dict(with_entry(space, part, added))


def _code_of(part: PreviousPart, space: Space) -> _Code:
    """How a part is written, for the actions of a space.

    Raises:
        UserError: the actions are of an unknown kind.
    """
    if part == "previous_reward":
        return _Code(Box(-np.inf, np.inf, (1,), np.float32), _rewards)
    sizes = num_options(space)
    if sizes is not None:
        return _Code(MultiBinary(sum(sizes)), _OneHot(sizes, getattr(space, "start", 0)))
    if not isinstance(space, Box):
        raise UserError(
            f"wrapper {_name_of(part)} shows actions that are Discrete, MultiDiscrete, MultiBinary or Box, and the "
            f"environment takes {describe_space(space)}."
        )
    # 0, which is no action, lies within the bounds too
    low, high = np.minimum(space.low, 0).reshape(-1), np.maximum(space.high, 0).reshape(-1)
    dtype, size = space.dtype, low.size
    numbers = Box(low, high, dtype=dtype.type)  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess]
    return _Code(numbers, lambda actions, rewards: np.array(actions, dtype).reshape(-1, size))


def _rewards(actions: Any, rewards: Any) -> np.ndarray:
    """Rewards as numbers, [B, 1]."""
    return np.array(rewards, np.float32).reshape(-1, 1)


class _OneHot:
    """Actions as a one for each choice, among zeros.

    Args:
        sizes: number of options of each choice.
        start: the first option of each, or of all.
    """

    def __init__(self, sizes: tuple[int, ...], start: Any) -> None:
        self._num_choices, self._num_options = len(sizes), sum(sizes)
        self._offsets = np.cumsum((0, *sizes[:-1])) - np.asarray(start, np.int64).reshape(-1)

    def __call__(self, actions: Any, rewards: Any) -> np.ndarray:
        """Actions [B, ...] to ones and zeros, [B, options]."""
        options = np.asarray(actions, np.int64).reshape(-1, self._num_choices) + self._offsets
        shown = np.zeros((len(options), self._num_options), np.int8)
        shown[np.arange(len(options))[:, None], options] = 1
        return shown


def _name_of(part: PreviousPart) -> str:
    """The name of the wrapper."""
    return part.replace("_", "-")
