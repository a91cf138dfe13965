"""Checkpoints in our own format, safetensors and JSON: loading executes no code, and damage is detected.

A checkpoint is a directory ``checkpoints/iteration-000012`` with all arrays in ``tensors.safetensors`` and everything
else in ``state.json``, which also holds size and SHA-256 of the former. It gets its name only when it is complete.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ctm_rl.checkpoints.finite import find_not_finite, learned_part
from ctm_rl.errors import CodeError, UserError
from ctm_rl.read_json import read_json

FORMAT = "ctm_rl checkpoint"
VERSION = 1
NUM_KEPT = 3
STATE_FILE = "state.json"
TENSORS_FILE = "tensors.safetensors"
FOLDER = "checkpoints"
BESIDE_RLLIB = "ctm_rl"
"""Folder with a checkpoint of ours, in the folder of a module in a checkpoint of RLlib."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a full disk, and of a used-up quota."""

_ITERATION = re.compile(r"iteration-(\d+)")
PARTIAL = ".partial-"
"""How the names of files and directories begin that are not whole; the next write beside them removes them."""
_RLLIB_FILES = ("rllib_checkpoint.json", "class_and_ctor_args.pkl", "algorithm_state.pkl")
"""Files of a checkpoint of RLlib, of which it has at least one."""
_RENAMED_ENTRIES = {"thinker": "model"}
"""Keys of a state in version 0.1.0, and their present names."""
_MALFORMED = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    SafetensorError,
)
"""Errors that a checkpoint raises that is whole and holds anything, here and inside torch."""
_LOG = logging.getLogger(__name__)
_reported: set[str] = set()
"""Names of old checkpoints that could not be removed, and were reported."""

Result = TypeVar("Result")


class Half(NamedTuple):
    """A value of a state that is written in half precision, and read in single precision again."""

    tensor: torch.Tensor
    """The tensor, float32; its numbers are rounded."""


class CheckpointError(UserError):
    """A checkpoint is missing, or cannot be read or written."""


def save(run_dir: Path, iteration: int, state: dict[str, Any], num_kept: int | None = NUM_KEPT) -> Path:
    """Writes a checkpoint under another name, syncs it to the disk and renames it; then removes older ones.

    On a full disk the superseded checkpoints make room: all but the newest undamaged one are removed first.

    Args:
        run_dir: directory of the run.
        iteration: number of training iterations so far; names the checkpoint.
        state: nested dicts (keys are strings or integers), lists and tuples of tensors, numpy arrays, numbers, strings,
            booleans and None, and ``Half``. Tensors are loaded on the CPU, numpy numbers as Python's.
        num_kept: how many checkpoints are kept, this one included; ``None``: all.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: it cannot be written, for example on a full disk; the newest one before it stays as it is.
        TypeError: ``state`` holds a value of another type.
    """
    target = path_of(run_dir, iteration)
    try:
        write(target, state)
    except CheckpointError as error:
        if not _is_disk_full(error.__cause__) or not _free_superseded(run_dir):
            raise
        write(target, state)
    if num_kept is not None:
        for old in _all(run_dir)[num_kept:]:
            remove(old)
    _remove_partial(target.parent)
    return target


def write(target: Path, state: dict[str, Any]) -> None:
    """Writes one checkpoint under another name, syncs it to the disk and renames it; removes no other.

    Args:
        target: the checkpoint's directory.
        state: see ``save``.

    Raises:
        CheckpointError: it cannot be written.
        TypeError: ``state`` holds a value of another type.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(state, "", tensors)
    try:
        _write(target.parent, target, tree, tensors)
    except (OSError, SafetensorError) as error:
        _remove_partial(target.parent)  # what was written so far takes space
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CheckpointError(f"checkpoint {target} cannot be written: {reason}.") from error


def _write(folder: Path, target: Path, tree: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Writes a checkpoint under another name, then renames it."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_partial(folder)
    # A name that nobody can have prepared: safetensors would follow a link.
    partial = folder / f"{PARTIAL}{target.name}-{secrets.token_hex(8)}"
    partial.mkdir()
    _write_files(partial, tree, tensors)
    for path in (partial / TENSORS_FILE, partial / STATE_FILE, partial):
        sync(path)
    if os.path.lexists(target):
        # only a checkpoint that could not be read is ever written again
        _set_aside(target)
    os.replace(partial, target)
    sync(folder)


def write_files(folder: Path, state: dict[str, Any]) -> None:
    """Writes the two files of a checkpoint into a folder; ``load`` reads them there.

    Args:
        folder: which exists; who can write to it is trusted.
        state: as of ``save``.
    """
    tensors: dict[str, torch.Tensor] = {}
    _write_files(folder, _encode(state, "", tensors), tensors)


def _write_files(folder: Path, tree: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Writes both files."""
    save_file(tensors, folder / TENSORS_FILE)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "tensors": {
            "size": (folder / TENSORS_FILE).stat().st_size,
            "sha256": _digest(folder / TENSORS_FILE),
        },
        "state_sha256": hashlib.sha256(_dump(tree)).hexdigest(),
    }
    (folder / STATE_FILE).write_text(json.dumps({**head, "state": tree}, allow_nan=False, indent=1) + "\n")
    # safetensors writes files that only the owner can read
    shutil.copymode(folder / STATE_FILE, folder / TENSORS_FILE)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a write failed for want of space, or of a quota; safetensors reports it as a text."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    return any(f"os error {number})" in str(error) for number in DISK_FULL)


