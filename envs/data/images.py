"""Pictures with their classes, held as arrays or decoded one by one when they are asked for."""

import abc
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

View = Callable[[Image.Image], np.ndarray]
"""Makes an array uint8 [H, W, C] out of a picture whose header alone has been read."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises where a file holds no picture, or not all of one."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for that many channels."""


class PictureSet(abc.ABC):
    """Pictures, each with its class.

    Args:
        labels: the class of each picture, counted from 0, [N].
        num_classes: how many classes there are; some may have no picture here.
        source: where the pictures come from, for messages.
    """

    def __init__(self, labels: np.ndarray, num_classes: int, source: str) -> None:
        self.labels = np.asarray(labels, np.int64)
        self.num_classes = num_classes
        self.source = source
        if len(self.labels) == 0:
            raise ValueError(f"{source} holds no pictures.")
        if self.labels.min() < 0:
            raise ValueError(f"{source} keeps its classes secret (they read {self.labels.min()}); take another split.")
        if self.labels.max() >= num_classes:
            raise ValueError(f"{source} has class {self.labels.max()}, but classes go from 0 to {num_classes - 1}.")

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.labels)

    @abc.abstractmethod
    def pictures(self, indices: np.ndarray) -> Sequence[np.ndarray] | np.ndarray:
        """The pictures at these places, each uint8 [H, W, C] in its own size."""


class ArrayPictures(PictureSet):
    """Pictures of one size, all in memory.

    Args:
        array: uint8, [N, H, W, C].
        labels: the class of each, [N].
        num_classes: how many classes there are.
        source: where the pictures come from, for messages.
    """

    def __init__(self, array: np.ndarray, labels: np.ndarray, num_classes: int, source: str) -> None:
        super().__init__(labels, num_classes, source)
        if len(array) != len(self.labels):
            raise ValueError(f"{source} has {len(array)} pictures but {len(self.labels)} classes of them.")
        self.array = array

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        """The pictures at these places, uint8 [n, H, W, C]."""
        return self.array[indices]


class EncodedPictures(PictureSet):
    """Pictures kept as files, each decoded when it is asked for.

    In place of one that cannot be decoded stands the next one that can. How many were found broken so far is
    ``num_broken``; the first of them is reported by a warning.

    Args:
        labels: the class of each, [N].
        num_classes: how many classes there are.
        source: where the pictures come from, for messages.
        locate: gives the path or the bytes of the picture at a place.
    """

    def __init__(
        self, labels: np.ndarray, num_classes: int, source: str, locate: Callable[[int], str | Path | bytes]
    ) -> None:
        super().__init__(labels, num_classes, source)
        self._locate = locate
        self._broken: set[int] = set()
        self._has_warned = False

    @property
    def num_broken(self) -> int:
        """How many pictures were asked for and could not be decoded."""
        return len(self._broken)

    def pictures(self, indices: np.ndarray) -> list[np.ndarray]:
        """The pictures at these places as they are, red, green and blue, uint8 [H, W, 3] each."""
        return [self.read(int(index), as_array)[0] for index in indices]

    def read(self, index: int, view: View) -> tuple[np.ndarray, int]:
        """Decodes a picture, or the next one that can be decoded.

        Args:
            index: its place, from 0 to below N.
            view: what is made of it; what it raises of ``BROKEN`` counts as a broken picture.

        Returns:
            What the view made, and the place of the picture it was made of.

        Raises:
            ValueError: no picture can be decoded.
        """
        for place in range(index, index + len(self)):
            place %= len(self)
            made = self.try_read(place, view)
            if made is not None:
                return made, place
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"picture {place} of {self.source} cannot be decoded, the next one stands in for it; further ones "
                    "are counted in num_broken.",
                    stacklevel=2,
                )
        raise ValueError(f"none of the {len(self)} pictures of {self.source} can be decoded.")

    def try_read(self, index: int, view: View) -> np.ndarray | None:
        """Decodes a picture; None where it is broken, which is counted."""
        if index in self._broken:
            return None
        try:
            located = self._locate(index)
            with Image.open(io.BytesIO(located) if isinstance(located, bytes) else located) as image:
                return view(image)
        except BROKEN:
            self._broken.add(index)
            return None


def as_array(image: Image.Image, num_channels: int = 3) -> np.ndarray:
    """A picture as it is, uint8 [H, W, num_channels]."""
    mode = MODES[num_channels]
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[:, :, None] if num_channels == 1 else array


def decode_all(encoded: EncodedPictures, size: int, num_channels: int) -> ArrayPictures:
    """Decodes small pictures once and for all; broken ones are left out, and a warning says how many.

    Args:
        encoded: the pictures.
        size: height and width they are brought to, where they have another.
        num_channels: 1 (grey) or 3 (red, green, blue).

    Returns:
        The pictures, [N - broken ones, size, size, num_channels].
    """

    def view(image: Image.Image) -> np.ndarray:
        return resize_all(as_array(image, num_channels)[None], size)[0]

    read = [encoded.try_read(index, view) for index in range(len(encoded))]
    is_good = np.array([picture is not None for picture in read])
    if not is_good.any():
        raise ValueError(f"none of the {len(encoded)} pictures of {encoded.source} can be decoded.")
    if not is_good.all():
        warnings.warn(
            f"{(~is_good).sum()} of the {len(encoded)} pictures of {encoded.source} cannot be decoded: left out.",
            stacklevel=2,
        )
    array = np.stack([picture for picture in read if picture is not None])
    return ArrayPictures(array, encoded.labels[is_good], encoded.num_classes, encoded.source)


def resize_all(array: np.ndarray, size: int) -> np.ndarray:
    """Resizes pictures bilinearly; those of the wanted size already are given back as they are.

    Args:
        array: uint8, [N, H, W, C], C 1 or 3.
        size: height and width afterwards.

    Returns:
        uint8, [N, size, size, C].
    """
    if array.shape[1:3] == (size, size):
        return array
    resized = np.empty((len(array), size, size, array.shape[3]), np.uint8)
    for picture, into in zip(array, resized, strict=True):
        image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
        into[:] = as_array(image.resize((size, size), Image.Resampling.BILINEAR), picture.shape[2])
    return resized
