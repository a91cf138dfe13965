"""Human classifications of a test set's images: counts or shares per class, in CIFAR-10H's format."""

import math
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from ctm_rl.errors import expand, printable

MAX_BYTES = {".npy": 512 * 2**20, ".csv": 16 * 2**20}
"""Of a file; a thousand classes of ImageNet's 50,000 images have 400 MB as ``.npy``."""


def read_human_labels(path: str | Path) -> np.ndarray:
    """Reads a table with a row per image and a column per class (CIFAR-10H, arXiv:1908.07086: 10,000 x 10).

    Args:
        path: a ``.npy`` file, or a ``.csv`` file with or without a header; counts or shares.

    Returns:
        The share of people who chose each class, float64, [N, C]; each row sums to 1.

    Raises:
        ValueError: there is no such file, or no such table in it.
    """
    path = expand(path)
    name = printable(path)
    if path.suffix not in MAX_BYTES:
        raise ValueError(f"human labels are read from .npy and .csv files, got {name}.")
    if not path.is_file():
        raise ValueError(f"human labels were looked for in {name}; CIFAR-10H's are cifar10h-counts.npy or -probs.npy.")
    try:
        if (size := path.stat().st_size) > MAX_BYTES[path.suffix]:
            most = " and ".join(f"{most:,} of {suffix}" for suffix, most in MAX_BYTES.items())
            raise ValueError(f"{name} has {size:,} bytes; at most {most} are read.")
        counts = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}).") from error
    if counts.ndim != 2 or counts.shape[0] < 1 or counts.shape[1] < 2:
        raise ValueError(f"{name} must hold a row per image and a column per class, got shape {counts.shape}.")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"{name} must hold counts or shares, finite and at least 0.")
    with np.errstate(over="ignore"):
        totals = counts.sum(1, keepdims=True)
    if not np.isfinite(totals).all():
        raise ValueError(f"{name} holds numbers that are too large to add up.")
    if (totals == 0).any():
        raise ValueError(f"row {int(np.flatnonzero(totals == 0)[0])} of {name} sums to 0: nobody classified it.")
    return counts / totals


def _read_npy(path: Path) -> np.ndarray:
    """An array of numbers; a file that contains a pickle is refused, since reading it can run code."""
    with path.open("rb") as file:
        try:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read_header(file)
        # The header is parsed as Python's literals, which raises errors of many kinds.
        except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
            raise ValueError(f"{printable(path)} is not a plain array of numbers: {printable(error)}") from error
        if dtype.kind not in "biuf":
            kind = printable(dtype, 60)
            raise ValueError(
                f"{printable(path)} is not a plain array of numbers (pickles are not read), but of {kind}."
            )
        values = np.frombuffer(file.read(), np.uint8)
    # The header may claim any size.
    if min(shape, default=0) < 0 or len(values) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{printable(path)} claims to hold {shape} numbers and holds {len(values)} bytes.")
    return values.view(dtype).reshape(shape, order="F" if is_fortran else "C").astype(np.float64)


def _read_csv(path: Path) -> np.ndarray:
    """Rows of numbers, separated by commas, with or without a header."""
    lines = [line for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    if lines and not _numbers(lines[0]):
        lines = lines[1:]
    rows = [_numbers(line) for line in lines]
    if not rows or not all(row and len(row) == len(rows[0]) for row in rows):
        raise ValueError(f"{printable(path)} must hold rows of equally many numbers, separated by commas.")
    return np.array(rows, np.float64)


def _numbers(line: str) -> list[float]:
    """The numbers of a line; none where one of its cells is not a number."""
    try:
        return [float(cell) for cell in line.split(",")]
    except ValueError:
        return []
