"""Opens a data set by its name and path, in any of the supported formats."""

import functools
from collections.abc import Callable
from pathlib import Path

from ctm_rl.envs.data.arrays import NUM_CLASSES, SHAPES, find_pickled_cifar, read_cifar, read_idx, read_mnist_subset
from ctm_rl.envs.data.folder import check_split, find_split_folder, list_kinds, list_names, read_folder, sub_folders
from ctm_rl.envs.data.hub import PREFIX, read_hub
from ctm_rl.envs.data.images import ArrayImages, EncodedImages, ImageSet, decode_all
from ctm_rl.envs.data.parquet import find_parquet, read_parquet
from ctm_rl.errors import expand, printable
from ctm_rl.notes import note

DATASETS = ("mnist", "cifar10", "cifar100", "imagenet", "folder")
HOW_TO_GET = {  # the hub: huggingface.co/datasets
    "mnist": "leave path out for the digits shipped here, or get the idx files, or ylecun/mnist of the hub",
    "cifar10": "get cifar-10-binary.tar.gz from www.cs.toronto.edu/~kriz/cifar.html, or uoft-cs/cifar10 of the hub",
    "cifar100": "get cifar-100-binary.tar.gz from www.cs.toronto.edu/~kriz/cifar.html, or uoft-cs/cifar100 of the hub",
    "imagenet": "get it from image-net.org, or ILSVRC/imagenet-1k of the hub",
    "folder": "put a folder for each class into it",
}
FORMATS = {
    "mnist": "idx files",
    "cifar10": "the binary version (data_batch_1.bin and so on)",
    "cifar100": "the binary version (train.bin and test.bin)",
}
"""The formats that are read besides parquet files and folders."""


def open_images(dataset: str, path: str | Path | None = None, split: str = "train") -> ImageSet:
    """Opens a data set.

    Args:
        dataset: ``mnist``, ``cifar10``, ``cifar100``, ``imagenet`` or ``folder``.
        path: a folder that holds the data set's own files, parquet files or folders of images; ``hf:NAME`` loads it
            from the Hugging Face hub. None: the digits shipped in this package, for ``mnist`` only.
        split: ``train`` or ``test``.

    Returns:
        The images: arrays for ``mnist`` and CIFAR, otherwise files that are decoded when they are read.

    Raises:
        ValueError: there is no such data set, or it is damaged.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {printable(repr(dataset))}.")
    check_split(split)
    if path is None:
        if dataset != "mnist":
            raise ValueError(f"dataset {dataset} needs a path: {HOW_TO_GET[dataset]}.")
        return read_mnist_subset(split)
    opened = _open(dataset, str(path), split)
    if dataset in SHAPES and isinstance(opened, EncodedImages):
        return decode_all(opened, *SHAPES[dataset])
    return opened


def split_names(dataset: str, split: str) -> tuple[str, ...]:
    """Names of a split, best one first. ImageNet's ``test`` hides its classes: ``val`` is used instead."""
    if split == "train":
        return ("train", "training")
    validation, test = ("val", "validation", "valid"), ("test", "testing")
    return (*validation, *test) if dataset == "imagenet" else (test[0], *validation, *test[1:])


ALL_NAMES = {name for split in ("train", "test") for name in split_names("folder", split)}


def _open(dataset: str, path: str, split: str) -> ImageSet:
    """Opens the data set in the first format that is found in a folder, else in one beside or above it."""
    if path.startswith(PREFIX):
        return read_hub(path, split_names(dataset, split), NUM_CLASSES.get(dataset))
    folder = expand(path)
    if not folder.is_dir():
        where = printable(folder)
        raise ValueError(f"{dataset} was looked for in {where}, which is not a folder: {HOW_TO_GET[dataset]}.")
    if (found := _open_in(dataset, folder, split)) is not None:
        return found
    # Archives hold one folder that holds the splits; or the path names the split.
    opened = {place: images for place in sub_folders(folder) if (images := _open_in(dataset, place, split)) is not None}
    above = folder.absolute().parent
    if folder.absolute().name.casefold() in ALL_NAMES and (images := _open_folders(dataset, above, split)) is not None:
        opened[above] = images
    if len(opened) > 1:
        found = list_names([place.name for place in opened], 5)
        raise ValueError(f"{printable(folder)} holds {len(opened)} data sets, name one of them: {found}.")
    for images in opened.values():
        line = f"the {split} images of {dataset} were found in {images.source}."
        note(line, line)
        return images
    # Raises the reason where there are class folders, but no images in them.
    if (empty := find_split_folder(folder, split_names(dataset, split), has_images=False)) is not None:
        return read_folder(empty)
    raise ValueError(_not_found(dataset, folder, split))


def _open_in(dataset: str, folder: Path, split: str) -> ImageSet | None:
    """Opens the data set in the first format that is found in a folder; None where there is none."""
    if dataset in OWN_FORMATS and (found := OWN_FORMATS[dataset](folder, split)) is not None:
        return found
    if (found := _open_folders(dataset, folder, split)) is not None:
        return found
    if (paths := find_parquet(folder, split_names(dataset, split))) is not None:
        train = find_parquet(folder, split_names(dataset, "train"))
        return read_parquet(paths, train, NUM_CLASSES.get(dataset))
    return None


def _open_folders(dataset: str, folder: Path, split: str) -> ImageSet | None:
    """Opens the images in the class folders of a split; None where there are none."""
    if (split_folder := find_split_folder(folder, split_names(dataset, split))) is None:
        return None
    train = find_split_folder(folder, split_names(dataset, "train"))
    return read_folder(split_folder, train, NUM_CLASSES.get(dataset))


OWN_FORMATS: dict[str, Callable[[Path, str], ArrayImages | None]] = {
    "mnist": read_idx,
    "cifar10": functools.partial(read_cifar, "cifar10"),
    "cifar100": functools.partial(read_cifar, "cifar100"),
}


def _not_found(dataset: str, folder: Path, split: str) -> str:
    """The message for a missing data set: what lies there, what was looked for, and how to get it."""
    pickled = find_pickled_cifar(folder, dataset) if dataset.startswith("cifar") else None
    if pickled is not None:
        return (
            f"{printable(pickled)} is a pickle, which is not read because it can run code: use the binary version "
            f"instead ({HOW_TO_GET[dataset]})."
        )
    # The names that are usual in English are enough to say what is meant.
    names = [name for name in split_names(dataset, split) if not name.endswith("ing")]
    looked = [FORMATS[dataset]] if dataset in FORMATS else []
    looked += [f"a folder {' or '.join(names)} with a folder for each class", f"{names[0]}*.parquet"]
    held = sorted(f"{name}{'/' if kind == 'folder' else ''}" for name, kind in list_kinds(folder).items())
    holds = f", which holds {list_names(held, 5)}" if held else ", which is empty"
    return (
        f"no {split} images of {dataset} in {printable(folder)}{holds}; looked for {', '.join(looked)}: "
        f"{HOW_TO_GET[dataset]}."
    )