def _free_superseded(run_dir: Path) -> bool:
    """Removes all checkpoints but the newest undamaged one; returns whether there were any.

    If none is undamaged, all stay.
    """
    try:
        newest = latest(run_dir)
    except CheckpointError:
        return False
    others = [path for path in _all(run_dir) if path != newest]
    for path in others:
        remove(path)
    return bool(others)


def remove(path: Path) -> None:
    """Removes a checkpoint, or the link to one; if it cannot, the log reports it once, and the next save tries again.

    It loses its name first, so that no half of it is ever found.
    """
    try:
        path = _set_aside(path)
        _delete(path)
    except OSError as error:
        if path.name not in _reported:
            _reported.add(path.name)
            _LOG.warning("the old checkpoint %s cannot be removed: %s.", path, error.strerror)


def _set_aside(path: Path) -> Path:
    """Renames a checkpoint that is to be removed, and returns its new path."""
    aside = path.with_name(f"{PARTIAL}old-{path.name}-{secrets.token_hex(8)}")
    os.replace(path, aside)
    return aside


def _delete(path: Path) -> None:
    """Removes a directory with what is in it; of a link only the link."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def _remove_partial(folder: Path) -> None:
    """Removes checkpoints that were begun and never finished, and those that could not be removed before."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            _delete(leftover)


