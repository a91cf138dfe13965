"""Images of a user's own data set as bytes of one size: their common size, and files that are decoded once."""

from collections import Counter

import numpy as np
from PIL import Image

from ctm_rl.envs.data.images import MAX_ARRAY_BYTES, EncodedImages
from ctm_rl.envs.data.pixels import as_image, upright_size
from ctm_rl.notes import note

MAX_SIDE = 64
"""Larger images are scaled down to this height or width, unless another size is asked for."""
MIN_SIDE = 4
"""The small encoder halves images twice."""
_MAX_CHANNELS = 16
_NUM_SAMPLED = 2000
"""Files whose headers are read to find the size of all."""
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's names of what has no colour."""


class ImageFiles:
    """Images in files as an array [N, H, W, C] of bytes, each decoded when it is first asked for.

    An image that cannot be decoded is replaced by the next one that can, whose label ``rows_used`` finds.

    Args:
        images: the files.
        rows: which of them, [N].
        shape: H, W and C, to which they are converted.
    """

    def __init__(self, images: EncodedImages, rows: np.ndarray, shape: tuple[int, ...]) -> None:
        self._images, self._rows = images, rows
        self.shape = (len(rows), *shape)
        self._is_kept = int(np.prod(self.shape)) <= MAX_ARRAY_BYTES
        self._kept = np.empty(self.shape if self._is_kept else (0, *shape), np.uint8)
        self._used = np.full(len(rows), -1)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._rows)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Decodes images, [n, H, W, C]."""
        if self._is_kept:
            for index in np.unique(indices[self._used[indices] < 0]).tolist():
                self._kept[index] = self._read(index)
            return self._kept[indices]
        return np.stack([self._read(index) for index in indices.tolist()])

    def rows_used(self, indices: np.ndarray) -> np.ndarray:
        """Returns the indices of the images that were decoded in the place of these, [n]."""
        return self._used[indices]

    def _read(self, index: int) -> np.ndarray:
        """Decodes one image."""
        for candidate in (*range(index, len(self)), *range(index)):
            array = self._images.try_read(int(self._rows[candidate]), self._view)
            if array is not None:
                self._used[index] = candidate
                return array
            _note_broken(self._images)
        raise ValueError(f"no image of {self._images.source} can be decoded; the last: {self._images.problem}.")

    def _view(self, image: Image.Image) -> np.ndarray:
        """One image, decoded and resized."""
        height, width, channels = self.shape[1:]
        if image.width > 2 * width and image.height > 2 * height:
            image.draft("RGB" if channels == 3 else "L", (2 * width, 2 * height))  # a JPEG decodes faster at a half
        return _resized(as_image(image, channels), height, width)


def common_shape(images: EncodedImages, size: int | None = None) -> tuple[tuple[int, int, int], str]:
    """Finds the height, width and channels that images are converted to.

    Images of one size keep it, up to ``MAX_SIDE``; of several sizes, all become squares.

    Args:
        images: the files.
        size: height and width; default: found in the headers of the files.

    Returns:
        Height, width and channels, 1 if all are grey; and where images are resized, the sizes they have, in words.

    Raises:
        ValueError: no image can be read.
    """
    found = []
    step = -(-len(images) // _NUM_SAMPLED)
    for index in range(0, len(images), step):
        header = images.try_read(index, lambda image: np.array([*upright_size(image), image.mode in _GREY]))
        if header is not None:
            found.append(tuple(header.tolist()))
    if not found:
        raise ValueError(f"no image of {images.source} can be read; the last: {images.problem}.")
    if images.num_broken:
        _note_broken(images)
    counted = Counter((height, width) for width, height, _ in found)
    channels = 1 if all(is_grey for _, _, is_grey in found) else 3
    height, width = _common_size(list(counted.elements())) if size is None else (size, size)
    if set(counted) == {(height, width)}:
        return (height, width, channels), ""
    (low, high), kinds = (min(counted), max(counted)), f"{len(counted)} sizes, "
    text = _times(low) if low == high else f"{kinds}{_times(low)} to {_times(high)}"
    return (height, width, channels), text


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether an array [N, ...] of this shape holds images: [N, H, W], [N, H, W, C] or [N, C, H, W]."""
    if len(shape) not in (3, 4) or 0 in shape:
        return False
    sides = shape[1:] if len(shape) == 3 else (shape[2:] if _is_channels_first(shape) else shape[1:3])
    return min(sides) >= MIN_SIDE and (len(shape) == 3 or _is_channels_first(shape) or shape[3] <= _MAX_CHANNELS)


