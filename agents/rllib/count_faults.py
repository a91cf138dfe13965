"""Counts tolerated faults of environments, from the guards around them."""

from typing import Any

from gymnasium.vector import AsyncVectorEnv, VectorEnv

from ctm_rl import notes
from ctm_rl.agents.rllib.finished_episodes import series_of

FAULTS = "env_faults"
"""Key in a result's ``env_runners``: tolerated faults of an iteration."""
NOTES = "env_notes"
"""Key in a result's ``env_runners``: what environment runners have noted in an iteration."""
_COUNTER = "num_faults"


class FaultCounter:
    """Reads the fault counts of a vector of environments.

    Args:
        env: the environments; without tolerant guards, faults are not tolerated.
        is_tolerant: whether their guards are tolerant.
    """

    def __init__(self, env: VectorEnv, *, is_tolerant: bool) -> None:
        self._env = env
        self._is_tolerant = is_tolerant
        self._last = 0

    def pop(self) -> int:
        """Faults since the last call."""
        get: Any = getattr(self._env.unwrapped, "get_attr", None)
        if not self._is_tolerant or get is None:
            return 0
        total = sum(int(count) for count in get(_COUNTER))
        last, self._last = self._last, total
        return total - last


def pop_notes(env: VectorEnv | None) -> list[str]:
    """What has been noted about environments since the last call, in this process and in theirs."""
    found = notes.pop_notes()
    if env is not None and isinstance(env.unwrapped, AsyncVectorEnv):
        found += [entry for entries in env.unwrapped.call("pop_notes") for entry in entries]
    return found


def show_notes(result: dict[str, Any]) -> None:
    """Logs what environment runners have noted in an iteration, each kind once."""
    for entry in series_of(result, NOTES):
        notes.show(entry)


def faults_of(result: dict[str, Any]) -> int:
    """Tolerated faults of an iteration, from a result of ``Algorithm.train``."""
    return int(result.get("env_runners", {}).get(FAULTS, 0) or 0)
