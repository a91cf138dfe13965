"""Data from strangers: no program is started, nothing is inflated, nothing hangs, names control no terminal."""

import gzip
import os
import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import image_files as files
import numpy as np
import pyarrow as pa
import pytest
from PIL import EpsImagePlugin, Image
from pyarrow import parquet as pq

from ctm_rl.envs.data import hub
from ctm_rl.envs.data.human_labels import read_human_labels
from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.data.open_dataset import open_images
from ctm_rl.envs.tasks.images import ImagesTask
from ctm_rl.envs.tasks.maze_folder import read_mazes
from ctm_rl.errors import printable

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"
"""Sets a terminal's title, clears it, and turns the direction of writing."""


class Bomb:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('code of a data file was run')",)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Pillow would have given to Ghostscript."""
    calls: list[Any] = []

    def record(*arguments: Any, **_: Any) -> Any:
        calls.append(arguments)
        return Image.new("RGB", (9, 9)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", record)
    return calls


def test_no_image_starts_a_program(started: list[Any], tmp_path: Path) -> None:
    files.write_folder(tmp_path / "folder", "train", files.random_images(2), [0, 1])
    (tmp_path / "folder/train/class_0/000.PNG").write_bytes(EPS)
    files.write_parquet(tmp_path / "parquet/train.parquet", [EPS, files.encode(files.random_images(1)[0])], [0, 1])
    for place in ("folder", "parquet"):
        with pytest.warns(UserWarning, match="is no image in a supported format"):
            files.read_all(open_images("folder", tmp_path / place), [0])
    (tmp_path / "mazes").mkdir()
    (tmp_path / "mazes/1.png").write_bytes(EPS)
    with pytest.raises(ValueError, match=r"1 of the 1 images .* hold no maze .* is no image in a supported format"):
        read_mazes(tmp_path / "mazes", "train", 9, 10)
    assert started == []


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "cifar100"])
def test_pickles_are_never_loaded(dataset: str, tmp_path: Path) -> None:
    names = ("data_batch_1", "train", "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "train.bin", "mnist.npz")
    for name in (*names, *(f"data_batch_{batch}.bin" for batch in range(1, 6)), "train.parquet"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError):
        open_images(dataset, tmp_path)


def test_a_compressed_file_of_digits_is_not_inflated(tmp_path: Path) -> None:
    files.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(2))
    head = bytes([0, 0, 8, 3]) + np.array([2, 28, 28], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(50_000_000), 1))
    claim = bytes([0, 0, 8, 3]) + np.array([1_300_000, 28, 28], ">u4").tobytes()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"should hold \(2, 28, 28\) bytes and holds more"):
            open_images("mnist", tmp_path)
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(claim + bytes(2000)))
        with pytest.raises(ValueError, match=r"claims to hold \(1300000, 28, 28\) bytes, at most 67,108,864 are read"):
            open_images("mnist", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_files_with_holes_are_not_read(tmp_path: Path) -> None:
    for batch in range(1, 6):
        with (tmp_path / f"data_batch_{batch}.bin").open("wb") as file:
            file.truncate(3073 * 1_000_000)
    with pytest.raises(ValueError, match=r"has 5,000,000 images; at most 349,525 are kept in memory"):
        open_images("cifar10", tmp_path)
    with (tmp_path / "people.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": (2, 3), "fortran_order": False, "descr": "<f8"})
        file.truncate(2**40)
    (tmp_path / "people.csv").touch()
    os.truncate(tmp_path / "people.csv", 2**40)
    for name in ("people.npy", "people.csv"):
        with pytest.raises(ValueError, match=r"has 1,099,511,627,776 bytes; at most"):
            read_human_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "kind"), [((10**6, 10**6), "<f8"), ((-2, -3), "<f8"), ((2, 3), "<c16"), ((2, 3), "<U9"), ((2, 3), "|O")]
)
def test_the_header_of_human_labels_is_not_believed(shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "people.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": kind})
        file.write(bytes(48))
    with pytest.raises(ValueError, match=r"people.npy (claims to hold|is not a plain array of numbers)"):
        read_human_labels(path)


