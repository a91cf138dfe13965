"""A user's own data: folders, npz, parquet and functions, their classes, what is held out, and what is refused."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from image_files import encode, random_images, write_parquet
from PIL import Image
from pyarrow import parquet

from ctm_rl import notes
from ctm_rl.envs.data import own_sources
from ctm_rl.envs.data.own_data import held_out_rows, read_own
from ctm_rl.envs.data.own_images import ImageFiles, as_images

X, Y = random_images(20, 8, 8, 1), np.array(["cat", "dog"] * 10)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Functions and files are read anew in each test."""
    own_sources._call.cache_clear()
    own_sources._read_npz.cache_clear()


def write_images(folder: Path, images: np.ndarray, labels: Any, kind: str = "PNG") -> None:
    """Writes ``folder/LABEL/NUMBER.KIND``."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{number:03}.{kind.lower()}").write_bytes(encode(image, kind))


def pixels(inputs: Any) -> set[bytes]:
    """The images of a split, in no order."""
    return {image.tobytes() for image in inputs[np.arange(len(inputs))]}


def test_a_folder_of_class_folders_is_split_and_nothing_is_in_both_parts(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", X, Y)
    train, test = (read_own(str(tmp_path / "pets"), split) for split in ("train", "test"))
    assert (len(train.labels), len(test.labels)) == (16, 4)
    assert train.classes == ["cat", "dog"]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert train.shape == (8, 8, 1)
    assert train.is_split_off
    assert pixels(train.inputs) | pixels(test.inputs) == pixels(X)
    assert len(pixels(test.inputs)) == 4
    again = read_own(str(tmp_path / "pets"), "test", classes=train.classes, shape=train.shape)
    assert np.array_equal(again.inputs[np.arange(4)], test.inputs[np.arange(4)])


@pytest.mark.parametrize("inside", ["", "archive"])
def test_the_labels_belong_to_their_images(tmp_path: Path, inside: str) -> None:
    write_images(tmp_path / inside, X, Y)
    label_of = {image.tobytes(): label for image, label in zip(X, Y, strict=True)}
    for split in ("train", "test"):
        data = read_own(str(tmp_path), split)
        images = data.inputs[np.arange(len(data.labels))]
        assert [data.classes[number] for number in data.labels] == [label_of[image.tobytes()] for image in images]


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_splits_of_a_folder_are_kept(tmp_path: Path, held_out: str) -> None:
    write_images(tmp_path / "train", X[:15], Y[:15])
    write_images(tmp_path / held_out, X[15:], Y[15:])
    train, test = (read_own(str(tmp_path), split) for split in ("train", "test"))
    assert (len(train.labels), len(test.labels)) == (15, 5)
    assert not train.is_split_off
    assert pixels(test.inputs) == pixels(X[15:])


def test_a_training_folder_alone_is_split(tmp_path: Path) -> None:
    write_images(tmp_path / "train", X, Y)
    assert len(read_own(str(tmp_path), "test").labels) == 4


def test_images_of_several_sizes_become_squares_and_colours_stay(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(6, 10, 20, 3), ["a", "b"] * 3)
    write_images(tmp_path, random_images(7, 30, 14, 3, seed=1)[6:], ["a"])
    data = read_own(str(tmp_path))
    assert data.shape == (10, 10, 3)
    assert data.sizes == "2 sizes, 10 x 20 to 30 x 14"
    assert read_own(str(tmp_path), size=12).shape == (12, 12, 3)


def test_large_images_are_scaled_down_in_proportion(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(4, 40, 160, 3), ["a", "b"] * 2)
    data = read_own(str(tmp_path), held_out=0.5)
    assert (data.shape, data.sizes) == ((16, 64, 3), "40 x 160")
    assert data.inputs[np.array([1, 0])].shape == (2, 16, 64, 3)


def test_an_unreadable_image_is_replaced_with_its_label_and_noted_once(tmp_path: Path) -> None:
    write_images(tmp_path, X, Y)
    for name in ("016", "018"):  # after the last cat comes a dog
        (tmp_path / "cat" / f"{name}.png").write_bytes(b"no image")
    data = read_own(str(tmp_path), held_out=0.1)
    assert isinstance(data.inputs, ImageFiles)
    rows = np.arange(len(data.labels))
    images, used = data.inputs[rows], data.inputs.rows_used(rows)
    label_of = {image.tobytes(): label for image, label in zip(X, Y, strict=True)}
    assert [data.classes[number] for number in data.labels[used]] == [label_of[image.tobytes()] for image in images]
    (line,) = [line for line in notes.pop_notes() if "cannot be read" in line]
    assert "2 of the 20 images" in line
    assert "cat/018.png is no image in a supported format" in line


def test_arrays_of_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "pets.npz", x=X, y=Y)
    data = read_own(str(tmp_path / "pets.npz"))
    assert data.shape == (8, 8, 1)
    assert data.classes == ["cat", "dog"]
    assert not isinstance(data.inputs, ImageFiles)
    rows = np.flatnonzero(~held_out_rows(np.array([0, 1] * 10), 0.2))
    assert np.array_equal(data.inputs, X[rows])


def test_splits_of_an_npz_file_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=X[:12, ..., 0], y_train=Y[:12], x_test=X[12:, ..., 0], y_test=Y[12:])
    assert np.array_equal(read_own(str(tmp_path / "a.npz"), "test").inputs[np.arange(8)], X[12:])


def test_parquet_of_images_and_of_numbers(tmp_path: Path) -> None:
    write_parquet(tmp_path / "images" / "data.parquet", [encode(image) for image in X], [3, 5] * 10)
    data = read_own(str(tmp_path / "images"))
    assert (data.shape, data.classes, len(data.labels)) == ((8, 8, 1), [3, 5], 16)
    table = pa.table({"a": np.arange(20), "b": np.arange(20) / 7, "target": Y.tolist()})
    parquet.write_table(table, tmp_path / "table.parquet")
    data = read_own(str(tmp_path / "table.parquet"), "test")
    assert (data.shape, data.classes) == ((2,), ["cat", "dog"])
    assert all(row[1] == pytest.approx(row[0] / 7) for row in data.inputs[np.arange(4)])
    assert [int(row[0]) % 2 for row in data.inputs[np.arange(4)]] == data.labels.tolist()
    lists = pa.table({"x": [[1.0, 2.0]] * 20, "y": Y.tolist()})
    parquet.write_table(lists, tmp_path / "lists.parquet")
    assert read_own(str(tmp_path / "lists.parquet")).shape == (2,)


class Pairs:
    """A data set as PyTorch has them, with channels first."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        """How many samples there are."""
        return self.num

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """One of them."""
        return np.full((3, 6, 5), index / self.num, np.float32), index % 2


VECTORS = np.arange(40.0).reshape(20, 2)
GIVEN: dict[str, tuple[Callable[[], Any], int, tuple[int, ...]]] = {
    "two arrays": (lambda: (VECTORS, Y), 4, (2,)),
    "lists": (lambda: (VECTORS.tolist(), Y.tolist()), 4, (2,)),
    "four arrays": (lambda: (VECTORS, Y, VECTORS[:6], Y[:6]), 6, (2,)),
    "two pairs": (lambda: ((VECTORS, Y), (VECTORS[:6], Y[:6])), 6, (2,)),
    "a dictionary": (lambda: {"x": VECTORS, "y": Y}, 4, (2,)),
    "a Dataset": (lambda: Pairs(20), 4, (6, 5, 3)),
    "two Datasets": (lambda: (Pairs(20), Pairs(6)), 6, (6, 5, 3)),
    "images of Pillow": (lambda: ([Image.new("L", (5, 6), 7)] * 20, Y), 4, (6, 5, 1)),
}


def as_module(function: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a function in a module of the user's."""
    module = type(sys)("own_module")
    module.load = function  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "own_module", module)
    return "own_module:load"


