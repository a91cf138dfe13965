"""Human classifications of a test set's images: counts or shares per class, in CIFAR-10H's format."""

from pathlib import Path

import numpy as np


def read_human_labels(path: str | Path) -> np.ndarray:
    """Reads a table with a row per image and a column per class (CIFAR-10H, arXiv:1908.07086: 10,000 x 10).

    Args:
        path: a ``.npy`` file, or a ``.csv`` file with or without a header; counts or shares.

    Returns:
        The share of people who chose each class, float64, [N, C]; each row sums to 1.

    Raises:
        ValueError: there is no such file, or no such table in it.
    """
    path = Path(path).expanduser()
    if path.suffix not in (".npy", ".csv"):
        raise ValueError(f"human labels are read from .npy and .csv files, got {path}.")
    if not path.is_file():
        raise ValueError(f"human labels were looked for in {path}; CIFAR-10H's are cifar10h-counts.npy or -probs.npy.")
    counts = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
    if counts.ndim != 2 or counts.shape[0] < 1 or counts.shape[1] < 2:
        raise ValueError(f"{path} must hold a row per image and a column per class, got shape {counts.shape}.")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"{path} must hold counts or shares, finite and at least 0.")
    totals = counts.sum(1, keepdims=True)
    if (totals == 0).any():
        raise ValueError(f"row {int(np.flatnonzero(totals == 0)[0])} of {path} sums to 0: nobody classified it.")
    return counts / totals


def _read_npy(path: Path) -> np.ndarray:
    """An array of numbers; a file that contains a pickle is refused, since reading it can run code."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a plain array of numbers (pickles are not read): {error}") from error


def _read_csv(path: Path) -> np.ndarray:
    """Rows of numbers, separated by commas, with or without a header."""
    lines = [line for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    if lines and not _numbers(lines[0]):
        lines = lines[1:]
    rows = [_numbers(line) for line in lines]
    if not rows or not all(row and len(row) == len(rows[0]) for row in rows):
        raise ValueError(f"{path} must hold rows of equally many numbers, separated by commas.")
    return np.array(rows, np.float64)


def _numbers(line: str) -> list[float]:
    """The numbers of a line; none where one of its cells is not a number."""
    try:
        return [float(cell) for cell in line.split(",")]
    except ValueError:
        return []
