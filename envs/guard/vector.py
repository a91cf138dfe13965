"""Guards of many environments at once: vector classes of their own, and environments in processes of their own."""

import multiprocessing
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.async_vector_env import AsyncState

from ctm_rl.envs.guard.single import say
from ctm_rl.envs.guard.space_check import check_of
from ctm_rl.envs.guard.timeout import TookTooLong, Watch
from ctm_rl.errors import EnvFault


class VectorGuard(VectorWrapper):
    """Watches an environment's own vector class, as ``EnvGuard`` one environment; it is always strict.

    Args:
        env: the environments.
        name: of the environment, for messages.
        time_limit: seconds that a step of all, or a reset, may take; ``None``: any.
        has_bounds: an observation outside the bounds of its space is a fault too.
    """

    def __init__(self, env: VectorEnv, name: str, *, time_limit: float | None = None, has_bounds: bool = True) -> None:
        super().__init__(env)
        self._name = name
        self._time_limit = time_limit
        self._watch = Watch(time_limit)
        self._check = check_of(env.observation_space, has_bounds=has_bounds)
        self._check_quickly = check_of(env.observation_space, has_bounds=has_bounds, is_quick=True)
        self._seed: Any = None
        self._num_steps = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in every environment.

        Raises:
            EnvFault: it failed.
        """
        self._seed, self._num_steps = seed if seed is not None else self._seed, 0
        self._watch.prepare()
        self._watch.start()
        try:
            observations, infos = self.env.reset(seed=seed, options=options)
        except (Exception, TookTooLong) as error:  # an environment may raise anything
            raise self._fault(say(error, self._time_limit)) from error
        finally:
            self._watch.stop()
        wrong = self._check(observations)
        if wrong is not None:
            raise self._fault(f"returned a batch of observations that {wrong}")
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes a step in every environment.

        Raises:
            EnvFault: it failed.
        """
        self._num_steps += 1
        self._watch.start()
        try:
            result = self.env.step(actions)
        except (Exception, TookTooLong) as error:  # an environment may raise anything
            raise self._fault(say(error, self._time_limit)) from error
        finally:
            self._watch.stop()
        wrong = self._check_quickly(result[0])
        if wrong is not None:
            raise self._fault(f"returned a batch of observations that {wrong}")
        if not np.isfinite(result[1]).all():
            row = int(np.flatnonzero(~np.isfinite(result[1]))[0])
            raise self._fault(f"returned the reward {result[1][row]} in row {row}, which is no finite number")
        return result

    def _fault(self, what: str) -> EnvFault:
        """The error that tells of it."""
        seed = "without a seed" if self._seed is None else f"after the reset with seed {self._seed}"
        return EnvFault(f"{self.num_envs} x environment {self._name} {what}, in step {self._num_steps} {seed}.")


class GuardedAsyncVectorEnv(AsyncVectorEnv):
    """Environments in processes of their own, each with its own ``EnvGuard``, whose faults arrive here as one error.

    Gymnasium's class writes the traceback of every process to the terminal first. A process that has ended, or that
    hangs in compiled code, where its own guard cannot end it, is a fault too.

    Args:
        env_fns: make the guarded environments.
        name: of the environment, for messages.
        time_limit: what their guards allow; the processes get twice that, and ten seconds; ``None``: any time.
        **kwargs: handed to ``AsyncVectorEnv``.
    """

    def __init__(self, env_fns: list[Any], name: str, *, time_limit: float | None = None, **kwargs: Any) -> None:
        self._name = name
        self._patience = None if time_limit is None else 2 * time_limit + 10
        super().__init__(env_fns, **kwargs)

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Waits for all resets."""
        return self._wait(super().reset_wait, timeout)

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Waits for all steps."""
        return self._wait(super().step_wait, timeout)

    def _wait(self, wait: Any, timeout: float | None) -> Any:
        """Waits, and tells which process does not answer."""
        timeout = self._patience if timeout is None else timeout
        try:
            return wait(timeout=timeout)
        except multiprocessing.TimeoutError as error:
            late = [row for row, pipe in enumerate(self.parent_pipes) if not pipe.poll(0)]
            self._abandon()
            raise EnvFault(f"environment {self._name} has not answered in {timeout:g} seconds, rows {late}.") from error
        except (EOFError, ConnectionError) as error:
            ended = self._find_ended()
            self._abandon()
            raise EnvFault(f"environment {self._name} has ended its process, rows {ended}.") from error

    def _raise_if_errors(self, successes: list[bool] | tuple[bool, ...]) -> None:
        """Raises the first fault of any process."""
        if all(successes):
            return
        errors = sorted(
            (self.error_queue.get() for _ in range(self.num_envs - sum(successes))), key=lambda error: error[0]
        )
        self._abandon()
        _, kind, value, _ = errors[0]
        raise value if isinstance(value, BaseException) else kind(value)

    def _find_ended(self) -> list[int]:
        """Rows whose process has ended; its pipe breaks a moment before that can be seen."""
        for _ in range(20):
            ended = [row for row, process in enumerate(self.processes) if not process.is_alive()]
            if ended:
                return ended
            time.sleep(0.1)
        return []

    def _abandon(self) -> None:
        """Ends all processes, whatever they are at."""
        self._state = AsyncState.DEFAULT  # otherwise Gymnasium would wait for answers first
        self.close(terminate=True)


def is_shareable(space: gym.Space) -> bool:
    """Whether Gymnasium can keep observations of this space in memory that processes share."""
    from gymnasium.error import CustomSpaceError
    from gymnasium.vector.utils import create_shared_memory

    try:
        create_shared_memory(space, n=1)
    except (CustomSpaceError, TypeError):
        return False
    return True
