"""A small video that is quickly written, with a smaller copy as a GIF: what a run writes while it trains."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ctm_rl.agents.evaluation.frames import shrink
from ctm_rl.agents.evaluation.silent_pygame import silent_pygame
from ctm_rl.agents.loggers.protocol import LoggedVideo
from ctm_rl.agents.video.files import GIF, MP4, WEBP, AnimationWriter, has_mp4, writing
from ctm_rl.agents.video.player import Player

MAX_SIDE, GIF_SIDE = 320, 160
"""The longer side of a frame, in the file and in the GIF, in pixels."""
MAX_FPS = 15.0
"""Of a faster environment every second, third, ... frame is shown; the video is as fast as it."""


def write_short(player: Player, file: Path, notify: Callable[[int], object]) -> LoggedVideo:
    """Plays and writes a video.

    Args:
        player: who plays.
        file: the video, without the suffix, which is added; one of that name is replaced.
        notify: called with the number of steps after each of them.

    Raises:
        UserError: the file cannot be written, or as ``Player.play``.
    """
    file = file.with_suffix(MP4 if has_mp4() else WEBP)
    stride = max(1, round(player.fps / MAX_FPS))
    fps = player.fps / stride
    small: list[np.ndarray] = []
    with silent_pygame(), writing(file, fps) as add, contextlib.closing(player.play(render=True)) as steps:
        for number, shown in enumerate(steps):
            if number % stride == 0:
                assert shown.recorded.frame is not None
                frame = shrink(shown.recorded.frame, MAX_SIDE)
                add(frame)
                small.append(shrink(frame, GIF_SIDE))
            notify(number + 1)
    height, width = small[0].shape[:2]
    return LoggedVideo(file, lambda: _to_gif(small, fps), (width, height))


def _to_gif(frames: Sequence[np.ndarray], fps: float) -> bytes:
    """Frames as an animated GIF."""
    stream = io.BytesIO()
    writer = AnimationWriter(stream, fps, GIF)
    for frame in frames:
        writer.add(frame)
    writer.finish()
    return stream.getvalue()
