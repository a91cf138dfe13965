"""A run's directory is created by one process, loses nothing that is not the run's, and is written again if it goes."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disk import fill, unmount
from tiny_runs import CTM_RL, TINY, budget, train

from ctm_rl.agents.run_directory.directory import (
    RunDirectory,
    check_free,
    created_directory,
    locked,
    opened_directory,
    write_config,
)
from ctm_rl.agents.run_directory.metrics_file import MetricsWriter, read_metrics
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


# --- simultaneous starts ---


def start_together(count: int, path: Path, *, is_numbered: bool) -> list[Path | str]:
    """Creates one directory in several threads at the same time; returns what each has got, or why it was refused."""
    barrier = threading.Barrier(count)
    results: list[Path | str] = []

    def start(number: int) -> None:
        barrier.wait()
        try:
            with created_directory(path, {"number": number}, is_numbered=is_numbered) as directory:
                barrier.wait(60)
                assert json.loads((directory.path / "config.json").read_text()) == {"number": number}
                directory.keep()
                results.append(directory.path)
        except UserError as error:
            results.append(str(error))
            barrier.wait(60)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_runs_that_start_at_the_same_time_have_a_directory_each(tmp_path: Path) -> None:
    for moment in range(20):
        got = start_together(3, tmp_path / "runs" / f"a{moment}", is_numbered=True)
        assert sorted(map(str, got)) == [
            str(tmp_path / "runs" / name) for name in (f"a{moment}", f"a{moment}-2", f"a{moment}-3")
        ]


@pytest.mark.parametrize("exists", [False, True])
def test_of_runs_that_want_the_same_directory_one_gets_it_whole(tmp_path: Path, exists: bool) -> None:
    for moment in range(20):
        path = tmp_path / f"a{moment}"
        if exists:
            path.mkdir()
        got = start_together(3, path, is_numbered=False)
        assert sum(result == path for result in got) == 1
        assert sum("is in use" in str(result) or "is not empty" in str(result) for result in got) == 2
        assert sorted(item.name for item in path.iterdir()) == [".lock", "config.json"]


def run_together(place: Path, count: int, *arguments: str) -> list[tuple[int, str, str]]:
    """Starts training several times at once; returns exit codes and outputs."""
    command = [*CTM_RL, "train", "cartpole", *TINY, "--budget.env-steps", budget(2), *arguments]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, cwd=place, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
    outputs = [process.communicate(timeout=600) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_twenty_pairs_of_simultaneous_starts_are_twenty_times_two_whole_runs(tmp_path: Path) -> None:
    for moment in range(20):
        place = tmp_path / str(moment)
        place.mkdir()
        done = run_together(place, 2)
        assert [code for code, _, _ in done] == [0, 0], done
        runs = [line.removeprefix("run ") for _, out, _ in done for line in out.splitlines() if line.startswith("run ")]
        assert len(set(runs)) == 2
        assert set(runs) == {str(path) for path in (place / "runs").iterdir()}
        for run in map(Path, runs):
            assert [row["iteration"] for row in read_metrics(run)] == [1, 2]
            assert checkpoint.load(checkpoint.latest(run))["position"]["iteration"] == 2


# --- what is not the run's ---


def test_a_start_that_fails_removes_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    with pytest.raises(KeyboardInterrupt), created_directory(path, {}):
        checkpoint.save(path, 0, {})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), created_directory(path, {}):
        checkpoint.save(path, 0, {})
        (path / "notes.txt").write_text("mine")
        (path / "checkpoints" / "iteration-000000" / "photo").write_text("mine")
        (path.parent / "other").mkdir()
        raise KeyboardInterrupt
    left = {str(item.relative_to(path)) for item in path.rglob("*") if item.is_file()}
    assert left == {".lock", "notes.txt", "checkpoints/iteration-000000/photo"}
    assert (path.parent / "other").is_dir()


@pytest.mark.usefixtures("ray_session")
def test_a_file_put_into_a_new_run_while_ray_starts_survives_a_stop(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Run.__enter__

    def built(self: Run) -> Run:
        (place / "a" / "thesis.tex").write_text("three years")
        signal.raise_signal(signal.SIGINT)
        return build(self)

    monkeypatch.setattr(Run, "__enter__", built)
    assert train("cartpole", iterations=3, run_dir="a") == 130
    assert capsys.readouterr().err == "ctm-rl: stopped; nothing was written.\n"
    assert (place / "a" / "thesis.tex").read_text() == "three years"
    assert {item.name for item in (place / "a").iterdir()} == {"thesis.tex", ".lock"}


def test_a_full_disk_refuses_a_run_and_keeps_nothing_of_it(disk: Path) -> None:
    fill(disk)
    with pytest.raises(UserError, match=r"--run-dir .*/runs/a cannot be created: No space left on device"):
        with created_directory(disk / "runs" / "a", {"text": "x" * 10_000}):
            pass
    assert [item.name for item in disk.iterdir()] == ["filler"]


def test_a_lock_that_was_left_behind_is_no_run(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    check_free(tmp_path)
    with created_directory(tmp_path, {}) as directory, pytest.raises(UserError, match="in use"), locked(directory.path):
        pass


def test_a_lock_that_is_removed_while_another_process_waits_for_it_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    take = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        (tmp_path / ".lock").unlink(missing_ok=True)  # by the process that had it
        monkeypatch.setattr(fcntl, "flock", take)
        take(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path), pytest.raises(UserError, match="in use"), locked(tmp_path):
        pass


# --- links that somebody has prepared ---


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file of the user's that must not change."""
    file = tmp_path / "precious"
    file.write_text("precious\n")
    yield file
    assert file.read_text() == "precious\n"
    assert not file.is_symlink()


