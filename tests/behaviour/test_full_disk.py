"""A disk that is full for a while, or to the end: nothing whole is lost, and one line says what to do."""

import contextlib
import logging
import re
from pathlib import Path

import pytest
from small_disk import fill
from tiny_runs import TINY_ACTING

from ctm_rl.agents.loggers.by_name import build_loggers
from ctm_rl.agents.loggers.metrics_log import MetricsLog
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.training_loop import Run
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.configs import load

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TINY = (*TINY_ACTING, "--ppo.num-rollout-steps", "10", "--checkpoint-iterations", "1", "--budget.env-steps", "350")


def fill_between(first: int, last: int, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no room on a disk from the end of one iteration to the beginning of another, whatever the run removes."""
    learn, free = Run._train, checkpoint._free_superseded

    def filled(self: Run) -> Row:
        if self._position.iteration == last:
            (disk / "filler").unlink()
        row = learn(self)
        if self._position.iteration == first:
            fill(disk)
        return row

    def freed(run_dir: Path) -> bool:
        is_freed = free(run_dir)
        fill(disk)  # somebody else takes the room
        return is_freed

    monkeypatch.setattr(Run, "_train", filled)
    monkeypatch.setattr(checkpoint, "_free_superseded", freed)


def test_a_disk_that_is_full_for_a_while_costs_no_line_and_no_checkpoint_that_was_whole(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill_between(3, 6, disk, monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert main(["train", "cartpole", *TINY, "--run-dir", str(disk / "a")]) == 0
    rows = read_metrics(disk / "a")
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 8
    assert checkpoint.iteration_of(checkpoint.latest(disk / "a")) == len(rows)
    assert re.search(
        "iteration-000003 cannot be written: .*No space left on device.* The last one remains", caplog.text
    )
    for place in (disk / "a" / "checkpoints").iterdir():
        checkpoint.load(place)


def test_lines_that_cannot_be_written_are_kept_until_they_can(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    loggers = build_loggers(("tensorboard", "csv"))
    log = MetricsLog(load("cartpole"), disk, 0, loggers, ("iteration", "loss"), is_resumed=False)
    with contextlib.closing(log) as metrics:
        metrics.write({"iteration": 1, "loss": 0.1})
        filler = fill(disk)
        for iteration in range(2, 1002):
            metrics.write({"iteration": iteration, "loss": 0.1})
        assert len(read_metrics(disk)) < 1001  # the last of them broken, perhaps
        filler.unlink()
        metrics.write({"iteration": 1002, "loss": 0.1})
    assert [row["iteration"] for row in read_metrics(disk)] == list(range(1, 1003))
    assert caplog.text.count("its lines are kept in memory") == 1
    for name in ("tensorboard", "csv"):
        assert caplog.text.count(f"logger {name} has failed (No space left on device); the run continues") <= 1


def test_a_disk_that_stays_full_ends_in_one_line_and_the_run_can_be_resumed(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        fill_between(3, -1, disk, patched)
        assert main(["train", "cartpole", *TINY, "--run-dir", str(disk / "a")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said
    assert "since its last checkpoint, iteration 2, is lost; make room, then continue with: ctm-rl resume" in said
    (disk / "filler").unlink()
    assert checkpoint.iteration_of(checkpoint.latest(disk / "a")) == 2
    assert main(["resume", str(disk / "a")]) == 0
    rows = read_metrics(disk / "a")
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
