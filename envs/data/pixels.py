"""From whatever a file holds to 8 bits per channel: 16-bit grey, palettes, transparency, CMYK, turned photographs."""

import numpy as np
from PIL import Image

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for that many channels."""
BACKGROUND = (128, 128, 128, 255)
"""Seen through what is transparent: mid-grey, on which neither a black nor a white drawing vanishes."""

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262
"""Tags of EXIF and TIFF."""
_EXIF_KEYS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its orientation in EXIF; 1 is upright."""
_SWAPPING = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}
"""Of these, what swaps width and height."""


class ImageKindError(ValueError):
    """An image holds numbers without a known range; the message follows the image's name."""


def check_kind(image: Image.Image) -> None:
    """Refuses an image whose numbers have no range of brightness: floats, signed and 32-bit integers.

    Args:
        image: an image of which the header is read.

    Raises:
        ImageKindError: it is of such a kind.
    """
    # Pillow holds 16-bit PGM, and in some versions 16-bit PNG, as 32-bit integers.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        kind = "floating-point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise ImageKindError(f"holds {kind}, whose range of brightness is unknown; save it with 8 or 16 bits")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is turned as its EXIF data say; only its header need be read."""
    is_swapped = _turn(image) in _SWAPPING  # which loads a TIFF
    width, height = image.size
    return (height, width) if is_swapped else (width, height)


def as_image(image: Image.Image, num_channels: int = 3) -> Image.Image:
    """An image with 8 bits per channel, turned upright.

    16 bits are scaled to 8, transparent parts show ``BACKGROUND``, CMYK and palettes become colours.

    Args:
        image: an image of a kind that ``check_kind`` accepts.
        num_channels: 1 (grey) or 3 (red, green, blue).

    Returns:
        The image; itself where nothing is to be changed.
    """
    turn, mode = _turn(image), MODES[num_channels]
    if image.mode.startswith("I"):
        image = _scale_16_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    if image.mode != mode:
        image = image.convert(mode)
    return image if turn is None else image.transpose(turn)


def as_array(image: Image.Image, num_channels: int = 3) -> np.ndarray:
    """An image as ``as_image`` makes it, uint8 [H, W, num_channels]."""
    array = np.asarray(as_image(image, num_channels))
    return array[:, :, None] if num_channels == 1 else array


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright; None: it is."""
    if image.format == "TIFF":
        image.load()  # Pillow turns these itself, at loading
        return None
    if not any(key in image.info for key in _EXIF_KEYS):
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    # Damaged EXIF data, in which Pillow raises errors of many kinds, are none: the image itself may be whole.
    except Exception:
        return None


def _scale_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (of TIFF also 12) as 8 bits."""
    tags = getattr(image, "tag_v2", {})
    white = 2 ** (12 if 12 in tags.get(_BITS_PER_SAMPLE, ()) else 16) - 1
    values = np.asarray(image).clip(0, white).astype(np.float32)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        values = white - values
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