def test_a_lock_that_is_a_link_is_refused_and_not_followed(tmp_path: Path, target: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").symlink_to(target)
    with pytest.raises(UserError, match=r"cannot be locked by .*\.lock: it is a symbolic link; remove it"):
        RunDirectory(tmp_path / "a", {})


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(UserError, match=r"cannot be locked by .*\.lock: (it is not a file|Is a directory)"):
        RunDirectory(tmp_path, {})


def test_a_configuration_is_written_past_links(tmp_path: Path, target: Path) -> None:
    for name in (".config.json", "config.json"):
        (tmp_path / name).symlink_to(target)
    write_config(tmp_path, {"seed": 3})
    assert not (tmp_path / "config.json").is_symlink()
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 3}


def test_a_configuration_that_appears_while_a_directory_is_created_is_not_replaced(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = RunDirectory.__init__

    def prepare(self: RunDirectory, path: Path, *arguments: object) -> None:
        init(self, path, *arguments)  # pyright: ignore[reportArgumentType]
        (path / "config.json").symlink_to(target)

    monkeypatch.setattr(RunDirectory, "__init__", prepare)
    with pytest.raises(UserError, match="is not empty"), created_directory(tmp_path / "a", {}):
        pass
    assert (tmp_path / "a" / "config.json").is_symlink()


def test_metrics_are_not_written_through_links(tmp_path: Path, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (".metrics.jsonl", "metrics.jsonl"):
        (tmp_path / name).symlink_to(target)
    with contextlib.closing(MetricsWriter(tmp_path, 0, ("iteration",))) as metrics:
        metrics.write({"iteration": 1})
        assert "lines are kept in memory" in caplog.text
        (tmp_path / "metrics.jsonl").unlink()
        metrics.write({"iteration": 2})
    assert read_metrics(tmp_path) == [{"iteration": 1}, {"iteration": 2}]


# --- what disappears during a run ---


def keep_writing(path: Path, change: Callable[[], object]) -> None:
    """Writes metrics before and after something happens to the run's directory."""
    with opened_directory(path, {"seed": 1}) as directory:
        directory.write_config()
        with contextlib.closing(MetricsWriter(path, 0, ("iteration",), directory.restore)) as metrics:
            metrics.write({"iteration": 1})
            change()
            metrics.write({"iteration": 2})


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", ".lock"])
def test_a_file_that_is_removed_is_written_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    path.mkdir()
    keep_writing(path, (path / name).unlink)
    assert [row["iteration"] for row in read_metrics(path)] == [1, 2]
    assert {item.name for item in path.iterdir()} == {"config.json", "metrics.jsonl", ".lock"}
    assert json.loads((path / "config.json").read_text()) == {"seed": 1}


def test_a_run_whose_disk_is_taken_away_is_written_again_below(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = disk / "a"
    path.mkdir()
    keep_writing(path, lambda: unmount(disk))
    assert "was removed, moved or changed" in caplog.text
    assert [row["iteration"] for row in read_metrics(path)] == [1, 2]
    assert {item.name for item in path.iterdir()} == {".lock", "config.json", "metrics.jsonl"}


def test_a_directory_that_is_moved_is_written_again_and_locked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a"
    path.mkdir()
    with opened_directory(path, {}) as directory:
        directory.write_config()
        path.rename(tmp_path / "b")
        directory.restore()
        with pytest.raises(UserError, match="in use"), locked(path):
            pass
        with locked(tmp_path / "b"):  # now a copy that nobody writes to
            directory.restore()
    assert caplog.text.count(f"{path} was removed, moved or changed; what was missing is written again.") == 1


def test_another_run_that_was_put_in_its_place_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a"
    path.mkdir()

    def replace() -> None:
        shutil.rmtree(path)
        with created_directory(path, {"seed": 2}) as other:
            other.keep()
            (path / "metrics.jsonl").write_text('{"iteration": 7}\n')

    keep_writing(path, replace)
    assert json.loads((path / "config.json").read_text()) == {"seed": 2}
    assert read_metrics(path) == [{"iteration": 7}]
    assert caplog.text.count("was removed or moved, and holds another run now.) its lines") <= 1
    assert "holds another run now" in caplog.text


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("is_moved", [False, True])
def test_a_run_whose_directory_disappears_can_be_resumed(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_moved: bool
) -> None:
    learn = Run._train

    def learned(self: Run) -> Row:
        row = learn(self)
        if self._position.iteration == 2:
            if is_moved:
                (place / "a").rename(place / "b")
            else:
                shutil.rmtree(place / "a")
        return row

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Run, "_train", learned)
        assert train("cartpole", iterations=3, run_dir="a") == 0
    assert f"{place / 'a'} was removed, moved or changed; what was missing is written again." in caplog.text
    assert [row["iteration"] for row in read_metrics(place / "a")] == [1, 2, 3]
    assert main(["resume", "a", "--budget.env-steps", budget(4)]) == 0
    assert [row["iteration"] for row in read_metrics(place / "a")] == [1, 2, 3, 4]


@pytest.mark.usefixtures("ray_session")
def test_a_checkpoint_that_was_removed_after_it_was_saved_is_saved_again_at_the_stop(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Run._save_and_continue

    def saved(self: Run) -> None:
        save(self)
        if self._position.iteration == 2:
            shutil.rmtree(place / "a")
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "_save_and_continue", saved)
    assert train("cartpole", "--checkpoint-iterations", "1", iterations=4, run_dir="a") == 130
    assert "a checkpoint is saved" in capsys.readouterr().err
    assert checkpoint.load(checkpoint.latest(place / "a"))["position"]["iteration"] == 2

    def lost(self: Run, state: dict[str, Any]) -> None:
        restore(self, state)
        shutil.rmtree(place / "a")
        signal.raise_signal(signal.SIGINT)

    restore = Run.restore
    monkeypatch.setattr(Run, "restore", lost)
    assert main(["resume", "a", "--budget.env-steps", budget(3)]) == 130
    assert checkpoint.load(checkpoint.latest(place / "a"))["position"]["iteration"] == 2


@pytest.mark.usefixtures("ray_session")
def test_a_run_whose_directory_cannot_be_written_again_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = Run._train

    def learned(self: Run) -> Row:
        row = learn(self)
        if self._position.iteration == 1:
            shutil.rmtree(place / "new")
            (place / "new").write_text("in the way")
        return row

    monkeypatch.setattr(Run, "_train", learned)
    assert train("cartpole", iterations=2, run_dir="new/a") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"ctm-rl: run directory {place}/new/a cannot be used: ")
    assert "is lost: it has no other checkpoint" in error
