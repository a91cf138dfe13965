"""Stops a run on a signal: saves from memory at once, breaks the iteration off, ends what does not end by itself."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from ctm_rl.errors import UserError

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""What schedulers, terminals and people stop a process with."""

INTERRUPT_SECONDS = 4.0
"""How long after the first signal an iteration may take to reach a point where it can stop; then it is interrupted."""

STUCK_SECONDS = 20.0
"""How long a process that trains may take to end after the first signal; schedulers kill after 30 s."""

START_SECONDS = 60.0
"""The same for a process that has not begun to train: nothing is lost yet, and Ray is not left half-started."""

_POLL_SECONDS = 0.1


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal.

    Attributes:
        run_dir: the run's directory; ``None``: nothing has been written.
        signum: the signal.
        is_saved: whether the last checkpoint holds every whole iteration up to the stop.
    """

    def __init__(self, run_dir: str | None, signum: int | None, *, is_saved: bool) -> None:
        signum = signum or signal.SIGINT
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.run_dir = run_dir
        self.signum = signum
        self.is_saved = is_saved


class RayLost(UserError):
    """The Ray that a run has started ended by itself."""

    exit_code = 1


class StopRequest:
    """Catches ``SIGNALS`` while it is entered; has no effect outside of the main thread.

    The first signal is only recorded in the main thread: an exception raised during an import, or inside Ray, would get
    lost or leave processes behind. A second one raises ``KeyboardInterrupt`` at once.

    Another thread sees signals even while the main thread waits for something that does not answer. At the first one it
    calls ``on_stop`` and saves; it interrupts a main thread that does not leave ``training`` in time, and calls
    ``on_stuck`` if the process does not end in time.

    Args:
        on_stop: called at the first signal, in a thread of its own.
        on_stuck: ends the process, for the given reason; without it, the process is waited for.
        seconds: how long the process may take to end after the first signal, before ``training`` begins.

    Attributes:
        signum: the first signal; ``None``: there was none.
        stopped_at: when the run was first asked to stop, on the monotonic clock; ``None``: it was not.
        run_dir: the run that a stop leaves behind; ``None``: nothing has been written.
        is_saved: whether a stop during training has saved every whole iteration.
        on_exit: what a process that is stuck does before it ends.
    """

    def __init__(
        self,
        on_stop: Callable[[], None],
        on_stuck: Callable[[RunInterrupted | RayLost], None] = lambda reason: None,
        seconds: float = START_SECONDS,
    ) -> None:
        self.signum: int | None = None
        self.stopped_at: float | None = None
        self.run_dir: str | None = None
        self.is_saved = False
        self.on_exit: list[Callable[[], None]] = []
        self._on_stop, self._on_stuck = on_stop, on_stuck
        self._rescue: Callable[[], bool] = lambda: False
        self._loss: RayLost | None = None
        self._has_rescued = threading.Event()
        self._before: dict[int, object] = {}
        self._is_handled = self._is_training = self._is_urgent = False
        self._seconds, self._since = seconds, 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing = self._wakeup_before = -1

    def __enter__(self) -> "StopRequest":
        """Installs the handlers."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        if self._before.get(signal.SIGHUP) == signal.SIG_IGN:
            del self._before[signal.SIGHUP]  # nohup
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(reading,), daemon=True)
        self._thread.start()
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restores the handlers from before."""
        self._ended.set()
        if self._thread is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writing)
        self._thread.join(STUCK_SECONDS)  # it may be about to save

    def take(self) -> None:
        """Installs the handlers again: Ray that joins a cluster and Ray Tune install their own."""
        for number in self._before:
            signal.signal(number, self._handle)

    @property
    def is_stopping(self) -> bool:
        """Whether the run is to stop."""
        return self.stopped_at is not None

    def check(self) -> None:
        """Stops the run if it is to stop; called where it is safe.

        Raises:
            KeyboardInterrupt: there was a signal.
            RayLost: Ray has ended.
        """
        if self._loss is not None:
            self._has_rescued.wait(STUCK_SECONDS)
            raise self._loss
        if self.is_stopping:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def training(self, rescue: Callable[[], bool], rest_seconds: float = 0.0) -> Iterator[None]:
        """Inside the body, the main thread may be interrupted, after what it has learned is saved.

        Args:
            rescue: saves what is in this process's memory; returns whether the last whole iteration is saved.
            rest_seconds: how long what comes after the body may take, such as an upload, beside ``STUCK_SECONDS``.
        """
        self._rescue, self._is_training, self._seconds = rescue, True, STUCK_SECONDS
        try:
            yield
        finally:
            self._is_training = False
            self._seconds, self._since = STUCK_SECONDS + rest_seconds, time.monotonic()

    def interruption(self) -> RunInterrupted:
        """What a stop outside of the safe moments leaves, once the other thread has saved."""
        if self.is_stopping and self._thread is not None:
            self._has_rescued.wait(STUCK_SECONDS)
        return RunInterrupted(self.run_dir, self.signum, is_saved=self.is_saved)

    def lose(self, reason: str) -> None:
        """Stops the run because its Ray has ended; called in another thread.

        Ray ends this process, without a word, as soon as the main thread uses it: so it is ended here.

        Args:
            reason: what has ended.
        """
        if self._ended.is_set():
            return
        self._loss = RayLost(reason)  # until it is known what is saved
        self._begin()
        self._save()
        if self.run_dir is not None:
            saved = "A checkpoint is saved" if self.is_saved else "The last checkpoint remains"
            self._loss = RayLost(f"{reason} {saved}; continue with: ctm-rl resume {self.run_dir}")
        self._end(self._loss)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Records the first signal; stops at once at the second."""
        if self._is_handled or self._is_urgent:
            raise KeyboardInterrupt
        self._is_handled = True
        self._record(signum)

    def _record(self, signum: int) -> None:
        """Records the first signal, which the main thread and the other one see in any order."""
        if self.signum is None:
            self.signum = signum
        self._begin()

    def _begin(self) -> None:
        if self.stopped_at is None:
            self.stopped_at = self._since = time.monotonic()

    def _watch(self, reading: int) -> None:
        """Reads the numbers of signals until ``__exit__``; at the first of ours, sees to it that the run stops."""
        with open(reading, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] in self._before:
                    self._record(number[0])
                    threading.Thread(target=self._on_stop, daemon=True).start()
                    self._save()
                    self._pursue()
                    return

    def _save(self) -> None:
        """Saves what is in this process's memory."""
        with contextlib.suppress(Exception):  # the main thread reports what is wrong when it saves
            self.is_saved = self._rescue()
        self._has_rescued.set()

    def _pursue(self) -> None:
        """Interrupts what does not stop, then ends what does not end."""
        assert self.stopped_at is not None
        while not self._ended.wait(_POLL_SECONDS):
            now = time.monotonic()
            if self._is_training and not self._is_urgent and now - self.stopped_at > INTERRUPT_SECONDS:
                self._is_urgent = True
                signal.pthread_kill(threading.main_thread().ident or 0, self.signum or signal.SIGTERM)
            if now - self._since > self._seconds:
                self._end(RunInterrupted(self.run_dir, self.signum, is_saved=self.is_saved))
                return

    def _end(self, reason: RunInterrupted | RayLost) -> None:
        """Has the process ended."""
        self._ended.set()
        for call in self.on_exit:
            call()
        self._on_stuck(reason)
