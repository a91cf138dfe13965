"""Where a user's own data set comes from: a folder of images, an npz or parquet file, or a function of a module."""

import functools
import traceback
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ctm_rl.envs.data.folder import (
    ENDINGS,
    find_files,
    find_split_folder,
    list_kinds,
    list_names,
    read_folder,
    sub_folders,
)
from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.data.open_dataset import split_names
from ctm_rl.envs.data.parquet import find_parquet, read_parquet
from ctm_rl.envs.data.pixels import as_image
from ctm_rl.envs.data.tables import has_images, read_table
from ctm_rl.errors import expand, printable
from ctm_rl.named_code import is_code_name, load_code

OPTION = "--data"
MAX_BYTES = 4 * 2**30
"""Of the arrays in one file, uncompressed."""
_FORMATS = "a folder of images, an .npz or .parquet file, or module:function"
_ARRAYS = "x and y, or x_train, y_train, x_test and y_test"
_ENDINGS_OF = {"train": ("_train", ""), "test": ("_test", "_val", "_valid", "_validation")}
"""How the names of the arrays of a split end."""


class Part(NamedTuple):
    """One split, N samples."""

    inputs: np.ndarray | EncodedImages
    """[N, ...], or files."""
    labels: np.ndarray
    """[N] or [N, G]: text or numbers."""


class Source(NamedTuple):
    """A data set as it is found."""

    parts: dict[str, Part]
    """``train``, and ``test`` where it has such a split."""
    is_folder: bool = False
    """Whether classes are folders."""


def open_source(path: str) -> Source:
    """Opens a data set.

    Args:
        path: a folder, an npz or a parquet file, or ``module:function``.

    Raises:
        ValueError: there is none, or it is none that can be read.
    """
    place = expand(path)
    if is_code_name(path) and not place.exists():
        return Source(_call(path))
    if place.is_dir():
        return _open_folder(place)
    if not place.exists():
        raise ValueError(f"it does not exist; {OPTION} takes {_FORMATS}.")
    stamp = place.stat().st_mtime_ns
    if place.suffix.lower() == ".npz":
        return Source(_read_npz(place, stamp))
    if place.suffix.lower() == ".parquet":
        return Source(_read_parquet_parts({"train": [place]}))
    raise ValueError(f"it is none of what {OPTION} takes: {_FORMATS}.")


# --- folders ---


def _open_folder(place: Path) -> Source:
    """A folder of class folders, with or without folders of splits; or of parquet files."""
    splits = {split: find_split_folder(place, split_names("folder", split)) for split in ("train", "test")}
    train, test = splits["train"], splits["test"]
    if train is not None:
        parts = {"train": read_folder(train)}
        if test is not None:
            parts["test"] = read_folder(test, train)
        return Source({split: _part_of(images) for split, images in parts.items()}, is_folder=True)
    if test is not None:
        raise ValueError(f"it has a folder {printable(test.name)} and none for training; call one train.")
    if not find_files(place, ENDINGS):
        return _open_parquet_folder(place)
    while len(inner := sub_folders(place)) == 1 and sub_folders(inner[0]) and not _holds_images(place):
        place = inner[0]  # archives hold one folder that holds the classes
    if not inner:
        raise ValueError("it holds images, but no folders; each class is a folder of its own.")
    return Source({"train": _part_of(read_folder(place))}, is_folder=True)


def _open_parquet_folder(place: Path) -> Source:
    """A folder of parquet files."""
    found = {split: find_parquet(place, split_names("folder", split)) for split in ("train", "test")}
    paths = {split: files for split, files in found.items() if files}
    if "train" not in paths:
        files = [Path(file) for file in find_files(place, (".parquet",))]
        paths = {"train": [file for file in files if file not in paths.get("test", [])], **paths}
    if not paths["train"]:
        held = list_names(sorted(list_kinds(place)), 5) or "nothing"
        raise ValueError(f"it holds neither images ({' '.join(ENDINGS)}) nor parquet files; it holds {held}.")
    return Source(_read_parquet_parts(paths))


def _read_parquet_parts(paths: dict[str, list[Path]]) -> dict[str, Part]:
    """The splits in parquet files: encoded images with classes, or columns of numbers."""
    if has_images(paths["train"][0]):
        return {split: _part_of(read_parquet(files, paths["train"])) for split, files in paths.items()}
    return {split: Part(*read_table(files)) for split, files in paths.items()}


def _part_of(images: EncodedImages) -> Part:
    """Images with the names of their classes."""
    names = images.class_names
    return Part(images, images.labels if names is None else np.array(names)[images.labels])


def _holds_images(folder: Path) -> bool:
    """Whether images lie in a folder itself."""
    return any(kind == "file" and name.lower().endswith(ENDINGS) for name, kind in list_kinds(folder).items())


