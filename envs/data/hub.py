"""Data sets of the Hugging Face hub by name, through the optional library ``datasets``."""

import importlib
from typing import Any

import numpy as np

from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, choose_column

PREFIX = "hf:"
"""Paths that begin like this name a data set of the hub: ``hf:NAME`` or ``hf:NAME:CONFIGURATION``."""


def read_hub(path: str, names: tuple[str, ...], num_classes: int | None = None) -> EncodedImages:
    """Loads a data set by name, from the cache of ``datasets`` or from the network.

    Args:
        path: ``hf:NAME`` or ``hf:NAME:CONFIGURATION``.
        names: names of the split; the first that is found is used.
        num_classes: how many classes there are; default: as many as the data set names, or else as occur.

    Returns:
        The images, not yet decoded.

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
    # The library raises errors of many kinds, some of other libraries: no network, no such name or configuration.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be loaded: {reason} Look for its name on huggingface.co/datasets.") from error
    split = next((name for name in names if name in found), None)
    if split is None:
        raise ValueError(f"{path} has no split {' or '.join(names)}; it has {', '.join(found)}.")
    table = found[split]
    images, labels = (choose_column(columns, list(table.features), path) for columns in (IMAGE_COLUMNS, LABEL_COLUMNS))
    classes = np.asarray(table[labels][:], np.int64)
    if num_classes is None:
        num_classes = getattr(table.features[labels], "num_classes", None)
    if num_classes is None:
        num_classes = int(classes.max(initial=-1)) + 1
    encoded = table.select_columns([images]).cast_column(images, datasets.Image(decode=False))

    def locate(index: int) -> str | bytes:
        image = encoded[index][images]
        return image["bytes"] or image["path"] or b""

    return EncodedImages(classes, num_classes, f"{path} ({split})", locate)