def remove_all(run_dir: Path) -> None:
    """Removes the checkpoints of a run that has not begun, and nothing that somebody else has put among them."""
    folder = run_dir / FOLDER
    if folder.is_symlink():
        return
    for path in [*folder.glob("iteration-*"), *folder.glob(f"{PARTIAL}*"), folder]:
        with contextlib.suppress(OSError):
            if path != folder and not path.is_symlink():
                for name in (STATE_FILE, TENSORS_FILE):
                    (path / name).unlink(missing_ok=True)
            path.rmdir()


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, after checking that it is complete.

    Args:
        path: the checkpoint's directory.

    Returns:
        The state as it was saved, tensors on the CPU.

    Raises:
        CheckpointError: it is missing, not ours, of another version, or damaged, or a weight is not finite.
    """
    head = _read_head(path)
    try:
        _check_references(head["state"], path / TENSORS_FILE)
        state = _decode(head["state"], load_file(path / TENSORS_FILE))
        if not isinstance(state, dict):
            _refuse(path, "it holds no state")
        state = {_RENAMED_ENTRIES.get(str(name), str(name)): value for name, value in state.items()}
        not_finite = find_not_finite(learned_part(state))
    except CheckpointError:
        raise
    except (*_MALFORMED, OSError) as error:
        _refuse(path, f"its content cannot be read ({error})")
    if not_finite is not None:
        _refuse(path, f"{not_finite} holds a number that is not finite")
    return state


def latest(run_dir: Path) -> Path:
    """Finds a run's newest undamaged checkpoint; damaged ones are skipped with a line in the log.

    Only its files are checked, not what they hold; ``read_newest`` does both.

    Raises:
        CheckpointError: there is none.
    """

    def checked(place: Path) -> Path:
        _read_head(place)
        return place

    return _first(_all(run_dir), checked, run_dir)


def read_newest(path: Path, rebuild: Callable[[Path, dict[str, Any]], Result]) -> Result:
    """Reads the given checkpoint, or the newest usable one of the given run, and rebuilds what it describes.

    A run's checkpoints that are damaged, that hold weights that are not finite, or that ``rebuild`` refuses are passed
    over with a line in the log.

    Args:
        path: a run's directory, one checkpoint in it, or a checkpoint of RLlib with modules of ours.
        rebuild: makes something of a checkpoint's path and state; raises ``CheckpointError`` if that cannot be used.

    Returns:
        What it has made.

    Raises:
        CheckpointError: there is no usable checkpoint.
    """
    if (path / STATE_FILE).is_file():
        return rebuild(path, load(path))
    if (place := _beside_rllib(path)) is not None:
        return rebuild(place, load(place))
    return _first(_all(path), lambda place: rebuild(place, load(place)), path)


def _first(places: Iterable[Path], read: Callable[[Path], Result], run_dir: Path) -> Result:
    """What is read of the first checkpoint that can be read."""
    problems: list[CheckpointError] = []
    for place in places:
        try:
            result = read(place)
        except CheckpointError as error:
            problems.append(error)
            continue
        for problem in problems:
            _LOG.warning("skipped a damaged checkpoint: %s", problem)
        return result
    if problems:
        raise CheckpointError(f"no checkpoint of {run_dir} can be read: {problems[0]}")
    raise CheckpointError(f"{run_dir} has no checkpoint; name a run that ctm-rl train or ctm-rl import has made.")


def _beside_rllib(path: Path) -> Path | None:
    """The checkpoint of the only module of ours in a checkpoint of RLlib; ``None``: it is none of RLlib.

    Raises:
        CheckpointError: there are several, or there is none.
    """
    bases = [path / base for base in ("learner_group/learner/rl_module", "learner/rl_module", "rl_module", ".")]
    for places in (sorted(base.glob(f"*/{BESIDE_RLLIB}/{STATE_FILE}")) for base in bases):
        if len(places) > 1:
            names = ", ".join(str(place.parents[1].relative_to(path)) for place in places)
            raise CheckpointError(f"{path} holds several modules; name the folder of one in it: {names}.")
        if places:
            return places[0].parent
    if (path / BESIDE_RLLIB / STATE_FILE).is_file():
        return path / BESIDE_RLLIB
    if any((path / name).is_file() for name in _RLLIB_FILES):
        raise CheckpointError(
            f"{path} is a checkpoint of RLlib without the folder {BESIDE_RLLIB} that modules of ctm_rl write into it; "
            "its other files are pickles, which are never read: save it again with this version and such a module."
        )
    return None


def path_of(run_dir: Path, iteration: int) -> Path:
    """The directory of a run's checkpoint."""
    return run_dir / FOLDER / f"iteration-{iteration:06d}"


def iteration_of(path: Path) -> int:
    """The iteration in a checkpoint's name; 0 for one beside RLlib's, which does not say."""
    if path.name == BESIDE_RLLIB:
        return 0
    match = _ITERATION.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not a checkpoint: its name must be iteration-<number>.")
    return int(match.group(1))


def iterations_of(run_dir: Path) -> list[int]:
    """The iterations of a run's checkpoints, newest first, damaged ones too."""
    return [iteration_of(path) for path in _all(run_dir)]


def newest_first(names: Iterable[str]) -> list[str]:
    """Those names that are names of checkpoints, newest first."""
    return sorted(filter(_ITERATION.fullmatch, names), key=lambda name: iteration_of(Path(name)), reverse=True)


@contextlib.contextmanager
def rebuilding(what: str, path: Path) -> Iterator[None]:
    """Turns errors inside into CheckpointErrors: the checkpoint does not describe ``what``, a model or a policy."""
    try:
        yield
    except (CheckpointError, CodeError):
        raise
    except _MALFORMED as error:
        reason = (str(error) or repr(error)).splitlines()[0].rstrip(".")
        raise CheckpointError(f"checkpoint {path} holds no {what} that this ctm-rl can rebuild: {reason}.") from error


def _all(run_dir: Path) -> list[Path]:
    """All checkpoints of a run by name, newest first, damaged ones too."""
    folder = run_dir / FOLDER
    return [folder / name for name in newest_first(os.listdir(folder) if folder.is_dir() else ())]


