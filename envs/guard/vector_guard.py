"""Guards around many environments at once: vector classes, and environments in a process each."""

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.async_vector_env import AsyncState

from ctm_rl.envs.guard.describe_fault import Misbehaviour, describe
from ctm_rl.envs.guard.space_check import Check, make_check
from ctm_rl.envs.guard.timeout import StepTimeout, StepTimer
from ctm_rl.errors import EnvFault


class VectorGuard(VectorWrapper):
    """Checks every step of an environment's own vector class, as ``EnvGuard`` does for one environment; always strict.

    Args:
        env: the environments.
        name: of the environment, for messages.
        time_limit: seconds that a step of all, or a reset, may take; ``None``: no limit.
        has_bounds: an observation outside the bounds of its space is a fault too.
    """

    def __init__(self, env: VectorEnv, name: str, *, time_limit: float | None = None, has_bounds: bool = True) -> None:
        super().__init__(env)
        self._name = name
        self._timer = StepTimer(time_limit)
        self._check = make_check(env.observation_space, has_bounds=has_bounds)
        self._quick_check = make_check(env.observation_space, has_bounds=has_bounds, is_quick=True)
        self._seed: Any = None
        self._num_steps = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in every environment.

        Raises:
            EnvFault: it failed.
        """
        self._seed, self._num_steps = seed if seed is not None else self._seed, 0
        self._timer.prepare()
        return self._run(self._check, lambda: self.env.reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes a step in every environment.

        Raises:
            EnvFault: it failed.
        """
        self._num_steps += 1
        result = self._run(self._quick_check, lambda: self.env.step(actions))
        rewards = result[1]
        if not np.isfinite(rewards).all():
            row = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise self._fault(
                Misbehaviour(f"returned the reward {rewards[row]} in row {row}, which is not a finite number")
            )
        return result

    def _run(self, check: Check, call: Callable[[], Any]) -> Any:
        """Resets or takes a step, and checks the observations."""
        try:
            with self._timer:
                result = call()
            problem = check(result[0])
            if problem is not None:
                raise Misbehaviour(f"returned a batch of observations that {problem}")
            return result
        except (Exception, StepTimeout) as error:  # an environment may raise anything
            raise self._fault(error) from error

    def _fault(self, error: BaseException) -> EnvFault:
        """The error that reports a fault with environment, step and seed."""
        what = describe(error, self._timer.seconds)
        seed = "without a seed" if self._seed is None else f"after the reset with seed {self._seed}"
        return EnvFault(f"{self.num_envs} x environment {self._name} {what}, in step {self._num_steps} {seed}.")


class GuardedAsyncVectorEnv(AsyncVectorEnv):
    """Environments in a process each, each with its own ``EnvGuard``; their faults are raised here as one error.

    Gymnasium's class would print the traceback of every process first. A process that has ended, or that hangs in
    compiled code, where its own guard cannot interrupt it, is a fault too.

    Args:
        env_fns: functions that make the guarded environments.
        name: of the environment, for messages.
        time_limit: what their guards allow; a process gets twice that and ten seconds; ``None``: no limit.
        **kwargs: passed to ``AsyncVectorEnv``.
    """

    def __init__(self, env_fns: list[Any], name: str, *, time_limit: float | None = None, **kwargs: Any) -> None:
        self._name = name
        self._timeout = None if time_limit is None else 2 * time_limit + 10
        super().__init__(env_fns, **kwargs)

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
        raise value if isinstance(value, BaseException) else kind(value)

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


def is_shareable(space: gym.Space) -> bool:
    """Whether Gymnasium can keep observations of this space in memory shared by processes."""
    from gymnasium.error import CustomSpaceError
    from gymnasium.vector.utils import create_shared_memory

    try:
        create_shared_memory(space, n=1)
    except (CustomSpaceError, TypeError):
        return False
    return True
