"""Action masks: which options of an action are legal, as environments show them; needs NumPy alone.

A mask has an entry for each option of each choice, one choice after the other (a Discrete space has one): 1 where it is
legal, 0 where it is not. A Dict observation has it under ``action_mask``, as one array or as a tuple of an array for
each choice. Inside this package a batch of masks is one array of bool, [..., O], and in a column its bits.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MASK = "action_mask"
"""Key of the mask in a Dict observation."""
OBSERVATION = "observation"
"""Key of an observation that is no dictionary, beside what is added to it."""
METHOD = "action_masks"
"""Name of the method of an environment that returns the mask of the current state instead."""


class Forbidden(NamedTuple):
    """A row in which a choice has no legal option."""

    row: int
    """Its index in the batch."""
    choice: int
    """Which of the choices, from 0."""

    def describe(self, sizes: Sequence[int]) -> str:
        """What is wrong with the mask, in words that follow its name."""
        return "forbids every action" if len(sizes) == 1 else f"forbids every option of choice {self.choice}"


def with_entry(observation: Any, key: str, value: Any) -> dict[Any, Any]:
    """An observation with something added, or a batch of them, or their space as a dictionary.

    Args:
        observation: a dictionary, which gets another entry, or anything else, which becomes the entry ``observation``.
        key: of what is added.
        value: what is added, of the same rows.
    """
    return {**(observation if isinstance(observation, Mapping) else {OBSERVATION: observation}), key: value}


def with_mask(observation: Any, mask: Any) -> dict[Any, Any]:
    """An observation with its mask, or a batch of them; see ``with_entry``."""
    return with_entry(observation, MASK, mask)


def read_masks(value: Any, sizes: Sequence[int], num_rows: int) -> np.ndarray:
    """Reads a batch of masks.

    Args:
        value: as a vector environment returns it: an array [B, ...], or a tuple of arrays [B, size], which may be
            nested; for a single row also without the axis of rows.
        sizes: number of options of each choice; their sum is O.
        num_rows: B.

    Returns:
        Whether each option is legal, [B, O].

    Raises:
        ValueError: there are not O entries in each row, or there are others than 0 and 1.
    """
    parts = list(_parts_of(value))
    num_entries, num_options = sum(part.size for part in parts), sum(sizes)
    if num_entries != num_rows * num_options or any(part.size % num_rows for part in parts):
        shapes = " and ".join(str(part.shape) for part in parts[:4]) + (" and more" if len(parts) > 4 else "")
        rows = "" if num_rows == 1 else f" in each of {num_rows} rows"
        raise ValueError(
            f"{MASK} must have {num_options} entries{rows}, one for each option of the actions "
            f"({_listed(sizes)}); got shape {shapes or '()'}."
        )
    flat = [part.reshape(num_rows, -1) for part in parts]
    masks = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    if masks.dtype == np.bool_:
        return masks
    is_legal = masks == 1
    if np.count_nonzero(masks) != np.count_nonzero(is_legal):
        other = masks[(masks != 0) & ~is_legal].flat[0]
        raise ValueError(f"{MASK} must hold 1 for legal options and 0 for others, got {other}.")
    return is_legal


def find_forbidden(masks: np.ndarray, sizes: Sequence[int]) -> Forbidden | None:
    """The first choice without a legal option.

    Args:
        masks: [B, O] of bool.
        sizes: number of options of each choice.

    Returns:
        Where it is; ``None``: every choice of every row has a legal option.
    """
    if len(sizes) == 1:
        has_option = masks.any(1)
        return None if has_option.all() else Forbidden(int(has_option.argmin()), 0)
    has_options = np.logical_or.reduceat(masks, _starts_of(tuple(sizes)), axis=1)
    if has_options.all():
        return None
    row, choice = np.argwhere(~has_options)[0]
    return Forbidden(int(row), int(choice))


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Masks as bits, for a column: [..., O] of bool becomes [..., ceil(O / 8)] of bytes, the first option highest."""
    return np.packbits(masks, axis=-1)


def _parts_of(value: Any) -> list[np.ndarray]:
    """The arrays in nested tuples, and in lists of lists of unequal lengths, in their order."""
    is_nested = isinstance(value, list) and any(isinstance(part, (list, tuple, np.ndarray)) for part in value[:1])
    if isinstance(value, tuple) or is_nested:
        return [array for part in value for array in _parts_of(part)]
    return [np.asarray(value)]


def _listed(sizes: Sequence[int]) -> str:
    """The sizes of the choices for a message."""
    shown = " + ".join(map(str, sizes[:6]))
    return f"{shown} + ..." if len(sizes) > 6 else shown


@functools.lru_cache(maxsize=16)
def _starts_of(sizes: tuple[int, ...]) -> np.ndarray:
    """The index of the first option of each choice."""
    return np.cumsum((0, *sizes[:-1]))
