"""Opens a data set by its name and path, in any of the supported formats."""

import functools
from collections.abc import Callable
from pathlib import Path

from ctm_rl.envs.data.arrays import NUM_CLASSES, SHAPES, find_pickled_cifar, read_cifar, read_idx, read_mnist_subset
from ctm_rl.envs.data.folder import check_split, find_split_folder, read_folder
from ctm_rl.envs.data.hub import PREFIX, read_hub
from ctm_rl.envs.data.images import ArrayImages, EncodedImages, ImageSet, decode_all
from ctm_rl.envs.data.parquet import find_parquet, read_parquet

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
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}.")
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
        return ("train",)
    validation = ("val", "validation", "valid")
    return (*validation, "test") if dataset == "imagenet" else ("test", *validation)


def _open(dataset: str, path: str, split: str) -> ImageSet:
    """Opens the data set in the first format that is found."""
    num_classes, names = NUM_CLASSES.get(dataset), split_names(dataset, split)
    if path.startswith(PREFIX):
        return read_hub(path, names, num_classes)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{dataset} was looked for in {folder}, which is not a folder: {HOW_TO_GET[dataset]}.")
    if dataset in OWN_FORMATS and (found := OWN_FORMATS[dataset](folder, split)) is not None:
        return found
    if (split_folder := find_split_folder(folder, names)) is not None:
        return read_folder(split_folder, find_split_folder(folder, ("train",)), num_classes)
    if (paths := find_parquet(folder, names)) is not None:
        return read_parquet(paths, find_parquet(folder, ("train",)), num_classes)
    raise ValueError(_not_found(dataset, folder, split, names))


OWN_FORMATS: dict[str, Callable[[Path, str], ArrayImages | None]] = {
    "mnist": read_idx,
    "cifar10": functools.partial(read_cifar, "cifar10"),
    "cifar100": functools.partial(read_cifar, "cifar100"),
}


def _not_found(dataset: str, folder: Path, split: str, names: tuple[str, ...]) -> str:
    """The message for a missing data set: what was looked for, where, and how to get it."""
    pickled = find_pickled_cifar(folder, dataset) if dataset.startswith("cifar") else None
    if pickled is not None:
        return (
            f"{pickled} is a pickle, which is not read because it can run code: use the binary version instead "
            f"({HOW_TO_GET[dataset]})."
        )
    looked = [FORMATS[dataset]] if dataset in FORMATS else []
    looked += [f"a folder {' or '.join(names)} with a folder for each class", f"{names[0]}*.parquet"]
    return f"no {split} images of {dataset} in {folder}; looked for {', '.join(looked)}: {HOW_TO_GET[dataset]}."
