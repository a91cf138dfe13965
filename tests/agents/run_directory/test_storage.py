"""A run's storage: its checkpoints are complete, a run can be resumed from it, and training continues without it."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from tiny_runs import budget, comparable, train

from ctm_rl.agents.experiments.serialise import to_json
from ctm_rl.agents.run_directory import storage as storage_module
from ctm_rl.agents.run_directory.directory import read_config, write_config
from ctm_rl.agents.run_directory.storage import Storage, find_run, join
from ctm_rl.agents.run_directory.upload import Uploader
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.best import read_best, save_best
from ctm_rl.cli.main import main
from ctm_rl.configs import load
from ctm_rl.errors import UserError

SECONDS = 30.0


@pytest.fixture
def run_dir(place: Path) -> Path:
    """A run that has not learned anything yet."""
    run_dir = place / "a"
    run_dir.mkdir()
    write_config(run_dir, to_json(load("cartpole")))
    return run_dir


def save(run_dir: Path, iteration: int) -> Path:
    """A checkpoint that holds its iteration."""
    return checkpoint.save(run_dir, iteration, {"iteration": iteration, "weights": torch.full((5,), float(iteration))})


def empty_memory() -> None:
    """Removes what other tests have put into fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def names(folder: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, place: Path) -> str:
    """A storage of every kind that can be had on one machine."""
    empty_memory()
    return {"path": str(place / "store"), "file": f"file://{place}/store", "memory": "memory://bucket/store"}[
        request.param
    ]


def test_the_newest_checkpoints_are_uploaded_and_fetched_again(run_dir: Path, url: str) -> None:
    storage = Storage(url, "a")
    storage.prepare(is_new=True)
    for iteration in (1, 2, 30, 4):
        (run_dir / "metrics.jsonl").write_text(f"{iteration}\n")
        (run_dir / "made-with.json").write_text(f"{iteration}")
        storage.put(run_dir, save(run_dir, iteration))
    assert sorted(storage._list("")) == ["checkpoints", "config.json", "made-with.json", "metrics.jsonl"]
    kept = [f"iteration-{iteration:06d}" for iteration in (2, 4, 30)]
    assert sorted(storage._list("checkpoints")) == kept
    storage.fetch(run_dir.with_name("b"))
    fetched = run_dir.with_name("b")
    assert names(fetched) == [".lock", "checkpoints", "config.json", "made-with.json", "metrics.jsonl"]
    assert (fetched / "made-with.json").read_text() == "4"
    assert checkpoint.load(checkpoint.latest(fetched))["iteration"] == 30
    assert (fetched / "metrics.jsonl").read_text() == "4\n"
    assert read_config(fetched) == read_config(run_dir)
    with pytest.raises(UserError, match="already has a run a; name another --run-dir"):
        storage.prepare(is_new=True)


