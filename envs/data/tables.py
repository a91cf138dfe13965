"""Parquet files of numbers: a column for each number, or one of lists, and a column of classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctm_rl.envs.data.parquet import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LABEL_TYPES,
    choose_column,
    import_parquet,
    is_bytes,
)
from ctm_rl.errors import printable

MAX_BYTES = 4 * 2**30
"""Of the columns in one file, uncompressed."""


def has_images(path: Path) -> bool:
    """Whether a parquet file has a column of encoded images.

    Raises:
        ValueError: it is damaged, or ``pyarrow`` is missing.
    """
    schema = _open_table(path).schema_arrow
    return any(field.name in IMAGE_COLUMNS and is_bytes(field.type) for field in schema)


def read_table(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Reads columns of numbers, or one column ``x`` of lists of numbers, and a column of classes.

    Args:
        paths: the files of a split, in order.

    Returns:
        The numbers [N, D], and the classes [N], text or numbers.

    Raises:
        ValueError: a file is damaged, has no column of classes, or another column of something else than numbers.
    """
    parts = [_table_columns(path) for path in paths]
    if len({inputs.shape[1:] for inputs, _ in parts}) > 1:
        raise ValueError(f"the parquet files in {printable(paths[0].parent)} have different columns.")
    return np.concatenate([inputs for inputs, _ in parts]), np.concatenate([labels for _, labels in parts])


def _table_columns(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The numbers and the classes in one file."""
    import pyarrow

    file, name = _open_table(path), printable(path.name)
    if sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)) > MAX_BYTES:
        raise ValueError(f"{name} holds more than {MAX_BYTES:,} bytes of columns.")
    kinds = {field.name: field.type for field in file.schema_arrow}
    available = {column: str(kind) for column, kind in kinds.items()}
    label = choose_column((*LABEL_COLUMNS, "y"), available, list(kinds), path, LABEL_TYPES)
    inputs = [column for column in kinds if column != label]
    if "x" in inputs:
        inputs = ["x"]
    try:
        table = file.read([*inputs, label], use_threads=False)
    except (OSError, MemoryError, pyarrow.ArrowException) as error:
        raise ValueError(f"{name} is damaged ({printable(error)}); download it again.") from error
    columns = {column: table.column(column).to_numpy() for column in (*inputs, label)}
    if inputs == ["x"] and columns["x"].dtype == object:
        if len({np.shape(row) for row in columns["x"]}) != 1:
            raise ValueError(f"column x of {name} holds lists of different lengths; make all of one length.")
        return np.stack(list(columns["x"])), columns[label]
    wrong = [column for column in inputs if columns[column].dtype.kind not in "fiub"]
    if wrong or not inputs:
        what = f"column {printable(wrong[0], 60)} is {available[wrong[0]]}" if wrong else "it has no other column"
        raise ValueError(f"{name} must hold columns of numbers beside {label}; {what}.")
    return np.stack([columns[column].astype(np.float64) for column in inputs], 1), columns[label]


def _open_table(path: Path) -> Any:
    """A parquet file of which only the schema has been read."""
    parquet = import_parquet(path)
    import pyarrow

    try:
        return parquet.ParquetFile(path, memory_map=True)
    except (OSError, MemoryError, UnicodeError, pyarrow.ArrowException) as error:
        raise ValueError(f"{printable(path)} is a damaged parquet file ({printable(error)}).") from error
