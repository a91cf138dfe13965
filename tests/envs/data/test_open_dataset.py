"""Data sets of images: every format returns the images and classes that were written, and reports what is wrong."""

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import image_files as files
import numpy as np
import pytest
from make_mnist_subset import split_digits

from ctm_rl.envs.data import parquet
from ctm_rl.envs.data.human_labels import read_human_labels
from ctm_rl.envs.data.images import ArrayImages, EncodedImages, resize_all
from ctm_rl.envs.data.open_dataset import open_images


def test_the_shipped_digits_are_balanced_and_the_splits_disjoint() -> None:
    train, test = (open_images("mnist", split=split) for split in ("train", "test"))
    assert isinstance(train, ArrayImages)
    assert isinstance(test, ArrayImages)
    assert (train.array.shape, test.array.shape) == ((4000, 28, 28, 1), (1000, 28, 28, 1))
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert not {image.tobytes() for image in train.array} & {image.tobytes() for image in test.array}
    # published mean and standard deviation of MNIST, with which models normalise
    assert train.array.mean() / 255 == pytest.approx(0.1307, abs=0.002)
    assert train.array.std() / 255 == pytest.approx(0.3081, abs=0.002)


def test_digits_are_split_by_class() -> None:
    labels = np.repeat(np.arange(10), 120)
    split = split_digits(np.arange(1200), labels)
    assert np.bincount(split["test_labels"]).tolist() == [100] * 10
    assert sorted([*split["test_pictures"], *split["train_pictures"]]) == list(range(1200))
    assert np.array_equal(labels[split["train_pictures"]], split["train_labels"])


@pytest.mark.parametrize("place", ["", "MNIST/raw"])
@pytest.mark.parametrize(
    "names", ["{}-images-idx3-ubyte {}-labels-idx1-ubyte", "{}-images.idx3-ubyte.gz {}-labels.idx1-ubyte.gz"]
)
def test_idx_files_are_read(place: str, names: str, tmp_path: Path) -> None:
    written = {"train": files.random_images(5, 28, 28, 1), "t10k": files.random_images(3, 28, 28, 1, seed=1)}
    for split, images in written.items():
        image_name, label_name = names.format(split, split).split()
        files.write_idx(tmp_path / place / image_name, images[..., 0])
        files.write_idx(tmp_path / place / label_name, np.arange(len(images)) + 4)
    for split, images in zip(("train", "test"), written.values(), strict=True):
        read = open_images("mnist", tmp_path, split)
        assert np.array_equal(files.read_all(read, range(len(images))), images)
        assert read.labels.tolist() == [4, 5, 6, 7, 8][: len(images)]
        assert read.num_classes == 10


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    files.write_idx(images, np.zeros((5, 28, 28)))
    files.write_idx(labels, np.zeros(4))
    with pytest.raises(ValueError, match=r"has 5 images but 4 classes"):
        open_images("mnist", tmp_path)
    images.write_bytes(images.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"should hold \(5, 28, 28\) bytes and holds 3917 in all"):
        open_images("mnist", tmp_path)
    images.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is not an idx file of bytes with 3 axes"):
        open_images("mnist", tmp_path)
    files.write_idx(images, np.zeros((4, 20, 20)))
    with pytest.raises(ValueError, match="has images of 20 x 20, mnist's are 28 x 28"):
        open_images("mnist", tmp_path)
    images.rename(images.with_suffix(".gz"))
    with pytest.raises(ValueError, match=r"gz cannot be read \(Error -3 .* incorrect header check"):
        open_images("mnist", tmp_path)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin"])
def test_the_binary_version_of_cifar_10_is_read(place: str, tmp_path: Path) -> None:
    written = files.random_images(10)
    for batch in range(5):
        files.write_cifar(
            tmp_path / place / f"data_batch_{batch + 1}.bin", written[2 * batch :][:2], [batch, 9 - batch]
        )
    files.write_cifar(tmp_path / place / "test_batch.bin", written[:3], [7, 8, 9])
    train, test = open_images("cifar10", tmp_path), open_images("cifar10", tmp_path, "test")
    assert np.array_equal(files.read_all(train, range(10)), written)
    assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert np.array_equal(files.read_all(test, [2, 0]), written[[2, 0]])
    assert (test.labels.tolist(), test.num_classes) == ([7, 8, 9], 10)


