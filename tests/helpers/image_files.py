"""Small image data sets that tests write to disk, in the formats they are published in."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from ctm_rl.envs.data.images import ArrayImages, EncodedImages, ImageSet
from ctm_rl.envs.data.pixels import as_array


def random_images(num: int, height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise, uint8 [num, height, width, channels]."""
    return np.random.default_rng(seed).integers(256, size=(num, height, width, channels), dtype=np.uint8)


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    """An image as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, kind)
    return file.getvalue()


def read_all(images: ImageSet, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Some images of a data set, uint8 [H, W, C] each."""
    if isinstance(images, EncodedImages):
        return [images.read(int(index), as_array)[0] for index in indices]
    assert isinstance(images, ArrayImages)
    return list(images.array[np.asarray(indices)])


def write_folder(folder: Path, split: str, images: np.ndarray, labels: list[int], kind: str = "PNG") -> None:
    """Writes ``split/class_LABEL/NUMBER.KIND``; JPEGs end in ``.JPEG`` as ImageNet's do."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / split / f"class_{label}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03}.{kind}").write_bytes(encode(image, kind))


def write_parquet(
    path: Path,
    encoded: list[bytes | None],
    labels: list[int],
    columns: tuple[str, str] = ("image", "label"),
    rows: int = 2,
) -> None:
    """Writes a file in Hugging Face's layout with some rows in a group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array(
        [{"bytes": data, "path": None} for data in encoded], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    parquet.write_table(pa.table({columns[0]: images, columns[1]: labels}), path, row_group_size=rows)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an idx file, packed where the name ends in ``.gz``."""
    data = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_cifar(path: Path, images: np.ndarray, *labels: list[int]) -> None:
    """Writes CIFAR's binary version: labels, then the red, green and blue planes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.array(column, np.uint8)[:, None] for column in labels]
    rows.append(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
    path.write_bytes(np.concatenate(rows, 1).tobytes())
