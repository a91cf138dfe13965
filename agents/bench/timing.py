"""What is measured of an iteration, and what a contender must offer to be measured. Loads neither torch nor ray."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Timing(NamedTuple):
    """One iteration of a contender; ``None``: not measured apart, or unknown on this system."""

    seconds: float
    """Wall time of the whole iteration."""
    rollout: float | None
    """Seconds of playing the environments."""
    update: float | None
    """Seconds of learning."""
    weight_sync: float | None
    """Seconds of sending the new weights to the env runners."""
    env_steps: int
    """Environment steps that were played and learned from."""
    peak_mb: float | None
    """Highest memory of the contender's process in the iteration, above that after building, in MiB."""
    update_peak_mb: float | None
    """The same, in the update alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A contender that has been built."""

    parameters: int
    """Number of learned parameters."""
    built_mb: float | None
    """Memory of its process after building, in MiB."""
    num_threads: int
    """CPU threads that PyTorch uses in it."""
    note: str
    """What a reader should know about it: its sizes."""


class Contender(Protocol):
    """An algorithm that is measured, one iteration at a time."""

    def prepare(self) -> Description:
        """Builds it; this is not measured."""
        ...

    def run_iteration(self) -> Timing:
        """Plays and learns for one iteration."""
        ...

    def close(self) -> None:
        """Stops the processes and environments that it started."""
        ...


def median_seconds(call: Callable[[], Any], times: int) -> float:
    """Measures how long a call takes.

    Args:
        call: what is measured.
        times: how many calls count, after one that is thrown away.

    Returns:
        The median of their seconds.
    """
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


class Unavailable(Exception):
    """A contender cannot be measured here; the message is one line with the reason."""