def test_the_binary_version_of_cifar_100_has_fine_classes(tmp_path: Path) -> None:
    written = files.random_images(2)
    files.write_cifar(tmp_path / "cifar-100-binary/train.bin", written, [3, 4], [97, 98])
    read = open_images("cifar100", tmp_path)
    assert np.array_equal(files.read_all(read, range(2)), written)
    assert (read.labels.tolist(), read.num_classes) == ([97, 98], 100)
    with (tmp_path / "cifar-100-binary/train.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"train.bin holds 6152 bytes, which is not a multiple of 3074"):
        open_images("cifar100", tmp_path)


class Bomb:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('code of a data file was run')",)


@pytest.mark.parametrize(("dataset", "file"), [("cifar10", "cifar-10-batches-py/data_batch_1"), ("cifar100", "train")])
def test_pickled_cifar_is_refused_and_the_alternative_is_named(dataset: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"is a pickle, which is not read because it can run code.*binary\.tar\.gz"):
        open_images(dataset, tmp_path)


def test_folders_are_read_in_order_and_numbered_as_in_train(tmp_path: Path) -> None:
    images = files.random_images(4, 20, 30)
    files.write_folder(tmp_path, "train", images, [2, 0, 1, 0])
    files.write_folder(tmp_path, "val", images[:1], [2])
    (tmp_path / "train/class_0/notes.txt").write_text("no image")
    (tmp_path / "train/.hidden").mkdir()
    train, test = open_images("folder", tmp_path), open_images("imagenet", tmp_path, "test")
    assert train.labels.tolist() == [0, 0, 1, 2]
    assert all(np.array_equal(a, b) for a, b in zip(files.read_all(train, range(4)), images[[1, 3, 2, 0]], strict=True))
    assert (test.labels.tolist(), test.num_classes) == ([2], 3)
    files.write_folder(tmp_path, "val", images[:1], [5])
    with pytest.raises(ValueError, match=r"has a class 'class_5' that .*train does not have"):
        open_images("folder", tmp_path, "test")


def test_imagenet_tests_on_val_and_others_on_test(tmp_path: Path) -> None:
    images = files.random_images(3)
    files.write_folder(tmp_path, "val", images[:1], [0])
    files.write_folder(tmp_path, "test", images[:2], [0, 0])
    assert len(open_images("imagenet", tmp_path, "test")) == 1
    assert len(open_images("folder", tmp_path, "test")) == 2


def test_cifar_and_mnist_are_read_from_folders_too(tmp_path: Path) -> None:
    files.write_folder(tmp_path, "train", files.random_images(2, 40, 50), [0, 1], "JPEG")
    for dataset, shape in {"cifar10": (2, 32, 32, 3), "mnist": (2, 28, 28, 1)}.items():
        read = open_images(dataset, tmp_path)
        assert isinstance(read, ArrayImages)
        assert (read.array.shape, read.num_classes) == (shape, 10)


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "fine_label")])
@pytest.mark.parametrize("layout", ["data/{}-0000{}-of-00002.parquet", "{}/{}.parquet"])
def test_parquet_files_are_read(columns: tuple[str, str], layout: str, tmp_path: Path) -> None:
    images = files.random_images(8, 24, 20)
    encoded: list[bytes | None] = [files.encode(image) for image in images]
    files.write_parquet(tmp_path / layout.format("train", 0), encoded[:3], [5, 0, 1], columns)
    files.write_parquet(tmp_path / layout.format("train", 1), encoded[3:6], [2, 2, 3], columns)
    files.write_parquet(tmp_path / layout.format("validation", 0), encoded[6:], [4, 4], columns)
    train, test = open_images("imagenet", tmp_path), open_images("folder", tmp_path, "test")
    assert train.labels.tolist() == [5, 0, 1, 2, 2, 3]
    order = np.array([4, 0, 5, 2, 3, 1])
    assert all(np.array_equal(a, b) for a, b in zip(files.read_all(train, order), images[order], strict=True))
    # the classes are those of the training split
    assert (test.labels.tolist(), test.num_classes, train.num_classes) == ([4, 4], 6, 6)


def test_few_row_groups_of_a_large_parquet_file_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = files.random_images(6)
    encoded: list[bytes | None] = [files.encode(image) for image in images]
    files.write_parquet(tmp_path / "train.parquet", encoded, [0] * 6)
    monkeypatch.setattr(parquet, "CACHE_BYTES", 5 * len(encoded[0] or b"") + 200)
    rows = parquet._Rows([tmp_path / "train.parquet"])
    assert [rows.image_bytes(index) for index in (0, 2, 0, 4, 5, 1, 3)] == [encoded[i] for i in (0, 2, 0, 4, 5, 1, 3)]
    assert list(rows._cache) == [0, 1]


