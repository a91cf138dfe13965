"""Parquet files as people write them: usual columns, words as classes, and files that are refused in one line."""

import io
import json
from pathlib import Path
from typing import Any

import image_files as files
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from ctm_rl.envs.data import images, parquet
from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.data.open_dataset import open_images

ENCODED = [files.encode(image) for image in files.random_images(4, 7, 7)]


def write(path: Path, metadata: Any = None, rows: int = 2, **columns: Any) -> None:
    """Writes a file; the image column is made of ``ENCODED`` where none is given."""
    table = pa.table(
        columns if any(name in columns for name in parquet.IMAGE_COLUMNS) else {"image": ENCODED, **columns}
    )
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)


@pytest.mark.parametrize(
    ("image", "label"), [("pixel_values", "labels"), ("jpg", "cls"), ("png", "class"), ("img", "target")]
)
def test_usual_columns_are_read(image: str, label: str, tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", **{image: ENCODED, label: [2, 0, 1, 2], "__key__": list("abcd")})
    read = open_images("folder", tmp_path)
    assert (read.labels.tolist(), read.num_classes) == ([2, 0, 1, 2], 3)
    assert np.array_equal(np.stack(files.read_all(read, range(4))), files.random_images(4, 7, 7))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_words_are_classes_in_alphabetical_order_of_the_training_split(kind: pa.DataType, tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", label=pa.array(["pear", "fig", "plum", "fig"]).cast(kind))
    write(tmp_path / "train-1.parquet", label=pa.array(["quince", "pear", "pear", "apple"]).cast(kind))
    write(tmp_path / "test-0.parquet", label=pa.array(["plum", "plum", "apple", "quince"]).cast(kind))
    train, test = open_images("folder", tmp_path), open_images("folder", tmp_path, "test")
    assert (train.labels.tolist(), train.num_classes) == ([2, 1, 3, 1, 4, 2, 2, 0], 5)
    assert (test.labels.tolist(), test.num_classes) == ([3, 3, 0, 4], 5)
    write(tmp_path / "test-0.parquet", label=["plum", "kiwi\x1b[2J", "apple", "fig"])
    with pytest.raises(ValueError, match=r"has a class 'kiwi\\x1b\[2J' that the training split does not have"):
        open_images("folder", tmp_path, "test")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pa.array([True, False, True, True]), [1, 0, 1, 1]),
        (pa.array([3, 0, 1, 3], pa.uint64()), [3, 0, 1, 3]),
        (pa.array([7, 5, 7, 5], pa.int16()).dictionary_encode(), [7, 5, 7, 5]),
    ],
)
def test_other_kinds_of_integers_are_read(values: pa.Array, labels: list[int], tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", label=values)
    assert open_images("folder", tmp_path).labels.tolist() == labels


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"image": [[[1, 2]]] * 4, "label": [0] * 4}, r"column image or .* it has image: list<.*>, label: int64\.$"),
        ({"image": ["a.png"] * 4, "label": [0] * 4}, r"column image or .* it has image: string, label: int64\.$"),
        ({"label": [0.5] * 4}, r"column fine_label or .* it has image: binary, label: double\.$"),
        ({"label": [[1]] * 4}, r"column fine_label or .* it has image: binary, label: list<.*>\.$"),
    ],
)
def test_columns_of_other_types_are_refused_with_what_was_found_and_where(
    columns: dict[str, Any], found: str, tmp_path: Path
) -> None:
    write(tmp_path / "train-7.parquet", **columns)
    with pytest.raises(ValueError, match=rf"train-7\.parquet has no {found}") as raised:
        open_images("folder", tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {"info": {"features": {"label": {"names": None}}}},
        {"info": {"features": {"label": {"names": 7}}}},
        {"info": {"features": {"label": ["names"]}}},
        {"info": {"features": 3}},
        [{"info": {}}],
        None,
        "[" * 100_000,
        "{damaged",
        b"\xff\xfe",
    ],
)
def test_metadata_that_name_no_classes_are_not_used(metadata: Any, tmp_path: Path) -> None:
    text = metadata if isinstance(metadata, (str, bytes)) else json.dumps(metadata)
    write(tmp_path / "train.parquet", text, label=[3, 1, 0, 1])
    assert open_images("folder", tmp_path).num_classes == 4


def test_a_version_that_runs_code_of_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", label=[0] * 4)
    monkeypatch.setattr(pa, "__version__", "13.0.2")
    with pytest.raises(ValueError, match=r"train.parquet needs pyarrow 14.0.1 or newer, here is 13.0.2, which"):
        open_images("folder", tmp_path)


