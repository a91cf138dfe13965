"""Stops a run on SIGINT or SIGTERM: the first signal waits for a safe moment, the second does not."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal.

    Attributes:
        run_dir: the run's directory; ``None``: nothing has been written.
        signum: the signal.
        is_saved: whether the last checkpoint holds everything up to the stop.
    """

    def __init__(self, run_dir: str | None, signum: int | None, *, is_saved: bool) -> None:
        signum = signum or signal.SIGINT
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.run_dir = run_dir
        self.signum = signum
        self.is_saved = is_saved


class StopRequest:
    """Catches SIGINT and SIGTERM while it is entered; has no effect outside of the main thread.

    The first signal is only recorded: an exception raised during an import, or inside Ray, would get lost or leave
    processes behind. A second one raises ``KeyboardInterrupt`` at once.

    Args:
        on_stop: called at the first signal, from the signal handler.

    Attributes:
        signum: the first signal; ``None``: there was none.
        run_dir: the run that a stop leaves behind; ``None``: nothing has been written.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self.signum: int | None = None
        self.run_dir: str | None = None
        self._on_stop = on_stop
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restores the handlers from before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def take(self) -> None:
        """Installs the handlers again: Ray installs its own for SIGTERM when it starts."""
        for number in self._before:
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Raises ``KeyboardInterrupt`` if a signal has come; called where it is safe to stop."""
        if self.signum is not None:
            raise KeyboardInterrupt

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Records the first signal; stops at once at the second."""
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        self._on_stop()
