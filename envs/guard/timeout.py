"""A clock that ends what takes too long: an environment that hangs would otherwise hold up a whole run in silence."""

import atexit
import logging
import os
import signal
import threading
from typing import Any

_LOG = logging.getLogger(__name__)
_MAX_INTERVAL = 15.0
"""Seconds between two looks at the clock, at most; a quarter of the limit otherwise."""


class TookTooLong(BaseException):
    """The clock rang; no ``Exception``, so that an environment that catches those cannot keep it."""


class _Clock:
    """What all watches of a process share: Unix's alarm, which looks from time to time whether something still runs.

    Setting an alarm for every step, or even asking for the time, would cost more than many a step.
    """

    def __init__(self) -> None:
        self.watch: Watch | None = None
        """What is being watched."""
        self.count = 0
        """How often anything has been started."""
        self.has_said = False
        """Whether it has been said that nothing can be watched."""
        self.main = threading.main_thread().ident
        self._interval = float("inf")
        self._last_count = -1
        self._num_rings = 0

    def wind_up(self, limit: float) -> bool:
        """Sees to it that the alarm looks often enough; tells whether it can."""
        if not _HAS_ALARM or threading.get_ident() != self.main:
            return False
        handler = signal.getsignal(signal.SIGALRM)
        if handler == self.ring and limit >= 4 * self._interval:
            return True
        if handler not in (self.ring, signal.SIG_DFL, None):
            return False  # somebody else's alarm
        self._interval = min(limit / 4, _MAX_INTERVAL, self._interval)
        signal.signal(signal.SIGALRM, self.ring)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, self._interval, self._interval)
        return True

    def ring(self, signum: int, frame: Any) -> None:
        """Looks whether the same as the last times still runs; rings on, should the first time have been caught."""
        if self.watch is None or self.count != self._last_count:
            self._last_count, self._num_rings = self.count, 0
            return
        self._num_rings += 1
        if self._num_rings * self._interval >= (self.watch.seconds or 0):
            raise TookTooLong

    def disarm(self) -> None:
        """Ends the alarm before Python, on its way out, takes away who answers to it: it would end the process."""
        if signal.getsignal(signal.SIGALRM) == self.ring:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def forget(self) -> None:
        """A new process has no alarm yet."""
        if signal.getsignal(signal.SIGALRM) == self.ring:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.__init__()


_HAS_ALARM = hasattr(signal, "setitimer")
_CLOCK = _Clock()
if _HAS_ALARM:
    os.register_at_fork(after_in_child=_CLOCK.forget)
    atexit.register(_CLOCK.disarm)


class Watch:
    """Raises ``TookTooLong`` in what runs between ``start`` and ``stop`` once the time, and at most half more, is up.

    It needs Unix's alarm signal, which Python handles in the main thread of a process only, between two instructions:
    elsewhere, where somebody else uses that signal, and in compiled code that never comes back, nothing is ended. That
    it cannot watch is logged once in a process.

    Args:
        seconds: the time; ``None``: there is no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._can_watch = False
        self._outer: Watch | None = None

    def prepare(self) -> None:
        """Looks whether there is a clock here: to be called now and then, as at the start of an episode."""
        if self.seconds is None:
            return
        self._can_watch = _CLOCK.wind_up(self.seconds)
        if not self._can_watch and not _CLOCK.has_said:
            _CLOCK.has_said = True
            _LOG.warning(
                "steps of an environment are not timed here: that needs Unix, the main thread and a free alarm signal."
            )

    def start(self) -> None:
        """Starts the clock."""
        if self._can_watch and threading.get_ident() == _CLOCK.main:
            _CLOCK.count += 1
            self._outer, _CLOCK.watch = _CLOCK.watch, self

    def stop(self) -> None:
        """Stops the clock, if it runs."""
        if _CLOCK.watch is self:
            _CLOCK.watch = self._outer
