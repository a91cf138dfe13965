"""A run's copy in a shared directory or object store; a checkpoint there is either complete or not visible.

The layout is that of a run directory. Each file is written under another name and then moved. ``state.json``, which
holds the sizes and digests of a checkpoint's other files, is written last and removed first.
"""

import json
import logging
import posixpath
import secrets
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from ctm_rl.agents.experiments.serialise import AnyExperiment, from_json
from ctm_rl.agents.experiments.storage_url import check_storage
from ctm_rl.agents.run_directory.directory import (
    CONFIG_FILE,
    METRICS_FILE,
    RUNS_FOLDER,
    check_free,
    created_directory,
    read_config,
)
from ctm_rl.agents.run_directory.made_with import MADE_WITH_FILE
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.best import BEST, BEST_FILE, folder_of, read_best
from ctm_rl.errors import UserError, expand, user_errors
from ctm_rl.zoo.entries import check_resumable

ANSWER_SECONDS = 30.0
"""How long a storage may take to answer before it counts as out of reach."""
_BEST_FOLDER = posixpath.join(checkpoint.FOLDER, BEST)
_CHUNK = 2**23
_PARTIAL = ".partial-"
_LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


def is_url(place: str) -> bool:
    """Whether a text is a URL, not a path."""
    return "://" in place


