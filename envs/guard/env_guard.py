"""A guard around one environment: its faults are reported with environment, step and seed, or survived."""

import logging
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from ctm_rl.envs.guard.describe_fault import Misbehaviour, describe
from ctm_rl.envs.guard.space_check import make_check
from ctm_rl.envs.guard.timeout import StepTimeout, StepTimer
from ctm_rl.errors import EnvFault

MAX_FAULTS_IN_A_ROW = 100
"""How many faults without a good step between them are survived."""

_LOG = logging.getLogger(__name__)
_NUMBERS = (float, int, np.floating, np.integer)


class EnvGuard(gym.Wrapper[Any, Any, Any, Any]):
    """Checks every step of one environment: errors, timeouts and values that are not finite or outside their space.

    A strict guard raises ``EnvFault``. A tolerant one recreates the environment: it ends the episode as truncated, with
    the last good observation and ``info["env_fault"]``, and counts it in ``num_faults``; a failed reset is repeated.
    The new environment's seed is derived from that of the old one.

    Args:
        make: makes the environment.
        name: of the environment, for messages.
        time_limit: seconds that a step or a reset may take, see ``StepTimer``; ``None``: no limit.
        is_tolerant: go on after faults, up to 100 of them without a good step between.
        has_bounds: an observation outside the bounds of its space is a fault too.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env],
        name: str,
        *,
        time_limit: float | None = None,
        is_tolerant: bool = False,
        has_bounds: bool = True,
    ) -> None:
        super().__init__(make())
        self.num_faults = 0
        self._make = make
        self._name = name
        self._is_tolerant = is_tolerant
        self._timer = StepTimer(time_limit)
        self._check = make_check(self.env.observation_space, has_bounds=has_bounds)
        self._quick_check = make_check(self.env.observation_space, has_bounds=has_bounds, is_quick=True)
        self._num_in_row = 0
        self._seed: int | None = None
        self._next_seed: int | None = None
        self._num_episodes = 0
        self._num_steps = 0
        self._last_good: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode.

        Raises:
            EnvFault: the environment failed, and the guard is strict or has survived too many faults.
        """
        fault = None
        while True:
            used = self._next_seed if seed is None else seed
            self._next_seed = None
            self._num_episodes = 1 if used is not None else self._num_episodes + 1
            self._seed = self._seed if used is None else used
            self._num_steps = 0
            self._timer.prepare()
            try:
                with self._timer:
                    observation, info = self.env.reset(seed=used, options=options)
                problem = self._check(observation)
                if problem is None:
                    break
                raise Misbehaviour(f"returned an observation that {problem}")
            except EnvFault:
                raise
            except (Exception, StepTimeout) as error:  # an environment may raise anything
                fault = self._survive(error)
            seed = None
        self._last_good = observation
        return observation, info if fault is None else {**info, "env_fault": fault}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step.

        Raises:
            EnvFault: the environment failed, and the guard is strict or has survived too many faults.
        """
        self._num_steps += 1
        try:
            with self._timer:
                observation, reward, is_terminated, is_truncated, info = self.env.step(action)
            problem = self._quick_check(observation)
            if problem is not None:
                raise Misbehaviour(f"returned an observation that {problem}")
            if not is_finite_number(reward):
                shown = " ".join(repr(reward).split())[:60]
                raise Misbehaviour(f"returned the reward {shown}, which is not a finite number")
        except EnvFault:
            raise
        except (Exception, StepTimeout) as error:  # an environment may raise anything
            return self._last_good, 0.0, False, True, {"env_fault": self._survive(error)}
        self._num_in_row = 0
        self._last_good = observation
        return observation, reward, is_terminated, is_truncated, info

    def _survive(self, error: BaseException) -> str:
        """Counts a fault and recreates the environment; returns the fault's description."""
        text = f"environment {self._name} {describe(error, self._timer.seconds)}, {self._where()}."
        if not self._is_tolerant:
            raise EnvFault(text) from error
        self.num_faults += 1
        self._num_in_row += 1
        if self._num_in_row >= MAX_FAULTS_IN_A_ROW:
            raise EnvFault(f"{self._num_in_row} faults in a row, the last one: {text}") from error
        if math.log10(self.num_faults).is_integer():
            _LOG.warning("fault %d, the environment is recreated: %s", self.num_faults, text)
        self._recreate()
        return text

    def _recreate(self) -> None:
        """Closes the environment and makes it again."""
        try:
            with self._timer:
                self.env.close()
        except (Exception, StepTimeout):  # what is broken may break again
            _LOG.debug("environment %s could not be closed.", self._name, exc_info=True)
        try:
            self.env = self._make()
        except Exception as error:  # an environment may raise anything
            reason = describe(error, self._timer.seconds)
            raise EnvFault(f"environment {self._name} cannot be recreated: it {reason}.") from error
        if self._seed is not None:
            (word,) = np.random.SeedSequence([self._seed, self.num_faults]).generate_state(1)
            self._next_seed = int(word) // 2

    def _where(self) -> str:
        """Which step of which episode this is."""
        step = f"in step {self._num_steps} of" if self._num_steps else "at the start of"
        seed = ", without a seed" if self._seed is None else f" from seed {self._seed}"
        return f"{step} episode {self._num_episodes}{seed}"


def is_finite_number(reward: Any) -> bool:
    """Whether a reward, of whatever type, is one finite number."""
    if isinstance(reward, _NUMBERS):
        return math.isfinite(reward)
    try:
        return np.size(reward) == 1 and bool(np.isfinite(reward).all())
    except TypeError:
        return False
