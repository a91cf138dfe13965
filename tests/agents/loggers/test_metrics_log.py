"""The rows of a run in ``metrics.jsonl`` and its loggers: the same everywhere, none twice, and no logger ends a run."""

import contextlib
import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from logged import scalars_of

from ctm_rl.agents.loggers.by_name import build_loggers
from ctm_rl.agents.loggers.metrics_log import MetricsLog
from ctm_rl.agents.loggers.protocol import LoggedVideo, Logger
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.configs import load

METRICS = ("iteration", "env_steps", "episode_return_mean")
EXPERIMENT = load("cartpole")


def open_log(
    run_dir: Path, loggers: dict[str, Logger] | None = None, iteration: int = 0, *, is_resumed: bool = False
) -> "contextlib.closing[MetricsLog]":
    """The log of a run, with the loggers for TensorBoard and CSV."""
    loggers = build_loggers(("tensorboard", "csv")) if loggers is None else loggers
    return contextlib.closing(MetricsLog(EXPERIMENT, run_dir, iteration, loggers, METRICS, is_resumed=is_resumed))


def row(iteration: int, steps: int, value: float | None = None, **more: float | None) -> Row:
    """A row of metrics."""
    return {"iteration": iteration, "env_steps": steps, "episode_return_mean": value, **more}


