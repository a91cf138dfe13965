"""Frames: uint8 arrays [H, W, 3] that are brought to a size, for files, windows and terminals."""

import numpy as np
from PIL import Image

MIN_SIDE = 256
"""Frames whose shorter side has fewer pixels are enlarged."""


def enlarge(frame: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small frame, by a whole factor, until its shorter side has ``MIN_SIDE`` pixels."""
    factor = -(-MIN_SIDE // max(1, min(frame.shape[:2])))
    return frame if factor <= 1 else frame.repeat(factor, axis=0).repeat(factor, axis=1)


def fit(frame: np.ndarray, width: int, height: int) -> Image.Image:
    """Scales a frame to the largest size within a rectangle, with its proportions.

    Enlarging by two and more repeats pixels, by whole factors: small images of grids stay sharp.

    Args:
        frame: [H, W, 3].
        width: of the rectangle.
        height: of the rectangle.

    Returns:
        The image, at most ``width`` by ``height`` pixels.
    """
    image = Image.fromarray(frame)
    scale = min(width / image.width, height / image.height)
    if scale >= 2:
        return image.resize((image.width * int(scale), image.height * int(scale)), Image.Resampling.NEAREST)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BOX if scale < 1 else None)


def shrink(frame: np.ndarray, max_side: int) -> np.ndarray:
    """Scales a frame down until its longer side has at most ``max_side`` pixels; a smaller one stays."""
    return frame if max(frame.shape[:2]) <= max_side else np.asarray(fit(frame, max_side, max_side))


def pad(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Brings a frame to a size: in the middle of black, scaled down if it is larger."""
    if frame.shape[:2] == (height, width):
        return frame
    image = Image.fromarray(frame)
    if image.width > width or image.height > height:
        image = fit(frame, width, height)
    whole = Image.new("RGB", (width, height))
    whole.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return np.asarray(whole)
