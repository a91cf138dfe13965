"""TensorBoard's event files, by environment steps."""

import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.loggers.groups import tag_of
from ctm_rl.agents.loggers.protocol import VIDEO_TAG, LoggedVideo, StepCounts
from ctm_rl.agents.run_directory.progress import Row

TENSORBOARD_FOLDER = "tensorboard"
_COUNTER = itertools.count()


class TensorBoardEvents:
    """Writes a file of TensorBoard events, and another one after each cut.

    Each file after the first begins with the step from which on TensorBoard drops the points of the files before.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def start(self, experiment: AnyExperiment, run_dir: Path, resumed_from: int | None) -> None:
        """See ``Logger``."""
        self._folder = run_dir / TENSORBOARD_FOLDER
        self._steps = StepCounts(run_dir, resumed_from)
        self._open(None if resumed_from is None else self._steps.truncate(resumed_from))

    def write(self, row: Row, step: int) -> None:
        """See ``Logger``."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        self._steps.add(row, step)
        values = [
            Summary.Value(tag=tag_of(name), simple_value=value) for name, value in row.items() if value is not None
        ]
        self._append(Event(step=step, summary=Summary(value=values)))

    def write_video(self, video: LoggedVideo, step: int) -> None:
        """See ``VideoLogger``: TensorBoard shows an animated GIF among its images."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        width, height = video.gif_size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=video.gif())
        self._append(Event(step=step, summary=Summary(value=[Summary.Value(tag=VIDEO_TAG, image=image)])))

    def truncate(self, iteration: int) -> None:
        """See ``Logger``."""
        self.close()
        self._open(self._steps.truncate(iteration))

    def close(self) -> None:
        """See ``Logger``."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, last_step: int | None) -> None:
        """Begins a file.

        Args:
            last_step: later points of files before are dropped; ``None``: none are.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_COUNTER):06d}"
        self._folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._folder / name, flags, 0o666)
        self._append(Event(file_version="brain.Event:2"))
        if last_step is not None:
            self._append(Event(step=last_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def _append(self, event: Any) -> None:
        """Appends one event."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        assert self._descriptor is not None
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        rest = record.getvalue()
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
