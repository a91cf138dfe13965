"""A run's metrics: one line of ``metrics.jsonl`` per iteration, and TensorBoard events."""

import contextlib
import functools
import json
import logging
import math
from pathlib import Path
from typing import Any

from ctm_rl.agents.run_directory.directory import write_atomically

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
_LOG = logging.getLogger(__name__)


class MetricsWriter:
    """Writes ``metrics.jsonl`` and TensorBoard events.

    While they cannot be written, as on a full disk, lines are kept in memory; the log reports it once.

    Args:
        path: the run's directory.
        iteration: iterations trained so far; lines of later iterations, which are trained again, are removed.
        metrics: keys of each line, in their order.
    """

    def __init__(self, path: Path, iteration: int, metrics: tuple[str, ...]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._metrics = metrics
        self._path = path / METRICS_FILE
        _truncate(self._path, iteration)
        self._file = self._path.open("ab", buffering=0)
        self._pending = b""
        self._is_failing = False
        self._make_events = functools.partial(SummaryWriter, str(path / TENSORBOARD_FOLDER))
        self._events: Any = self._make_events(purge_step=iteration + 1 if iteration else None)

    def write(self, row: dict[str, float | None]) -> None:
        """Appends one complete line; its keys must be exactly those of the run's metrics."""
        assert set(row) == set(self._metrics)
        ordered = {name: _finite(row[name]) for name in self._metrics}
        self._pending += json.dumps(ordered, allow_nan=False).encode() + b"\n"
        self._flush()
        if self._events is None:
            return
        try:
            for name, value in ordered.items():
                if value is not None and name != "iteration":
                    self._events.add_scalar(name, value, int(row["iteration"] or 0))
        except OSError as error:
            self._events = None
            _LOG.warning("TensorBoard events cannot be written (%s); no more will be.", error.strerror)

    def truncate(self, iteration: int) -> None:
        """Removes the lines after an iteration, which are trained again."""
        self._flush()
        self._file.close()
        _truncate(self._path, iteration)
        self._file = self._path.open("ab", buffering=0)
        if self._events is not None:
            self._events.close()
            self._events = self._make_events(purge_step=iteration + 1)

    def close(self) -> None:
        """Writes the remaining lines and closes the files."""
        self._flush()
        self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()

    def _flush(self) -> None:
        """Writes as many of the kept lines as the disk takes."""
        try:
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) :]
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                _LOG.warning("%s cannot be written (%s); its lines are kept in memory.", self._path, error.strerror)
            self._is_failing = True


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Reads a run's metrics, one row per iteration; skips a last line that a crash cut short."""
    file = path / METRICS_FILE
    rows = []
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("iteration", ""), (int, float, type(None))):
                raise ValueError("not a line of metrics")
            rows.append(row)
        except (ValueError, RecursionError):
            _LOG.warning("skipped a broken line of %s.", file)
    return rows


def _truncate(file: Path, iteration: int) -> None:
    """Removes the lines after an iteration."""
    if not file.is_file():
        return
    kept = [row for row in read_metrics(file.parent) if (row["iteration"] or 0) <= iteration]
    write_atomically(file, "".join(json.dumps(row) + "\n" for row in kept))


def _finite(value: float | None) -> float | None:
    """Returns the value; None for NaN and infinity, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else value
