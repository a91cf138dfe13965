"""Images with their classes, kept as arrays or decoded one by one when they are read."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

View = Callable[[Image.Image], np.ndarray]
"""Makes an array uint8 [H, W, C] of an image of which only the header has been read."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises where a file holds no image, or only part of one."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for that many channels."""


class ImageSet:
    """Images, each with its class.

    Args:
        labels: the class of each image, counted from 0, [N].
        num_classes: how many classes there are; some may have no image here.
        source: where the images come from, for messages.
    """

    def __init__(self, labels: np.ndarray, num_classes: int, source: str) -> None:
        self.labels = np.asarray(labels, np.int64)
        self.num_classes = num_classes
        self.source = source
        if len(self.labels) == 0:
            raise ValueError(f"{source} holds no images.")
        if self.labels.min() < 0:
            raise ValueError(f"{source} hides its classes (its labels are {self.labels.min()}); use another split.")
        if self.labels.max() >= num_classes:
            raise ValueError(f"{source} has class {self.labels.max()}, but classes go from 0 to {num_classes - 1}.")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)


class ArrayImages(ImageSet):
    """Images of one size, all in memory.

    Args:
        array: uint8, [N, H, W, C].
        labels: the class of each, [N].
        num_classes: how many classes there are.
        source: where the images come from, for messages.
    """

    def __init__(self, array: np.ndarray, labels: np.ndarray, num_classes: int, source: str) -> None:
        super().__init__(labels, num_classes, source)
        if len(array) != len(self.labels):
            raise ValueError(f"{source} has {len(array)} images but {len(self.labels)} classes.")
        self.array = array


class EncodedImages(ImageSet):
    """Images kept as files, each decoded when it is read.

    An image that cannot be decoded is replaced by the next one that can. ``num_broken`` is the number of broken images
    found so far; the first of them is reported by a warning.

    Args:
        labels: the class of each, [N].
        num_classes: how many classes there are.
        source: where the images come from, for messages.
        locate: returns the path or the bytes of the image at an index.
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
        """How many of the images read so far could not be decoded."""
        return len(self._broken)

    def read(self, index: int, view: View) -> tuple[np.ndarray, int]:
        """Decodes an image, or the next one that can be decoded.

        Args:
            index: from 0 to below N.
            view: makes an array of it; the image is broken if it raises one of ``BROKEN``.

        Returns:
            The array, and the index of the image that it was made of.

        Raises:
            ValueError: no image can be decoded.
        """
        for candidate in range(index, index + len(self)):
            candidate %= len(self)
            array = self.try_read(candidate, view)
            if array is not None:
                return array, candidate
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"image {candidate} of {self.source} cannot be decoded and is replaced by the next one; "
                    "further ones are counted in num_broken.",
                    stacklevel=2,
                )
        raise ValueError(f"none of the {len(self)} images of {self.source} can be decoded.")

    def try_read(self, index: int, view: View) -> np.ndarray | None:
        """Decodes an image; returns None where it is broken, and counts it."""
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
    """An image as it is, uint8 [H, W, num_channels]."""
    mode = MODES[num_channels]
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[:, :, None] if num_channels == 1 else array


def decode_all(encoded: EncodedImages, size: int, num_channels: int) -> ArrayImages:
    """Decodes small images once and for all; broken ones are left out, and a warning reports how many.

    Args:
        encoded: the images.
        size: height and width, to which images of another size are resized.
        num_channels: 1 (grey) or 3 (red, green, blue).

    Returns:
        The images, [N - broken ones, size, size, num_channels].
    """

    def view(image: Image.Image) -> np.ndarray:
        return resize_all(as_array(image, num_channels)[None], size)[0]

    decoded = [encoded.try_read(index, view) for index in range(len(encoded))]
    is_good = np.array([array is not None for array in decoded])
    if not is_good.any():
        raise ValueError(f"none of the {len(encoded)} images of {encoded.source} can be decoded.")
    if not is_good.all():
        warnings.warn(
            f"{(~is_good).sum()} of the {len(encoded)} images of {encoded.source} cannot be decoded: left out.",
            stacklevel=2,
        )
    kept = np.stack([array for array in decoded if array is not None])
    return ArrayImages(kept, encoded.labels[is_good], encoded.num_classes, encoded.source)


def resize_all(array: np.ndarray, size: int) -> np.ndarray:
    """Resizes images bilinearly; an array that has the size already is returned itself.

    Args:
        array: uint8, [N, H, W, C], C 1 or 3.
        size: height and width afterwards.

    Returns:
        uint8, [N, size, size, C].
    """
    if array.shape[1:3] == (size, size):
        return array
    resized = np.empty((len(array), size, size, array.shape[3]), np.uint8)
    for pixels, into in zip(array, resized, strict=True):
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        into[:] = as_array(image.resize((size, size), Image.Resampling.BILINEAR), pixels.shape[2])
    return resized