# --- npz ---


@functools.lru_cache(maxsize=1)
def _read_npz(path: Path, stamp: int) -> dict[str, Part]:
    """The arrays of an npz file; pickles in it are not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(entry.file_size for entry in archive.infolist())
        if num_bytes > MAX_BYTES:
            raise ValueError(f"it holds {num_bytes:,} bytes; at most {MAX_BYTES:,} are read into memory.")
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays.files
            wanted = {key: arrays[key] for key in names if key.lower()[:1] in ("x", "y")}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, MemoryError) as error:
        raise ValueError(f"it cannot be read as an npz file ({printable(error)}).") from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(
            "it holds an array of objects, which is a pickle and is not read, because it can run code: save "
            "numbers or text of one size (numpy.stack, array.astype(str))."
        ) from error
    return _parts_of(wanted, f"it holds {list_names(names, 8) or 'nothing'}")


def _parts_of(arrays: Mapping[str, Any], held: str) -> dict[str, Part]:
    """The splits among arrays by name; of several test splits the first."""
    by_name = {str(key).lower(): value for key, value in arrays.items()}
    parts: dict[str, Part] = {}
    for split, endings in _ENDINGS_OF.items():
        found = [ending for ending in endings if {f"x{ending}", f"y{ending}"} <= by_name.keys()]
        if found:
            parts[split] = Part(*(_as_array(by_name[f"{letter}{found[0]}"], f"{letter}{found[0]}") for letter in "xy"))
    if "train" not in parts:
        raise _Refused(f"it must hold {_ARRAYS}; {held}.")
    return parts


# --- functions ---


@functools.lru_cache(maxsize=1)
def _call(name: str) -> dict[str, Part]:
    """What a function gives, as arrays."""
    function = load_code(name, OPTION)
    try:
        return _given_parts(function())
    except _Refused:
        raise
    except Exception as error:  # a user's function may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"it raised {type(error).__name__}: {reason} ({Path(frame.filename).name}:{frame.lineno})."
        ) from error


class _Refused(ValueError):
    """What a function gives is not a data set."""


def _given_parts(given: Any) -> dict[str, Part]:
    """The splits in what a function gives."""
    if isinstance(given, Mapping):
        return _parts_of(given, f"it gives {list_names(list(map(str, given)), 8)}")
    if _is_dataset(given):
        return {"train": _part_of_dataset(given)}
    if isinstance(given, (tuple, list)) and len(given) in (2, 4):
        values = list(given)
        if all(map(_is_dataset, values)):
            return {split: _part_of_dataset(one) for split, one in zip(("train", "test"), values, strict=False)}
        if len(values) == 2 and all(map(_is_pair, values)):
            values = [*values[0], *values[1]]
        keys = ("x", "y") if len(values) == 2 else ("x_train", "y_train", "x_test", "y_test")
        return _parts_of(dict(zip(keys, values, strict=True)), "")
    raise _Refused(
        f"it must give (x, y), (x_train, y_train, x_test, y_test), a dictionary of these, or a torch "
        f"Dataset or two; it gives a {type(given).__name__}."
    )


def _is_pair(value: Any) -> bool:
    """Whether a value is a pair of arrays, as (x, y)."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(hasattr(one, "__len__") for one in value)


def _is_dataset(value: Any) -> bool:
    """Whether a value is a torch Dataset: items by their number, but no array."""
    has_items = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return has_items and not isinstance(value, (list, tuple, Mapping, str)) and not hasattr(value, "dtype")


def _part_of_dataset(dataset: Any) -> Part:
    """All samples of a torch Dataset."""
    inputs, labels = [], []
    for index in range(len(dataset)):
        item = dataset[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise _Refused(f"an item of a Dataset must be (x, y), got {type(item).__name__}.")
        inputs.append(_pixels(item[0]))
        labels.append(np.asarray(item[1]))
    return Part(_as_array(inputs, "x"), _as_array(labels, "y"))


def _pixels(value: Any) -> np.ndarray:
    """One input as an array; an image of Pillow as bytes."""
    if isinstance(value, Image.Image):
        return np.asarray(as_image(value, 1 if value.mode in ("1", "L") else 3))
    return np.asarray(value)


def _as_array(value: Any, name: str) -> np.ndarray:
    """A value as an array."""
    if isinstance(value, (list, tuple)) and len(shapes := {np.shape(item) for item in value}) > 1:
        shown = sorted(str(list(shape)) for shape in shapes)
        raise _Refused(f"{name} holds samples of different sizes: {list_names(shown, 3)}; make all of one size.")
    array = np.asarray(value)
    if array.ndim == 0:
        raise _Refused(f"{name} holds {printable(repr(value), 60)} where an array [N, ...] is expected.")
    return array