def test_a_parquet_file_names_its_classes_or_lacks_a_column(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    path = tmp_path / "train.parquet"
    features = '{"info": {"features": {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}}}'
    table = pa.table({"image": [files.encode(files.random_images(1)[0])], "label": [1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), path)
    assert open_images("folder", tmp_path).num_classes == 3
    pq.write_table(table.rename_columns(["image", "kind"]), path)
    with pytest.raises(
        ValueError, match=r"has no column fine_label or .* of integers or words; it has image: binary, kind: "
    ):
        open_images("folder", tmp_path)
    for wrong in (pa.array([None], pa.int64()), pa.array([None], pa.string())):
        pq.write_table(table.set_column(1, "label", wrong), path)
        with pytest.raises(
            ValueError, match=r"column label of .*train.parquet must hold integers or words, none of them"
        ):
            open_images("folder", tmp_path)
    pq.write_table(table.set_column(1, "label", pa.array([-1])), path)
    with pytest.raises(ValueError, match=r"hides its classes \(its labels are -1\); use another split"):
        open_images("imagenet", tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"has a damaged parquet file \(.*\); download it again"):
        open_images("folder", tmp_path)


def test_reading_parquet_without_pyarrow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_parquet(tmp_path / "train.parquet", [b""], [0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install pyarrow"):
        open_images("folder", tmp_path)


def spoil(data: bytes) -> bytes:
    """A file that ends in its middle."""
    return data[: len(data) // 2]


def test_broken_small_images_are_left_out_and_counted(tmp_path: Path) -> None:
    images = files.random_images(4)
    encoded: list[bytes | None] = [files.encode(image) for image in images]
    encoded[1:3] = [spoil(encoded[1] or b""), None]
    files.write_parquet(tmp_path / "train.parquet", encoded, [0, 1, 2, 3])
    with pytest.warns(UserWarning, match=r"2 of the 4 images of .*train.parquet\) cannot be decoded: left out"):
        read = open_images("cifar10", tmp_path)
    assert read.labels.tolist() == [0, 3]
    assert np.array_equal(files.read_all(read, range(2)), images[[0, 3]])


def test_a_broken_image_is_replaced_by_the_next_good_one_and_reported_once(tmp_path: Path) -> None:
    images = files.random_images(5)
    files.write_folder(tmp_path, "train", images, [0, 1, 2, 3, 4])
    for number in (1, 2, 4):
        path = tmp_path / f"train/class_{number}/00{number}.PNG"
        path.write_bytes(spoil(path.read_bytes()))
    read = open_images("folder", tmp_path)
    assert isinstance(read, EncodedImages)
    with pytest.warns(UserWarning, match=r"image 1 of .*train cannot be decoded and is replaced") as warned:
        shown = files.read_all(read, range(5))
    assert len(warned) == 1
    assert all(np.array_equal(a, images[b]) for a, b in zip(shown, [0, 3, 3, 3, 0], strict=True))
    assert read.num_broken == 3
    again = files.read_all(read, [2])  # silently, since warnings are errors here
    assert np.array_equal(again[0], images[3])


def test_a_data_set_of_broken_images_is_refused(tmp_path: Path) -> None:
    files.write_parquet(tmp_path / "train.parquet", [b"", None], [0, 1])
    with pytest.raises(ValueError, match="none of the 2 images of"):
        open_images("cifar10", tmp_path)
    read = open_images("folder", tmp_path)
    with (
        pytest.warns(UserWarning, match="image 1 of"),
        pytest.raises(ValueError, match="none of the 2 images of"),
    ):
        files.read_all(read, [1])


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "cifar100", "imagenet", "folder"])
def test_a_missing_data_set_is_reported_in_one_line(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"^{dataset} was looked for in .*/nowhere, which is not a folder: \w+"
    ) as raised:
        open_images(dataset, tmp_path / "nowhere")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=rf"^no test images of {dataset} in .*; looked for .*parquet: \w+") as raised:
        open_images(dataset, tmp_path, "test")
    assert "\n" not in str(raised.value)


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset must be one of mnist, .*, folder, got 'minst'"):
        open_images("minst")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        open_images("mnist", split="val")
    with pytest.raises(ValueError, match="dataset cifar10 needs a path: get cifar-10-binary"):
        open_images("cifar10")
    files.write_folder(tmp_path, "train", files.random_images(1), [0])
    with pytest.raises(ValueError, match=r"no test images of folder in .*looked for a folder test or val or"):
        open_images("folder", tmp_path, "test")


def test_class_folders_without_images_and_too_many_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train/cats").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"the class folders in .*train hold no images \(\.jpg"):
        open_images("folder", tmp_path)
    files.write_folder(tmp_path, "train", files.random_images(10), list(range(10)))
    assert open_images("cifar10", tmp_path).labels.tolist() == list(range(10))
    files.write_folder(tmp_path, "train", files.random_images(1), [10])
    with pytest.raises(ValueError, match="train has class 10, but classes go from 0 to 9"):
        open_images("cifar10", tmp_path)


class FakeTable:
    """The part of a table of the library ``datasets`` that is used."""

    def __init__(self, columns: dict[str, list[Any]], num_classes: int) -> None:
        self.columns = columns
        self.features = {name: SimpleNamespace(num_classes=num_classes) for name in columns}

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}

    def select_columns(self, names: list[str]) -> "FakeTable":
        return FakeTable({name: self.columns[name] for name in names}, 0)

    def cast_column(self, name: str, kind: Any) -> "FakeTable":
        assert kind == {"decode": False}
        assert list(self.columns) == [name]
        return self


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> np.ndarray:
    """Replaces the library ``datasets``; returns the images of the data set ``some/set``."""
    images = files.random_images(2)
    (tmp_path / "1.png").write_bytes(files.encode(images[1]))
    shown = [{"bytes": files.encode(images[0]), "path": None}, {"bytes": None, "path": str(tmp_path / "1.png")}]

    def load_dataset(name: str, configuration: str | None) -> dict[str, FakeTable]:
        if (name, configuration) != ("some/set", "small"):
            raise RuntimeError(f"no data set\n{name}.")
        return {"train": FakeTable({"img": shown, "label": [1, 0]}, 7), "validation": FakeTable({"text": ["a"]}, 0)}

    library = ModuleType("datasets")
    library.__dict__.update(load_dataset=load_dataset, Image=lambda **arguments: arguments)
    library.__dict__["config"] = SimpleNamespace(HF_DATASETS_CACHE=str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", library)
    return images


def test_a_data_set_of_the_hub_is_read(hub: np.ndarray) -> None:
    read = open_images("folder", "hf:some/set:small")
    assert all(np.array_equal(a, b) for a, b in zip(files.read_all(read, range(2)), hub, strict=True))
    assert (read.labels.tolist(), read.num_classes) == ([1, 0], 7)


def test_what_is_missing_in_the_hub_is_reported(hub: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^hf:other cannot be loaded: no data set other\. Look for its name"):
        open_images("folder", "hf:other")
    with pytest.raises(
        ValueError,
        match=r"hf:some/set:small \(validation\) has no column image or img .*; it has text: SimpleNamespace",
    ):
        open_images("folder", "hf:some/set:small", "test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs Hugging Face's library: pip install 'ctm-rl\[datasets\]'"):
        open_images("folder", "hf:some/set")


def test_resizing_keeps_flat_images_flat() -> None:
    flat = np.full((2, 28, 28, 1), 77, np.uint8)
    assert np.array_equal(resize_all(flat, 32), np.full((2, 32, 32, 1), 77))
    assert resize_all(flat, 28) is flat
    ramp = np.broadcast_to(np.arange(0, 200, 25, dtype=np.uint8)[None, None, :, None], (1, 8, 8, 3))
    wider = resize_all(ramp, 16)
    assert np.array_equal(wider[0, :, 1:-1], np.broadcast_to(wider[0, :1, 1:-1], (16, 14, 3)))
    # twice as fine: between the middles of two pixels a quarter and three quarters of the step
    assert wider[0, 0, 1:5, 0].tolist() == [6, 19, 31, 44]


@pytest.mark.parametrize("name", ["people.npy", "people.csv", "named.csv"])
def test_human_labels_become_shares(name: str, tmp_path: Path) -> None:
    counts = np.array([[4, 0, 0], [1, 2, 1]])
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, counts)
    else:
        np.savetxt(path, counts, fmt="%d", delimiter=",", header="a,b,c" if name == "named.csv" else "", comments="")
    assert read_human_labels(path).tolist() == [[1, 0, 0], [0.25, 0.5, 0.25]]


def test_wrong_human_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.npy"
    with pytest.raises(ValueError, match="human labels were looked for in"):
        read_human_labels(path)
    with pytest.raises(ValueError, match=r"read from \.npy and \.csv files, got"):
        read_human_labels(tmp_path / "people.txt")
    np.save(path, np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a plain array of numbers \(pickles are not read\)"):
        read_human_labels(path)
    for wrong, message in {
        "1": "must hold a row per image and a column per class, got shape",
        "1 2; 0 0": "row 1 of .* sums to 0",
        "1 -2; 0 1": "must hold counts or shares, finite and at least 0",
        "1 nan; 0 1": "must hold counts or shares, finite and at least 0",
    }.items():
        np.save(path, np.array([[float(cell) for cell in row.split()] for row in wrong.split(";")]))
        with pytest.raises(ValueError, match=message):
            read_human_labels(path)
    (tmp_path / "people.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match="must hold rows of equally many numbers"):
        read_human_labels(tmp_path / "people.csv")
