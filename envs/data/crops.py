"""Crops of images: shifted and flipped, at random places and sizes, or in the centre."""

import math

import numpy as np
from PIL import Image

from ctm_rl.envs.data.pixels import as_image, upright_size

MIN_AREA, MIN_RATIO, MAX_RATIO = 0.08, 3 / 4, 4 / 3
"""Least share of the image's area in a random crop, and the range of its width over its height."""
NUM_ATTEMPTS = 10
NUM_CROP_DRAWS = 4 * NUM_ATTEMPTS + 1
"""Random numbers that one random crop consumes at most: four per attempt, and one for the flip."""


def crop_and_flip(images: np.ndarray, rng: np.random.Generator, padding: int = 4) -> np.ndarray:
    """Shifts each image by a few pixels, fills the border with black, and flips half of them left to right.

    Args:
        images: uint8, [N, H, W, C].
        rng: draws the shifts and flips.
        padding: the most pixels of a shift, in each direction.

    Returns:
        New images, [N, H, W, C].
    """
    num, height, width = images.shape[:3]
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    top, left = rng.integers(2 * padding + 1, size=(2, num, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)  # [N, H], [N, W]
    columns = np.where(rng.random((num, 1)) < 0.5, columns[:, ::-1], columns)
    return padded[np.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_crop_box(width: int, height: int, draws: np.ndarray) -> tuple[int, int, int, int]:
    """Draws a box to crop: a random share of the area (8 to 100 %) and aspect ratio (3/4 to 4/3), at a random place.

    If none of ten attempts fits into the image, it is the largest centred box with an allowed ratio.

    Args:
        width: of the image.
        height: of the image.
        draws: uniform in [0, 1), [at least 40].

    Returns:
        Left, top, right and bottom, in pixels.
    """
    low, high = math.log(MIN_RATIO), math.log(MAX_RATIO)
    for area, ratio, across, down in draws[: 4 * NUM_ATTEMPTS].reshape(NUM_ATTEMPTS, 4).tolist():
        wanted = width * height * (MIN_AREA + (1 - MIN_AREA) * area)
        aspect = math.exp(low + (high - low) * ratio)
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int((width - w + 1) * across), int((height - h + 1) * down)
            return left, top, left + w, top + h
    w = min(width, round(height * MAX_RATIO))
    h = min(height, round(width / MIN_RATIO))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def random_resized_crop(image: Image.Image, size: int, draws: np.ndarray) -> np.ndarray:
    """Crops at random, resizes bilinearly and flips every other time: the training view of ImageNet.

    Args:
        image: an image of which the header is read.
        size: height and width of the view.
        draws: uniform in [0, 1), [NUM_CROP_DRAWS]; the same draws make the same view.

    Returns:
        uint8, [size, size, 3].
    """
    box = random_crop_box(*upright_size(image), draws)
    width, height = image.size
    shrink = min(box[2] - box[0], box[3] - box[1]) // size
    # A JPEG that is much larger than needed decodes faster at a half, a quarter or an eighth of its size.
    drafted = image.draft("RGB", (width // shrink, height // shrink)) if shrink > 1 else None
    # The drafted size before it is rounded up to whole pixels.
    scale = 1 if drafted is None else drafted[1][2] / width
    array = _resize_box(image, size, (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale))
    return array[:, ::-1] if draws[-1] < 0.5 else array


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """Resizes the short side to 256/224 of ``size`` and crops the centre: the test view of ImageNet.

    Args:
        image: an image of which the header is read.
        size: height and width of the view.

    Returns:
        uint8, [size, size, 3].
    """
    width, height = upright_size(image)
    short = round(size * 256 / 224)
    # The long side's length is truncated to whole pixels, as is usual for this view.
    resized = (short, short * height // width) if width <= height else (short * width // height, short)
    left, top = (float(round((length - size) / 2)) for length in resized)
    across, down = width / resized[0], height / resized[1]
    # Resizing only the crop gives the same pixels as resizing the image and cropping.
    return _resize_box(image, size, (left * across, top * down, (left + size) * across, (top + size) * down))


def _resize_box(image: Image.Image, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """A box of the image, turned upright, resized, [size, size, 3]."""
    upright = as_image(image)
    # Scaling may move the box beyond the image's edge by a rounding error.
    box = (box[0], box[1], min(box[2], upright.width), min(box[3], upright.height))
    return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR, box))
