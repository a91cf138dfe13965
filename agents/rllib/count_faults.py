"""Counts tolerated faults of environments, from the guards around them."""

from typing import Any

from gymnasium.vector import VectorEnv

FAULTS = "env_faults"
"""Key in a result's ``env_runners``: tolerated faults of an iteration."""
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


def faults_of(result: dict[str, Any]) -> int:
    """Tolerated faults of an iteration, from a result of ``Algorithm.train``."""
    return int(result.get("env_runners", {}).get(FAULTS, 0) or 0)
