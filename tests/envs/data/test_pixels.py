"""Images of every kind: what is seen of 16 bits, transparency, palettes, CMYK, turned photographs; what is refused."""

import io
import struct
from pathlib import Path
from typing import Any

import image_files as files
import numpy as np
import pytest
from PIL import Image

from ctm_rl.envs.data.crops import NUM_CROP_DRAWS, centre_crop, random_resized_crop
from ctm_rl.envs.data.images import ArrayImages, EncodedImages, open_image
from ctm_rl.envs.data.open_dataset import open_images
from ctm_rl.envs.data.pixels import as_array

RAMP = np.arange(0, 60_000, 5_000).astype(np.uint16).reshape(3, 4)
"""Grey of 16 bits, from black to almost white."""


def decode(image: Image.Image, kind: str, num_channels: int = 3, **options: Any) -> np.ndarray:
    """What is seen of an image that was saved in a format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    with open_image(file.getvalue()) as opened:
        return as_array(opened, num_channels)


def make_tiff(values: list[int], bits: int, photometric: int) -> bytes:
    """An uncompressed TIFF with one row of two grey pixels."""
    data = (
        struct.pack("<2H", *values) if bits == 16 else bytes([values[0] >> 4, (values[0] & 15) << 4 | values[1] >> 8])
    )
    data += b"" if bits == 16 else bytes([values[1] & 255])
    tags = [
        (256, 2),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, len(data)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    place = 8 + len(data) + len(data) % 2
    return (
        b"II*\0" + struct.pack("<I", place) + data.ljust(place - 8, b"\0") + struct.pack("<H", 9) + directory + bytes(4)
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_grey_of_16_bits_keeps_its_levels(kind: str, num_channels: int) -> None:
    seen = decode(Image.fromarray(RAMP), kind, num_channels)
    assert seen.shape == (3, 4, num_channels)
    assert np.array_equal(seen[:, :, 0], np.rint(RAMP / 257))
    assert (seen == seen[:, :, :1]).all()


def test_tiffs_of_12_bits_and_those_whose_white_is_zero_are_scaled_by_their_range() -> None:
    for data, expected in [
        (make_tiff([100 * 257, 7 * 257], 16, 1), [100, 7]),
        (make_tiff([100 * 257, 7 * 257], 16, 0), [155, 248]),
        (make_tiff([4095, 1365], 12, 1), [255, 85]),
    ]:
        with open_image(data) as image:
            assert as_array(image, 1).ravel().tolist() == expected


def test_a_folder_of_16_bits_has_the_contrast_of_the_same_in_8_bits(tmp_path: Path) -> None:
    for name, level in (("dim", 9_000), ("light", 51_400)):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(np.full((40, 40), level, np.uint16)).save(tmp_path / "train" / name / "a.png")
    for dataset in ("folder", "cifar10"):
        dim, light = files.read_all(open_images(dataset, tmp_path), range(2))
        assert (dim == 35).all()
        assert (light == 200).all()


@pytest.mark.parametrize("kind", ["float", "int32"])
def test_numbers_without_a_range_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    files.write_folder(tmp_path, "train", files.random_images(3), [0, 1, 2])
    image = Image.fromarray(np.linspace(0, 9, 64, dtype=np.float32 if kind == "float" else np.int32).reshape(8, 8))
    image.save(tmp_path / "train/class_1/depth.tiff")
    with pytest.raises(ValueError, match=r"train: class_1/depth.tiff holds .*save it with 8 or 16 bits\.$"):
        open_images("folder", tmp_path)
    file = io.BytesIO()
    image.save(file, "TIFF")
    files.write_parquet(tmp_path / "other/train.parquet", [file.getvalue(), None], [0, 1])
    with pytest.raises(ValueError, match=r"image 0 holds .*save it with 8 or 16 bits\.$"):
        open_images("folder", tmp_path / "other")


def test_an_image_of_another_kind_among_many_is_replaced_and_named(tmp_path: Path) -> None:
    files.write_folder(tmp_path, "train", files.random_images(70), [0] * 70)
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "train/class_0/001.tif")
    (tmp_path / "train/class_0/001.PNG").unlink()
    read = open_images("folder", tmp_path)
    assert isinstance(read, EncodedImages)
    with pytest.warns(UserWarning, match=r"image 1 of .* \(class_0/001.tif holds floating-point numbers"):
        assert read.read(1, as_array)[1] == 2


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB with a transparent colour", "L with a transparent level"])
def test_hidden_colours_are_not_seen_and_neither_black_nor_white_drawings_vanish(kind: str) -> None:
    options: dict[str, Any]
    for level in (0, 255):  # what is drawn, and what the transparent rest hides
        drawn, options = Image.new("LA", (4, 2), (level, 0)), {}
        drawn.putpixel((1, 1), (level, 255))
        if kind in ("RGBA", "P"):
            drawn = drawn.convert("RGBA")
        if kind == "P":
            drawn = Image.new("P", (4, 2), 0)
            drawn.putpalette([level] * 6)
            drawn.putpixel((1, 1), 1)
            options = {"transparency": 0}
        if kind.endswith(("colour", "level")):
            drawn, options = Image.new("L", (4, 2), 77), {"transparency": 77}
            drawn.putpixel((1, 1), level)
            if kind.startswith("RGB"):
                drawn, options = drawn.convert("RGB"), {"transparency": (77, 77, 77)}
        seen = decode(drawn, "PNG", **options)
        assert (seen[1, 1] == level).all()
        assert (np.delete(seen.reshape(8, 3), 5, axis=0) == 128).all()


def test_opaque_images_with_alpha_keep_their_colours_and_half_transparent_ones_are_mixed() -> None:
    colours = files.random_images(1, 5, 6)[0]
    opaque = np.dstack([colours, np.full((5, 6), 255, np.uint8)])
    assert np.array_equal(decode(Image.fromarray(opaque), "PNG"), colours)
    assert np.array_equal(decode(Image.fromarray(opaque), "WEBP", lossless=True), colours)
    assert np.abs(decode(Image.new("RGBA", (1, 1), (28, 228, 128, 128)), "PNG").ravel() - [78, 178, 128.0]).max() <= 1


def test_palettes_and_cmyk_become_their_colours() -> None:
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:, 8:], colours[8:] = [255, 0, 0], [0, 0, 255]
    image = Image.fromarray(colours)
    for kind in ("PNG", "GIF", "BMP"):
        assert np.array_equal(decode(image.convert("P", palette=Image.Palette.ADAPTIVE), kind), colours)
    assert np.abs(decode(image.convert("CMYK"), "JPEG", quality=100).astype(int) - colours).max() < 40
    assert np.array_equal(decode(image.convert("CMYK"), "TIFF"), colours)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photographs_are_seen_upright(orientation: int, kind: str) -> None:
    upright = Image.fromarray(files.random_images(1, 3, 4)[0]).resize((160, 120), Image.Resampling.BICUBIC)
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stored, file = upright if back is None else upright.transpose(back), io.BytesIO()
    stored.save(file, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {"lossless": True}))
    draws = np.random.default_rng(3).random(NUM_CROP_DRAWS)
    for view in (as_array, lambda image: centre_crop(image, 20), lambda image: random_resized_crop(image, 20, draws)):
        with open_image(file.getvalue()) as image:
            seen = view(image)
        assert np.abs(seen.astype(int) - view(upright)).mean() < 3


def test_damaged_exif_data_leave_the_image_as_it_is() -> None:
    image = Image.fromarray(files.random_images(1, 6, 5)[0])
    for exif in (b"Exif\0\0nothing", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        assert np.array_equal(decode(image, "PNG", exif=exif), np.asarray(image))


def test_small_sets_read_from_folders_are_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    column = np.repeat(np.arange(0, 224, 7, dtype=np.uint8)[None], 32, 0)
    (tmp_path / "train/a").mkdir(parents=True)
    Image.fromarray(column).save(tmp_path / "train/a/1.png", exif=exif)
    read = open_images("cifar10", tmp_path)
    assert isinstance(read, ArrayImages)
    assert np.array_equal(read.array[0, 0, :, 0], column[0, ::-1])
