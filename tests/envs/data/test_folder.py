"""What lies in data folders besides images of classes, and where the folders are."""

import gzip
import os
import re
from pathlib import Path

import image_files as files
import numpy as np
import pytest

from ctm_rl.envs.data.folder import find_files
from ctm_rl.envs.data.open_dataset import open_images


def put(folder: Path, *names: str) -> None:
    """Writes an image under each name."""
    image = files.encode(files.random_images(1, 6, 6)[0])
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)


def test_folders_of_systems_editors_and_archives_and_empty_ones_are_no_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "train", "owl/1.png", "owl/deep/2.png", "yak/3.png")
    strangers = (
        "__MACOSX/owl/._1.png",
        "@eaDir/1.png",
        ".ipynb_checkpoints/1.png",
        "lost+found/x.png",
        "$RECYCLE.BIN/9.png",
    )
    put(tmp_path / "train", *strangers, "owl/.ipynb_checkpoints/1-checkpoint.png", "yak/._3.png")
    (tmp_path / "train/emu/inside").mkdir(parents=True)
    (tmp_path / "train/emu/Thumbs.db").write_text("")
    for _ in range(2):
        read = open_images("folder", tmp_path)
        assert (read.labels.tolist(), read.num_classes) == ([0, 0, 1], 2)
    (line,) = caplog.messages
    assert "hidden or system folders: 6 (" in line
    assert "folders without images: 1 (emu)" in line


def test_a_class_without_an_image_in_a_split_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, *(f"train/{name}/1.png" for name in ("ant", "bee", "cow", "doe", "eft")), "test/bee/1.png")
    (tmp_path / "test/cow").mkdir()
    read = open_images("folder", tmp_path, "test")
    assert (read.labels.tolist(), read.num_classes) == ([1], 5)
    assert "no images of 4 of the 5 classes: ant, cow, doe and 1 more" in caplog.messages[-1]


def test_each_image_is_counted_once_whatever_links_lead_to_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "train/b/sub/3.png", "pool/d/4.png", "test/a/5.png")
    links = {
        "a/top": "../..",
        "a/self": ".",
        "a/other": "../b/sub",
        "b/up": "..",
        "c": "a",
        "loop": "..",
        "d": "../pool/d",
    }
    for name, target in links.items():
        (tmp_path / "train" / name).symlink_to(target)
    (tmp_path / "train/b/round.png").symlink_to("round.png")
    read = open_images("folder", tmp_path)
    assert re.search(r"links to folders that are read anyway: 6 .* no regular files: 1 \(round", caplog.text)
    assert (read.labels.tolist(), read.num_classes) == ([0, 1, 1, 2], 3)  # d is outside of train, and read


def test_a_link_as_split_and_links_to_files_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "data/a/1.png", "data/b/2.png")
    (tmp_path / "data/b/again.png").symlink_to("2.png")  # an image may be repeated on purpose
    for split in ("train", "test"):
        (tmp_path / split).symlink_to("data")
        assert open_images("folder", tmp_path, split).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "place", ["archive/train", "data/imagenette2/train", "Train", "TRAINING", "train/train", "set/Training/training"]
)
def test_usual_layouts_are_found_and_reported(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / place, "cat/1.png", "dog/1.png", "dog/2.png")
    folder = tmp_path / "data" if place.startswith("data") else tmp_path
    read = open_images("folder", folder)
    is_reported = f"the train images of folder were found in {tmp_path}/{place}." in caplog.messages
    assert is_reported == place.startswith(("archive", "data", "set"))
    assert (read.labels.tolist(), read.num_classes) == ([0, 1, 1], 2)


def test_the_folder_of_a_split_itself_is_understood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/dog/1.png")
    for split, labels in (("train", [0, 1]), ("test", [1])):
        assert open_images("folder", tmp_path / "train", split).labels.tolist() == labels
        assert f"the {split} images of folder were found in {tmp_path}/{split}." in caplog.messages


def test_own_formats_are_found_one_level_down_and_several_sets_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (("FashionMNIST", 3), ("KMNIST", 4)):
        files.write_idx(tmp_path / name / "raw/train-images-idx3-ubyte.gz", np.full((2, 28, 28), value))
        files.write_idx(tmp_path / name / "raw/train-labels-idx1-ubyte.gz", np.array([value, 1]))
        if name == "FashionMNIST":
            assert open_images("mnist", tmp_path).labels.tolist() == [3, 1]
            assert f"the train images of mnist were found in {tmp_path}/FashionMNIST/raw/train-images" in caplog.text
    with pytest.raises(ValueError, match=r"holds 2 data sets, name one of them: FashionMNIST, KMNIST\."):
        open_images("mnist", tmp_path)


def test_the_message_for_a_missing_split_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png", "notes.png")
    with pytest.raises(
        ValueError, match=r"^no train images of folder in .*, which holds cat/, dog/, notes.png; looked for"
    ):
        open_images("folder", tmp_path)


def test_fifos_and_links_to_nothing_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png")
    os.mkfifo(tmp_path / "train/a/0.png")
    (tmp_path / "train/b/3.png").symlink_to("nowhere.png")
    (tmp_path / "train/b/4.png").symlink_to("/dev/zero")
    read = open_images("folder", tmp_path)
    assert "entries that are no regular files: 3 (" in caplog.text
    assert len(files.read_all(read, range(2))) == 2
    os.mkfifo(tmp_path / "train.parquet")
    assert find_files(tmp_path, (".parquet",)) == []


def test_an_idx_file_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    files.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(3))
    image = bytes([0, 0, 8, 3]) + np.array([3, 28, 28], ">u4").tobytes() + bytes(3 * 28 * 28 + 1)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(image))
    with pytest.raises(ValueError, match=r"should hold \(3, 28, 28\) bytes and holds more in all"):
        open_images("mnist", tmp_path)
    whole = gzip.compress(image[:-1])
    for end in (0, 5, 2**33):  # cut off in the checksum; followed by a hole
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) - end] if end < 9 else whole)
        if end > 9:
            os.truncate(tmp_path / "train-images-idx3-ubyte.gz", end)
        if end == 5:
            with pytest.raises(ValueError, match=r"cannot be read \(it ends too early\); download it again"):
                open_images("mnist", tmp_path)
        else:
            assert open_images("mnist", tmp_path).labels.tolist() == [0, 1, 2]
