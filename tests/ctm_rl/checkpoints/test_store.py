"""Our checkpoints: loading returns what was saved, damage is detected, and none is ever incomplete."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.store import CheckpointError


def example() -> dict[str, Any]:
    """A state with values of all supported types."""
    generator = torch.Generator().manual_seed(3)
    shared = torch.randn(4, 6, generator=generator)
    optimizer_state = {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(5, generator=generator)}, 1: {}}
    return {
        "weights": {"a/b": shared, "transposed": shared.T, "half": shared.to(torch.bfloat16)},
        "a": {"b": torch.zeros(2, dtype=torch.bool)},
        "optimizer": {"state": optimizer_state, "groups": [{"betas": (0.9, 0.999), "params": [0, 1]}]},
        "arrays": [np.arange(5, dtype=np.uint32), np.array(2.5), np.zeros((0, 3), dtype=np.float16)],
        "big-endian": np.arange(4, dtype=">i4"),
        "numbers": {"int": 2**100, "float": 0.1, "nan": float("nan"), "inf": -float("inf"), "numpy": np.int64(4)},
        "other": [None, True, "text", "", {}, [], ()],
        "$odd": {"$tensor": "not a tensor"},
    }


def assert_same(ours: Any, theirs: Any) -> None:
    """Compares nested values, types of arrays and containers too."""
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype.newbyteorder("=") == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            assert_same(value, theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            assert_same(one, two)
    else:
        assert ours == theirs or ours != ours


def test_loading_returns_what_was_saved(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 12, example())
    assert path == tmp_path / "checkpoints" / "iteration-000012"
    assert_same(example(), checkpoint.load(path))


def test_a_half_is_written_in_half_precision_and_read_in_single(tmp_path: Path) -> None:
    numbers = torch.randn(100, 10, generator=torch.Generator().manual_seed(4))
    path = checkpoint.save(tmp_path, 1, {"weights": [checkpoint.Half(numbers), numbers]})
    half, whole = checkpoint.load(path)["weights"]
    assert half.dtype == whole.dtype == torch.float32
    assert torch.equal(half, numbers.half().float())
    assert torch.equal(whole, numbers)
    assert 6000 < (path / checkpoint.TENSORS_FILE).stat().st_size < 6400


def test_a_loaded_state_saves_to_the_same_bytes(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path / "a", 1, example())
    second = checkpoint.save(tmp_path / "b", 1, checkpoint.load(first))
    for name in (checkpoint.STATE_FILE, checkpoint.TENSORS_FILE):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_checkpoint_holds_json_and_safetensors_and_nothing_else(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, example())
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "tensors.safetensors"]
    assert json.loads((path / "state.json").read_text())["version"] == 1


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", np.array(["text"]), {1.5: 2}, torch.float32])
def test_unsupported_values_are_refused_and_leave_no_checkpoint(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 1, {"value": value})
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        checkpoint.latest(tmp_path)


def test_the_newest_is_found_and_the_last_three_are_kept(tmp_path: Path) -> None:
    for iteration in (0, 1, 2, 9, 10, 1_000_000):
        checkpoint.save(tmp_path, iteration, {"iteration": iteration})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "iteration-000009",
        "iteration-000010",
        "iteration-1000000",
    ]
    assert checkpoint.load(checkpoint.latest(tmp_path)) == {"iteration": 1_000_000}
    assert checkpoint.iteration_of(checkpoint.latest(tmp_path)) == 1_000_000


def truncate(path: Path) -> None:
    """Cuts a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Changes the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", [checkpoint.STATE_FILE, checkpoint.TENSORS_FILE])
def test_damage_is_detected_and_the_checkpoint_before_is_loaded(
    tmp_path: Path, name: str, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = checkpoint.save(tmp_path, 1, example())
    broken = checkpoint.save(tmp_path, 2, example())
    damage(broken / name)
    with pytest.raises(CheckpointError, match="iteration-000002 is not usable"):
        checkpoint.load(broken)
    assert checkpoint.latest(tmp_path) == before
    assert "skipped a damaged checkpoint" in caplog.text
    damage(before / name)
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* can be read"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize(
    "head",
    [
        "[]",
        "null",
        '{"format": "something else"}',
        '{"format": "ctm_rl checkpoint", "version": 2}',
        '{"format": "ctm_rl checkpoint", "version": 1}',
        '{"format": "ctm_rl checkpoint", "version": 1, "tensors": 3, "state": NaN, "state_sha256": 1}',
        "[" * 100_000,
    ],
)
def test_any_other_state_file_is_refused(tmp_path: Path, head: str) -> None:
    path = checkpoint.save(tmp_path, 1, example())
    (path / checkpoint.STATE_FILE).write_text(head)
    with pytest.raises(CheckpointError, match="is not usable"):
        checkpoint.load(path)


def test_a_crash_while_saving_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.save(tmp_path, 1, example())

    def crash(*_: object) -> None:
        raise KeyboardInterrupt("the power is gone")  # nothing is cleaned up

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt, match="power"):
            checkpoint.save(tmp_path, 2, example())
    assert checkpoint.latest(tmp_path) == before
    after = checkpoint.save(tmp_path, 2, example())
    assert checkpoint.latest(tmp_path) == after
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {before.name, after.name}


def test_a_failed_write_is_reported_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoint.save(tmp_path, 1, example())

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(checkpoint.CheckpointError, match="iteration-000002 cannot be written: No space left on device"):
        checkpoint.save(tmp_path, 2, example())
    assert list((tmp_path / "checkpoints").iterdir()) == [before]


def test_a_damaged_checkpoint_is_replaced_by_the_same_iteration_again(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 5, example())
    truncate(path / checkpoint.TENSORS_FILE)
    checkpoint.save(tmp_path, 5, example())
    assert_same(example(), checkpoint.load(path))
    assert [item.name for item in (tmp_path / "checkpoints").iterdir()] == ["iteration-000005"]
