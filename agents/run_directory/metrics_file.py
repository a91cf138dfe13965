"""A run's metrics: one line of ``metrics.jsonl`` per iteration."""

import contextlib
import errno
import json
import logging
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ctm_rl.agents.run_directory.directory import METRICS_FILE, is_file_at
from ctm_rl.errors import UserError

_LOG = logging.getLogger(__name__)
_TAIL_BYTES = 2**14
"""How much of the metrics is read for their last line."""


class MetricsWriter:
    """Writes ``metrics.jsonl``, which cannot end a run.

    While lines cannot be written, as on a full disk, they are kept in memory; the log reports it once. A file that was
    removed or moved is written again with all its lines.

    Args:
        path: the run's directory.
        iteration: iterations trained so far; lines of later iterations, which are trained again, are removed.
        metrics: keys that each line has, in their order; other keys of a row follow.
        restore: creates the directory again if it is gone; raises ``OSError`` or ``UserError`` if it cannot.
        renewed: called after a file that was gone has been created again.
    """

    def __init__(
        self,
        path: Path,
        iteration: int,
        metrics: tuple[str, ...],
        restore: Callable[[], object] = lambda: None,
        renewed: Callable[[], object] = lambda: None,
    ) -> None:
        self._metrics, self._restore, self._renewed = metrics, restore, renewed
        self._path = path / METRICS_FILE
        self._first = iteration
        self._descriptor: int | None = None
        self._pending = b""
        self._is_failing = False
        self._flush()

    def write(self, row: dict[str, float | None]) -> dict[str, float | None]:
        """Appends one complete line, and returns it: the run's metrics as far as the row has them, then its others."""
        names = dict.fromkeys((*(name for name in self._metrics if name in row), *row))
        ordered = {name: _finite(row[name]) for name in names}
        self._iteration = int(row["iteration"] or 0)
        self._pending += json.dumps(ordered, allow_nan=False).encode() + b"\n"
        self._flush()
        return ordered

    def truncate(self, iteration: int) -> None:
        """Removes the lines after an iteration, which are trained again."""
        self._first = min(self._first, iteration)
        if self._descriptor is None:
            self._pending = self._pending[: _find_end(self._pending, iteration)]
        else:
            with contextlib.suppress(OSError):
                self._pending = _cut(self._descriptor, self._pending, iteration)
        self._flush()

    def close(self) -> None:
        """Writes the remaining lines and closes the file."""
        self._flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _flush(self) -> None:
        """Writes as many of the kept lines as the disk takes."""
        try:
            self._restore()
            descriptor = self._open()
            while self._pending:
                self._pending = self._pending[os.write(descriptor, self._pending) :]
            self._is_failing = False
        except (OSError, UserError) as error:
            if not self._is_failing:
                reason = getattr(error, "strerror", None) or error
                _LOG.warning("%s cannot be written (%s); its lines are kept in memory.", self._path, reason)
            self._is_failing = True

    def _open(self) -> int:
        """Returns the descriptor of the file; opens it if it is not open, or another file is at its path.

        A link is not followed.
        """
        before = self._descriptor
        if before is not None and is_file_at(before, self._path):
            return before
        lost = b"" if before is None or os.path.lexists(self._path) else self._read(before)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a file")
            if before is None:
                _cut(descriptor, b"", self._first)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        if before is not None:
            os.close(before)
            self._pending = lost + self._pending
            self._renewed()
        return descriptor

    def _read(self, descriptor: int) -> bytes:
        """Reads the open file, which may no longer have a name; what cannot be read is reported and lost."""
        try:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        except OSError as error:
            _LOG.warning("the lines that %s had are lost (%s).", self._path, error.strerror)
            return b""


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Reads a run's metrics, one row per iteration; skips a last line that a crash cut short."""
    file = path / METRICS_FILE
    rows = []
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("iteration", ""), (int, float, type(None))):
                raise ValueError("not a line of metrics")
            rows.append(row)
        except (ValueError, RecursionError):
            _LOG.warning("skipped a broken line of %s.", file)
    return rows


def last_row(path: Path) -> dict[str, float | None] | None:
    """Returns the newest line of a run's metrics, without reading all of them; ``None``: there is none."""
    try:
        with open(path / METRICS_FILE, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines[:-1]):  # behind the last line break is nothing, or half a line
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return None


def _cut(descriptor: int, pending: bytes, iteration: int) -> bytes:
    """Removes the lines after an iteration from a file, which needs no space, and from those still to be written.

    Args:
        descriptor: of the file.
        pending: what follows the file's content, beginning perhaps within a line.
        iteration: the last one whose line stays.

    Returns:
        What stays of ``pending``.
    """
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, size, 0) + pending
    length = _find_end(content, iteration)
    if length < size:
        os.ftruncate(descriptor, length)
    return content[size:length]


def _find_end(content: bytes, iteration: int) -> int:
    """Returns where the lines up to an iteration end; a line that a crash cut short is not one of them."""
    end = position = 0
    for line in content.splitlines(keepends=True):
        position += len(line)
        try:
            is_earlier = (json.loads(line)["iteration"] or 0) <= iteration
        except (ValueError, KeyError, TypeError):
            continue
        if is_earlier and line.endswith(b"\n"):
            end = position
    return end


def _finite(value: float | None) -> float | None:
    """Returns the value; None for NaN and infinity, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else value
