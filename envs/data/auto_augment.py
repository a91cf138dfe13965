"""AutoAugment for CIFAR: pairs of changes of colour and shape that were found by a search.

Source: arXiv:1805.09501, with the strengths of torchvision's implementation (ten steps from none to the strongest).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ctm_rl.envs.data.pixels import as_array

Name = Literal[
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast", "sharpness",
    "posterize", "solarize", "auto_contrast", "equalize", "invert",
]  # fmt: skip
Change = tuple[Name, float, int]
"""A change, its probability, and its strength: 0 to 9 (0 for changes without strength)."""

CIFAR_POLICY: tuple[tuple[Change, Change], ...] = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("auto_contrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("colour", 0.9, 9), ("equalize", 0.6, 0)),
    (("auto_contrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 0)),
)
"""One of these pairs is drawn for each image; its two changes are made one after the other."""

STRONGEST = 9


def auto_augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes each image by a pair of the policy drawn for it.

    Args:
        images: uint8, [N, H, W, 3].
        rng: draws pairs, chances and directions.

    Returns:
        New images, [N, H, W, 3].
    """
    num = len(images)
    pairs = rng.integers(len(CIFAR_POLICY), size=num).tolist()
    chances, is_reversed = rng.random((num, 2)).tolist(), (rng.random((num, 2)) < 0.5).tolist()
    changed = images.copy()
    for row, pair in enumerate(pairs):
        wanted = [
            (name, -strength if backwards else strength)
            for (name, chance, strength), drawn, backwards in zip(
                CIFAR_POLICY[pair], chances[row], is_reversed[row], strict=True
            )
            if drawn < chance
        ]
        if wanted:
            image = Image.fromarray(images[row])
            for name, strength in wanted:
                image = apply(image, name, strength)
            changed[row] = as_array(image)
    return changed


def apply(image: Image.Image, name: Name, strength: int) -> Image.Image:
    """Makes one change.

    Args:
        image: red, green and blue.
        name: of the change.
        strength: 0 to 9; negative in the other direction, for the changes that have two.

    Returns:
        A new image of the same size.
    """
    return CHANGES[name](image, strength)


def _transform(image: Image.Image, *coefficients: float) -> Image.Image:
    """Reads each pixel (x, y) from (a x + b y + c, d x + e y + f); black where that lies outside."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


def _shear(strength: int) -> float:
    """Shift of a row or column relative to its distance from the edge: at most 0.3."""
    return 0.3 * strength / STRONGEST


def _shift(length: int, strength: int) -> int:
    """Shift in pixels: at most 150/331 of the side."""
    return int(150 / 331 * length * strength / STRONGEST)


def _enhance(kind: Callable[[Image.Image], Any]) -> Callable[[Image.Image, int], Image.Image]:
    """Extrapolates away from, or interpolates towards, an image without colour, contrast and so on, by at most 0.9."""
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength / STRONGEST)


def _posterize(image: Image.Image, strength: int) -> Image.Image:
    """Keeps the highest bits of each value: 8 to 4."""
    return ImageOps.posterize(image, 8 - round(abs(strength) * 4 / STRONGEST))


def _solarize(image: Image.Image, strength: int) -> Image.Image:
    """Inverts values above a threshold, which falls from 255 to 0 with the strength."""
    return ImageOps.solarize(image, math.ceil(255 - 255 * abs(strength) / STRONGEST))


CHANGES: dict[Name, Callable[[Image.Image, int], Image.Image]] = {
    "shear_x": lambda image, strength: _transform(image, 1, _shear(strength), 0, 0, 1, 0),
    "shear_y": lambda image, strength: _transform(image, 1, 0, 0, _shear(strength), 1, 0),
    "translate_x": lambda image, strength: _transform(image, 1, 0, _shift(image.width, strength), 0, 1, 0),
    "translate_y": lambda image, strength: _transform(image, 1, 0, 0, 0, 1, _shift(image.height, strength)),
    "rotate": lambda image, strength: image.rotate(30 * strength / STRONGEST),
    "brightness": _enhance(ImageEnhance.Brightness),
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "invert": lambda image, strength: ImageOps.invert(image),
}
