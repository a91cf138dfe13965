"""A run's metrics: one line of ``metrics.jsonl`` per iteration, and TensorBoard events."""

import contextlib
import errno
import io
import itertools
import json
import logging
import math
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctm_rl.agents.run_directory.directory import METRICS_FILE, is_file_at
from ctm_rl.errors import UserError

TENSORBOARD_FOLDER = "tensorboard"
_COUNTER = itertools.count()
_LOG = logging.getLogger(__name__)


class MetricsWriter:
    """Writes ``metrics.jsonl`` and TensorBoard events; neither can end a run.

    While lines cannot be written, as on a full disk, they are kept in memory; the log reports it once. A file that was
    removed or moved is written again with all its lines.

    Args:
        path: the run's directory.
        iteration: iterations trained so far; lines of later iterations, which are trained again, are removed.
        metrics: keys of each line, in their order.
        restore: creates the directory again if it is gone; raises ``OSError`` or ``UserError`` if it cannot.
    """

    def __init__(
        self, path: Path, iteration: int, metrics: tuple[str, ...], restore: Callable[[], object] = lambda: None
    ) -> None:
        self._metrics, self._restore = metrics, restore
        self._path = path / METRICS_FILE
        self._iteration = self._first = iteration
        self._descriptor: int | None = None
        self._pending = b""
        self._is_failing = False
        self._flush()
        self._events = EventWriter(path / TENSORBOARD_FOLDER, iteration)

    def write(self, row: dict[str, float | None]) -> None:
        """Appends one complete line; its keys are those of the run's metrics, or some of them."""
        assert set(row) <= set(self._metrics)
        ordered = {name: _finite(row[name]) for name in self._metrics if name in row}
        self._iteration = int(row["iteration"] or 0)
        self._pending += json.dumps(ordered, allow_nan=False).encode() + b"\n"
        self._flush()
        self._events.write(ordered)

    def truncate(self, iteration: int) -> None:
        """Removes the lines after an iteration, which are trained again."""
        self._iteration = iteration
        self._first = min(self._first, iteration)
        if self._descriptor is None:
            self._pending = self._pending[: _find_end(self._pending, iteration)]
        else:
            with contextlib.suppress(OSError):
                self._pending = _cut(self._descriptor, self._pending, iteration)
        self._flush()
        self._renew_events()

    def close(self) -> None:
        """Writes the remaining lines and closes the files."""
        self._flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._events.close()

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
            self._renew_events()
        return descriptor

    def _read(self, descriptor: int) -> bytes:
        """Reads the open file, which may no longer have a name; what cannot be read is reported and lost."""
        try:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        except OSError as error:
            _LOG.warning("the lines that %s had are lost (%s).", self._path, error.strerror)
            return b""

    def _renew_events(self) -> None:
        """Begins another file of TensorBoard events, in place of those after the last iteration."""
        self._events.close()
        self._events = EventWriter(self._path.parent / TENSORBOARD_FOLDER, self._iteration)


class EventWriter:
    """Writes a file of TensorBoard events; after a first error, which the log reports, none are written.

    Args:
        folder: where the file is created.
        iteration: iterations trained so far; TensorBoard drops the events of later ones.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self._descriptor: int | None = None
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_COUNTER):06d}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(folder / name, flags, 0o666)
        except OSError as error:
            self._give_up(error)
        self._append(Event(file_version="brain.Event:2"))
        if iteration:
            self._append(Event(step=iteration + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, row: dict[str, float | None]) -> None:
        """Adds the values of one line of metrics."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if value is not None and name != "iteration"
        ]
        self._append(Event(step=int(row["iteration"] or 0), summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, event: Any) -> None:
        """Appends one event."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._descriptor is None:
            return
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        rest = record.getvalue()
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Closes the file and reports that no more events are written."""
        self.close()
        _LOG.warning("TensorBoard events cannot be written (%s); no more will be.", error.strerror)


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
