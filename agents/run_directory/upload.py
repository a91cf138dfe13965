"""Puts a run's checkpoints into its storage while training goes on, whether the storage can be reached or not."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.run_directory.storage import Storage, describe_error, join

_QUIET_SECONDS, _LAST_SECONDS = 2.0, 600.0
"""How long the end of a run waits for its last checkpoint to arrive without, and after, a word."""


class Mirror:
    """Puts checkpoints into a storage, in a thread of its own and one after the other; of several waiting, the newest.

    Args:
        storage: where to.
        run_dir: the run's directory.
    """

    def __init__(self, storage: Storage, run_dir: Path) -> None:
        self._storage, self._run_dir = storage, run_dir
        self._waiting: Path | None = None
        self._is_busy = self._is_closed = False
        self._is_reached = True
        self._news: list[str] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, path: Path) -> None:
        """Has a checkpoint put there soon; returns at once."""
        with self._changed:
            self._waiting = path
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def pop_news(self) -> list[str]:
        """Lines to be told, since the last call: that the storage is out of reach, or can be reached again."""
        with self._changed:
            news, self._news = self._news, []
        return news

    def wait(self, seconds: float) -> bool:
        """Waits until nothing is waiting any more; gives whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is None and not self._is_busy, seconds)

    def close(self) -> None:
        """Puts nothing more; what is under way goes on as long as the process."""
        with self._changed:
            if self._waiting is not None or self._is_busy:
                self._news.append(f"storage {self._where} did not get the last checkpoint in time.")
            self._waiting, self._is_closed = None, True
            self._changed.notify_all()

    @property
    def _where(self) -> str:
        return join(self._storage.url, self._storage.name)

    def _work(self) -> None:
        """Runs until it is closed."""
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
            except Exception as error:  # a file system's driver may raise anything
                failure = describe_error(error)
            with self._changed:
                self._is_busy = False
                # Newer ones may have pushed this one out of the run: the storage is slow, and there is a next one.
                if failure is None or path.is_dir():
                    self._note(failure)
                self._changed.notify_all()

    def _note(self, failure: str | None) -> None:
        """Tells an outage once, and its end."""
        if failure is not None and self._is_reached:
            self._news.append(
                f"storage {self._where} is out of reach ({failure}); training goes on, the next checkpoint tries again."
            )
        if failure is None and not self._is_reached:
            self._news.append(f"storage {self._where} can be reached again, and has the newest checkpoint.")
        self._is_reached = failure is None


def mirror_of(experiment: RunSettings, run_dir: Path, *, is_new: bool) -> Mirror | None:
    """What puts the run's checkpoints into its storage, if it has one.

    Raises:
        UserError: the storage cannot be used.
    """
    if experiment.storage is None:
        return None
    storage = Storage(experiment.storage, run_dir.name)
    storage.check_apart(run_dir)
    storage.prepare(is_new=is_new)
    return Mirror(storage, run_dir)


def tell_news(mirror: Mirror | None, progress: Progress) -> None:
    """Says what has become of the storage."""
    for line in mirror.pop_news() if mirror is not None else ():
        progress.say(line)


@contextlib.contextmanager
def closing_mirror(mirror: Mirror | None, progress: Progress) -> Iterator[None]:
    """Waits after the body, however it ends, for the last checkpoint to arrive in the storage."""
    try:
        yield
    finally:
        if mirror is not None:
            if not mirror.wait(_QUIET_SECONDS):
                progress.say("waiting for the storage to take the last checkpoint")
                mirror.wait(_LAST_SECONDS)
            mirror.close()
            tell_news(mirror, progress)
