"""Data sets published as plain bytes: MNIST's idx files, the binary version of CIFAR, and the digits shipped here."""

import math
import os
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from ctm_rl.envs.data.images import MAX_ARRAY_BYTES, ArrayImages, check_num_images
from ctm_rl.errors import printable

IDX_NAMES = {"train": "train", "test": "t10k"}
"""The splits in the names of MNIST's files."""
IDX_FOLDERS = (".", "MNIST/raw", "raw")
CIFAR_FILES = {
    "cifar10": {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]},
    "cifar100": {"train": ["train.bin"], "test": ["test.bin"]},
}
CIFAR_FOLDERS = {"cifar10": (".", "cifar-10-batches-bin"), "cifar100": (".", "cifar-100-binary")}
CIFAR_PICKLED = {"cifar10": ("cifar-10-batches-py", "data_batch_1"), "cifar100": ("cifar-100-python", "train")}
"""Folder and first file of the version in Python's pickles."""
NUM_CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}
SHAPES = {"mnist": (28, 1), "cifar10": (32, 3), "cifar100": (32, 3)}
"""Size and channels of the small data sets, which are kept in memory."""
_SMALL_BYTES = 64 * 2**20
"""What is read in any case of a file of images, whatever the number of labels."""


def read_mnist_subset(split: str) -> ArrayImages:
    """Reads the digits of MNIST shipped in this package: 4,000 for training, 1,000 for testing, in balanced classes.

    Args:
        split: ``train`` or ``test``.

    Returns:
        The images, [N, 28, 28, 1].
    """
    with (files("ctm_rl.envs.data") / "mnist.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays[f"{split}_pictures"], arrays[f"{split}_labels"]
    return ArrayImages(images[..., None], labels, NUM_CLASSES["mnist"], f"the shipped digits ({split})")


def read_idx(folder: Path, split: str) -> ArrayImages | None:
    """Reads MNIST's own format: an idx3 file of images and an idx1 file of labels, compressed by gzip or not.

    Args:
        folder: where the files are, or a usual sub-folder of it.
        split: ``train`` or ``test``.

    Returns:
        The images, [N, 28, 28, 1]; None where the files are missing.

    Raises:
        ValueError: a file is damaged, or the two don't belong together.
    """
    found: list[Path] = []
    for kind in ("images-idx3", "labels-idx1"):
        stem = f"{IDX_NAMES[split]}-{kind}-ubyte"
        names = [name + end for name in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")]
        paths = (folder / place / name for place in IDX_FOLDERS for name in names)
        found += [path for path in paths if path.is_file()][:1]
    if len(found) != 2:
        return None
    labels = _read_idx_array(found[1], 1, MAX_ARRAY_BYTES // (28 * 28))
    # A small compressed file may hold gigabytes: no more than twice what the labels need is read.
    array = _read_idx_array(found[0], 3, max(2 * 28 * 28 * len(labels), _SMALL_BYTES))
    images = ArrayImages(array[..., None], labels, NUM_CLASSES["mnist"], str(found[0]))
    height, width = array.shape[1:]
    if height != 28 or width != 28:
        raise ValueError(f"{images.source} has images of {height} x {width}, mnist's are 28 x 28.")
    return images


def _read_idx_array(path: Path, num_axes: int, max_bytes: int) -> np.ndarray:
    """An array of bytes: two zeros, 8 for bytes, the number of axes, their lengths (big-endian), the values."""
    source, start = printable(path), 4 + 4 * num_axes
    try:
        head, rest = _read_beginning(path, start, max_bytes)
        if head[:4] != bytes([0, 0, 8, num_axes]) or len(head) < start:
            raise ValueError(f"{source} is not an idx file of bytes with {num_axes} axes; download it again.")
        shape = tuple(int(length) for length in np.frombuffer(head, ">u4", num_axes, 4))
        num_bytes = math.prod(shape)
        if num_bytes > max_bytes:
            raise ValueError(f"{source} claims to hold {shape} bytes, at most {max_bytes:,} are read.")
        data = rest(num_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{source} cannot be read ({printable(error)}); download it again.") from error
    if len(data) != num_bytes:
        held = len(data) if len(data) < num_bytes else "more"
        raise ValueError(f"{source} should hold {shape} bytes and holds {held} in all; download it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_beginning(path: Path, num_bytes: int, max_bytes: int) -> tuple[bytes, Callable[[int], bytes]]:
    """The first bytes of a file, unpacked where its name ends in ``.gz``, and what returns at most so many more."""
    with path.open("rb") as file:
        # A packed file is hardly larger than what it holds.
        data = file.read(min(os.fstat(file.fileno()).st_size, num_bytes + max_bytes + 2**16))
    if path.suffix != ".gz":
        return data[:num_bytes], lambda most: data[num_bytes : num_bytes + most]
    unpacker = zlib.decompressobj(wbits=31)  # gzip's header and checksum

    def unpack_rest(most: int) -> bytes:
        unpacked = unpacker.decompress(unpacker.unconsumed_tail, most)
        if len(unpacked) < most and not unpacker.eof:
            raise EOFError("it ends too early")
        return unpacked

    return unpacker.decompress(data, num_bytes), unpack_rest


def find_pickled_cifar(folder: Path, dataset: str) -> Path | None:
    """A file of the version of CIFAR in pickles, which is not read: reading a pickle can run code."""
    place, name = CIFAR_PICKLED[dataset]
    return next((path for path in (folder / place / name, folder / name) if path.is_file()), None)


def read_cifar(dataset: str, folder: Path, split: str) -> ArrayImages | None:
    """Reads the binary version of CIFAR: per image its label (CIFAR-100: coarse, then fine), then three planes.

    Args:
        dataset: ``cifar10`` or ``cifar100``.
        folder: where the files are, or the usual sub-folder of it.
        split: ``train`` or ``test``.

    Returns:
        The images, [N, 32, 32, 3]; CIFAR-100's classes are the fine ones. None where a file is missing.

    Raises:
        ValueError: a file is damaged.
    """
    candidates = ([folder / place / name for name in CIFAR_FILES[dataset][split]] for place in CIFAR_FOLDERS[dataset])
    paths = next((paths for paths in candidates if all(path.is_file() for path in paths)), None)
    if paths is None:
        return None
    num_labels = 2 if dataset == "cifar100" else 1
    record = num_labels + 3 * 32 * 32
    sizes = [path.stat().st_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if size == 0 or size % record:
            raise ValueError(
                f"{printable(path)} holds {size} bytes, which is not a multiple of {record}; download it again."
            )
    source = f"{paths[0].parent} ({', '.join(path.name for path in paths)})"
    check_num_images(sum(sizes) // record, printable(source), (32, 32, 3))
    try:
        rows = np.concatenate([np.fromfile(path, np.uint8) for path in paths]).reshape(-1, record)
    except OSError as error:
        raise ValueError(f"{printable(source)} cannot be read ({printable(error)}); download it again.") from error
    images = rows[:, num_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArrayImages(np.ascontiguousarray(images), rows[:, num_labels - 1], NUM_CLASSES[dataset], source)
