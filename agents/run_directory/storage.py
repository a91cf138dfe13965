"""A run's place in a shared directory or object store: its checkpoints there are whole or not to be seen.

The layout is that of a run directory. Each file is written under another name and then moved; of a checkpoint,
``state.json``, which tells size and digest of the rest, comes last and goes first.
"""

import json
import logging
import posixpath
import shutil
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ctm_rl.agents.run_directory.directory import (
    CONFIG_FILE,
    METRICS_FILE,
    RUNS_FOLDER,
    check_free,
    created,
    read_config,
)
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.errors import UserError, expand

ANSWER_SECONDS = 30.0
"""How long a storage may take before it counts as out of reach."""
_CHUNK = 2**23
_PARTIAL = ".partial-"
_LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


def is_url(place: str) -> bool:
    """Whether a place is named by a URL, and not by a path."""
    return "://" in place


class Storage:
    """Where a run's checkpoints and metrics are put besides.

    Args:
        url: a directory of runs: a path, or a URL that pyarrow or fsspec know.
        name: the run's own directory in it.

    Raises:
        UserError: nothing here can read such a URL, or what it names is out of reach.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self._files, self._base = in_time(url, lambda: _connect(url))
        self.place = posixpath.join(self._base, name)

    def prepare(self, *, is_new: bool) -> None:
        """Makes sure before a run that its place can be written, and before a new one that it is free.

        Raises:
            UserError: it cannot, or is not.
        """
        if is_new and in_time(self.url, lambda: self._list("")):
            raise UserError(
                f"--storage {self.url} has a run {self.name} already; name another --run-dir, or go on with that run: "
                f"ctm-rl resume {join(self.url, self.name)}."
            )
        in_time(self.url, self._try_out)

    def check_apart(self, run_dir: Path) -> None:
        """Refuses to put a run besides where it is itself.

        Raises:
            UserError: it would be.
        """
        if self.is_at(run_dir):
            raise UserError(
                f"--storage {self.url} is where {run_dir} itself is; name another place, or leave it out (--storage "
                "None)."
            )

    def is_at(self, path: Path) -> bool:
        """Whether the run's place in the storage is this local directory."""
        return self._is_local and Path(self.place).resolve() == path.resolve()

    def put(self, run_dir: Path, path: Path) -> None:
        """Puts a checkpoint there, with the run's configuration and metrics so far; removes older ones.

        Args:
            run_dir: the run's directory.
            path: the checkpoint in it.

        Raises:
            Exception: whatever the file system raises.
        """
        if self._is_local and not Path(self._base).is_dir():
            # A share that is not mounted any more must not be written to the disk below.
            raise FileNotFoundError(f"{self._base} is gone")
        folder = posixpath.join(checkpoint.FOLDER, path.name)
        self._files.create_dir(self._at(folder), recursive=True)
        for name in (CONFIG_FILE, METRICS_FILE):
            if (run_dir / name).is_file():
                self._write(run_dir / name, name)
        for file in sorted(path.iterdir(), key=lambda file: file.name == checkpoint.STATE_FILE):
            self._write(file, posixpath.join(folder, file.name))
        for name in checkpoint.newest_first(self._list(checkpoint.FOLDER))[checkpoint.NUM_KEPT :]:
            self._remove(posixpath.join(checkpoint.FOLDER, name))

    def fetch(self, run_dir: Path) -> None:
        """Makes a run directory with the newest whole checkpoint that is there.

        Args:
            run_dir: new or empty.

        Raises:
            UserError: there is none, or the storage is out of reach.
        """
        where = join(self.url, self.name)
        config = in_time(where, lambda: self._read(CONFIG_FILE))
        names = in_time(where, self._whole)
        if config is None or not names:
            raise UserError(
                f"{where} has no complete checkpoint; name a run that ctm-rl train --storage has put there."
            )
        try:
            with created(run_dir, json.loads(config)) as keep:
                self._fetch_newest(run_dir, names)
                metrics = self._read(METRICS_FILE)
                if metrics is not None:
                    (run_dir / METRICS_FILE).write_bytes(metrics)
                keep()
        except UserError:
            raise
        except Exception as error:  # a file system's driver may raise anything
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

    def _whole(self) -> list[str]:
        """Checkpoints that have been put there to the end, newest first."""
        names = checkpoint.newest_first(self._list(checkpoint.FOLDER))
        return [name for name in names if checkpoint.STATE_FILE in self._list(f"{checkpoint.FOLDER}/{name}")]

    def _try_out(self) -> None:
        """Writes something and removes it."""
        self._files.create_dir(self._base, recursive=True)
        mark = posixpath.join(self._base, f"{_PARTIAL}{self.name}")
        with self._files.open_output_stream(mark) as stream:
            stream.write(b"ctm-rl")
        self._files.delete_file(mark)

    def _write(self, source: Path, name: str) -> None:
        """Writes a file, at once or not at all."""
        folder, base = posixpath.split(self._at(name))
        partial = posixpath.join(folder, f"{_PARTIAL}{base}")
        with source.open("rb") as file, self._files.open_output_stream(partial) as stream:
            shutil.copyfileobj(file, stream, _CHUNK)
        self._files.move(partial, self._at(name))

    def _read(self, name: str) -> bytes | None:
        """The content of a file, if there is one."""
        try:
            with self._files.open_input_stream(self._at(name)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def _fetch_newest(self, run_dir: Path, names: list[str]) -> None:
        """Copies the newest checkpoint that proves whole when it is read.

        Raises:
            CheckpointError: there is none.
        """
        for name in names:
            folder = posixpath.join(checkpoint.FOLDER, name)
            target = run_dir / folder
            target.mkdir(parents=True)
            for file in self._list(folder):
                if not file.startswith(_PARTIAL):
                    (target / file).write_bytes(self._read(f"{folder}/{file}") or b"")
            try:
                checkpoint.latest(run_dir)
            except checkpoint.CheckpointError:
                shutil.rmtree(target)
                if name == names[-1]:
                    raise
                _LOG.warning("passed over a damaged checkpoint: %s", self._at(folder))
            else:
                return

    def _remove(self, folder: str) -> None:
        """Removes a checkpoint; from its first file on it is none any more."""
        if checkpoint.STATE_FILE in self._list(folder):
            self._files.delete_file(self._at(f"{folder}/{checkpoint.STATE_FILE}"))
        self._files.delete_dir(self._at(folder))


def find_run(place: str, storage: str | None, run_dir: str | None) -> tuple[Path, str | None]:
    """Gives the local directory of a run that is to go on; makes it from its storage, if it is not here.

    Args:
        place: the run's directory, or its path or URL in a storage.
        storage: the storage that was named besides; ``None``: none was.
        run_dir: where to a run is fetched; ``None``: ``runs`` and its name.

    Returns:
        The directory, and the storage that the run is in; ``None``: as its configuration says.

    Raises:
        UserError: it cannot be fetched, or nothing is to be fetched.
    """
    local = None if is_url(place) else expand(place).absolute()
    if local is None or _is_stored(local):
        base, name = _divide(place) if local is None else (str(local.parent), local.name)
        target = (Path(RUNS_FOLDER) / name if run_dir is None else expand(run_dir)).absolute()
    elif run_dir is not None:
        raise UserError(f"--run-dir says where to a run in a storage is fetched, and {place} is none; leave it out.")
    elif storage is None or local.exists():
        return local, storage
    else:
        base, name, target = storage, local.name, local
    check_free(target)
    Storage(base, name).fetch(target)
    return target, storage or base


def _is_stored(local: Path) -> bool:
    """Whether a directory is no run directory, but what a run has put into its storage."""
    if not (local / CONFIG_FILE).is_file():
        return False
    url = read_config(local).storage
    if url is None or (is_url(url) and not url.startswith("file:")):
        return False
    return Storage(url, local.name).is_at(local)


def _divide(place: str) -> tuple[str, str]:
    """The storage that a run's URL lies in, and the run's name."""
    split = urllib.parse.urlsplit(place)
    parent, name = posixpath.split(split.path.rstrip("/"))
    if not name:
        raise UserError(f"{place} names no run in a storage; name one, as {join(place, 'cartpole')}.")
    return urllib.parse.urlunsplit(split._replace(path=parent)), name


def join(url: str, name: str) -> str:
    """The URL of a run in a storage."""
    if not is_url(url):
        return str(Path(url) / name)
    split = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(split._replace(path=posixpath.join(split.path or "/", name)))


def in_time(url: str, work: Callable[[], Result]) -> Result:
    """Does something with a storage, and gives it up if that takes too long or fails.

    Args:
        url: of the storage.
        work: what to do; may go on in a thread of its own when it has been given up.

    Raises:
        UserError: one line that names the storage and the reason.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # a file system's driver may raise anything
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if results:
        return results[0]
    if errors and isinstance(errors[0], UserError):
        raise errors[0]
    reason = describe_error(errors[0]) if errors else f"no answer within {ANSWER_SECONDS:g} s"
    raise UserError(f"storage {url} cannot be used: {reason}.") from (errors[0] if errors else None)


def describe_error(error: BaseException) -> str:
    """An error of a file system in one line."""
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
        pass  # one of fsspec's, perhaps
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"storage {url} cannot be used: {describe_error(error)}; there are paths, and URLs as file:///runs, "
            "s3://bucket/runs, gs://bucket/runs, or any that fsspec knows."
        ) from error
    return PyFileSystem(FSSpecHandler(files)), path
