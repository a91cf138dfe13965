"""Parquet files in Hugging Face's layout: a column of encoded images and a column of classes."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctm_rl.envs.data.images import EncodedImages

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("fine_label", "label")
CACHE_BYTES = 512 * 2**20
"""How much of what was read last is kept, encoded: the whole of a small data set."""


def find_parquet(folder: Path, names: tuple[str, ...]) -> list[Path] | None:
    """Finds the parquet files of a split, anywhere below a folder: ``train-*.parquet`` or ``train/*.parquet``.

    Args:
        folder: where to look.
        names: names of the split; the first that is found is used.

    Returns:
        The files in order; None where there are none.
    """
    paths = sorted(folder.rglob("*.parquet"))
    for name in names:
        found = [
            path for path in paths if _is_named(path.stem, name) or (path.parent != folder and path.parent.name == name)
        ]
        if found:
            return found
    return None


def read_parquet(
    paths: Sequence[Path], class_paths: Sequence[Path] | None = None, num_classes: int | None = None
) -> EncodedImages:
    """Opens parquet files; images are read on demand, with the whole row group around them.

    Args:
        paths: the files of a split, in order.
        class_paths: the files of the split that defines the classes; default: these.
        num_classes: how many classes there are; default: as many as the files' metadata names, or else as occur.

    Returns:
        The images, not yet decoded.

    Raises:
        ValueError: a file is damaged or lacks the columns, or ``pyarrow`` is missing.
    """
    rows = _Rows(paths)
    labels = rows.labels()
    if num_classes is None:
        num_classes = rows.num_named_classes()
    if num_classes is None:
        every = labels if class_paths is None or class_paths == paths else _Rows(class_paths).labels()
        num_classes = int(every.max(initial=-1)) + 1
    source = f"{paths[0].parent} ({paths[0].name}{' and so on' if len(paths) > 1 else ''})"
    return EncodedImages(labels, num_classes, source, rows.image_bytes)


def choose_column(names: tuple[str, ...], available: Sequence[str], source: str | Path) -> str:
    """Returns the first of these columns that a table has, and refuses a table that has none of them."""
    column = next((name for name in names if name in available), None)
    if column is None:
        raise ValueError(f"{source} has no column {' or '.join(names)}; it has {', '.join(available)}.")
    return column


class _Rows:
    """The rows of several files, numbered consecutively; the row groups read last are kept."""

    def __init__(self, paths: Sequence[Path]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError(f"reading {paths[0]} needs pyarrow: pip install pyarrow.") from error
        try:
            self._files = [parquet.ParquetFile(path, memory_map=True) for path in paths]
        except (OSError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{paths[0].parent} has a damaged parquet file ({reason}); download it again.") from error
        self._paths = paths
        names = [file.schema_arrow.names for file in self._files]
        shared = [name for name in names[0] if all(name in columns for columns in names)]
        self._image_column = choose_column(IMAGE_COLUMNS, shared, paths[0])
        self._label_column = choose_column(LABEL_COLUMNS, shared, paths[0])
        groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        self._groups = groups
        lengths = [self._files[f].metadata.row_group(g).num_rows for f, g in groups]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0

    def labels(self) -> np.ndarray:
        """The classes of all rows, [N]."""
        columns = [file.read([self._label_column]).column(0).to_numpy() for file in self._files]
        labels = np.concatenate(columns)
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"column {self._label_column} of {self._paths[0]} must hold integers, none of them missing."
            )
        return labels.astype(np.int64)

    def num_named_classes(self) -> int | None:
        """How many classes are named in the metadata written by Hugging Face's library."""
        described = (self._files[0].schema_arrow.metadata or {}).get(b"huggingface")
        if described is None:
            return None
        info: dict[str, Any] = json.loads(described).get("info") or {}
        feature = (info.get("features") or {}).get(self._label_column) or {}
        return len(feature["names"]) if "names" in feature else None

    def image_bytes(self, index: int) -> bytes:
        """An image, encoded; empty where the file has none, which is then a broken image."""
        group = int(np.searchsorted(self._starts, index, "right")) - 1
        value = self._group(group)[index - int(self._starts[group])].as_py()
        # Either a structure of bytes and a path, or the bytes.
        return (value.get("bytes") if isinstance(value, dict) else value) or b""

    def _group(self, group: int) -> Any:
        """The encoded images of a row group, from the cache or from the file."""
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        file, place = self._groups[group]
        column = self._files[file].read_row_group(place, [self._image_column], use_threads=False).column(0)
        self._cache[group] = column
        self._cached_bytes += column.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return column


def _is_named(stem: str, name: str) -> bool:
    """Whether a file belongs to a split: ``train``, ``train-00000-of-00001`` or ``train_0``, but not ``training``."""
    return stem == name or (stem.startswith(name) and stem[len(name)] in "-_.")