def as_images(
    array: np.ndarray,
    shape: tuple[int, ...] | None = None,
    size: int | None = None,
    brightness: tuple[float, float] | None = None,
) -> tuple[np.ndarray, str]:
    """Converts an array of images to bytes.

    Args:
        array: [N, H, W], [N, H, W, C] or [N, C, H, W]; bytes, whole numbers from 0 to 255, or floats from 0 to 1, -1 to
            1 or 0 to 255.
        shape: height, width and channels to which they are resized; default: their own, up to ``MAX_SIDE``.
        size: height and width, in place of ``shape``.
        brightness: the numbers for black and white; default: found by ``brightness_of``.

    Returns:
        uint8, [N, H, W, C]; and where they are resized, the size they have, in words.

    Raises:
        ValueError: the range of the numbers is unknown.
    """
    array = array[..., None] if array.ndim == 3 else array
    array = np.moveaxis(array, 1, -1) if _is_channels_first(array.shape) else array
    given = array.shape[1:3]
    array = _as_bytes(array, brightness or brightness_of(array))
    height, width = (size, size) if size is not None else _common_size([given]) if shape is None else shape[:2]
    if given == (height, width) or array.shape[3] not in (1, 3):
        return np.ascontiguousarray(array), ""
    resized = np.empty((len(array), height, width, array.shape[3]), np.uint8)
    for pixels, into in zip(array, resized, strict=True):
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
        into[:] = _resized(image, height, width)
    return resized, _times(given)


def check_finite(inputs: np.ndarray) -> None:
    """Refuses inputs that are not finite, [N, ...].

    Raises:
        ValueError: names the first sample.
    """
    if inputs.dtype.kind != "f":
        return
    is_bad = ~np.isfinite(inputs).reshape(len(inputs), -1).all(1)
    if is_bad.any():
        raise ValueError(
            f"x holds NaN or infinity in {is_bad.sum():,} of {len(inputs):,} samples, the first is sample "
            f"{np.flatnonzero(is_bad)[0]}; leave these out, or fill in numbers."
        )


def brightness_of(array: np.ndarray) -> tuple[float, float]:
    """Finds the numbers that stand for black and white: 0 and 255, 0 and 1, or -1 and 1.

    Raises:
        ValueError: the numbers have no such range.
    """
    if array.dtype.kind not in "fiub":
        raise ValueError(f"x must be numbers, got {array.dtype}.")
    check_finite(array)
    low, high, is_fraction = float(array.min()), float(array.max()), array.dtype.kind == "f"
    if array.dtype.kind == "b" or (is_fraction and 0 <= low and high <= 1):
        return 0.0, 1.0
    if is_fraction and -1 <= low and high <= 1:
        return -1.0, 1.0
    if 0 <= low and high <= 255:
        return 0.0, 255.0
    kind = "floats" if is_fraction else "whole numbers"
    raise ValueError(
        f"x holds images of {kind} from {low:g} to {high:g}; they must be bytes (0 to 255), or floats from 0 to 1 or "
        "-1 to 1: scale them first. (Sequences of vectors are not supported; vectors are [N, D].)"
    )


def _as_bytes(array: np.ndarray, brightness: tuple[float, float]) -> np.ndarray:
    """Images as uint8."""
    if array.dtype == np.uint8:
        return array
    low, high = brightness
    check_finite(array)
    if array.size and (array.min() < low or array.max() > high):
        raise ValueError(
            f"x holds numbers from {array.min():g} to {array.max():g}, and those to learn from are from {low:g} to "
            f"{high:g}; scale both in the same way."
        )
    return np.rint((array - np.float32(low)) * np.float32(255 / (high - low))).astype(np.uint8)


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether images [N, ...] of this shape have their channels before height and width, as PyTorch's have."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3) and min(shape[2:]) >= MIN_SIDE


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Height and width for images of these sizes, at most ``MAX_SIDE``."""
    height, width = sizes[0]
    if len(set(sizes)) > 1:
        height = width = int(np.median([min(size) for size in sizes]))
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))


def _resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """An image with 8 bits per channel, [height, width, C]."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _times(size: tuple[int, int]) -> str:
    """A height and width, in words."""
    return f"{size[0]} x {size[1]}"


def _note_broken(images: EncodedImages) -> None:
    """Notes that images cannot be read, once for a data set."""
    note(
        f"broken images of {images.source}",
        f"{images.num_broken} of the {len(images):,} images of {images.source} cannot be read so far; each is replaced "
        f"by the next one. The last: {images.problem}.",
    )
