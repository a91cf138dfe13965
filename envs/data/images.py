"""Images with their classes, kept as arrays or decoded one by one when they are read."""

import contextlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ctm_rl.envs.data.pixels import ImageKindError, as_array, check_kind
from ctm_rl.errors import printable

View = Callable[[Image.Image], np.ndarray]
"""Makes an array uint8 [H, W, C] of an image of which only the header has been read."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF")
"""Formats that are decoded, by Pillow's names. No other is tried: to decode EPS, Pillow starts a program."""
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(LookupError, ArithmeticError, TypeError, AttributeError, RuntimeError, MemoryError),
    Warning,  # where warnings are errors
)
"""What Pillow raises where a file holds no image, or only part of one."""

MAX_PIXELS = 89_478_485
"""Of one image, which is decoded to at most 4 bytes each; Pillow warns beyond."""
MAX_IMAGES = 20_000_000
MAX_CLASSES = 250_000
MAX_ARRAY_BYTES = 2**30
"""Of a data set that is kept in memory."""
MAX_BROKEN_IN_A_ROW = 1000


class ImageSet:
    """Images, each with its class.

    Args:
        labels: the class of each image, counted from 0, [N].
        num_classes: how many classes there are; some may have no image here.
        source: where the images come from, for messages.

    Attributes:
        class_names: the name of each class; None: they are numbers.
    """

    def __init__(self, labels: np.ndarray, num_classes: int, source: str) -> None:
        self.labels = np.asarray(labels, np.int64)
        self.class_names: list[str] | None = None
        self.num_classes = num_classes
        self.source = source = printable(source)
        if len(self.labels) == 0:
            raise ValueError(f"{source} holds no images.")
        check_num_images(len(self.labels), source)
        if self.labels.min() < 0:
            raise ValueError(f"{source} hides its classes (its labels are {self.labels.min()}); use another split.")
        if self.labels.max() >= num_classes:
            raise ValueError(f"{source} has class {self.labels.max()}, but classes go from 0 to {num_classes - 1}.")
        if num_classes > MAX_CLASSES:
            raise ValueError(f"{source} has {num_classes:,} classes, counted by the largest; at most {MAX_CLASSES:,}.")

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
            raise ValueError(f"{self.source} has {len(array)} images but {len(self.labels)} classes.")
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
        self._problem = ""
        self._has_warned = False

    @property
    def num_broken(self) -> int:
        """How many of the images read so far could not be decoded."""
        return len(self._broken)

    @property
    def problem(self) -> str:
        """Which image was found broken last, and why; empty: none was."""
        return self._problem

    def check_kinds(self, indices: Iterable[int]) -> None:
        """Refuses the data set for an image of a kind that is not read; a broken image is left for later.

        Args:
            indices: of the images whose headers are read.

        Raises:
            ValueError: an image is of such a kind; names it.
        """
        for index in indices:
            located: str | Path | bytes = b""
            try:
                located = self._locate(index)
                with open_image(located):
                    pass
            except ImageKindError as error:
                raise ValueError(f"{self.source}: {_name(index, located)} {error}.") from error
            except BROKEN:
                continue

    def read(self, index: int, view: View) -> tuple[np.ndarray, int]:
        """Decodes an image, or the next one that can be decoded.

        Args:
            index: from 0 to below N.
            view: makes an array of it; the image is broken if it raises one of ``BROKEN``.

        Returns:
            The array, and the index of the image that it was made of.

        Raises:
            ValueError: no image can be decoded, or too many in a row cannot.
        """
        num_tries = min(len(self), MAX_BROKEN_IN_A_ROW)
        for candidate in range(index, index + num_tries):
            candidate %= len(self)
            array = self.try_read(candidate, view)
            if array is not None:
                return array, candidate
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"image {candidate} of {self.source} cannot be decoded and is replaced by the next one "
                    f"({self._problem}); further ones are counted in num_broken.",
                    stacklevel=2,
                )
        which = f"none of the {len(self)} images of {self.source}"
        if num_tries < len(self):
            which = f"none of {num_tries} images in a row of {self.source}, from {index} on,"
        raise ValueError(f"{which} can be decoded; the last: {self._problem}.")

    def try_read(self, index: int, view: View) -> np.ndarray | None:
        """Decodes an image; returns None where it is broken, and counts it."""
        if index in self._broken:
            return None
        located: str | Path | bytes = b""
        try:
            located = self._locate(index)
            with open_image(located) as image:
                return view(image)
        except BROKEN as error:
            self._broken.add(index)
            self._problem = f"{_name(index, located)} {why_broken(error)}"
            return None


@contextlib.contextmanager
def open_image(located: str | Path | bytes, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """Opens an image and reads its header, in one of a few formats and up to a size.

    Args:
        located: the path or the bytes of a file.
        formats: Pillow's names of the formats that are tried.

    Yields:
        The image, not yet decoded.

    Raises:
        ImageKindError: it holds numbers without a known range.
        ValueError: it is too large; Pillow raises any of ``BROKEN`` where the file is no image.
    """
    file = io.BytesIO(located) if isinstance(located, bytes) else located
    with Image.open(file, formats=tuple(formats)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        check_kind(image)
        yield image


def check_num_images(num_images: int, source: str, shape: Sequence[int] = ()) -> None:
    """Refuses a data set that is too large, before memory is taken for it.

    Args:
        num_images: how many images there are.
        source: where they come from, for the message.
        shape: of an image that is kept in memory with all others.

    Raises:
        ValueError: there are too many.
    """
    most = MAX_ARRAY_BYTES // math.prod(shape) if shape else MAX_IMAGES
    if num_images > most:
        where = "in memory" if shape else "of a data set"
        raise ValueError(f"{source} has {num_images:,} images; at most {most:,} are kept {where}.")


def decode_all(encoded: EncodedImages, size: int, num_channels: int) -> ArrayImages:
    """Decodes small images once and for all; broken ones are left out, and a warning reports how many.

    Args:
        encoded: the images.
        size: height and width, to which images of another size are resized.
        num_channels: 1 (grey) or 3 (red, green, blue).

    Returns:
        The images, [N - broken ones, size, size, num_channels].
    """
    check_num_images(len(encoded), encoded.source, (size, size, num_channels))

    def view(image: Image.Image) -> np.ndarray:
        return resize_all(as_array(image, num_channels)[None], size)[0]

    decoded = [encoded.try_read(index, view) for index in range(len(encoded))]
    is_good = np.array([array is not None for array in decoded])
    if not is_good.any():
        raise ValueError(
            f"none of the {len(encoded)} images of {encoded.source} can be decoded; the last: {encoded.problem}."
        )
    if not is_good.all():
        warnings.warn(
            f"{(~is_good).sum()} of the {len(encoded)} images of {encoded.source} cannot be decoded: left out; "
            f"the last: {encoded.problem}.",
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


def _name(index: int, located: str | Path | bytes) -> str:
    """How a message names an image: by its folder and file, or by its number."""
    return f"image {index}" if isinstance(located, bytes) else printable("/".join(Path(located).parts[-2:]), 120)


def why_broken(error: BaseException) -> str:
    """Why an image is broken, in words that follow its name.

    Args:
        error: one of ``BROKEN``.
    """
    if isinstance(error, UnidentifiedImageError):
        return f"is no image in a supported format ({', '.join(FORMATS)})"
    if type(error) in (ValueError, ImageKindError):
        return printable(error)
    return f"is damaged ({printable(error) or type(error).__name__})"
