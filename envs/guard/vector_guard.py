"""Guards around many environments at once: vector classes, and environments in a process each."""

import functools
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Dict, Text, Tuple
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.async_vector_env import AsyncState

from ctm_rl.envs.guard.describe_fault import FAULTS, Misbehaviour, describe, is_stop, observed
from ctm_rl.envs.guard.mask_check import make_mask_check
from ctm_rl.envs.guard.space_check import LARGEST, Read, make_reader, to_array
from ctm_rl.envs.guard.step_values import read_info
from ctm_rl.envs.guard.timeout import StepTimer
from ctm_rl.errors import EnvFault
from ctm_rl.notes import note

_BOOL = np.dtype(np.bool_)


class VectorGuard(VectorWrapper):
    """Checks every step of an environment's own vector class, as ``EnvGuard`` does for one environment; always strict.

    Args:
        env: the environments.
        name: of the environment, for messages.
        time_limit: seconds that a step of all, or a reset, may take; ``None``: no limit.
        has_bounds: an observation outside the bounds of its space is a fault too; otherwise it is noted.
    """

    def __init__(self, env: VectorEnv, name: str, *, time_limit: float | None = None, has_bounds: bool = False) -> None:
        super().__init__(env)
        self._name = name
        self._timer = StepTimer(time_limit)
        self._read, self._read_quickly = (
            make_reader(env.observation_space, self._note_observations, has_bounds=has_bounds, is_quick=is_quick)
            for is_quick in (False, True)
        )
        self._check_mask = make_mask_check(env.single_observation_space, env.single_action_space)
        self._resets_in_same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self._seed: Any = None
        self._num_steps = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in every environment.

        Raises:
            EnvFault: it failed.
        """
        self._seed, self._num_steps = seed if seed is not None else self._seed, 0
        self._timer.prepare()
        observations, infos = self._run(self._read, lambda: self.env.reset(seed=seed, options=options))
        self._check_masks(observations, np.zeros(self.num_envs, bool))
        return observations, read_info(infos, self._note)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes a step in every environment.

        Raises:
            EnvFault: it failed.
        """
        self._num_steps += 1
        observations, rewards, terminated, truncated, infos = self._run(
            self._read_quickly, lambda: self.env.step(actions)
        )
        shape = (self.num_envs,)
        # NaN fails every comparison.
        if (
            not isinstance(rewards, np.ndarray)
            or rewards.shape != shape
            or np.count_nonzero(abs(rewards) <= LARGEST) != self.num_envs
        ):
            rewards = self._numbers("reward", rewards)
        if not _are_flags(terminated, shape):
            terminated = self._numbers("terminated", terminated) != 0
        if not _are_flags(truncated, shape):
            truncated = self._numbers("truncated", truncated) != 0
        if self._check_mask is not None:
            # what has reset already goes on
            self._check_masks(observations, (terminated | truncated) & (not self._resets_in_same_step))
        return observations, rewards, terminated, truncated, read_info(infos, self._note)

    def _run(self, read: Read, call: Callable[[], Any]) -> Any:
        """Resets or takes a step; the observations come out in the form of their space."""
        try:
            with self._timer:
                result = call()
            return read(result[0]), *result[1:]
        except FAULTS as error:  # an environment may raise anything
            if is_stop(error):
                raise
            raise self._fault(error) from error

    def _check_masks(self, observations: Any, has_ended: np.ndarray) -> None:
        """Checks the action masks, if there are any.

        Raises:
            EnvFault: one forbids every action.
        """
        if self._check_mask is None:
            return
        try:
            self._check_mask(observations, has_ended)
        except Misbehaviour as error:
            raise self._fault(error) from error

    def _numbers(self, name: str, values: Any) -> np.ndarray:
        """Rewards or flags of other types as finite numbers, [B].

        Raises:
            EnvFault: there is not one finite number for each environment.
        """
        array = to_array(values)
        if array.size != self.num_envs or array.dtype.kind not in "biuf":
            problem = f"{array.dtype} of shape {array.shape} instead of numbers of shape ({self.num_envs},)"
            raise self._fault(Misbehaviour(f"returned as {name} {problem}"))
        numbers = array.reshape(self.num_envs)
        is_wrong = ~(abs(numbers.astype(np.float64)) <= LARGEST)
        if is_wrong.any():
            row = int(np.flatnonzero(is_wrong)[0])
            limit = f"beyond {LARGEST:g}" if np.isfinite(numbers[row]) else "not a finite number"
            raise self._fault(Misbehaviour(f"returned the {name} {numbers[row]} in row {row}, which is {limit}"))
        self._note(name, f"returned as {name} {type(values).__name__} of another shape or type; it is converted")
        return numbers

    def _note_observations(self, kind: str, text: str) -> None:
        """Notes observations that are taken although they are not in their space."""
        self._note(kind, f"returned {observed(text)}")

    def _note(self, kind: str, text: str) -> None:
        """Notes what is taken although it has not the documented form."""
        note(f"{self._name} {kind}", f"environment {self._name} {text}.")

    def _fault(self, error: BaseException) -> EnvFault:
        """The error that reports a fault with environment, step and seed."""
        what = describe(error, self._timer.seconds)
        seed = "without a seed" if self._seed is None else f"after the reset with seed {self._seed}"
        return EnvFault(f"{self.num_envs} x environment {self._name} {what}, in step {self._num_steps} {seed}.")


def _are_flags(values: Any, shape: tuple[int, ...]) -> bool:
    """Whether these are bools, one for each environment."""
    return isinstance(values, np.ndarray) and values.dtype is _BOOL and values.shape == shape