class Storage:
    """The place where copies of a run's checkpoints and metrics are kept.

    Args:
        url: a directory of runs: a path, or a URL that pyarrow or fsspec support.
        name: the run's own directory in it.
        num_kept: how many checkpoints are kept there, beside the best one; ``None``: all.

    Raises:
        UserError: it holds credentials, no installed library supports such a URL, or the storage is out of reach.
    """

    def __init__(self, url: str, name: str, num_kept: int | None = checkpoint.NUM_KEPT) -> None:
        with user_errors():
            check_storage(url)
        self.url, self.name, self._num_kept = url, name, num_kept
        self._files, self._base = with_timeout(url, lambda: _connect(url))
        self.place = posixpath.join(self._base, name)
        # In a directory that others write to as well, a name that nobody can have prepared, as a link.
        self._partial = f"{_PARTIAL}{secrets.token_hex(8)}-"
        self._unremovable: set[str] = set()

    def prepare(self, *, is_new: bool) -> None:
        """Checks before a run that the storage can be written, and before a new run that its place there is free.

        Raises:
            UserError: it cannot be written, or is not free.
        """
        if is_new and with_timeout(self.url, lambda: self._list("")):
            raise UserError(
                f"--storage {self.url} already has a run {self.name}; name another --run-dir, or continue that run: "
                f"ctm-rl resume {join(self.url, self.name)}."
            )
        with_timeout(self.url, self._check_writable)

    def is_at(self, path: Path) -> bool:
        """Whether the run's place in the storage is this local directory."""
        return self._is_local and Path(self.place).resolve() == path.resolve()

    def put(self, run_dir: Path, path: Path) -> None:
        """Copies a checkpoint there, with the run's configuration and metrics so far, and the best one if it is new.

        Older checkpoints are removed.

        Where there is no room, the superseded ones are removed first: all but the newest complete one.

        Args:
            run_dir: the run's directory.
            path: the checkpoint in it.

        Raises:
            Exception: whatever the file system raises.
        """
        if self._is_local and not Path(self._base).is_dir():
            # Where a share is no longer mounted, nothing must be written to the disk below its mount point.
            raise FileNotFoundError(f"{self._base} is gone")
        try:
            self._copy(run_dir, path)
        except OSError as error:
            others = set(checkpoint.newest_first(self._list(checkpoint.FOLDER))) - {*self._list_complete()[:1]}
            if error.errno not in checkpoint.DISK_FULL or not others:
                raise
            self._remove(others)
            self._copy(run_dir, path)
        if self._num_kept is not None:
            self._remove(checkpoint.newest_first(self._list(checkpoint.FOLDER))[self._num_kept :])
        self._copy_best(run_dir)

    def _copy(self, run_dir: Path, path: Path) -> None:
        """Copies a checkpoint, with the run's configuration and metrics so far."""
        self._files.create_dir(self._at(checkpoint.FOLDER), recursive=True)
        for name in (CONFIG_FILE, METRICS_FILE, MADE_WITH_FILE):
            if (run_dir / name).is_file():
                self._write(run_dir / name, name)
        self._copy_checkpoint(path, checkpoint.FOLDER)

    def _copy_checkpoint(self, path: Path, folder: str) -> None:
        """Copies a checkpoint into a folder."""
        folder = posixpath.join(folder, path.name)
        self._files.create_dir(self._at(folder), recursive=True)
        for name in (checkpoint.TENSORS_FILE, checkpoint.STATE_FILE):
            self._write(path / name, posixpath.join(folder, name))

    def _copy_best(self, run_dir: Path) -> None:
        """Copies the best checkpoint, unless it is there; ``best.json`` follows it, and names the one before till then.

        The run may replace it meanwhile: it is then copied with the next checkpoint.
        """
        pointer, file = posixpath.join(_BEST_FOLDER, BEST_FILE), folder_of(run_dir) / BEST_FILE
        best = None
        try:
            best = read_best(run_dir)
            if best is None or self._read(pointer) == (text := file.read_bytes()):
                return
            self._copy_checkpoint(best.path, _BEST_FOLDER)
            if file.read_bytes() != text:
                return
        except checkpoint.CheckpointError as error:
            _LOG.debug("%s", error)
            return
        except FileNotFoundError:
            if best is not None and best.path.is_dir():
                raise
            return
        self._write(file, pointer)
        others = set(checkpoint.newest_first(self._list(_BEST_FOLDER))) - {best.path.name}
        self._remove(others, _BEST_FOLDER)

    def fetch(self, run_dir: Path, check: Callable[[AnyExperiment], None] = lambda _: None) -> None:
        """Creates a run directory with the newest complete checkpoint of the storage.

        Args:
            run_dir: new or empty.
            check: raises an error for an experiment that is not to be fetched.

        Raises:
            UserError: there is none, or the storage is out of reach.
        """
        where = join(self.url, self.name)
        config = with_timeout(where, lambda: self._read(CONFIG_FILE))
        names = with_timeout(where, self._list_complete)
        if config is None or not names:
            raise UserError(
                f"{where} has no complete checkpoint; name a run that ctm-rl train --storage has copied there."
            )
        try:
            values = json.loads(config)
            with user_errors():
                check(from_json(values))
            with created_directory(run_dir, values) as directory:
                self._fetch_newest(run_dir, names)
                for name in (METRICS_FILE, MADE_WITH_FILE):
                    content = self._read(name)
                    if content is not None:
                        directory.files.append(name)
                        (run_dir / name).write_bytes(content)
                self._fetch_best(run_dir)
                directory.keep()
        except UserError:
            raise
        except Exception as error:  # the driver of a file system may raise anything
            raise UserError(f"{where} cannot be fetched: {describe_error(error)}.") from error

    @property
    def _is_local(self) -> bool:
        return self._files.type_name == "local"

    def _at(self, name: str) -> str:
        """The full path of a file or directory of the run."""
        return posixpath.join(self.place, name)

    def _list(self, folder: str) -> list[str]:
        """Names in a directory of the run."""
        from pyarrow.fs import FileSelector

        found = self._files.get_file_info(FileSelector(self._at(folder).rstrip("/"), allow_not_found=True))
        return [info.base_name for info in found]

    def _list_complete(self) -> list[str]:
        """The complete checkpoints, newest first."""
        names = checkpoint.newest_first(self._list(checkpoint.FOLDER))
        return [name for name in names if checkpoint.STATE_FILE in self._list(f"{checkpoint.FOLDER}/{name}")]

    def _check_writable(self) -> None:
        """Writes a small file and removes it."""
        self._files.create_dir(self._base, recursive=True)
        mark = posixpath.join(self._base, f"{self._partial}{self.name}")
        with self._files.open_output_stream(mark) as stream:
            stream.write(b"ctm-rl")
        self._files.delete_file(mark)

    def _write(self, source: Path, name: str) -> None:
        """Writes a file atomically."""
        folder, base = posixpath.split(self._at(name))
        partial = posixpath.join(folder, f"{self._partial}{base}")
        with source.open("rb") as file, self._files.open_output_stream(partial) as stream:
            shutil.copyfileobj(file, stream, _CHUNK)
        self._files.move(partial, self._at(name))

    def _read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            with self._files.open_input_stream(self._at(name)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def _fetch_newest(self, run_dir: Path, names: list[str]) -> None:
        """Copies the newest checkpoint whose sizes and digests are right.

        Raises:
            CheckpointError: none is undamaged.
        """
        for name in names:
            folder = posixpath.join(checkpoint.FOLDER, name)
            target = run_dir / folder
            self._fetch_checkpoint(folder, target)
            try:
                checkpoint.latest(run_dir)
            except checkpoint.CheckpointError:
                shutil.rmtree(target)
                if name == names[-1]:
                    raise
                _LOG.warning("skipped a damaged checkpoint: %s", self._at(folder))
            else:
                return

    def _fetch_checkpoint(self, folder: str, target: Path) -> None:
        """Copies the files of a checkpoint into a new directory."""
        target.mkdir(parents=True)
        for file in (checkpoint.TENSORS_FILE, checkpoint.STATE_FILE):
            (target / file).write_bytes(self._read(f"{folder}/{file}") or b"")

    def _fetch_best(self, run_dir: Path) -> None:
        """Copies the best checkpoint, if there is one; without one that is whole, the run begins to compare again."""
        pointer = self._read(posixpath.join(_BEST_FOLDER, BEST_FILE))
        if pointer is None:
            return
        folder = folder_of(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BEST_FILE).write_bytes(pointer)
        try:
            for name in checkpoint.newest_first(self._list(_BEST_FOLDER)):
                self._fetch_checkpoint(posixpath.join(_BEST_FOLDER, name), folder / name)
            best = read_best(run_dir)
            assert best is not None
            checkpoint.load(best.path)
        except Exception as error:  # the driver of a file system may raise anything
            shutil.rmtree(folder)
            _LOG.warning("the best checkpoint of %s cannot be fetched: %s.", self.place, describe_error(error))

    def _remove(self, names: Iterable[str], parent: str = checkpoint.FOLDER) -> None:
        """Removes checkpoints; without its first file one no longer counts. What cannot be removed is reported once."""
        for name in names:
            folder = posixpath.join(parent, name)
            try:
                if checkpoint.STATE_FILE in self._list(folder):
                    self._files.delete_file(self._at(f"{folder}/{checkpoint.STATE_FILE}"))
                self._files.delete_dir(self._at(folder))
            except Exception as error:  # the driver of a file system may raise anything
                if name not in self._unremovable:
                    self._unremovable.add(name)
                    _LOG.warning("%s cannot be removed: %s.", self._at(folder), describe_error(error))


def find_run(
    place: str,
    storage: str | None,
    run_dir: str | None,
    check: Callable[[AnyExperiment, str], None] = lambda _, __: None,
) -> tuple[Path, str | None]:
    """Finds the local directory of a run that is to be resumed; fetches it from its storage if it does not exist here.

    Args:
        place: the run's directory, or its path or URL in a storage.
        storage: the storage named by ``--storage``; ``None``: none was.
        run_dir: the directory to fetch the run into; ``None``: ``runs`` and its name.
        check: raises an error for an experiment that is not to be fetched from a storage.

    Returns:
        The directory, and the storage the run is in; ``None``: as its configuration says.

    Raises:
        UserError: the run cannot be fetched, or is of the zoo, or ``run_dir`` is given and nothing is to be fetched.
    """
    check_resumable(place)
    with user_errors():
        check_storage(place)
        check_storage(storage or "")
    local = None if is_url(place) else expand(place).absolute()
    if local is None or _is_stored(local):
        base, name = _divide(place) if local is None else (str(local.parent), local.name)
        target = (Path(RUNS_FOLDER) / name if run_dir is None else expand(run_dir)).absolute()
    elif run_dir is not None:
        raise UserError(f"--run-dir is for a run that is fetched from a storage, and {place} is local; leave it out.")
    elif storage is None or local.exists():
        return local, storage
    else:
        base, name, target = storage, local.name, local
    check_free(target)
    Storage(base, name).fetch(target, lambda experiment: check(experiment, storage or base))
    return target, storage or base


def _is_stored(local: Path) -> bool:
    """Whether a directory is not a run directory, but a run's copy in its storage."""
    if not (local / CONFIG_FILE).is_file():
        return False
    url = read_config(local).storage
    if url is None or (is_url(url) and not url.startswith("file:")):
        return False
    return Storage(url, local.name).is_at(local)


def _divide(place: str) -> tuple[str, str]:
    """Splits a run's URL into its storage and its name."""
    split = urllib.parse.urlsplit(place)
    parent, name = posixpath.split(split.path.rstrip("/"))
    if not name:
        raise UserError(f"{place} names no run in a storage; name one, such as {join(place, 'cartpole')}.")
    return urllib.parse.urlunsplit(split._replace(path=parent)), name


def join(url: str, name: str) -> str:
    """The URL of a run in a storage."""
    if not is_url(url):
        return str(Path(url) / name)
    split = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(split._replace(path=posixpath.join(split.path or "/", name)))


def with_timeout(url: str, work: Callable[[], Result]) -> Result:
    """Calls a function that uses a storage; gives up if it takes longer than ``ANSWER_SECONDS``.

    Args:
        url: of the storage.
        work: the function; after a timeout it may continue in its thread.

    Raises:
        UserError: one line that names the storage and the reason.
    """
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    # Python waits at its end for the threads of an executor, and not for this one.
    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(ANSWER_SECONDS)
    except UserError:
        raise
    except Exception as error:  # the driver of a file system may raise anything
        reason = describe_error(error) if answer.done() else f"no answer within {ANSWER_SECONDS:g} s"
        raise UserError(f"storage {url} cannot be used: {reason}.") from error


def describe_error(error: BaseException) -> str:
    """Describes an error of a file system in one line."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")


def _connect(url: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it."""
    import pyarrow
    from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

    if not is_url(url):
        return LocalFileSystem(), str(expand(url).absolute())
    try:
        return FileSystem.from_uri(url)
    except pyarrow.ArrowInvalid:
        pass  # perhaps fsspec supports it
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"storage {url} cannot be used: {describe_error(error)}; allowed are paths, and URLs such as file:///runs, "
            "s3://bucket/runs, gs://bucket/runs, or any that fsspec supports."
        ) from error
    return PyFileSystem(FSSpecHandler(files)), path
