"""The best checkpoint of a run: always whole, named by best.json; and checkpoints by their names."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from ctm_rl.checkpoints import best as best_module
from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import Best, find, folder_of, read_best, save_best
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.errors import UserError


def save(run: Path, iteration: int, value: float) -> Path:
    """A best checkpoint that holds its value."""
    state = {"weights": torch.full((3,), value)}
    return save_best(run, state, iteration=iteration, metric="eval_return_mean", value=value)


def value_in(run: Path) -> float:
    """What the weights of the best checkpoint are."""
    best = read_best(run)
    assert best is not None
    assert best.value == store.load(best.path)["weights"][0]
    return best.value


def test_a_better_checkpoint_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None
    save(tmp_path, 10, 1.5)
    path = save(tmp_path, 30, 2.5)
    assert read_best(tmp_path) == Best(30, "eval_return_mean", 2.5, path)
    assert sorted(os.listdir(folder_of(tmp_path))) == ["best.json", "iteration-000030"]
    assert json.loads((folder_of(tmp_path) / "best.json").read_text())["value"] == 2.5
    # An iteration that is trained again, after resuming.
    assert store.iteration_of(save(tmp_path, 30, 3.5)) == 30
    assert value_in(tmp_path) == 3.5
    assert len(os.listdir(folder_of(tmp_path))) == 2


@pytest.mark.parametrize("number", range(9))
def test_whenever_a_process_is_killed_the_best_is_whole(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the first, second, ... of the calls that change directories."""
    save(tmp_path, 1, 1.0)
    calls = []

    def counted(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            calls.append(name)
            if len(calls) == number + 1:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("replace", "fsync"):
        counted(name)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1, 2.0)
    monkeypatch.undo()
    assert value_in(tmp_path) in (1.0, 2.0)
    save(tmp_path, 3, 3.0)
    assert value_in(tmp_path) == 3.0


def test_what_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 1.0)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(best_module, "_replace", refuse)
    with pytest.raises(CheckpointError, match=r"best.json cannot be written: No space left on device"):
        save(tmp_path, 2, 2.0)
    assert value_in(tmp_path) == 1.0
    assert sorted(os.listdir(folder_of(tmp_path))) == ["best.json", "iteration-000001"]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"iteration": 1, "metric": "a", "value": 1.0}',
        '{"iteration": 1, "metric": "a", "value": NaN, "checkpoint": "iteration-000001"}',
        '{"iteration": 1, "metric": "a", "value": 1.0, "checkpoint": "../../other"}',
        '{"iteration": 1, "metric": "a", "value": 1.0, "checkpoint": "iteration-000007"}',
        '{"iteration": "1", "metric": "a", "value": 1.0, "checkpoint": "iteration-000001"}',
    ],
)
def test_a_damaged_best_json_is_refused(tmp_path: Path, content: str) -> None:
    save(tmp_path, 1, 1.0)
    (folder_of(tmp_path) / "best.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"best.json (cannot be read|names the checkpoint)"):
        read_best(tmp_path)


def test_a_checkpoint_is_found_by_its_name(tmp_path: Path) -> None:
    for iteration in (3, 4, 5):
        store.save(tmp_path, iteration, {"iteration": iteration}, num_kept=2)
    with pytest.raises(UserError, match=r"has no best checkpoint: there is one after an evaluation \(--eval.every\)"):
        find(tmp_path, "best")
    path = save(tmp_path, 3, 1.0)
    assert find(tmp_path) == find(tmp_path, "last") == tmp_path
    assert find(tmp_path, "best") == find(tmp_path, 3) == find(folder_of(tmp_path)) == path
    assert find(tmp_path, "4") == find(tmp_path, 4) == store.path_of(tmp_path, 4)
    with pytest.raises(UserError, match=re.escape("no checkpoint of iteration 7; kept are 4, 5, and the best one is")):
        find(tmp_path, 7)
    with pytest.raises(UserError, match="must be best, last or the number of an iteration, got 'newest'"):
        find(tmp_path, "newest")
    with pytest.raises(UserError, match="is one checkpoint; name the run's directory"):
        find(path, "best")


def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path: Path) -> None:
    for num_kept, expected in ((None, [1, 2, 3, 4, 5]), (1, [6])):
        for iteration in range(1, 6) if num_kept is None else (6,):
            store.save(tmp_path, iteration, {}, num_kept)
        assert sorted(store.iterations_of(tmp_path)) == expected
