"""A guard around one environment: its faults are reported with environment, step and seed, or survived."""

import logging
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from ctm_rl.envs.guard.describe_fault import FAULTS, Misbehaviour, describe, is_stop, observed, short
from ctm_rl.envs.guard.mask_check import make_mask_check
from ctm_rl.envs.guard.space_check import LARGEST, make_reader
from ctm_rl.envs.guard.step_values import PLAIN_FLAGS, read_flag, read_info, read_reward
from ctm_rl.envs.guard.timeout import StepTimer
from ctm_rl.errors import EnvFault, UserError
from ctm_rl.notes import note, pop_notes

MAX_FAULTS = 20
"""How many faults without a good step between them are survived, and how many in all before their share counts."""
MAX_SHARE = 0.5
"""The largest share of an environment's episodes that may end by a fault."""

LONG_EPISODE = 5_000
"""Steps after which an episode of an environment without time limit is noted."""

_PLAIN = {
    (reward, terminated, truncated, dict)
    for reward in (float, int, np.float64, np.float32)
    for terminated in PLAIN_FLAGS
    for truncated in PLAIN_FLAGS
}
"""Types of reward, flags and information that are returned as they are, without a look at each."""
_LOG = logging.getLogger(__name__)


class EnvGuard(gym.Wrapper[Any, Any, Any, Any]):
    """Checks every step of one environment: errors, timeouts and values that are not finite or outside their space.

    An action mask that forbids every action, although the episode goes on, is a fault too. Everything that a step
    or a reset returns comes out in the form that Gymnasium documents; what had another one is noted once. A strict
    guard raises ``EnvFault``. A tolerant one recreates the environment: it ends the episode as truncated, with the
    last good observation and ``info["env_fault"]``, and counts it in ``num_faults``; a failed reset is repeated.
    The new environment's seed is derived from that of the old one.

    Args:
        make: makes the environment.
        name: of the environment, for messages.
        time_limit: seconds that a step or a reset may take, see ``StepTimer``; ``None``: no limit.
        is_tolerant: go on after faults, unless there are ``MAX_FAULTS`` in a row, or they end more than ``MAX_SHARE``
            of the episodes.
        has_bounds: an observation outside the bounds of its space is a fault too; otherwise it is noted.
        find_time_limit: returns after how many steps an environment truncates its episodes; ``None``: episodes
            without an end are not noted.

    Raises:
        UserError: the environment has no spaces.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env],
        name: str,
        *,
        time_limit: float | None = None,
        is_tolerant: bool = False,
        has_bounds: bool = False,
        find_time_limit: Callable[[gym.Env], int | None] | None = None,
    ) -> None:
        super().__init__(make())
        check_spaces(self.env, name)
        self.num_faults = 0
        self._make = make
        self._name = name
        self._is_tolerant = is_tolerant
        self._find_time_limit = find_time_limit
        self._timer = StepTimer(time_limit)
        self._read, self._read_quickly = (
            make_reader(self.env.observation_space, self._note_observation, has_bounds=has_bounds, is_quick=is_quick)
            for is_quick in (False, True)
        )
        self._check_mask = make_mask_check(self.env.observation_space, self.env.action_space)
        self._num_in_row = 0
        self._num_begun = 0
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
            self._num_begun += 1
            self._num_steps = 0
            self._timer.prepare()
            try:
                with self._timer:
                    result = self.env.reset(seed=used, options=options)
                _check_size(result, 2, "reset", "observation, info")
                observation, info = self._read(result[0]), read_info(result[1], self._note)
                if self._check_mask is not None:
                    self._check_mask(observation, None)
                break
            except EnvFault:
                raise
            except FAULTS as error:  # an environment may raise anything
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
                result: Any = self.env.step(action)
            try:
                observation, reward, is_terminated, is_truncated, info = result
            except (TypeError, ValueError):
                _check_size(result, 5, "step", "observation, reward, terminated, truncated, info")
                raise
            observation = self._read_quickly(observation)
            kinds = (reward.__class__, is_terminated.__class__, is_truncated.__class__, info.__class__)
            # NaN fails every comparison.
            if kinds not in _PLAIN or not -LARGEST <= reward <= LARGEST:
                reward = read_reward(reward, self._note)
                is_terminated = read_flag("terminated", is_terminated, self._note)
                is_truncated = read_flag("truncated", is_truncated, self._note)
                info = read_info(info, self._note)
            if self._check_mask is not None and not (is_terminated or is_truncated):
                self._check_mask(observation, None)
        except EnvFault:
            raise
        except FAULTS as error:  # an environment may raise anything
            return self._last_good, 0.0, False, True, {"env_fault": self._survive(error)}
        self._num_in_row = 0
        self._last_good = observation
        if self._num_steps == LONG_EPISODE:
            self._note_endless()
        return observation, reward, is_terminated, is_truncated, info

    def pop_notes(self) -> list[str]:
        """Returns what was noted in this process, for the process that logs it."""
        return pop_notes()

    def _note_endless(self) -> None:
        """Notes that episodes may never end: returns are those of episodes that have."""
        if self._find_time_limit is not None and self._find_time_limit(self.env) is None:
            self._note(
                "episodes",
                f"has no time limit, and an episode has not ended after {LONG_EPISODE:,} steps; returns are reported "
                "once episodes end, and --env.max-episode-steps N truncates them",
            )

    def _note_observation(self, kind: str, text: str) -> None:
        """Notes an observation that is taken although it is not in its space."""
        self._note(kind, f"returned {observed(text)}")

    def _note(self, kind: str, text: str) -> None:
        """Notes what is taken although it has not the documented form."""
        note(f"{self._name} {kind}", f"environment {self._name} {text}.")

    def _survive(self, error: BaseException) -> str:
        """Counts a fault and recreates the environment; returns the fault's description."""
        if is_stop(error):
            raise error
        text = f"environment {self._name} {describe(error, self._timer.seconds)}, {self._where()}."
        if not self._is_tolerant:
            raise EnvFault(text) from error
        self.num_faults += 1
        self._num_in_row += 1
        if self._num_in_row >= MAX_FAULTS:
            raise EnvFault(f"{self._num_in_row} faults in a row, the last one: {text}") from error
        if self.num_faults >= MAX_FAULTS and self.num_faults > MAX_SHARE * self._num_begun:
            share = f"{self.num_faults} of {self._num_begun} episodes ended by faults, more than {MAX_SHARE:.0%}"
            raise EnvFault(f"{share}, the last one: {text}") from error
        note(f"{self._name} fault", f"the first fault, the environment is recreated: {text}")
        self._recreate()
        return text

    def _recreate(self) -> None:
        """Closes the environment and makes it again."""
        try:
            with self._timer:
                self.env.close()
        except FAULTS as error:  # what is broken may break again
            if is_stop(error):
                raise
            _LOG.debug("environment %s could not be closed.", self._name, exc_info=True)
        try:
            self.env = self._make()
        except FAULTS as error:  # an environment may raise anything
            if is_stop(error):
                raise
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


def check_spaces(env: gym.Env, name: str) -> None:
    """Refuses an environment without spaces, from which a policy cannot be built.

    Raises:
        UserError: a space is missing, or is made only at the first reset.
    """
    for which in ("observation_space", "action_space"):
        space = getattr(env, which, None)
        if not isinstance(space, gym.Space):
            raise UserError(
                f"environment {name} has no {which} when it is made: it is {short(space)}; "
                "set it to a gymnasium.Space in __init__ or in the class, before the first reset."
            )


def _check_size(result: Any, size: int, method: str, names: str) -> None:
    """Refuses what a method returned unless it is as many values as Gymnasium documents."""
    if not isinstance(result, (tuple, list)) or len(result) != size:
        found = f"{len(result)} values" if isinstance(result, (tuple, list)) else short(result)
        raise Misbehaviour(f"returned {found} from {method} instead of {size} ({names})")