def csv_rows(run_dir: Path) -> list[dict[str, str]]:
    """The lines of ``progress.csv``."""
    with (run_dir / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_the_same_everywhere(run_dir: Path) -> None:
    """Compares TensorBoard, as it reads its files, and the CSV with ``metrics.jsonl``."""
    rows = read_metrics(run_dir)
    points = [(row["env_steps"], row["episode_return_mean"]) for row in rows if row["episode_return_mean"] is not None]
    scalars = scalars_of(run_dir / "tensorboard")
    assert scalars["rollout/episode_return_mean"] == points
    assert scalars["time/iteration"] == [(row["env_steps"], row["iteration"]) for row in rows]
    assert [{name: float(text) if text else None for name, text in line.items()} for line in csv_rows(run_dir)] == rows


def test_rows_that_are_trained_again_are_in_no_log_twice(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        for iteration in (1, 2, 3, 4):
            log.write(row(iteration, 40 * iteration, iteration / 2 if iteration > 1 else None))
        log.truncate(2)
        log.write(row(3, 119, 8.0))
        log.write(row(4, 160, float("nan")))
    assert_the_same_everywhere(tmp_path)
    assert [line["env_steps"] for line in csv_rows(tmp_path)] == ["40", "80", "119", "160"]


@pytest.mark.parametrize("resumed_from", [0, 1, 3])
def test_a_killed_run_that_is_resumed_has_no_point_twice(tmp_path: Path, resumed_from: int) -> None:
    killed = MetricsLog(EXPERIMENT, tmp_path, 0, build_loggers(("tensorboard", "csv")), METRICS, is_resumed=False)
    for iteration in (1, 2, 3):
        killed.write(row(iteration, 40 * iteration, iteration / 2))
    with open_log(tmp_path, iteration=resumed_from, is_resumed=True) as log:
        for iteration in range(resumed_from + 1, 6):
            log.write(row(iteration, 40 * iteration - 3, iteration / 4))
    assert len(read_metrics(tmp_path)) == 5
    assert_the_same_everywhere(tmp_path)


def test_a_column_that_is_added_later_is_in_all_logs(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.write(row(1, 40, 0.5))
        log.write(row(2, 80, 1.0, eval_return_mean=2.5, mine=0.25))
    assert [line["mine"] for line in csv_rows(tmp_path)] == ["", "0.25"]
    scalars = scalars_of(tmp_path / "tensorboard")
    assert (scalars["eval/return_mean"], scalars["other/mine"]) == ([(80, 2.5)], [(80, 0.25)])


def test_a_directory_that_is_written_again_gets_its_logs_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    loggers = build_loggers(("tensorboard", "csv"))
    restore = lambda: path.mkdir(exist_ok=True)  # noqa: E731
    log = MetricsLog(EXPERIMENT, path, 0, loggers, METRICS, is_resumed=False, restore=restore)
    with contextlib.closing(log):
        log.write(row(1, 40, 0.5))
        shutil.rmtree(path)
        log.write(row(2, 80, 1.0))
    assert [line["iteration"] for line in csv_rows(path)] == ["1", "2"]
    assert scalars_of(path / "tensorboard")["time/iteration"] == [(80, 2)]


class Own:
    """A logger of a user that fails when it is told to."""

    def __init__(self, fails_in: str = "") -> None:
        self.fails_in, self.calls = fails_in, []

    def _take(self, method: str, *arguments: Any) -> None:
        self.calls.append((method, *arguments))
        if method == self.fails_in:
            raise KeyError("no\nservice")

    def start(self, experiment: Any, run_dir: Path, resumed_from: int | None) -> None:
        self._take("start", experiment.name, run_dir, resumed_from)

    def write(self, row: Row, step: int) -> None:
        self._take("write", row["iteration"], step)

    def truncate(self, iteration: int) -> None:
        self._take("truncate", iteration)

    def close(self) -> None:
        self._take("close")


@pytest.mark.parametrize("method", ["start", "write", "truncate", "close"])
def test_a_logger_that_fails_is_dropped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    failing, other = Own(method), Own()
    with open_log(tmp_path, {"mine:Own": failing, "other": other}, 2, is_resumed=True) as log:
        log.write(row(3, 120))
        log.truncate(2)
        log.write(row(3, 119))
    assert [call[0] for call in failing.calls] == [*(name for name, *_ in _until(other.calls, method))]
    assert other.calls == [
        ("start", "cartpole", tmp_path, 2),
        ("write", 3, 120),
        ("truncate", 2),
        ("write", 3, 119),
        ("close",),
    ]
    message = "logger mine:Own has failed (KeyError: 'no\\nservice'); the run continues without it."
    assert [record.getMessage() for record in caplog.records] == [message]
    assert [item["env_steps"] for item in read_metrics(tmp_path)] == [119]


def _until(calls: list[Any], method: str) -> list[Any]:
    """The calls up to the first one of a method."""
    return calls[: [name for name, *_ in calls].index(method) + 1]


class Watching(Own):
    """One that takes videos."""

    def write_video(self, video: LoggedVideo, step: int) -> None:
        self._take("write_video", video.file.name, step)


def test_videos_go_to_loggers_that_take_some(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watching, failing, other = Watching(), Watching("write_video"), Own()
    video = LoggedVideo(tmp_path / "a.mp4", lambda: b"GIF89a", (160, 107))
    loggers: dict[str, Logger] = {"a": watching, "b": failing, "c": other, **build_loggers(("tensorboard", "csv"))}
    with open_log(tmp_path, loggers) as log:
        log.write_video(video, 40)
        log.write(row(1, 40))
    assert [call for call in watching.calls if call[0] == "write_video"] == [("write_video", "a.mp4", 40)]
    assert [call[0] for call in other.calls] == ["start", "write", "close"]
    assert [record.getMessage() for record in caplog.records] == [
        "logger b has failed (KeyError: 'no\\nservice'); the run continues without it."
    ]
    assert len(csv_rows(tmp_path)) == 1


def test_a_folder_that_tensorboard_cannot_use_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with open_log(tmp_path) as log:
        log.write(row(1, 40))
        log.write(row(2, 80))
    assert len(read_metrics(tmp_path)) == len(csv_rows(tmp_path)) == 2
    assert caplog.text.count("logger tensorboard has failed (File exists); the run continues without it.") == 1


def test_without_loggers_there_is_nothing_but_the_metrics(tmp_path: Path) -> None:
    with open_log(tmp_path, {}) as log:
        log.write(row(1, 40))
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_logger_is_named_once_and_tensorboard_is_the_default() -> None:
    assert EXPERIMENT.logger == ("tensorboard",)
    with pytest.raises(ValueError, match="logger must name each logger once, got csv csv"):
        dataclasses.replace(EXPERIMENT, logger=("csv", "csv"))
