"""What goes on inside an iteration: how far it is, and where it may be broken off, in the process that trains.

Collectors, learners and tests call ``report`` at every point at which they may stop. Environment runners and learners
in processes of their own report to nobody.
"""

import contextlib
from collections.abc import Callable, Iterator

Observer = Callable[[str, int, int], None]
"""Called with what is being done, how many parts of it are done, and how many there are; may raise."""

SLICE_SECONDS = 0.5
"""Waiting for another process is divided into slices of this length, with a ``report`` before each."""

_observer: Observer | None = None


class IterationStopped(BaseException):
    """An iteration is broken off, since the run is to stop; no ``Exception``, so that nobody takes it for an error."""


@contextlib.contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Has a function get all reports of this process inside the body."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def report(what: str, num_done: int, num_parts: int) -> None:
    """Reports progress inside an iteration.

    Args:
        what: the parts, such as "minibatches".
        num_done: how many are done.
        num_parts: how many there are in this iteration.

    Raises:
        IterationStopped: the iteration is to be broken off here.
    """
    if _observer is not None:
        _observer(what, num_done, num_parts)
