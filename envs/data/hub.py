"""Data sets of the Hugging Face hub by name, through the optional library ``datasets``."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.data.parquet import (
    IMAGE_COLUMNS,
    IMAGE_TYPES,
    LABEL_COLUMNS,
    LABEL_TYPES,
    choose_column,
    number_words,
)
from ctm_rl.errors import printable

PREFIX = "hf:"
"""Paths that begin like this name a data set of the hub: ``hf:NAME`` or ``hf:NAME:CONFIGURATION``."""
_CACHES = ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH")
"""Settings of the library ``datasets``: the folders that it downloads to."""


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
        raise ValueError(f"{printable(path)} needs Hugging Face's library: pip install 'ctm-rl[datasets]'.") from error
    name, _, configuration = path.removeprefix(PREFIX).partition(":")
    try:
        found: Any = datasets.load_dataset(name, configuration or None)
    # The library raises errors of many kinds, some of other libraries: no network, no such name or configuration.
    except Exception as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 400)
        raise ValueError(
            f"{printable(path)} cannot be loaded: {reason} Look for its name on huggingface.co/datasets."
        ) from error
    split = next((name for name in names if name in found), None)
    if split is None:
        held = ", ".join(map(printable, found))
        raise ValueError(f"{printable(path)} has no split {' or '.join(names)}; it has {held}.")
    table, source = found[split], printable(f"{path} ({split})")
    available = {column: type(feature).__name__ for column, feature in table.features.items()}
    images, labels = (
        choose_column(columns, available, list(available), source, types)
        for columns, types in ((IMAGE_COLUMNS, IMAGE_TYPES), (LABEL_COLUMNS, LABEL_TYPES))
    )
    values = list(table[labels][:])
    if values and all(isinstance(value, str) for value in values):
        place = {word: index for index, word in enumerate(dict.fromkeys(values))}
        train = found["train"][labels][:] if "train" in found else values
        places = np.array([place[word] for word in values])
        classes, num_found = number_words(list(place), list(set(map(str, train))), places, source)
    elif all(isinstance(value, (int, np.integer)) for value in values):
        classes = np.array(values, np.int64)
        num_found = getattr(table.features[labels], "num_classes", None) or int(classes.max(initial=-1)) + 1
    else:
        raise ValueError(f"column {labels} of {source} must hold {LABEL_TYPES}, none of them missing.")
    encoded = table.select_columns([images]).cast_column(images, datasets.Image(decode=False))
    caches = _find_caches(datasets, name)

    def locate(index: int) -> str | bytes:
        image = encoded[index][images] or {}
        path = image.get("path")
        if image.get("bytes") or not path:
            return image.get("bytes") or b""
        # A path comes from the data set's author, who must not choose any file of this machine.
        if not any(Path(os.path.realpath(path)).is_relative_to(cache) for cache in caches):
            raise ValueError(f"lies outside of the data set: {printable(path)}")
        return path

    return EncodedImages(classes, num_found if num_classes is None else num_classes, source, locate)


def _find_caches(datasets: Any, name: str) -> list[str]:
    """The folders that hold what the library has downloaded, and the data set itself where it is a folder."""
    config = getattr(datasets, "config", None)
    caches = [getattr(config, cache, None) for cache in _CACHES]
    caches += [os.environ.get("HF_HUB_CACHE"), name if os.path.isdir(name) else None]
    return [os.path.realpath(os.path.expanduser(cache)) for cache in caches if cache]
