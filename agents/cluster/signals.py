"""Stopping a run from outside without breaking it: the first signal waits for a safe moment, the second does not."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal.

    Attributes:
        run_dir: the run's directory; ``None`` when the run had not begun and nothing was written.
        signum: the signal.
        is_saved: whether a checkpoint holds everything up to the stop.
    """

    def __init__(self, run_dir: str | None, signum: int | None, *, is_saved: bool) -> None:
        signum = signum or signal.SIGINT
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.run_dir = run_dir
        self.signum = signum
        self.is_saved = is_saved


class StopRequest:
    """Catches SIGINT and SIGTERM while it is entered; elsewhere than in the main thread Python allows no such thing.

    The first signal is only noted: raised in the midst of an import, or of what Ray is doing, an exception would get
    lost or leave processes behind. A second one raises ``KeyboardInterrupt`` where the program stands.

    Args:
        tell: called at the first signal, from the signal's handler.

    Attributes:
        signum: the first signal; ``None``: there was none.
        run_dir: the run that a stop leaves behind; ``None``: nothing has been written.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.signum: int | None = None
        self.run_dir: str | None = None
        self._tell = tell
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        """Takes the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def take(self) -> None:
        """Takes the signals over again: Ray takes SIGTERM when it starts."""
        for number in self._before:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raises ``KeyboardInterrupt`` if a signal has come: a safe moment to stop."""
        if self.signum is not None:
            raise KeyboardInterrupt

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Remembers the first signal; the second is not to wait."""
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        self._tell()
