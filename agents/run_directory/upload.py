"""Copies a run's checkpoints to its storage while training continues, even when the storage is out of reach."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.run_directory.storage import Storage, describe_error, join
from ctm_rl.errors import UserError

_SILENT_SECONDS, MAX_SECONDS = 2.0, 600.0
"""Seconds that the end of a run waits for its last upload: before a message is shown, and after it at most."""


class Uploader:
    """Copies checkpoints to a storage in its own thread, one at a time; of several waiting, only the newest.

    Args:
        storage: the run's storage.
        run_dir: the run's directory.
    """

    def __init__(self, storage: Storage, run_dir: Path) -> None:
        self._storage, self._run_dir = storage, run_dir
        self._waiting: Path | None = None
        self._is_busy = self._is_closed = False
        self._is_reached = True
        self._messages: list[str] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, path: Path) -> None:
        """Schedules a checkpoint; returns at once."""
        with self._changed:
            self._waiting = path
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def pop_messages(self) -> list[str]:
        """Returns the messages since the last call: that the storage is out of reach, or can be reached again."""
        with self._changed:
            messages, self._messages = self._messages, []
        return messages

    def wait(self, seconds: float) -> bool:
        """Waits until no upload is left; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is None and not self._is_busy, seconds)

    def close(self) -> None:
        """Starts no more uploads; one that is running continues as long as the process."""
        with self._changed:
            if self._waiting is not None or self._is_busy:
                self._messages.append(f"storage {self._where} did not get the last checkpoint in time.")
            self._waiting, self._is_closed = None, True
            self._changed.notify_all()

    @property
    def _where(self) -> str:
        return join(self._storage.url, self._storage.name)

    def _work(self) -> None:
        """Uploads until it is closed; runs in the thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
                path, self._waiting = self._waiting, None
                self._is_busy = path is not None
            if path is None:
                return
            failure = None
            try:
                self._storage.put(self._run_dir, path)
            except Exception as error:  # the driver of a file system may raise anything
                failure = describe_error(error)
            with self._changed:
                self._is_busy = False
                # A checkpoint may have been replaced by newer ones meanwhile: the storage is slow, not out of reach.
                if failure is None or path.is_dir():
                    self._update_reached(failure)
                self._changed.notify_all()

    def _update_reached(self, failure: str | None) -> None:
        """Adds a message at the beginning of an outage and at its end."""
        if failure is not None and self._is_reached:
            self._messages.append(
                f"storage {self._where} is out of reach ({failure}); training continues, and the next checkpoint will "
                "be tried again."
            )
        if failure is None and not self._is_reached:
            self._messages.append(f"storage {self._where} can be reached again, and has the newest checkpoint.")
        self._is_reached = failure is None


def uploader_for(experiment: RunSettings, run_dir: Path, *, is_new: bool) -> Uploader | None:
    """Returns what copies the run's checkpoints to its storage; None if it has no storage.

    Raises:
        UserError: the storage cannot be used.
    """
    if experiment.storage is None:
        return None
    storage = Storage(experiment.storage, run_dir.name, experiment.keep_checkpoints)
    if storage.is_at(run_dir):
        raise UserError(
            f"--storage {storage.url} is where {run_dir} itself is; name another place, or none (--storage None)."
        )
    storage.prepare(is_new=is_new)
    return Uploader(storage, run_dir)


def report_upload(uploader: Uploader | None, progress: Progress) -> None:
    """Writes the uploader's new messages."""
    for line in uploader.pop_messages() if uploader is not None else ():
        progress.write(line)


@contextlib.contextmanager
def finishing_upload(uploader: Uploader | None, progress: Progress) -> Iterator[None]:
    """Waits after the body, however it ends, until the last checkpoint is in the storage."""
    try:
        yield
    finally:
        if uploader is not None:
            if not uploader.wait(_SILENT_SECONDS):
                progress.write("waiting for the upload of the last checkpoint")
                uploader.wait(MAX_SECONDS)
            uploader.close()
            report_upload(uploader, progress)
