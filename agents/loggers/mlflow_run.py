"""A run of MLflow, in a SQLite file or on a tracking server, by environment steps."""

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.loggers.groups import tag_of
from ctm_rl.agents.loggers.protocol import VIDEO_TAG, LoggedVideo, StepCounts
from ctm_rl.agents.loggers.run_ids import read_run_id, write_run_id
from ctm_rl.agents.run_directory.directory import SWEEP_FILE, config_of
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row

MLFLOW_FILE = "mlflow.db"
_SERVICE = "mlflow"
_BUSY_SECONDS = 60
"""How long a trial of a sweep waits for the others, which write to the same file."""
_MAX_PARAMS, _MAX_LENGTH = 100, 6000
"""MLflow's limits: parameters in one request, characters of a parameter."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""A server that does not answer must not keep the run waiting; unless these variables are set already."""


class MlflowRun:
    """Logs to one MLflow run, which a resumed run continues.

    Without ``MLFLOW_TRACKING_URI`` that is ``mlflow.db`` in the run's directory, or in the sweep's for its trials. What
    was logged after the checkpoint of a resumed run is removed from that file. Elsewhere MLflow cannot remove points:
    those up to the last one before the stop remain as they were.
    """

    def start(self, experiment: AnyExperiment, run_dir: Path, resumed_from: int | None) -> None:
        """See ``Logger``."""
        self._run_dir = run_dir
        self._steps = StepCounts(run_dir, resumed_from)
        self._last_step = 0
        is_sweep = (run_dir.parent / SWEEP_FILE).is_file()
        place, name = (run_dir.parent, run_dir.parent.name) if is_sweep else (run_dir, experiment.name)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._file = None if uri else place / MLFLOW_FILE
        with _alone_in(place if self._file else None):
            self._client = _client(uri or f"sqlite:///{self._file}?timeout={_BUSY_SECONDS}")
            self._id = self._find(None if resumed_from is None else read_run_id(run_dir, _SERVICE))
            if self._id is None:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME", name)
                self._id = self._create(name, experiment, None if uri else place / "mlflow-artifacts")
                write_run_id(run_dir, _SERVICE, self._id)
        if resumed_from is not None:
            self.truncate(resumed_from)
        for row in read_metrics(run_dir):
            self._log(row, int(row.get("env_steps") or 0))

    def write(self, row: Row, step: int) -> None:
        """See ``Logger``."""
        self._steps.add(row, step)
        self._log(row, step)

    def write_video(self, video: LoggedVideo, step: int) -> None:
        """See ``VideoLogger``: an artifact."""
        self._client.log_artifact(self._id, str(video.file), VIDEO_TAG.partition("/")[0])

    def truncate(self, iteration: int) -> None:
        """See ``Logger``."""
        last = self._steps.truncate(iteration)
        if self._file is None:
            history = self._client.get_metric_history(self._id, tag_of("iteration"))
            self._last_step = max((point.step for point in history), default=0)
        elif last is not None:
            self._last_step = _cut(self._file, str(self._id), last)

    def close(self) -> None:
        """See ``Logger``."""
        self._client.set_terminated(self._id)

    def _find(self, run_id: str | None) -> str | None:
        """The run of this id, as a running one; ``None``: there is none."""
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

        if run_id is not None:
            with contextlib.suppress(MlflowException):
                self._client.update_run(run_id, status="RUNNING")
                return run_id
        return None

    def _create(self, name: str, experiment: AnyExperiment, artifacts: Path | None) -> str:
        """Creates a run with the experiment's fields as parameters; returns its id."""
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        found = self._client.get_experiment_by_name(name)
        place = None if artifacts is None else artifacts.as_uri()
        number = self._client.create_experiment(name, place) if found is None else found.experiment_id
        run_id = self._client.create_run(number, run_name=self._run_dir.name).info.run_id
        params = [Param(key, str(value)[:_MAX_LENGTH]) for key, value in _flat(config_of(experiment))]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + _MAX_PARAMS])
        return run_id

    def _log(self, row: Row, step: int) -> None:
        """Logs a row, unless it or a later one has been logged."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        if step > self._last_step:
            now = int(time.time() * 1000)
            values = {tag_of(name): value for name, value in row.items() if value is not None}
            self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])
            self._last_step = step


def _client(uri: str) -> Any:
    """MLflow's client, which creates the tables of a new file; takes seconds."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # what tables are created
    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def _alone_in(folder: Path | None) -> Iterator[None]:
    """Keeps the other trials of a sweep waiting inside the body, since the tables are created once."""
    if folder is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _cut(file: Path, run_id: str, last_step: int) -> int:
    """Removes a run's points after a step from MLflow's tables; returns the last step that stays."""
    with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND step > ?", (run_id, last_step))
        columns = "key, value, timestamp, is_nan, run_uuid"
        database.execute(
            f"INSERT INTO latest_metrics ({columns}, step) SELECT {columns}, MAX(step) FROM metrics WHERE run_uuid = ? "
            "AND key NOT IN (SELECT key FROM latest_metrics WHERE run_uuid = ?) GROUP BY key",
            (run_id, run_id),
        )
        ((found,),) = database.execute("SELECT MAX(step) FROM metrics WHERE run_uuid = ?", (run_id,))
    return int(found or 0)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by their full names, such as ``ppo.lr``."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