def test_a_path_is_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(ENCODED[0])
    pictures = pa.array([{"bytes": None, "path": str(secret)}, {"bytes": ENCODED[1], "path": str(secret)}])
    pictures = pictures.cast(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    write(tmp_path / "train.parquet", image=pictures, label=[0, 0])
    read = open_images("folder", tmp_path)
    with pytest.warns(UserWarning, match="image 0 of"):
        seen = files.read_all(read, [0, 1])
    assert all(np.array_equal(one, files.random_images(4, 7, 7)[1]) for one in seen)
    paths = pa.array([str(secret)] * 2)
    write(tmp_path / "train.parquet", image=pa.StructArray.from_arrays([paths], ["bytes"]), label=[0, 0])
    with pytest.raises(ValueError, match=r"it has image: struct<bytes: string>"):
        open_images("folder", tmp_path)


def test_an_image_repeated_in_a_dictionary_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MIN_GROUP_BYTES", 2**23)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(256, size=(300, 300, 3), dtype=np.uint8)).save(file, "BMP")
    path = tmp_path / "train.parquet"
    table = pa.table({"image": [file.getvalue()] * 60, "label": [0] * 60})
    pq.write_table(table, path, dictionary_pagesize_limit=2**24)
    assert path.stat().st_size < 2**21
    read = open_images("folder", tmp_path)
    assert isinstance(read, EncodedImages)
    with (
        pytest.warns(UserWarning, match=r"image 5 is in a row group that is inflated to more than 8,388,608 bytes"),
        pytest.raises(ValueError, match="none of the 60 images of"),
    ):
        files.read_all(read, [5])


def test_compressed_images_are_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MIN_GROUP_BYTES", 2**20)
    zeros = [number.to_bytes(8, "little") + bytes(2**20) for number in range(4)]
    table = pa.table({"image": zeros, "label": [0] * 4})
    pq.write_table(table, tmp_path / "train.parquet", compression="zstd", use_dictionary=False)
    with (
        pytest.warns(UserWarning, match=r"image 0 is in a row group that is inflated to more than 1,048,576 bytes"),
        pytest.raises(ValueError, match="none of the 4 images of"),
    ):
        files.read_all(open_images("folder", tmp_path), [0])


def test_numbers_of_images_and_classes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", label=[0, 1, 2**40, 2])
    with pytest.raises(ValueError, match=r"has 1,099,511,627,777 classes, counted by the largest; at most 250,000"):
        open_images("folder", tmp_path)
    write(tmp_path / "train.parquet", label=pa.array([0, 1, 2**64 - 1, 2], pa.uint64()))
    with pytest.raises(ValueError, match=r"column label of .*train.parquet is damaged \(Integer value"):
        open_images("folder", tmp_path)
    write(tmp_path / "train.parquet", label=[0, 1, 0, 2])
    monkeypatch.setattr(images, "MAX_IMAGES", 3)
    with pytest.raises(ValueError, match=r"has 4 images; at most 3 are kept of a data set"):
        open_images("folder", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(images, "MAX_ARRAY_BYTES", 3 * 32 * 32 * 3)
    with pytest.raises(ValueError, match=r"has 4 images; at most 3 are kept in memory"):
        open_images("cifar10", tmp_path)
    monkeypatch.setattr(parquet, "_MAX_WORD_BYTES", 4)
    write(tmp_path / "train.parquet", label=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"column label of .* holds words of [\d,]+ bytes, more than 4"):
        open_images("folder", tmp_path)


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write(path, label=[0] * 4)
    data, place = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(1).column(0).dictionary_page_offset
    data[place : place + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    read = open_images("folder", tmp_path)
    with pytest.warns(UserWarning, match=r"image 2 .*image 2 is in a damaged row group of train.parquet"):
        seen = files.read_all(read, [2, 3, 1])
    assert np.array_equal(seen[0], files.random_images(4, 7, 7)[0])
    assert np.array_equal(seen[2], files.random_images(4, 7, 7)[1])


def test_the_same_file_in_two_folders_is_not_counted_twice(tmp_path: Path) -> None:
    for name in ("plain", "cropped"):
        write(tmp_path / name / "train-00000-of-00001.parquet", label=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"holds train-00000-of-00001.parquet in 2 folders \(cropped, plain\): "):
        open_images("folder", tmp_path)
    assert len(open_images("folder", tmp_path / "plain")) == 4
