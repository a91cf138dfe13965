"""Data sets published as plain bytes: MNIST's idx files, the binary version of CIFAR, and the digits shipped here."""

import gzip
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np

from ctm_rl.envs.data.images import ArrayPictures

IDX_NAMES = {"train": "train", "test": "t10k"}
"""How MNIST's files call the splits."""
IDX_FOLDERS = (".", "MNIST/raw", "raw")
CIFAR_FILES = {
    "cifar10": {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]},
    "cifar100": {"train": ["train.bin"], "test": ["test.bin"]},
}
CIFAR_FOLDERS = {"cifar10": (".", "cifar-10-batches-bin"), "cifar100": (".", "cifar-100-binary")}
CIFAR_PICKLED = {"cifar10": ("cifar-10-batches-py", "data_batch_1"), "cifar100": ("cifar-100-python", "train")}
"""Folder and first file of the version in Python's pickles."""
NUM_CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}


def read_mnist_subset(split: str) -> ArrayPictures:
    """The digits of MNIST shipped in this package: 4,000 to train on, 1,000 to test on, as many of every class.

    Args:
        split: ``train`` or ``test``.

    Returns:
        The pictures, [N, 28, 28, 1].
    """
    with (files("ctm_rl.envs.data") / "mnist.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        pictures, labels = arrays[f"{split}_pictures"], arrays[f"{split}_labels"]
    return ArrayPictures(pictures[..., None], labels, NUM_CLASSES["mnist"], f"the shipped digits ({split})")


def find_idx(folder: Path, split: str) -> tuple[Path, Path] | None:
    """MNIST's files of pictures and of labels of a split, packed by gzip or not; None where there are none."""
    found: list[Path] = []
    for kind in ("images-idx3", "labels-idx1"):
        stem = f"{IDX_NAMES[split]}-{kind}-ubyte"
        names = [name + end for name in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")]
        paths = (folder / place / name for place in IDX_FOLDERS for name in names)
        found += [path for path in paths if path.is_file()][:1]
    return (found[0], found[1]) if len(found) == 2 else None


def read_idx(pictures: Path, labels: Path) -> ArrayPictures:
    """Reads MNIST's own format.

    Args:
        pictures: an idx3 file, packed by gzip or not.
        labels: the idx1 file that belongs to it.

    Returns:
        The pictures, [N, H, W, 1].

    Raises:
        ValueError: a file is damaged, or the two don't belong together.
    """
    array = _read_idx_array(pictures, 3)
    return ArrayPictures(array[..., None], _read_idx_array(labels, 1), NUM_CLASSES["mnist"], str(pictures))


def _read_idx_array(path: Path, num_axes: int) -> np.ndarray:
    """An array of bytes: two zeros, 8 for bytes, the number of axes, their lengths (big-endian), the values."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}); get it anew.") from error
    start = 4 + 4 * num_axes
    if data[:4] != bytes([0, 0, 8, num_axes]) or len(data) < start:
        raise ValueError(f"{path} is no idx file of bytes with {num_axes} axes; get it anew.")
    shape = tuple(int(length) for length in np.frombuffer(data, ">u4", num_axes, 4))
    if len(data) != start + int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path} should hold {shape} bytes and holds {len(data) - start} in all; get it anew.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def find_cifar(folder: Path, dataset: str, split: str) -> list[Path] | None:
    """The files of a split in the binary version of CIFAR; None where there are not all of them."""
    for place in CIFAR_FOLDERS[dataset]:
        paths = [folder / place / name for name in CIFAR_FILES[dataset][split]]
        if all(path.is_file() for path in paths):
            return paths
    return None


def find_pickled_cifar(folder: Path, dataset: str) -> Path | None:
    """A file of the version of CIFAR in pickles, which is not read: reading a pickle can run code."""
    place, name = CIFAR_PICKLED[dataset]
    return next((path for path in (folder / place / name, folder / name) if path.is_file()), None)


def read_cifar(paths: list[Path], dataset: str) -> ArrayPictures:
    """Reads the binary version of CIFAR: per picture its label (CIFAR-100: coarse, then fine), then three planes.

    Args:
        paths: the files of a split, in order.
        dataset: ``cifar10`` or ``cifar100``.

    Returns:
        The pictures, [N, 32, 32, 3]; CIFAR-100's classes are the fine ones.

    Raises:
        ValueError: a file is damaged.
    """
    num_labels = 2 if dataset == "cifar100" else 1
    record = num_labels + 3 * 32 * 32
    parts: list[np.ndarray] = []
    for path in paths:
        data = np.fromfile(path, np.uint8)
        if len(data) == 0 or len(data) % record:
            raise ValueError(f"{path} holds {len(data)} bytes, no multiple of {record}; get it anew.")
        parts.append(data.reshape(-1, record))
    rows = np.concatenate(parts)
    pictures = rows[:, num_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    source = f"{paths[0].parent} ({', '.join(path.name for path in paths)})"
    return ArrayPictures(np.ascontiguousarray(pictures), rows[:, num_labels - 1], NUM_CLASSES[dataset], source)
