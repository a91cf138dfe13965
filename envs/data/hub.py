"""Data sets of the Hugging Face hub by name, through the optional library ``datasets``."""

import importlib
from typing import Any

import numpy as np

from ctm_rl.envs.data.images import EncodedPictures
from ctm_rl.envs.data.parquet import LABEL_COLUMNS, PICTURE_COLUMNS

PREFIX = "hf:"
"""A path that begins so names a data set of the hub: ``hf:NAME`` or ``hf:NAME:CONFIGURATION``."""


def read_hub(path: str, names: tuple[str, ...], num_classes: int | None = None) -> EncodedPictures:
    """Loads a data set by name, from the cache of ``datasets`` or from the network.

    Args:
        path: ``hf:NAME`` or ``hf:NAME:CONFIGURATION``.
        names: what the split may be called; the first that is found counts.
        num_classes: how many classes there are; default: as many as the data set names, or as there are.

    Returns:
        The pictures, not yet decoded.

    Raises:
        ValueError: the library is missing, the data set cannot be loaded, or lacks the split or the columns.
    """
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(f"{path} needs Hugging Face's library: pip install 'ctm-rl[datasets]'.") from error
    name, _, configuration = path.removeprefix(PREFIX).partition(":")
    try:
        found: Any = datasets.load_dataset(name, configuration or None)
    # The library raises errors of many kinds, some of other libraries: no network, no such name, no such configuration.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be loaded: {reason} Look for its name on huggingface.co/datasets.") from error
    split = next((name for name in names if name in found), None)
    if split is None:
        raise ValueError(f"{path} has no split {' or '.join(names)}; it has {', '.join(found)}.")
    table = found[split]
    pictures, labels = (_column(path, table, columns) for columns in (PICTURE_COLUMNS, LABEL_COLUMNS))
    classes = np.asarray(table[labels][:], np.int64)
    if num_classes is None:
        num_classes = getattr(table.features[labels], "num_classes", None)
    if num_classes is None:
        num_classes = int(classes.max(initial=-1)) + 1
    encoded = table.select_columns([pictures]).cast_column(pictures, datasets.Image(decode=False))

    def locate(index: int) -> str | bytes:
        picture = encoded[index][pictures]
        return picture["bytes"] or picture["path"] or b""

    return EncodedPictures(classes, num_classes, f"{path} ({split})", locate)


def _column(path: str, table: Any, names: tuple[str, ...]) -> str:
    """The first of these columns that a table has."""
    column = next((name for name in names if name in table.features), None)
    if column is None:
        raise ValueError(f"{path} has no column {' or '.join(names)}; it has {', '.join(table.features)}.")
    return column
