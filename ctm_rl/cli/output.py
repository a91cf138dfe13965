"""Standard output and standard error of a command: what cannot be written is dropped, and ends nothing."""

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_ESCAPE = "ctm_rl.escape"


class DroppingStream:
    """A text stream whose errors end nothing: after the first one, whatever is written to it is dropped.

    Args:
        stream: what is written to.
        on_error: called at the first error, as of a closed pipe or a full disk.

    Attributes:
        error: the first error; ``None``: there was none.
    """

    def __init__(self, stream: Any, on_error: Callable[[Exception], None]) -> None:
        self._stream, self._on_error = stream, on_error
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Writes a text, or drops it."""
        if self.error is None:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:  # ValueError: somebody has closed the stream
                self._drop(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes texts, or drops them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        if self.error is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._drop(error)

    def close(self) -> None:
        """Leaves the process's own stream open: libraries close a stream that they log to unless they know it."""
        self.flush()

    def _drop(self, error: Exception) -> None:
        """Leads the stream's descriptor nowhere: Python writes the rest of its buffer at exit."""
        self.error = error
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        self._on_error(error)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)


@contextlib.contextmanager
def dropping_output(*, is_run: bool) -> Iterator[DroppingStream]:
    """Replaces standard output and standard error inside the body by streams that cannot fail.

    A first error is reported once on the other stream: of a run always; of a command whose output is its result,
    unless the reader has closed the pipe, as in ``ctm-rl list | head -1``, or standard error itself is what fails.

    Args:
        is_run: whether the command does something that goes on without its output.

    Yields:
        Standard output.
    """
    _open_descriptors()
    before = sys.stdout, sys.stderr

    def report(name: str, error: Exception, other: DroppingStream) -> None:
        reason = getattr(error, "strerror", None) or error
        if is_run:
            other.write(f"ctm-rl: {name} cannot be written ({reason}); the run continues without it.\n")
        elif name == "standard output" and not isinstance(error, BrokenPipeError):
            other.write(f"ctm-rl: {name} cannot be written: {reason}.\n")
        other.flush()

    output = DroppingStream(before[0], lambda error: report("standard output", error, errors))
    errors = DroppingStream(before[1], lambda error: report("standard error", error, output))
    with contextlib.ExitStack() as stack:
        for stream in before:
            stack.enter_context(_escaping(stream))
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        try:
            yield output
        finally:
            output.flush()
            errors.flush()


def _open_descriptors() -> None:
    """Opens the standard descriptors that are closed, as after ``2>&-``: otherwise a run's files get their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))


@contextlib.contextmanager
def _escaping(stream: Any) -> Iterator[None]:
    """Lets a stream write any text in any encoding; a name that is not text is written as the bytes that it is."""
    codecs.register_error(_ESCAPE, _escape)
    errors = getattr(stream, "errors", None)
    if errors is None or not hasattr(stream, "reconfigure"):
        yield
        return
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors=_ESCAPE)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.reconfigure(errors=errors)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encodes one character that an encoding lacks: a byte of a file's name as itself, another one as an escape."""
    assert isinstance(error, UnicodeEncodeError)
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    try:
        return codecs.lookup_error("surrogateescape")(one)
    except UnicodeError:
        return codecs.backslashreplace_errors(one)