def _read_head(path: Path) -> dict[str, Any]:
    """Reads ``state.json`` and checks both files against its sizes and digests."""
    head = _parse_head(path)
    try:
        size, digest, state_digest = head["tensors"]["size"], head["tensors"]["sha256"], head["state_sha256"]
        is_state_whole = hashlib.sha256(_dump(head["state"])).hexdigest() == state_digest
    except _MALFORMED:
        _refuse(path, f"{STATE_FILE} is incomplete")
    if not is_state_whole:
        _refuse(path, f"{STATE_FILE} was changed after it was written")
    tensors_path = path / TENSORS_FILE
    if not tensors_path.is_file():
        _refuse(path, f"{TENSORS_FILE} is missing")
    if tensors_path.stat().st_size != size:
        _refuse(path, f"{TENSORS_FILE} has {tensors_path.stat().st_size} bytes instead of {size}")
    if _digest(tensors_path) != digest:
        _refuse(path, f"{TENSORS_FILE} was changed after it was written")
    return head


def _parse_head(path: Path) -> dict[str, Any]:
    """Reads ``state.json`` and checks that it is ours, and of this version."""
    try:
        head = read_json(path / STATE_FILE)
    except FileNotFoundError:
        _refuse(path, f"{STATE_FILE} is missing")
    except OSError as error:
        _refuse(path, f"{STATE_FILE} cannot be read ({error.strerror})")
    except ValueError as error:
        _refuse(path, f"{STATE_FILE} is damaged ({error})")
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        _refuse(path, f"{STATE_FILE} was not written by ctm-rl")
    if head.get("version") != VERSION:
        _refuse(path, f"it has version {head.get('version')!r}, and this ctm-rl reads version {VERSION}")
    return head


def _refuse(path: Path, reason: str) -> NoReturn:
    """Raises CheckpointError for an unusable checkpoint."""
    raise CheckpointError(f"checkpoint {path} is not usable: {reason}.")


def _dump(tree: Any) -> bytes:
    """The bytes of a tree of plain values from which its digest is computed."""
    return json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file or directory is written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Converts a state to plain JSON values and moves its arrays to ``tensors``; types that JSON lacks get a $ tag."""
    if isinstance(value, Half):
        return {"$half": _put(value.tensor.detach().cpu().half(), path, tensors)}
    if isinstance(value, torch.Tensor):
        return {"$tensor": _put(value.detach().cpu(), path, tensors)}
    if isinstance(value, np.ndarray):
        native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        return {"$array": _put(torch.from_numpy(native), path, tensors)}
    if type(value) is tuple or isinstance(value, list):
        items = [_encode(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return {"$tuple": items} if type(value) is tuple else items
    if isinstance(value, dict) and all(isinstance(key, str) or type(key) is int for key in value):
        entries = {key: _encode(item, f"{path}/{key}", tensors) for key, item in value.items()}
        is_plain = all(isinstance(key, str) and not key.startswith("$") for key in entries)
        return entries if is_plain else {"$dict": [[key, item] for key, item in entries.items()]}
    return _encode_scalar(value, path)


def _encode_scalar(value: Any, path: str) -> Any:
    """Converts a single value to a JSON value."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else {"$float": repr(number)}
    raise TypeError(f"a checkpoint cannot hold {path or 'this'}: {type(value).__name__}.")


def _put(tensor: torch.Tensor, path: str, tensors: dict[str, torch.Tensor]) -> str:
    """Adds a copy of a tensor under an unused name similar to its path; safetensors refuses shared memory and gaps."""
    name = path.lstrip("/") or "tensor"
    while name in tensors:
        name += "'"
    tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
    return name


def _check_references(tree: Any, file: Path) -> None:
    """Refuses arrays that are used twice, which would share memory, or not at all."""
    references, pending = [], [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            references += [node[tag] for tag in ("$tensor", "$array", "$half") if tag in node]
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    with safe_open(file, "pt") as arrays:
        if sorted(references) != sorted(arrays.keys()):
            raise ValueError("its arrays are not those that it names, each once")


def _decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Inverse of ``_encode``."""
    if isinstance(tree, list):
        return [_decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag = next((key for key in tree if key.startswith("$")), None)
    if tag is None:
        return {key: _decode(item, tensors) for key, item in tree.items()}
    (content,) = tree.values()
    if tag == "$float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "$tensor":
        return tensors[content]
    if tag == "$half":
        return tensors[content].float()
    if tag == "$array":
        return tensors[content].numpy()
    if tag == "$tuple":
        return tuple(_decode(item, tensors) for item in content)
    if tag == "$dict":
        return {key: _decode(item, tensors) for key, item in content}
    raise ValueError(f"unknown tag {tag}")
