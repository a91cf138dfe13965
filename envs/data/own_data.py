"""A user's own data set: samples with numbered classes, and a share of them held out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.data.own_images import ImageFiles, as_images, brightness_of, check_finite, common_shape, is_image_shape
from ctm_rl.envs.data.own_sources import Part, open_source
from ctm_rl.errors import printable

HELD_OUT_SHARE = 0.2
"""Share of each class that is held out where a data set has no split of its own."""
MAX_CLASSES = 10_000
_MIN_SAMPLES = 2
Label = str | int


class OwnData(NamedTuple):
    """One split of a data set, N samples, and what it was made of."""

    inputs: "np.ndarray | ImageFiles"
    """Images [N, H, W, C] of bytes, or vectors [N, D] of float32."""
    labels: np.ndarray
    """Numbers of the classes, counted from 0, [N] or [N, G]."""
    classes: list[Label]
    """The label that each number stands for."""
    shape: tuple[int, ...]
    """Of one input."""
    is_split_off: bool
    """Whether the data set has no split of its own."""
    sizes: str
    """Sizes of the images in the files where they are resized, in words; empty: they are as they were."""


def read_own(
    path: str,
    split: str = "train",
    *,
    classes: Sequence[Label] | None = None,
    shape: Sequence[int] | None = None,
    size: int | None = None,
    held_out: float = HELD_OUT_SHARE,
) -> OwnData:
    """Reads one split of a data set.

    Args:
        path: a folder, an npz or a parquet file, or ``module:function``.
        split: ``train`` or ``test``, the samples that are held out: those of the data set, or else a share of each
            class that is always the same.
        classes: the labels in their order; default: those of ``train``, sorted.
        shape: of one input, as an earlier call has found it; default: found by looking at the images.
        size: height and width to which images are resized; default: found by looking at them.
        held_out: the share that is split off where there is no split.

    Returns:
        The samples.

    Raises:
        ValueError: one line on what the data set lacks.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be above 0 and below 1, got {held_out}.")
    source = open_source(path)
    labels = {name: _read_labels(part, name) for name, part in source.parts.items()}
    if classes is None:
        classes = _classes_of(labels["train"], is_folder=source.is_folder)
    numbers = {name: _number(raw, classes) for name, raw in labels.items()}
    is_split_off = "test" not in source.parts
    part = source.parts["train" if is_split_off else split]
    rows = np.arange(len(part.labels))
    if is_split_off:
        is_held_out = held_out_rows(numbers["train"], held_out)
        if not is_held_out.any() or is_held_out.all():
            raise ValueError(f"it holds {len(rows)} samples, too few to hold some out; give more, or test data.")
        rows = rows[is_held_out == (split == "test")]
    wanted = None if shape is None else tuple(int(number) for number in shape)
    every, found, sizes = _read_inputs(part.inputs, source.parts["train"].inputs, None if size else wanted, size)
    if wanted is not None and not size and found != wanted:
        raise ValueError(f"a sample must be {list(wanted)}, as those to learn from, and is {list(found)}.")
    inputs = ImageFiles(every, rows, found) if isinstance(every, EncodedImages) else every[rows]
    chosen = numbers["train" if is_split_off else split][rows]
    return OwnData(inputs, chosen, list(classes), found, is_split_off, sizes)


def held_out_rows(labels: np.ndarray, share: float) -> np.ndarray:
    """Chooses the samples that are held out: a share of each class, the same in every call.

    Args:
        labels: numbers of classes, [N]; with several in a sample [N, G], any samples are chosen.
        share: of the samples of a class.

    Returns:
        One flag for each sample, [N].
    """
    rng, is_held_out = np.random.default_rng(0), np.zeros(len(labels), bool)
    groups = [np.arange(len(labels))]
    if labels.ndim == 1:
        groups = [np.flatnonzero(labels == number) for number in np.unique(labels)]
    for rows in groups:
        is_held_out[rng.permutation(rows)[: round(share * len(rows))]] = True
    return is_held_out


