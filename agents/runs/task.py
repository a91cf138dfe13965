"""What differs between runs that learn different things: their algorithm, their metrics, and what is kept of them."""

import math
import resource
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from ctm_rl.agents.run_directory.progress import Row

MODULE = "default_policy"
SAMPLE_TIMEOUT_SECONDS = 1800.0
"""How long a remote environment runner may take for its share of an iteration."""


class Task(Protocol):
    """One kind of learning, for the length of a run."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of a line of metrics, in their order."""
        ...

    def build_config(self) -> Any:
        """RLlib's configuration; needs no running Ray."""
        ...

    def describe(self, algorithm: Any) -> dict[str, Any]:
        """What a checkpoint holds of the model, with its weights."""
        ...

    def read(self, algorithm: Any, result: dict[str, Any], *, is_last: bool) -> Row:
        """The metrics of an iteration that has been learned, beside those that every run has.

        Args:
            algorithm: as it stands after the iteration.
            result: what its ``train`` gave.
            is_last: whether the budget ends with it.
        """
        ...

    def get_memory(self) -> dict[str, Any]:
        """What ``read`` remembers between iterations."""
        ...

    def set_memory(self, memory: dict[str, Any]) -> None:
        """Puts back what ``get_memory`` gave."""
        ...


COMMON_METRICS = ("iteration", "env_steps", "seconds", "env_steps_per_second")
"""What every line of metrics begins with."""


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, if there is anything."""
    return math.fsum(values) / len(values) if values else None


def number_of(values: dict[str, Any], name: str) -> float | None:
    """A metric, if RLlib has it and it is a number."""
    value = values.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def peak_memory_mb() -> float:
    """The most memory that the training process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