@pytest.mark.parametrize(("function", "num_held_out", "shape"), GIVEN.values(), ids=GIVEN)
def test_what_a_function_may_give(
    function: Callable[[], Any], num_held_out: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_own(as_module(function, monkeypatch), "test")
    assert (len(data.labels), data.shape) == (num_held_out, shape)
    assert len(data.classes) == 2


LABELS = {
    "text": (["b", "a", "b", "a"], ["a", "b"], [1, 0, 1, 0]),
    "bytes": ([b"b", b"a", b"b", b"a"], ["a", "b"], [1, 0, 1, 0]),
    "integers": ([7, -1, 7, -1], [-1, 7], [1, 0, 1, 0]),
    "truth": ([True, False, True, False], [0, 1], [1, 0, 1, 0]),
    "whole floats": ([2.0, 5.0, 2.0, 5.0], [2, 5], [0, 1, 0, 1]),
    "a column": ([[3], [4], [3], [4]], [3, 4], [0, 1, 0, 1]),
    "one-hot": (np.eye(3, dtype=int)[[2, 0, 2, 0]], [0, 2], [1, 0, 1, 0]),
    "several answers": ([[0, 1], [1, 1], [0, 0], [1, 0]], [0, 1], [[0, 1], [1, 1], [0, 0], [1, 0]]),
    "objects": (np.array(["b", "a", "b", "a"], object), ["a", "b"], [1, 0, 1, 0]),
}


@pytest.mark.parametrize(("labels", "classes", "numbers"), LABELS.values(), ids=LABELS)
def test_labels_are_text_or_whole_numbers(
    labels: Any, classes: list[Any], numbers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Any:
        return VECTORS[:4], labels, VECTORS[:4], labels

    data = read_own(as_module(load, monkeypatch))
    assert (data.classes, data.labels.tolist()) == (classes, numbers)


def test_numbers_of_classes_stay_those_of_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=VECTORS, y=Y)
    assert set(read_own(str(tmp_path / "a.npz"), classes=["dog", "cat"]).labels[:2]) <= {0, 1}
    assert read_own(str(tmp_path / "a.npz"), classes=["bird", "cat", "dog"]).labels.max() == 2


RANGES = {
    "bytes": (np.array([0, 255]), np.uint8, [0, 255]),
    "integers": (np.array([3, 200]), np.int64, [3, 200]),
    "0 to 1": (np.array([0.0, 1.0]), np.float32, [0, 255]),
    "-1 to 1": (np.array([-1.0, 1.0]), np.float64, [0, 255]),
    "0 to 255": (np.array([0.0, 17.4]), np.float32, [0, 17]),
    "truth": (np.array([False, True]), np.bool_, [0, 255]),
}


@pytest.mark.parametrize(("values", "dtype", "expected"), RANGES.values(), ids=RANGES)
def test_images_become_bytes(values: np.ndarray, dtype: Any, expected: list[int]) -> None:
    array = np.repeat(values, 16).reshape(2, 4, 4).astype(dtype)
    images, _ = as_images(array)
    assert images.dtype == np.uint8
    assert [images[0].max(), images[1].max()] == expected


def test_held_out_images_are_scaled_as_those_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    x, bright = np.linspace(-1, 1, 320).reshape(20, 4, 4), np.full((2, 4, 4), 1.0)
    name = as_module(lambda: (x, Y, bright * 0.5, Y[:2]), monkeypatch)
    assert set(read_own(name, "test").inputs[np.arange(2)].flat) == {191}
    own_sources._call.cache_clear()
    name = as_module(lambda: (x, Y, bright * 200, Y[:2]), monkeypatch)
    with pytest.raises(ValueError, match="from 200 to 200, and those to learn from are from -1 to 1; scale both"):
        read_own(name, "test")
    own_sources._call.cache_clear()
    name = as_module(lambda: (VECTORS, Y, VECTORS[:, :1], Y), monkeypatch)
    with pytest.raises(ValueError, match=re.escape("a sample must be [2], as those to learn from, and is [1]")):
        read_own(name, "test", shape=[2])


FLOATS = np.random.default_rng(0).normal(size=(20, 8, 8)) * 3
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "one class": (lambda: (VECTORS, ["a"] * 20), "it has one class only, 'a'; at least 2 are needed"),
    "other length": (lambda: (VECTORS, Y[:19]), "y has 19 labels, and x has 20 samples"),
    "NaN": (
        lambda: (np.where(VECTORS == 5, np.nan, VECTORS), Y),
        "x holds NaN or infinity in 1 of 20 samples",
    ),
    "NaN in images": (lambda: (np.full((20, 8, 8), np.nan), Y), "x holds NaN or infinity in 20 of 20 samples"),
    "floats outside": (lambda: (FLOATS, Y), "they must be bytes (0 to 255), or floats from 0 to 1 or -1 to 1"),
    "missing label": (lambda: (VECTORS, [None, *Y[1:]]), "y lacks 1 of 20 labels, the first of sample 0"),
    "empty label": (lambda: (VECTORS, [*Y[:-1], " "]), "y lacks 1 of 20 labels, the first of sample 19"),
    "no number": (lambda: (VECTORS, [*range(9), np.nan] * 2), "y lacks 2 of 20 labels, the first of sample 9"),
    "fractions": (lambda: (VECTORS, VECTORS[:, 0] / 3), "y must be classes, text or whole numbers; it holds 0.66"),
    "other sizes": (
        lambda: ([X[0], X[0][1:]], [0, 1]),
        "x holds samples of different sizes: [7, 8, 1], [8, 8, 1]",
    ),
    "all different": (lambda: (VECTORS, np.arange(20)), "it has 20 different labels in 20 samples: these are no"),
    "objects": (lambda: (np.array([{}] * 20), Y), "x must be numbers, got object"),
    "sequences of vectors": (lambda: (np.zeros((20, 3, 2)), Y), "x must be images [N, H, W] or [N, H, W, C], vectors"),
    "no array": (lambda: (3, 4), "x holds 3 where an array [N, ...] is expected"),
    "nothing": (lambda: None, "it must give (x, y), (x_train, y_train, x_test, y_test), a dictionary of these, or"),
    "other names": (lambda: {"a": X}, "it must hold x and y, or x_train, y_train, x_test and y_test; it gives a"),
    "an error": (lambda: 1 // 0, "it raised ZeroDivisionError: integer division or modulo by zero (test_own_data.py:"),
    "unknown held-out class": (lambda: (VECTORS, Y, VECTORS, [*Y[1:], "cow"]), "has the label 'cow', which is none of"),
    "too few": (lambda: (VECTORS[:4], Y[:4]), "it holds 4 samples, too few to hold some out"),
}


@pytest.mark.parametrize(("function", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused_in_one_line(
    function: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_own(as_module(function, monkeypatch))
    assert "\n" not in str(caught.value)


def test_mistakes_in_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([X[0], None], object), y=[0, 1])
    np.savez(tmp_path / "names.npz", a=X)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "one", X, ["a"] * 20)
    write_images(tmp_path / "flat", X, ["."] * 20)
    write_images(tmp_path / "tests" / "test", X, Y)
    for name, message in {
        "objects.npz": "it holds an array of objects, which is a pickle and is not read",
        "names.npz": "it must hold x and y, or x_train, y_train, x_test and y_test; it holds a",
        "broken.npz": "it cannot be read as an npz file",
        "notes.txt": "it is none of what --data takes: a folder of images, an .npz or .parquet file, or mod",
        "nowhere": "it does not exist; --data takes a folder of images",
        "empty": "it holds neither images",
        "one": "it has one class only, 'a'; at least 2 are needed; each class is a folder of its own",
        "flat": "it holds images, but no folders; each class is a folder of its own",
        "tests": "it has a folder test and none for training; call one train",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            read_own(str(tmp_path / name))


def test_a_table_with_text_or_gaps_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"city": ["x"] * 20, "y": Y.tolist()}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="must hold columns of numbers beside y; column city is string"):
        read_own(str(tmp_path / "text.parquet"))
    parquet.write_table(pa.table({"a": [None, *range(19)], "y": Y.tolist()}), tmp_path / "gap.parquet")
    with pytest.raises(ValueError, match="x holds NaN or infinity in 1 of"):
        read_own(str(tmp_path / "gap.parquet"), held_out=0.1)