def _read_labels(part: Part, split: str) -> np.ndarray:
    """The labels of a split as text or whole numbers, [N] or [N, G]."""
    labels: Any = _plain(part.labels)
    where = "y" if split == "train" else "y of the held-out samples"
    if len(labels) != len(part.inputs):
        raise ValueError(f"{where} has {len(labels):,} labels, and x has {len(part.inputs):,} samples.")
    if len(labels) < _MIN_SAMPLES:
        raise ValueError(f"{where} holds {len(labels)} labels; at least {_MIN_SAMPLES} samples are needed.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or labels.size == 0:
        raise ValueError(f"{where} must be [N], or [N, G] for G answers in a sample; it is {list(labels.shape)}.")
    missing = _missing(labels)
    if missing.any():
        places = np.flatnonzero(missing.reshape(len(labels), -1).any(1))
        raise ValueError(
            f"{where} lacks {len(places):,} of {len(labels):,} labels, the first of sample {places[0]}; leave these "
            "samples out."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        fraction = labels[labels != np.round(labels)][0]
        raise ValueError(f"{where} must be classes, text or whole numbers; it holds {fraction:g}.")
    if labels.dtype.kind not in "fiub":
        raise ValueError(f"{where} must be classes, text or whole numbers; it is of type {labels.dtype}.")
    labels = labels.astype(np.int64)
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 2 and labels.min() == 0 and (labels.sum(1) == 1).all()
    return labels.argmax(1) if is_one_hot and labels.max() == 1 else labels


def _plain(labels: np.ndarray) -> np.ndarray:
    """Labels that are objects as text or numbers, if they are of one kind."""
    if labels.dtype.kind != "O":
        return labels
    values = [value for value in labels.reshape(-1) if not _is_none(value)]
    kind = str if values and all(isinstance(value, (str, bytes)) for value in values) else float
    empty: Any = "" if kind is str else np.nan
    try:
        plain = [empty if _is_none(value) else kind(value) for value in labels.reshape(-1)]
    except (TypeError, ValueError):
        return labels
    return np.array(plain).reshape(labels.shape)


def _is_none(value: Any) -> bool:
    """Whether a label is None or not a number."""
    return value is None or (isinstance(value, float) and value != value)


def _missing(labels: np.ndarray) -> np.ndarray:
    """Which labels are missing: not a number, or empty text."""
    if labels.dtype.kind == "f":
        return ~np.isfinite(labels)
    if labels.dtype.kind in "US":
        return np.char.str_len(np.char.strip(labels)) == 0
    return np.zeros(labels.shape, bool)


def _classes_of(labels: np.ndarray, *, is_folder: bool) -> list[Label]:
    """The different labels in their order."""
    classes: list[Label] = np.unique(labels).tolist()
    if len(classes) == 1:
        hint = "; each class is a folder of its own" if is_folder else ""
        raise ValueError(f"it has one class only, {printable(repr(classes[0]), 60)}; at least 2 are needed{hint}.")
    if len(classes) > MAX_CLASSES or (labels.ndim == 1 and len(classes) == len(labels) > _MIN_SAMPLES):
        raise ValueError(
            f"it has {len(classes):,} different labels in {len(labels):,} samples: these are no classes "
            f"(at most {MAX_CLASSES:,}, each of several samples)."
        )
    return classes


def _number(labels: np.ndarray, classes: Sequence[Label]) -> np.ndarray:
    """Numbers of the classes in place of their labels."""
    known = {label: number for number, label in enumerate(classes)}
    values, places = np.unique(labels, return_inverse=True)
    unknown = [label for label in values.tolist() if label not in known]
    if unknown:
        raise ValueError(
            f"a held-out sample has the label {printable(repr(unknown[0]), 60)}, which is none of the {len(known)} "
            "classes to learn."
        )
    return np.array([known[label] for label in values.tolist()], np.int64)[places].reshape(labels.shape)


def _read_inputs(
    inputs: np.ndarray | EncodedImages,
    train: np.ndarray | EncodedImages,
    shape: tuple[int, ...] | None,
    size: int | None,
) -> tuple[np.ndarray | EncodedImages, tuple[int, ...], str]:
    """All inputs of a split, their shape, and the sizes of images where they are resized."""
    if isinstance(inputs, EncodedImages):
        found, sizes = common_shape(inputs, size) if shape is None else (shape, "")
        return inputs, found, sizes
    sizes = ""
    if is_image_shape(inputs.shape):
        brightness = brightness_of(train) if isinstance(train, np.ndarray) else None
        inputs, sizes = as_images(inputs, shape, size, brightness)
    else:
        inputs = _as_vectors(inputs)
    return inputs, inputs.shape[1:], sizes


def _as_vectors(inputs: np.ndarray) -> np.ndarray:
    """Vectors of float32, [N, D]."""
    inputs = inputs[:, None] if inputs.ndim == 1 else inputs
    if inputs.dtype.kind not in "fiub":
        raise ValueError(f"x must be numbers, got {inputs.dtype}; text and categories must become numbers.")
    if inputs.ndim != 2:
        raise ValueError(
            f"x must be images [N, H, W] or [N, H, W, C], vectors [N, D], or sequences [N, S] of -1 and 1; "
            f"it is {list(inputs.shape)}."
        )
    check_finite(inputs)
    vectors = inputs.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("x holds numbers that float32 cannot; divide them by their largest.")
    return vectors
