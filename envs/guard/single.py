"""A guard around an environment: what it must not do is told by name, step and seed, or survived."""

import logging
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from ctm_rl.envs.guard import timeout
from ctm_rl.envs.guard.space_check import check_of
from ctm_rl.envs.guard.timeout import TookTooLong, Watch
from ctm_rl.errors import EnvFault

MAX_FAULTS_IN_A_ROW = 100
"""How many faults without a good step between them are survived."""

_LOG = logging.getLogger(__name__)


class EnvGuard(gym.Wrapper[Any, Any, Any, Any]):
    """Watches one environment: faults are errors of it, numbers that are none, and observations outside of its space.

    A strict guard raises ``EnvFault``. A tolerant one makes the environment anew: it ends the episode as cut off, with
    the last good observation and ``info["env_fault"]``, and counts it in ``num_faults``; a failed reset is tried again.
    The new environment's seed follows from that of the old one.

    Args:
        make: makes the environment.
        name: of the environment, for messages.
        time_limit: seconds that a step or a reset may take, see ``Watch``; ``None``: any.
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
        self._watch = Watch(time_limit)
        self._time_limit = time_limit
        self._check = check_of(self.env.observation_space, has_bounds=has_bounds)
        self._check_quickly = check_of(self.env.observation_space, has_bounds=has_bounds, is_quick=True)
        self._num_in_row = 0
        self._seed: int | None = None
        self._next_seed: int | None = None
        self._num_episodes = 0
        self._num_steps = 0
        self._last_good: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode.

        Raises:
            EnvFault: it failed, once too often.
        """
        fault = None
        while True:
            used = self._next_seed if seed is None else seed
            self._next_seed = None
            self._num_episodes = 1 if used is not None else self._num_episodes + 1
            self._seed = self._seed if used is None else used
            self._num_steps = 0
            self._watch.prepare()
            try:
                self._watch.start()
                try:
                    observation, info = self.env.reset(seed=used, options=options)
                finally:
                    self._watch.stop()
            except EnvFault:
                raise
            except (Exception, TookTooLong) as error:  # an environment may raise anything
                fault = self._survive(self._say(error), error)
            else:
                wrong = self._check(observation)
                if wrong is None:
                    break
                fault = self._survive(f"returned an observation that {wrong}", None)
            seed = None
        self._last_good = observation
        return observation, info if fault is None else {**info, "env_fault": fault}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step.

        Raises:
            EnvFault: it failed, once too often.
        """
        self._num_steps += 1
        try:
            self._watch.start()
            try:
                observation, reward, is_terminated, is_truncated, info = self.env.step(action)
            finally:
                self._watch.stop()
        except EnvFault:
            raise
        except (Exception, TookTooLong) as error:  # an environment may raise anything
            return self._end(self._say(error), error)
        wrong = self._check_quickly(observation)
        if wrong is not None:
            return self._end(f"returned an observation that {wrong}", None)
        if not is_finite_number(reward):
            return self._end(
                f"returned the reward {' '.join(repr(reward).split())[:60]}, which is no finite number", None
            )
        self._num_in_row = 0
        self._last_good = observation
        return observation, reward, is_terminated, is_truncated, info

    def _end(self, what: str, cause: BaseException | None) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Ends the episode after a fault."""
        return self._last_good, 0.0, False, True, {"env_fault": self._survive(what, cause)}

    def _survive(self, what: str, cause: BaseException | None) -> str:
        """Notes a fault and makes the environment anew; gives what is told of it."""
        text = f"environment {self._name} {what}, {self._where()}."
        if not self._is_tolerant:
            raise EnvFault(text) from cause
        self.num_faults += 1
        self._num_in_row += 1
        if self._num_in_row >= MAX_FAULTS_IN_A_ROW:
            raise EnvFault(f"{self._num_in_row} faults in a row, the last one: {text}") from cause
        if math.log10(self.num_faults).is_integer():
            _LOG.warning("fault %d, the environment is made anew: %s", self.num_faults, text)
        self._renew()
        return text

    def _renew(self) -> None:
        """Makes the environment anew."""
        self._watch.start()
        try:
            self.env.close()
        except (Exception, TookTooLong):  # what is broken may break again
            _LOG.debug("environment %s could not be closed.", self._name, exc_info=True)
        finally:
            self._watch.stop()
        try:
            self.env = self._make()
        except Exception as error:  # an environment may raise anything
            raise EnvFault(f"environment {self._name} cannot be made anew: it {self._say(error)}.") from error
        if self._seed is not None:
            (word,) = np.random.SeedSequence([self._seed, self.num_faults]).generate_state(1)
            self._next_seed = int(word) // 2

    def _say(self, error: BaseException) -> str:
        """What happened, and in which line."""
        return say(error, self._time_limit)

    def _where(self) -> str:
        """Which step of which episode this is."""
        step = f"in step {self._num_steps} of" if self._num_steps else "at the start of"
        if self._seed is None:
            return f"{step} episode {self._num_episodes}, without a seed"
        return f"{step} episode {self._num_episodes} from seed {self._seed}"


def is_finite_number(reward: Any) -> bool:
    """Whether a reward, of whatever type, is one finite number."""
    if isinstance(reward, (float, int, np.floating, np.integer)):
        return math.isfinite(reward)
    try:
        return np.size(reward) == 1 and bool(np.isfinite(reward).all())
    except TypeError:
        return False


def say(error: BaseException, time_limit: float | None) -> str:
    """What an environment did that raised: the error and its line, or that it took too long."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, TookTooLong):
        frames = [frame for frame in frames if frame.filename != timeout.__file__]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        return f"took longer than {time_limit:g} seconds{place}"
    reason = " ".join(str(error).split())
    return f"raised {type(error).__name__}{': ' if reason else ''}{reason[:200]}{place}"
