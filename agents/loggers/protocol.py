"""What a logger is: the methods that a run calls, and what those that come with the package share."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row


@runtime_checkable
class Logger(Protocol):
    """Takes a run's metrics; a class of this form, made without arguments, is named by ``--logger module:Class``.

    Everything is called in the process that trains, between two iterations. After a method has raised an exception,
    which becomes one warning, the logger is dropped, and the run goes on without it.
    """

    def start(self, experiment: AnyExperiment, run_dir: Path, resumed_from: int | None) -> None:
        """Called before the first row.

        Args:
            experiment: what is trained.
            run_dir: the run's directory.
            resumed_from: the iteration of the checkpoint that a resumed run goes on from: rows of later iterations
                that were written before are trained again, and are to be dropped; ``None``: the run is new.
        """
        ...

    def write(self, row: Row, step: int) -> None:
        """Takes the metrics of one iteration.

        Args:
            row: the line of ``metrics.jsonl``: a finite number for each key, or ``None`` where there is no value.
            step: environment steps so far.
        """
        ...

    def truncate(self, iteration: int) -> None:
        """Drops the rows after an iteration, which are trained again: a learner was lost, or an iteration broken off.

        Also called, with the last iteration, when the run's directory was removed and has been written again.
        """
        ...

    def close(self) -> None:
        """Called when the run ends or is stopped; it may be resumed."""
        ...


class LoggedVideo(NamedTuple):
    """A video of the policy as it was after an iteration."""

    file: Path
    """In the run's directory: ``.mp4``, or ``.webp`` where no MP4 can be written."""
    gif: Callable[[], bytes]
    """Makes a smaller copy of it, as an animated GIF."""
    gif_size: tuple[int, int]
    """Width and height of that copy, in pixels."""


@runtime_checkable
class VideoLogger(Protocol):
    """What a logger has besides, if it takes the videos of ``--video-every``; others are left alone."""

    def write_video(self, video: LoggedVideo, step: int) -> None:
        """Takes the video of an iteration; called before ``write`` with its metrics.

        Args:
            video: the video.
            step: environment steps so far.
        """
        ...


VIDEO_TAG = "video/episode"
"""Name of videos in TensorBoard, W&B and MLflow."""
METHODS = ("start", "write", "truncate", "close")
"""Names of a logger's methods."""


class StepCounts:
    """The environment steps at the end of each iteration: what loggers by environment steps are cut by.

    Args:
        run_dir: the run's directory, with the metrics up to where a resumed run goes on.
        resumed_from: as ``Logger.start`` takes it.
    """

    def __init__(self, run_dir: Path, resumed_from: int | None) -> None:
        rows = [] if resumed_from is None else read_metrics(run_dir)
        self._steps = {int(row.get("iteration") or 0): int(row.get("env_steps") or 0) for row in rows}
        self._steps[0] = 0
        if resumed_from is not None:
            self.truncate(resumed_from)

    def add(self, row: Row, step: int) -> None:
        """Takes a row as ``Logger.write`` does."""
        self._steps[int(row["iteration"] or 0)] = step

    def truncate(self, iteration: int) -> int | None:
        """Drops later iterations; returns the last step that stays, ``None``: it is not known."""
        self._steps = {number: step for number, step in self._steps.items() if number <= iteration}
        return self._steps.get(iteration)