class _AnyInfo:
    """Puts the information of single environments together, whatever types it has; mixed into Gymnasium's classes."""

    _name: str

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        """Adds one environment's information; leaves out values that do not fit into the array of the others'."""
        add: Any = super()._add_info  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return add(vector_infos, env_info, env_num)
        except (TypeError, ValueError, OverflowError):
            pass
        for key, value in env_info.items():
            try:
                add(vector_infos, {key: value}, env_num)
            except (TypeError, ValueError, OverflowError):
                vector_infos.pop(key, None)
                vector_infos.pop(f"_{key}", None)
                text = f"environment {self._name} returns info {key!r} of changing types or shapes; it is left out."
                note(f"{self._name} info {key}", text)
        return vector_infos


class GuardedSyncVectorEnv(_AnyInfo, SyncVectorEnv):
    """Environments in turn, each with its own ``EnvGuard``.

    Args:
        env_fns: functions that make the guarded environments.
        name: of the environment, for messages.
    """

    def __init__(self, env_fns: list[Any], name: str) -> None:
        self._name = name
        super().__init__(env_fns)


class GuardedAsyncVectorEnv(_AnyInfo, AsyncVectorEnv):
    """Environments in a process each, each with its own ``EnvGuard``; their faults are raised here as one error.

    Gymnasium's class would print the traceback of every process first. A process that has ended, or that hangs in
    compiled code, where its own guard cannot interrupt it, is a fault too.

    Args:
        env_fns: functions that make the guarded environments.
        name: of the environment, for messages.
        time_limit: what their guards allow; a process gets twice that and ten seconds; ``None``: no limit.
        **kwargs: passed to ``AsyncVectorEnv``.

    Raises:
        UserError: the first environment cannot be made.
    """

    def __init__(self, env_fns: list[Any], name: str, *, time_limit: float | None = None, **kwargs: Any) -> None:
        self._name = name
        self._timeout = None if time_limit is None else 2 * time_limit + 10
        one = env_fns[0]()
        spaces = one.observation_space, one.action_space
        one.close()
        makers = [functools.partial(_make_in_process, make, name, *spaces) for make in env_fns]
        super().__init__(makers, shared_memory=_is_shareable(spaces[0]), **kwargs)

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Waits for all resets."""
        return self._wait(super().reset_wait, timeout)

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Waits for all steps."""
        return self._wait(super().step_wait, timeout)

    def _wait(self, wait: Any, timeout: float | None) -> Any:
        """Waits, and reports which process does not answer."""
        timeout = self._timeout if timeout is None else timeout
        try:
            return wait(timeout=timeout)
        except multiprocessing.TimeoutError as error:
            late = [row for row, pipe in enumerate(self.parent_pipes) if not pipe.poll(0)]
            self._terminate()
            raise EnvFault(f"environment {self._name} has not answered in {timeout:g} seconds, rows {late}.") from error
        except (EOFError, ConnectionError) as error:
            ended = self._ended_rows()
            self._terminate()
            raise EnvFault(f"environment {self._name} has ended its process, rows {ended}.") from error

    def _raise_if_errors(self, successes: list[bool] | tuple[bool, ...]) -> None:
        """Raises the first fault of any process."""
        if all(successes):
            return
        errors = sorted(
            (self.error_queue.get() for _ in range(self.num_envs - sum(successes))), key=lambda error: error[0]
        )
        self._terminate()
        _, kind, value, _ = errors[0]
        if isinstance(value, EnvFault):
            raise value
        raise EnvFault(
            f"environment {self._name} raised {kind.__name__}: {' '.join(str(value).split())[:200].rstrip('.')}."
        )

    def _ended_rows(self) -> list[int]:
        """Rows whose process has ended, which can be seen only a moment after its pipe has broken."""
        for _ in range(20):
            ended = [row for row, process in enumerate(self.processes) if not process.is_alive()]
            if ended:
                return ended
            time.sleep(0.1)
        return []

    def _terminate(self) -> None:
        """Ends all processes, whatever they are doing."""
        self._state = AsyncState.DEFAULT  # otherwise Gymnasium would wait for their answers first
        self.close(terminate=True)


def _make_in_process(make: Callable[[], gym.Env], name: str, *spaces: gym.Space) -> gym.Env:
    """Makes an environment in a process of its own; where that fails, one whose reset reports it."""
    # Environments may start processes themselves, which Python refuses to those that end with their parent.
    process: Any = multiprocessing.current_process()
    process._config["daemon"] = False
    try:
        return make()
    except EnvFault as fault:
        return _Unmade(fault, *spaces)
    except FAULTS as error:  # an environment may raise anything
        return _Unmade(EnvFault(f"environment {name} {describe(error, None)}, when it is made."), *spaces)


class _Unmade(gym.Env[Any, Any]):
    """Stands for an environment that could not be made; its reset raises the fault."""

    def __init__(self, fault: EnvFault, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self._fault = fault

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Raises the fault."""
        raise self._fault


def _is_shareable(space: gym.Space) -> bool:
    """Whether Gymnasium can keep observations of this space in memory shared by processes.

    A text in shared memory would lose every character outside of its space's.
    """
    from gymnasium.error import CustomSpaceError
    from gymnasium.vector.utils import create_shared_memory

    if _has_text(space):
        return False
    try:
        create_shared_memory(space, n=1)
    except (CustomSpaceError, TypeError):
        return False
    return True


def _has_text(space: gym.Space) -> bool:
    """Whether a part of a space is a text."""
    if isinstance(space, (Dict, Tuple)):
        return any(map(_has_text, space.spaces.values() if isinstance(space, Dict) else space.spaces))
    return isinstance(space, Text)