@pytest.mark.parametrize("head", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x06\x00((((((", b"\x93NUMPY\x09\x00\x01\x00{"])
def test_damaged_headers_of_human_labels_are_refused(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "people.npy").write_bytes(head)
    with pytest.raises(ValueError, match=r"people.npy is not a plain array of numbers"):
        read_human_labels(tmp_path / "people.npy")
    np.save(tmp_path / "people.npy", np.full((2, 3), 1e308))
    with pytest.raises(ValueError, match="holds numbers that are too large to add up"):
        read_human_labels(tmp_path / "people.npy")


@pytest.mark.timeout(60)
def test_fifos_and_loops_of_links_end_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files.write_folder(tmp_path, "train", files.random_images(3), [0, 1, 1])
    for name in ("train/class_0/0.png", "train/x.png", "data_batch_1.bin", "people.npy", "train-images-idx3-ubyte"):
        os.mkfifo(tmp_path / name)
    for name in "abcdef":  # 6 ** 40 paths
        (tmp_path / "train/class_1" / name).symlink_to(".")
        (tmp_path / name).symlink_to(".")
    for name in ("circle.parquet", "test_batch.bin", "t10k-images-idx3-ubyte"):
        (tmp_path / name).symlink_to(name)
    read = open_images("folder", tmp_path)
    assert "links to folders that are read anyway: 6 (" in caplog.text
    assert read.labels.tolist() == [0, 1, 1]
    files.read_all(read, range(3))
    with pytest.raises(ValueError, match="human labels were looked for in"):
        read_human_labels(tmp_path / "people.npy")
    with pytest.raises(ValueError, match="hold no maze"):
        read_mazes(tmp_path / "train", "train", 9, 10)
    for dataset in ("cifar10", "mnist", "folder"):
        with pytest.raises(ValueError, match=f"no test images of {dataset}"):
            open_images(dataset, tmp_path, "test")


def test_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    width = 89_500_000
    header = b"P5\n%d 1\n255\n" % width
    files.write_folder(tmp_path, "train", files.random_images(2), [0, 0])
    (tmp_path / "train/class_0/000.PNG").write_bytes(header)
    read = open_images("folder", tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        files.read_all(read, [0])
    assert any("has 89500000 x 1 pixels, more than 89,478,485" in str(one.message) for one in caught)


def test_a_thousand_broken_images_in_a_row_end_the_search(tmp_path: Path) -> None:
    files.write_parquet(tmp_path / "train.parquet", [None] * 3000, [0] * 3000, rows=3000)
    read = open_images("folder", tmp_path)
    with (
        pytest.warns(UserWarning, match="image 7 of"),
        pytest.raises(ValueError, match=r"none of 1000 images in a row of .*, from 7 on, can be decoded; the last: "),
    ):
        files.read_all(read, [7])


def escape_in_class(folder: Path) -> None:
    files.write_folder(folder, "train", files.random_images(1), [0])
    files.write_folder(folder, "test", files.random_images(1), [0])
    (folder / "test/class_0").rename(folder / f"test/{ESCAPE}")


def escape_in_broken_file(folder: Path) -> None:
    (folder / f"train/{ESCAPE}").mkdir(parents=True)
    (folder / f"train/{ESCAPE}/{ESCAPE}.png").write_bytes(b"no image")
    (folder / "test").symlink_to("train")


def escape_in_kind(folder: Path) -> None:
    (folder / f"test/{ESCAPE}").mkdir(parents=True)
    Image.fromarray(np.zeros((3, 3), np.float32)).save(folder / f"test/{ESCAPE}/{ESCAPE}.tif")


def escape_in_skipped(folder: Path) -> None:
    (folder / f"test/a/.{ESCAPE}").mkdir(parents=True)
    (folder / f"test/{ESCAPE}").mkdir()
    (folder / "test/a/1.png").write_bytes(b"no image")


def escape_in_listing(folder: Path) -> None:
    (folder / ESCAPE).mkdir()
    (folder / os.fsdecode(b"\xff\xfe.png")).touch()


def escape_in_columns(folder: Path) -> None:
    columns = {f"{ESCAPE}{number}" * 2_000: [number] for number in range(30)}
    pq.write_table(pa.table(columns), folder / f"test-{ESCAPE}.parquet")


def escape_in_damaged(folder: Path) -> None:
    (folder / ESCAPE).mkdir()
    (folder / f"{ESCAPE}/test.parquet").write_bytes(b"PAR1" + ESCAPE.encode() * 9 + b"PAR1")


def escape_in_idx(folder: Path) -> None:
    (folder / ESCAPE).mkdir()
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (folder / ESCAPE / name).write_bytes(b"damaged")


@pytest.mark.parametrize(
    "write",
    [
        *(escape_in_class, escape_in_broken_file, escape_in_kind, escape_in_skipped, escape_in_listing),
        *(escape_in_columns, escape_in_damaged, escape_in_idx),
    ],
)
def test_names_in_data_folders_are_escaped_and_short(
    write: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    for dataset in ("folder", "mnist"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(ValueError) as raised:
                task = ImagesTask(dataset, tmp_path, "test")
                task.sample(np.random.default_rng(0), 1)
        for line in (str(raised.value), *(str(one.message) for one in caught), *caplog.messages):
            assert line.isprintable()
            assert len(line) < 2000


def test_names_of_mazes_are_escaped(tmp_path: Path) -> None:
    for name in (ESCAPE, "no\nmaze"):
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(ValueError) as raised:
        read_mazes(tmp_path, "train", 9, 10)
    assert str(raised.value).isprintable()


def test_a_text_is_printable_and_its_middle_is_left_out() -> None:
    assert printable("déjà vu 日本") == "déjà vu 日本"
    assert printable(f"{ESCAPE}\n\udcff") == r"\x1b]0;owned\x07\x1b[2J\u202e\n\xff"
    assert printable("a" * 50 + "b" * 10**6 + "c" * 50, 40) == "a" * 20 + "..." + "c" * 20


def test_a_data_set_of_the_hub_opens_no_other_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inside, outside = tmp_path / "cache/1.png", tmp_path / "secret/2.png"
    for path in (inside, outside):
        path.parent.mkdir()
        path.write_bytes(files.encode(files.random_images(1)[0]))
    (tmp_path / "cache/3.png").symlink_to(outside)
    paths = [outside, inside, tmp_path / "cache/../secret/2.png", tmp_path / "cache/3.png"]

    class Table:
        features: ClassVar = {"jpg": SimpleNamespace(), "cls": SimpleNamespace()}

        def __getitem__(self, key: str | int) -> Any:
            if isinstance(key, str):
                return ["no", "yes", "no", "yes"]
            return {"jpg": {"bytes": None, "path": str(paths[key])}}

        def select_columns(self, _: list[str]) -> "Table":
            return self

        def cast_column(self, *_: Any) -> "Table":
            return self

    library = SimpleNamespace(
        load_dataset=lambda *_: {"train": Table()},
        Image=lambda **_: None,
        config=SimpleNamespace(HF_DATASETS_CACHE=str(tmp_path / "cache")),
    )
    monkeypatch.setattr(hub.importlib, "import_module", lambda _: library)
    read = open_images("folder", "hf:some/words")
    assert isinstance(read, EncodedImages)
    assert (read.labels.tolist(), read.num_classes) == ([0, 1, 0, 1], 2)
    with pytest.warns(UserWarning, match="lies outside of the data set"):
        files.read_all(read, range(4))
    assert read.num_broken == 3
