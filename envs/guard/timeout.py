"""A time limit for calls of an environment: one that hangs would otherwise block a whole run without a message."""

import atexit
import logging
import os
import signal
import threading
from typing import Any

_LOG = logging.getLogger(__name__)
_MAX_INTERVAL = 15.0
"""Seconds between two alarms, at most; otherwise a quarter of the limit."""


class StepTimeout(BaseException):
    """The time limit is exceeded; no ``Exception``, so that an environment that catches those cannot suppress it."""


class _Alarm:
    """Unix's alarm signal, shared by all timers of a process: checks periodically whether the same call still runs.

    Setting an alarm for every step, or even reading the clock, would take longer than many a step.
    """

    def __init__(self) -> None:
        self.timer: StepTimer | None = None
        """The timer that runs."""
        self.count = 0
        """How many calls have been timed."""
        self.has_warned = False
        """Whether it has been logged that calls cannot be timed."""
        self.main = threading.main_thread().ident
        self._interval = float("inf")
        self._last_count = -1
        self._num_rings = 0

    def arm(self, limit: float) -> bool:
        """Makes the alarm ring often enough for a limit; returns whether that is possible."""
        if not _HAS_ALARM or threading.get_ident() != self.main:
            return False
        handler = signal.getsignal(signal.SIGALRM)
        if handler == self.ring and limit >= 4 * self._interval:
            return True
        if handler not in (self.ring, signal.SIG_DFL, None):
            return False  # somebody else uses the signal
        self._interval = min(limit / 4, _MAX_INTERVAL, self._interval)
        signal.signal(signal.SIGALRM, self.ring)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, self._interval, self._interval)
        return True

    def ring(self, signum: int, frame: Any) -> None:
        """Counts alarms during the same call; keeps raising after the limit, should the first timeout be caught."""
        if self.timer is None or self.count != self._last_count:
            self._last_count, self._num_rings = self.count, 0
            return
        self._num_rings += 1
        if self._num_rings * self._interval >= (self.timer.seconds or 0):
            raise StepTimeout

    def disarm(self) -> None:
        """Stops the alarm before Python removes its handler at exit: the signal would kill the process."""
        if signal.getsignal(signal.SIGALRM) == self.ring:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def reset_after_fork(self) -> None:
        """Starts over in a child process, which inherits the handler but no timer."""
        if signal.getsignal(signal.SIGALRM) == self.ring:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.__init__()


_HAS_ALARM = hasattr(signal, "setitimer")
_ALARM = _Alarm()
if _HAS_ALARM:
    os.register_at_fork(after_in_child=_ALARM.reset_after_fork)
    atexit.register(_ALARM.disarm)


class StepTimer:
    """Raises ``StepTimeout`` in a ``with`` block that runs too long, after 1 to 1.5 times the limit.

    It needs Unix's alarm signal, which Python handles in the main thread of a process only, between two instructions:
    elsewhere, where somebody else uses that signal, and in compiled code that never returns, nothing is interrupted.
    That calls cannot be timed is logged once in a process.

    Args:
        seconds: the limit; ``None``: no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._is_armed = False
        self._outer: StepTimer | None = None

    def prepare(self) -> None:
        """Arms the alarm, if there is a limit: to be called from time to time, as at the start of an episode."""
        if self.seconds is None:
            return
        self._is_armed = _ALARM.arm(self.seconds)
        if not self._is_armed and not _ALARM.has_warned:
            _ALARM.has_warned = True
            _LOG.warning(
                "steps of an environment are not timed here: that needs Unix, the main thread and a free alarm signal."
            )

    def __enter__(self) -> None:
        """Starts the timer."""
        if self._is_armed and threading.get_ident() == _ALARM.main:
            _ALARM.count += 1
            self._outer, _ALARM.timer = _ALARM.timer, self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Stops the timer, if it runs."""
        if _ALARM.timer is self:
            _ALARM.timer = self._outer
