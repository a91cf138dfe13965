"""What is measured of an iteration, and what a contender must offer to be measured. Loads neither torch nor ray."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Timing(NamedTuple):
    """One iteration of a contender; ``None`` stands for what cannot be told apart, or not be known, there."""

    seconds: float
    """Wall time, all of it."""
    rollout: float | None
    """Seconds of playing the environments."""
    update: float | None
    """Seconds of learning."""
    weight_sync: float | None
    """Seconds of handing the new weights to those who play."""
    env_steps: int
    """Environment steps that were played and learned from."""
    peak_mb: float | None
    """Highest memory of the contender's process in the iteration, above what it held when it was built, in MiB."""
    update_peak_mb: float | None
    """The same, in the update alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What a contender turned out to be once it was built."""

    parameters: int
    """How many numbers it learns."""
    built_mb: float | None
    """Memory of its process then, in MiB."""
    num_threads: int
    """CPU threads that PyTorch uses in it."""
    note: str
    """What a reader should know of it: sizes, or the version of a library."""


class Contender(Protocol):
    """Something that learns, one iteration at a time."""

    def prepare(self) -> Description:
        """Builds it; nothing of this is timed."""
        ...

    def run_iteration(self) -> Timing:
        """Plays and learns once."""
        ...

    def close(self) -> None:
        """Stops what it has started."""
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
    """A contender cannot take part here; the message is one line that says why."""
