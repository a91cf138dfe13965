"""How an observation is packed into one array: its parts, and the encoder that reads each of them."""

import functools
import math
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ctm_rl.config import OBSERVATION_ENCODERS, check_choice

NUM_WORDS = 32
"""Number of words of a text that are read; later words are ignored."""
BYTES_PER_WORD = 2
"""Bytes of the hash by which a word is represented; two zeros mean no word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of an observation, or the whole of it."""

    encoder: str
    """Which encoder reads it: control or plain (a vector of numbers), conv (an image), grid, categories or text."""
    shape: tuple[int, ...]
    """Its shape in the environment; empty for a single number and for a text."""
    path: tuple[str | int, ...] = ()
    """Keys and indices that lead to it through dictionaries and tuples; empty: it is the whole observation."""
    sizes: tuple[int, ...] = ()
    """categories: number of values of each; grid: number of objects, colours, states."""
    starts: tuple[int, ...] = ()
    """categories: the number of the first of each; empty: 0."""
    scale: float = 1.0
    """control and conv: numbers are divided by this."""
    is_byte: bool = False
    """Whether all its numbers fit into a byte."""

    def __post_init__(self) -> None:
        """Checks that there is such an encoder."""
        check_choice("encoder", self.encoder, OBSERVATION_ENCODERS)

    @property
    def name(self) -> str:
        """Its path, joined by dots; empty for a whole observation."""
        return ".".join(str(key) for key in self.path)

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """Its shape after packing."""
        if self.encoder == "text":
            return (NUM_WORDS * BYTES_PER_WORD,)
        if self.encoder == "categories":
            return (len(self.sizes),)
        return self.shape or (1,)

    @property
    def size(self) -> int:
        """How many numbers it takes after packing."""
        return math.prod(self.packed_shape)

    def __str__(self) -> str:
        """The text for messages."""
        sizes = f" (sizes {', '.join(map(str, self.sizes))})" if self.sizes else ""
        return f"{self.name or 'an observation'} of shape {self.shape} for encoder {self.encoder}{sizes}"

    def is_batched(self, value: Any) -> bool:
        """Whether ``value`` is a batch of this part, and not a single one."""
        return not isinstance(value, str) if self.encoder == "text" else np.ndim(value) > len(self.shape)

    def find(self, observation: Any) -> Any:
        """Returns this part of an observation, or of a batch of observations.

        Raises:
            ValueError: the observation has no such part.
        """
        try:
            return functools.reduce(lambda inner, key: inner[key], self.path, observation)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"the observation has no part {self.name!r}.") from error

    def pack(self, values: Any, num_rows: int) -> np.ndarray:
        """Packs a batch of this part, [B, ...], into [B, *packed_shape].

        Raises:
            ValueError: its shape is not the expected one.
        """
        if self.encoder == "text":
            return np.stack([_words_of(str(text)) for text in values])
        array = np.asarray(values)
        what = f"part {self.name!r} of the observation" if self.path else "observation"
        if array.shape[1:] != self.shape:
            raise ValueError(f"{what} must have shape {self.shape}, or this after a batch axis; got {array.shape[1:]}.")
        if len(array) != num_rows:
            raise ValueError(f"{what} must have as many rows as the state, {num_rows}, got {len(array)}.")
        if self.starts:
            array = array.reshape(num_rows, -1) - np.asarray(self.starts)
        if self.encoder == "grid":
            # Cells outside of the space's bounds, which an environment may show: there are embeddings for no others.
            array = np.minimum(array.reshape(num_rows, -1), _highest_cells(self.shape, self.sizes, array.dtype))
            array = array if array.dtype.kind == "u" else np.maximum(array, 0)
        return array.reshape(num_rows, *self.packed_shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """All parts of an observation. A single part keeps its shape; several are flattened and concatenated."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Checks that there is at least one part."""
        if not self.parts:
            raise ValueError("at least one part of the observation must be read; all are skipped.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one packed observation."""
        return self.parts[0].packed_shape if len(self.parts) == 1 else (sum(part.size for part in self.parts),)

    @property
    def dtype(self) -> np.dtype:
        """Type of packed observations: uint8 if every part fits into bytes, otherwise float32."""
        return np.dtype(np.uint8 if all(part.is_byte for part in self.parts) else np.float32)

    def pack(self, observations: Any, num_rows: int) -> np.ndarray:
        """Packs a batch of observations as a vector environment returns them.

        Args:
            observations: arrays [B, ...], in dictionaries and tuples like those of the environment's space; texts are
                sequences of ``str``.
            num_rows: B.

        Returns:
            [B, *shape] of ``dtype``.

        Raises:
            ValueError: a part is missing or has a wrong shape.
        """
        packed = [part.pack(part.find(observations), num_rows) for part in self.parts]
        if len(packed) == 1:
            return np.asarray(packed[0], dtype=self.dtype)
        flat = [array.reshape(num_rows, -1) for array in packed]
        return np.concatenate(flat, axis=1, dtype=self.dtype, casting="unsafe")

    def pack_one(self, observation: Any) -> np.ndarray:
        """Packs one observation into [*shape]; see ``pack``."""
        packed = [part.pack([part.find(observation)], 1) for part in self.parts]
        if len(packed) == 1:
            return np.asarray(packed[0][0], dtype=self.dtype)
        return np.concatenate([array.reshape(-1) for array in packed], dtype=self.dtype, casting="unsafe")

    def is_batched(self, observations: Any) -> bool:
        """Whether this is a batch of observations, and not a single one."""
        return self.parts[0].is_batched(self.parts[0].find(observations))

    def to_plain(self) -> list[dict[str, Any]]:
        """The layout in plain values, for a checkpoint; ``checkpoints.schema.check_layout`` is the inverse."""
        return [asdict(part) for part in self.parts]


def vector_layout(size: int) -> Layout:
    """The layout of a plain vector of numbers."""
    return Layout((Part(encoder="control", shape=(size,)),))


def grid_layout(height: int, width: int, sizes: tuple[int, ...] = (11, 6, 3)) -> Layout:
    """The layout of MiniGrid's symbolic image; ``sizes`` are the numbers of objects, colours and states."""
    return Layout((Part(encoder="grid", shape=(height, width, 3), sizes=sizes, is_byte=True),))


@functools.lru_cache(maxsize=64)
def _highest_cells(shape: tuple[int, ...], sizes: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The highest object, colour and state of every cell, as one row, which NumPy compares faster than cell by cell."""
    return np.tile(np.asarray(sizes, dtype) - 1, math.prod(shape) // len(sizes))


@functools.lru_cache(maxsize=65536)
def _words_of(text: str) -> np.ndarray:
    """The words of a text as bytes of their hashes, [NUM_WORDS x BYTES_PER_WORD]; the same on every machine."""
    words = np.zeros((NUM_WORDS, BYTES_PER_WORD), np.uint8)
    for place, word in enumerate(text.lower().replace(",", " , ").split()[:NUM_WORDS]):
        digest = zlib.crc32(word.encode()) % 65535 + 1
        words[place] = divmod(digest, 256)
    return words.reshape(-1)
