"""A run's metrics: written to ``metrics.jsonl`` first, then handed to its loggers, none of which can end the run."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.loggers.protocol import LoggedVideo, Logger, VideoLogger
from ctm_rl.agents.run_directory.metrics_file import MetricsWriter
from ctm_rl.agents.run_directory.progress import Row

_LOG = logging.getLogger(__name__)


class MetricsLog:
    """Writes the rows of a run.

    Args:
        experiment: what is trained.
        run_dir: the run's directory.
        iteration: iterations trained so far; rows of later ones, which are trained again, are dropped everywhere.
        loggers: the loggers by their names, not started. One that raises is dropped after one warning.
        metrics: keys that each row has, in their order.
        is_resumed: whether the run goes on from a checkpoint.
        restore: see ``MetricsWriter``.
    """

    def __init__(
        self,
        experiment: AnyExperiment,
        run_dir: Path,
        iteration: int,
        loggers: Mapping[str, Logger],
        metrics: tuple[str, ...],
        *,
        is_resumed: bool,
        restore: Callable[[], object] = lambda: None,
    ) -> None:
        self._loggers: dict[str, Logger] = {}
        self._iteration = iteration
        self._file = MetricsWriter(run_dir, iteration, metrics, restore, renewed=self._renew)
        self._loggers.update(loggers)
        self._call("start", experiment, run_dir, iteration if is_resumed else None)

    def write(self, row: Row) -> None:
        """Writes the row of one iteration."""
        self._iteration = int(row["iteration"] or 0)
        written = self._file.write(row)
        self._call("write", written, int(row.get("env_steps") or 0))

    def write_video(self, video: LoggedVideo, step: int) -> None:
        """Hands a video to the loggers that take some; call it before ``write`` with the metrics of its iteration."""
        takers = [name for name, logger in self._loggers.items() if isinstance(logger, VideoLogger)]
        self._call("write_video", video, step, names=takers)

    def truncate(self, iteration: int) -> None:
        """Drops the rows after an iteration, which are trained again."""
        self._iteration = iteration
        self._file.truncate(iteration)
        self._call("truncate", iteration)

    def close(self) -> None:
        """Closes the file and the loggers."""
        self._file.close()
        self._call("close")

    def _renew(self) -> None:
        """Lets loggers write their files again after the run's directory was."""
        self._call("truncate", self._iteration)

    def _call(self, method: str, *arguments: Any, names: Collection[str] | None = None) -> None:
        """Calls a method of all loggers, or of some; drops those that raise."""
        for name, logger in [item for item in self._loggers.items() if names is None or item[0] in names]:
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:  # whatever a logger or its service may raise
                del self._loggers[name]
                reason = " ".join(str(error).split()).rstrip(".")
                kind = "" if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: "
                reason = (error.strerror if isinstance(error, OSError) and error.strerror else reason) or "no message"
                _LOG.warning("logger %s has failed (%s%s); the run continues without it.", name, kind, reason)
