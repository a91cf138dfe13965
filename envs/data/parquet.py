"""Parquet files in Hugging Face's layout: a column of encoded pictures and a column of classes."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctm_rl.envs.data.images import EncodedPictures

PICTURE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("fine_label", "label")
CACHE_BYTES = 512 * 2**20
"""So much of what was read last is kept, encoded: the whole of a small data set."""


def find_parquet(folder: Path, names: tuple[str, ...]) -> list[Path] | None:
    """The parquet files of a split, anywhere below a folder: ``train-*.parquet`` or ``train/*.parquet``.

    Args:
        folder: where to look.
        names: what the split may be called; the first that is found counts.

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
) -> EncodedPictures:
    """Opens parquet files; pictures are read when asked for, the row group around them at once.

    Args:
        paths: the files of a split, in order.
        class_paths: the files of the split that says which classes there are; default: these.
        num_classes: how many classes there are; default: as many as the files' description names, or else as there are.

    Returns:
        The pictures, not yet decoded.

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
    return EncodedPictures(labels, num_classes, source, rows.picture_bytes)


class _Rows:
    """The rows of several files, counted through, with the row groups read last kept."""

    def __init__(self, paths: Sequence[Path]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError(f"reading {paths[0]} needs pyarrow: pip install pyarrow.") from error
        try:
            self._files = [parquet.ParquetFile(path, memory_map=True) for path in paths]
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{paths[0].parent} has a damaged parquet file ({_one_line(error)}); get it anew."
            ) from error
        self._paths = paths
        self._picture_column = self._column(PICTURE_COLUMNS)
        self._label_column = self._column(LABEL_COLUMNS)
        groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        self._groups = groups
        lengths = [self._files[f].metadata.row_group(g).num_rows for f, g in groups]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0

    def _column(self, names: tuple[str, ...]) -> str:
        """The first of these columns that every file has."""
        there = [set(file.schema_arrow.names) for file in self._files]
        for name in names:
            if all(name in columns for columns in there):
                return name
        raise ValueError(
            f"{self._paths[0]} has no column {' or '.join(names)}; "
            f"it has {', '.join(self._files[0].schema_arrow.names)}."
        )

    def labels(self) -> np.ndarray:
        """The classes of all rows, [N]."""
        columns = [file.read([self._label_column]).column(0).to_numpy() for file in self._files]
        labels = np.concatenate(columns)
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"column {self._label_column} of {self._paths[0]} must hold whole numbers, all of them known."
            )
        return labels.astype(np.int64)

    def num_named_classes(self) -> int | None:
        """How many classes the description left by Hugging Face's library names."""
        described = (self._files[0].schema_arrow.metadata or {}).get(b"huggingface")
        if described is None:
            return None
        info: dict[str, Any] = json.loads(described).get("info") or {}
        feature = (info.get("features") or {}).get(self._label_column) or {}
        return len(feature["names"]) if "names" in feature else None

    def picture_bytes(self, index: int) -> bytes:
        """A picture, encoded; no bytes where the file has none, which no decoder takes for a picture."""
        group = int(np.searchsorted(self._starts, index, "right")) - 1
        value = self._group(group)[index - int(self._starts[group])].as_py()
        # A structure of bytes and a path, or the bytes alone.
        return (value.get("bytes") if isinstance(value, dict) else value) or b""

    def _group(self, group: int) -> Any:
        """The encoded pictures of a row group, from what is kept or from the file."""
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        file, place = self._groups[group]
        column = self._files[file].read_row_group(place, [self._picture_column], use_threads=False).column(0)
        self._cache[group] = column
        self._cached_bytes += column.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return column


def _is_named(stem: str, name: str) -> bool:
    """Whether a file belongs to a split: ``train``, ``train-00000-of-00001`` or ``train_0``, but not ``training``."""
    return stem == name or (stem.startswith(name) and stem[len(name)] in "-_.")


def _one_line(error: Exception) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split())
