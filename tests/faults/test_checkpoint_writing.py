"""Writing a checkpoint: what cannot be removed is a warning, and a full disk costs superseded checkpoints first."""

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from small_disk import fill

from ctm_rl.agents.run_directory.storage import Storage
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.store import CheckpointError


def state(iteration: int, size: int = 100) -> dict[str, object]:
    """A state of a few hundred bytes, or of more."""
    return {"iteration": iteration, "weights": torch.full((size,), float(iteration))}


def iterations(run_dir: Path) -> list[int]:
    """The iterations of a run's checkpoints, which are all whole."""
    paths = sorted((run_dir / "checkpoints").iterdir())
    return [checkpoint.load(path)["iteration"] for path in paths]


def test_an_old_checkpoint_that_is_a_link_is_removed_and_its_target_stays(tmp_path: Path) -> None:
    kept = checkpoint.save(tmp_path / "elsewhere", 1, state(1))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / kept.name).symlink_to(kept)
    for iteration in (2, 3, 4):
        checkpoint.save(tmp_path, iteration, state(iteration))
    assert iterations(tmp_path) == [2, 3, 4]
    assert checkpoint.load(kept)["iteration"] == 1


@pytest.mark.parametrize("name", ["rmtree", "replace"])
def test_a_checkpoint_is_saved_although_an_old_one_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    for iteration in (1, 2, 3):
        checkpoint.save(tmp_path, iteration, state(iteration))
    replace = os.replace

    def refuse(path: Path, target: Path | None = None) -> None:
        if target is not None and not str(target.name).startswith(".partial-old"):
            replace(path, target)
        else:
            raise OSError(39, "Directory not empty")  # as on NFS, while another process reads a file in it

    with monkeypatch.context() as patch:
        patch.setattr(*{"rmtree": (shutil, "rmtree", refuse), "replace": (os, "replace", refuse)}[name])
        for iteration in (4, 5, 6):
            path = checkpoint.save(tmp_path, iteration, state(iteration))
            assert checkpoint.latest(tmp_path) == path
            assert checkpoint.load(path)["iteration"] == iteration
    assert all("cannot be removed: Directory not empty" in record.message for record in caplog.records)
    assert len({record.message.partition("iteration-")[2][:6] for record in caplog.records}) == len(caplog.records) == 3
    checkpoint.save(tmp_path, 7, state(7))
    assert iterations(tmp_path) == [5, 6, 7]


def test_links_with_the_names_of_unfinished_checkpoints_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "tensors.safetensors").write_text("precious")
    (tmp_path / "checkpoints").mkdir()
    for name in (".partial-iteration-000001", ".partial-old-iteration-000001"):
        (tmp_path / "checkpoints" / name).symlink_to(precious)
    checkpoint.save(tmp_path, 1, state(1))
    assert iterations(tmp_path) == [1]
    assert (precious / "tensors.safetensors").read_text() == "precious"


def test_an_unsupported_state_writes_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 1, {"value": object()})
    assert list(tmp_path.iterdir()) == []


SIZE = 2**18
"""Numbers of a checkpoint of 1 MiB: three fit on a disk of 4 MiB, and a fourth does not."""


def test_superseded_checkpoints_make_room_on_a_full_disk(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    for iteration in (1, 2, 3):
        checkpoint.save(disk, iteration, state(iteration, SIZE))
    fill(disk)
    with caplog.at_level(logging.WARNING):
        for iteration in (4, 5, 6):
            path = checkpoint.save(disk, iteration, state(iteration, SIZE))
            assert checkpoint.load(path)["iteration"] == iteration
    assert iterations(disk)[-1] == 6
    assert caplog.text == ""


def test_the_newest_whole_checkpoint_is_never_removed_for_one_that_does_not_fit(disk: Path) -> None:
    for iteration in (1, 2, 3):
        checkpoint.save(disk, iteration, state(iteration, SIZE))
    broken = disk / "checkpoints" / "iteration-000003" / "tensors.safetensors"
    os.truncate(broken, broken.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=r"iteration-000004 cannot be written: .*No space left on device"):
        checkpoint.save(disk, 4, state(4, 4 * SIZE))
    assert iterations(disk) == [2]
    checkpoint.save(disk, 4, state(4, SIZE))
    assert iterations(disk) == [2, 4]


def test_a_full_disk_with_one_checkpoint_keeps_it(disk: Path) -> None:
    checkpoint.save(disk, 1, state(1, SIZE))
    fill(disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save(disk, 2, state(2, SIZE))
    assert iterations(disk) == [1]


# --- copies in a storage ---


def stored(storage: Storage) -> list[str]:
    """The iterations of the complete checkpoints of a storage, newest first."""
    return [name.removeprefix("iteration-00000") for name in storage._list_complete()]


def test_superseded_copies_make_room_in_a_storage(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    storage = Storage(str(disk), "a")
    for iteration in (1, 2, 3):
        storage.put(run_dir, checkpoint.save(run_dir, iteration, state(iteration, SIZE)))
    fill(disk)
    storage.put(run_dir, checkpoint.save(run_dir, 4, state(4, SIZE)))
    assert stored(storage) == ["4", "3"]
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        storage.put(run_dir, checkpoint.save(run_dir, 5, state(5, 4 * SIZE)))
    assert stored(storage) == ["4"]


def test_a_copy_that_cannot_be_removed_from_a_storage_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(str(tmp_path / "store"), "a")
    storage.prepare(is_new=True)
    list_names = Storage._list

    def refuse(self: Storage, folder: str) -> list[str]:
        if folder.endswith("iteration-000001"):
            raise PermissionError(13, "Permission denied")
        return list_names(self, folder)

    monkeypatch.setattr(Storage, "_list", refuse)
    for iteration in range(1, 7):
        storage.put(tmp_path, checkpoint.save(tmp_path, iteration, state(iteration)))
    assert caplog.text.count("iteration-000001 cannot be removed: Permission denied.") == 1
    assert sorted(path.name[-1] for path in (tmp_path / "store/a/checkpoints").iterdir()) == ["1", "4", "5", "6"]


def test_links_that_somebody_has_prepared_in_a_shared_storage_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "store" / "a").mkdir(parents=True)
    for name in (".partial-a", "a/.partial-config.json", "a/.partial-metrics.jsonl"):
        (tmp_path / "store" / name).symlink_to(precious)
    run_dir = tmp_path / "a"
    path = checkpoint.save(run_dir, 1, state(1))
    (run_dir / "config.json").write_text("{}")
    storage = Storage(str(tmp_path / "store"), "a")
    storage.prepare(is_new=False)
    storage.put(run_dir, path)
    assert precious.read_text() == "precious"
    assert (tmp_path / "store/a/config.json").read_text() == "{}"
