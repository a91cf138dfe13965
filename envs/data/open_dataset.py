"""Finds a data set by its name and place, in whatever format it lies there."""

from collections.abc import Callable
from pathlib import Path

from ctm_rl.envs.data.arrays import (
    NUM_CLASSES,
    find_cifar,
    find_idx,
    find_pickled_cifar,
    read_cifar,
    read_idx,
    read_mnist_subset,
)
from ctm_rl.envs.data.folder import find_split_folder, read_folder
from ctm_rl.envs.data.hub import PREFIX, read_hub
from ctm_rl.envs.data.images import ArrayPictures, EncodedPictures, PictureSet, decode_all
from ctm_rl.envs.data.parquet import find_parquet, read_parquet

DATASETS = ("mnist", "cifar10", "cifar100", "imagenet", "folder")
SPLITS = ("train", "test")
SHAPES = {"mnist": (28, 1), "cifar10": (32, 3), "cifar100": (32, 3)}
"""Size and channels of the small ones, which are kept in memory."""

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
"""What else than parquet files and folders is read."""


def open_pictures(dataset: str, path: str | Path | None = None, split: str = "train") -> PictureSet:
    """Opens a data set.

    Args:
        dataset: ``mnist``, ``cifar10``, ``cifar100``, ``imagenet`` or ``folder``.
        path: a folder that holds the data set's own files, parquet files or folders of pictures; ``hf:NAME`` takes it
            from the Hugging Face hub. None: the digits shipped in this package, for ``mnist`` only.
        split: ``train`` or ``test``.

    Returns:
        All pictures as arrays for ``mnist`` and CIFAR, files to be decoded when asked for otherwise.

    Raises:
        ValueError: there is no such data set, or it is damaged.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}.")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    if path is None:
        if dataset != "mnist":
            raise ValueError(f"dataset {dataset} needs a path to where it lies: {HOW_TO_GET[dataset]}.")
        return read_mnist_subset(split)
    opened = _open(dataset, str(path), split)
    if dataset in SHAPES and isinstance(opened, EncodedPictures):
        return decode_all(opened, *SHAPES[dataset])
    return opened


def split_names(dataset: str, split: str) -> tuple[str, ...]:
    """What a split may be called, best name first. ImageNet's ``test`` hides its classes: ``val`` takes its place."""
    if split == "train":
        return ("train",)
    validation = ("val", "validation", "valid")
    return (*validation, "test") if dataset == "imagenet" else ("test", *validation)


def _open(dataset: str, path: str, split: str) -> PictureSet:
    """The data set in the first format that is found."""
    num_classes, names = NUM_CLASSES.get(dataset), split_names(dataset, split)
    if path.startswith(PREFIX):
        return read_hub(path, names, num_classes)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{dataset} was looked for in {folder}, which is no folder: {HOW_TO_GET[dataset]}.")
    if dataset in OWN_FORMATS and (found := OWN_FORMATS[dataset](folder, split)) is not None:
        return found
    if (split_folder := find_split_folder(folder, names)) is not None:
        return read_folder(split_folder, find_split_folder(folder, ("train",)), num_classes)
    if (paths := find_parquet(folder, names)) is not None:
        return read_parquet(paths, find_parquet(folder, ("train",)), num_classes)
    raise ValueError(_not_found(dataset, folder, split, names))


def _open_mnist(folder: Path, split: str) -> ArrayPictures | None:
    """MNIST's idx files, where there are some."""
    paths = find_idx(folder, split)
    return None if paths is None else _in_shape(read_idx(*paths), "mnist")


def _open_cifar(dataset: str) -> Callable[[Path, str], ArrayPictures | None]:
    """The binary version of CIFAR, where there is one."""

    def read(folder: Path, split: str) -> ArrayPictures | None:
        paths = find_cifar(folder, dataset, split)
        return None if paths is None else read_cifar(paths, dataset)

    return read


OWN_FORMATS: dict[str, Callable[[Path, str], ArrayPictures | None]] = {
    "mnist": _open_mnist,
    "cifar10": _open_cifar("cifar10"),
    "cifar100": _open_cifar("cifar100"),
}


def _in_shape(pictures: ArrayPictures, dataset: str) -> ArrayPictures:
    """The same pictures; refused where they have another size than this data set's."""
    size, num_channels = SHAPES[dataset]
    if pictures.array.shape[1:] != (size, size, num_channels):
        height, width = pictures.array.shape[1:3]
        raise ValueError(f"{pictures.source} has pictures of {height} x {width}, {dataset}'s are {size} x {size}.")
    return pictures


def _not_found(dataset: str, folder: Path, split: str, names: tuple[str, ...]) -> str:
    """What was looked for, where, and how to get it."""
    pickled = find_pickled_cifar(folder, dataset) if dataset.startswith("cifar") else None
    if pickled is not None:
        return (
            f"{pickled} is a pickle, which can run code when it is read, and is not read: take the binary version "
            f"instead ({HOW_TO_GET[dataset]})."
        )
    looked = [FORMATS[dataset]] if dataset in FORMATS else []
    looked += [f"a folder {' or '.join(names)} with a folder for each class", f"{names[0]}*.parquet"]
    return f"no {split} pictures of {dataset} in {folder}; looked for {', '.join(looked)}: {HOW_TO_GET[dataset]}."