def test_the_best_checkpoint_is_uploaded_once_and_fetched(
    run_dir: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(url, "a", num_kept=1)
    storage.prepare(is_new=True)
    written: list[str] = []
    write = Storage._write
    monkeypatch.setattr(Storage, "_write", lambda self, source, name: (written.append(name), write(self, source, name)))
    for iteration, value in ((1, 1.0), (2, 1.0), (3, 2.0)):
        if iteration != 2:
            state = {"policy": {"weights": {"a": torch.full((2,), value)}}}
            save_best(run_dir, state, iteration=iteration, metric="eval_return_mean", value=value)
        storage.put(run_dir, save(run_dir, iteration))
    assert written.count("checkpoints/best/best.json") == 2
    assert written.index("checkpoints/best/best.json") > written.index("checkpoints/best/iteration-000001/state.json")
    assert sorted(storage._list("checkpoints/best")) == ["best.json", "iteration-000003"]
    assert sorted(storage._list("checkpoints")) == ["best", "iteration-000003"]
    storage.fetch(run_dir.with_name("b"))
    best = read_best(run_dir.with_name("b"))
    assert best is not None
    assert (best.iteration, best.value) == (3, 2.0)
    assert checkpoint.load(best.path)["policy"]["weights"]["a"].tolist() == [2.0, 2.0]


def test_a_best_checkpoint_that_is_not_whole_is_left_in_the_storage(run_dir: Path, place: Path) -> None:
    storage = Storage(str(place / "store"), "a")
    storage.prepare(is_new=True)
    save_best(run_dir, {"weights": torch.ones(3)}, iteration=1, metric="accuracy", value=0.5)
    storage.put(run_dir, save(run_dir, 1))
    tensors = place / "store/a/checkpoints/best/iteration-000001/tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    storage.fetch(place / "b")
    assert names(place / "b" / "checkpoints") == ["iteration-000001"]


def stop_at(name: str, write: Callable[..., None]) -> Callable[..., None]:
    """Writing that breaks off at a file."""

    def broken(storage: Storage, source: Path, target: str) -> None:
        if target.endswith(name):
            raise OSError("the line is dead")
        write(storage, source, target)

    return broken


@pytest.mark.parametrize("name", [checkpoint.TENSORS_FILE, checkpoint.STATE_FILE])
def test_a_partly_uploaded_checkpoint_is_not_visible(
    run_dir: Path, url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(url, "a")
    storage.prepare(is_new=True)
    storage.put(run_dir, save(run_dir, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_write", stop_at(name, Storage._write))
        with pytest.raises(OSError, match="the line is dead"):
            storage.put(run_dir, save(run_dir, 2))
    assert storage._list_complete() == ["iteration-000001"]
    storage.fetch(run_dir.with_name("b"))
    assert names(run_dir.with_name("b") / "checkpoints") == ["iteration-000001"]
    storage.put(run_dir, checkpoint.latest(run_dir))
    storage.fetch(run_dir.with_name("c"))
    assert names(run_dir.with_name("c") / "checkpoints") == ["iteration-000002"]


def test_a_damaged_checkpoint_is_skipped_and_if_all_are_nothing_is_left(run_dir: Path, place: Path) -> None:
    storage = Storage(str(place / "store"), "a")
    storage.prepare(is_new=True)
    for iteration in (1, 2):
        storage.put(run_dir, save(run_dir, iteration))
    tensors = [place / f"store/a/checkpoints/iteration-00000{iteration}/tensors.safetensors" for iteration in (1, 2)]
    tensors[1].write_bytes(tensors[1].read_bytes()[:-1] + b"x")
    storage.fetch(place / "b")
    assert names(place / "b" / "checkpoints") == ["iteration-000001"]
    tensors[0].write_bytes(b"")
    with pytest.raises(UserError, match=r"tensors.safetensors has 0 bytes"):
        storage.fetch(place / "new" / "c")
    assert not (place / "new").exists()


def test_an_outage_is_reported_once_and_ends_with_the_next_checkpoint(run_dir: Path, place: Path) -> None:
    storage = Storage(str(place / "store"), "a")
    storage.prepare(is_new=True)
    uploader = Uploader(storage, run_dir)

    def put(iteration: int) -> list[str]:
        uploader.put(save(run_dir, iteration))
        assert uploader.wait(SECONDS)
        return uploader.pop_messages()

    assert put(1) == []
    (place / "store").rename(place / "away")
    (line,) = put(2)
    assert line == (
        f"storage {place}/store/a is out of reach ({place}/store is gone); training continues, and the next checkpoint "
        "will be tried again."
    )
    assert put(3) == []
    assert not (place / "store").exists()
    (place / "away").rename(place / "store")
    assert put(4) == [f"storage {place}/store/a can be reached again, and has the newest checkpoint."]
    assert names(place / "store/a/checkpoints") == ["iteration-000001", "iteration-000004"]
    uploader.close()
    assert uploader.pop_messages() == []


def test_training_does_not_wait_for_a_slow_storage_which_receives_the_newest(
    run_dir: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(place / "store"), "a")
    begun, may_go_on = threading.Event(), threading.Event()
    taken: list[str] = []

    def put(run_dir: Path, path: Path) -> None:
        taken.append(path.name)
        begun.set()
        assert may_go_on.wait(SECONDS)

    monkeypatch.setattr(storage, "put", put)
    uploader = Uploader(storage, run_dir)
    uploader.put(save(run_dir, 1))
    assert begun.wait(SECONDS)
    for iteration in (2, 3, 4, 5):
        uploader.put(save(run_dir, iteration))
    assert not uploader.wait(0.01)
    may_go_on.set()
    assert uploader.wait(SECONDS)
    assert taken == ["iteration-000001", "iteration-000005"]
    uploader.put(save(run_dir, 6))
    uploader.close()


def test_a_storage_that_does_not_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "ANSWER_SECONDS", 0.1)
    with pytest.raises(UserError, match=r"storage s3://a cannot be used: no answer within 0.1 s\."):
        storage_module.with_timeout("s3://a", lambda: threading.Event().wait(SECONDS))


@pytest.mark.parametrize(
    ("url", "joined"),
    [
        ("/runs", "/runs/a"),
        ("file:///runs", "file:///runs/a"),
        ("s3://bucket", "s3://bucket/a"),
        ("s3://bucket/runs/?region=x", "s3://bucket/runs/a?region=x"),
    ],
)
def test_a_run_in_a_storage_is_named_by_path_or_url(url: str, joined: str) -> None:
    assert join(url, "a") == joined
    if "://" in url:
        assert join(storage_module._divide(joined)[0], "a") == joined


@pytest.mark.usefixtures("ray_session")
def test_a_run_whose_directory_is_deleted_continues_from_its_storage(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("cartpole", "--storage", "store", iterations=2, run_dir="a") == 0
    assert main(["resume", "a", "--budget.env-steps", budget(3)]) == 0
    assert names(place / "store/a/checkpoints") == ["iteration-000000", "iteration-000002", "iteration-000003"]
    before = comparable("a")
    shutil.rmtree("a")
    assert main(["resume", "a", "--storage", "store", "--budget.env-steps", budget(4)]) == 0
    assert comparable("a")[:3] == before
    assert [row["iteration"] for row in comparable("store/a")] == [1, 2, 3, 4]
    # By its path in the storage, as on another machine.
    assert main(["resume", "store/a", "--budget.env-steps", budget(5), "--run-dir", "elsewhere/a"]) == 0
    assert [row["iteration"] for row in comparable("elsewhere/a")] == [1, 2, 3, 4, 5]
    assert read_config(place / "elsewhere/a").storage == str(place / "store")
    assert checkpoint.iteration_of(checkpoint.latest(place / "store/a")) == 5
    capsys.readouterr()
    assert main(["resume", "store/a", "--run-dir", "elsewhere/a"]) == 2
    assert "is not empty; name a new directory, or continue its run" in capsys.readouterr().err


@pytest.mark.usefixtures("ray_session")
def test_a_run_continues_from_a_url(place: Path) -> None:
    empty_memory()
    assert train("cartpole", "--storage", "memory://bucket", iterations=1, run_dir="a") == 0
    assert main(["resume", "memory://bucket/a", "--budget.env-steps", budget(2)]) == 0
    assert [row["iteration"] for row in comparable("runs/a")] == [1, 2]
    assert Storage("memory://bucket", "a")._list_complete()[0] == "iteration-000002"


@pytest.mark.usefixtures("ray_session", "place")
def test_training_continues_while_the_storage_is_out_of_reach(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: Any) -> None:
        raise OSError("the line is dead")

    monkeypatch.setattr(Storage, "put", put)
    options = ("--storage", "store", "--checkpoint-minutes", "0.000001")
    assert train("cartpole", *options, iterations=3, run_dir="a") == 0
    output, error = capsys.readouterr()
    assert error == ""
    assert output.count("is out of reach (the line is dead); training continues") == 1
    assert len(comparable("a")) == 3


def test_a_local_run_is_not_fetched(run_dir: Path, place: Path) -> None:
    assert find_run("a", None, None) == (run_dir, None)
    assert find_run("a", str(place / "store"), None) == (run_dir, str(place / "store"))
    assert find_run("gone", None, None) == (place / "gone", None)
    with pytest.raises(UserError, match=r"gone has no complete checkpoint; name a run"):
        find_run("gone", str(place / "store"), None)
    assert not (place / "gone").exists()
