"""Writes a video of a policy: its frames, or these with its thinking beside them."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctm_rl.agents.evaluation.frames import enlarge
from ctm_rl.agents.evaluation.silent_pygame import silent_pygame
from ctm_rl.agents.video.files import INSTALL, MP4, WEBP, has_mp4, writing
from ctm_rl.agents.video.player import Player, Shown
from ctm_rl.agents.video.thinking import ThinkingPanel

VIDEOS_FOLDER = "videos"
"""Where the videos of a run are, in its directory."""

_HINT = "; --out names another file"


class Recorded(NamedTuple):
    """What was recorded."""

    returns: list[float]
    """Of each episode; of the last one so far, if it was cut."""
    num_steps: int
    """Frames of the video."""
    is_cut: bool
    """Whether episodes are missing, or the end of the last one, since no more steps were allowed."""


def default_file(folder: Path, player: Player) -> tuple[Path, str | None]:
    """Chooses a new file: an MP4 where one can be written; with a number where the name is taken.

    Args:
        folder: where its folder ``videos`` is.
        player: who is recorded.

    Returns:
        The file, and a line on what would be better; ``None``: nothing.
    """
    name = f"{player.name}-iteration-{player.policy.iteration:06d}"
    note = None if has_mp4() else f"MP4 needs PyAV, which is not installed ({INSTALL}); writing {WEBP} instead."
    return _numbered(folder / VIDEOS_FOLDER / f"{name}{MP4 if has_mp4() else WEBP}"), note


def record(
    player: Player,
    file: Path,
    *,
    with_thinking: bool = False,
    notify: Callable[[Shown], object] = lambda shown: None,
) -> Recorded:
    """Plays and writes a video, one frame for each step.

    Args:
        player: who plays.
        file: the video; one of the same name is replaced.
        with_thinking: draw neurons, probabilities, value and certainty beside the frame.
        notify: called after each step.

    Raises:
        UserError: the file cannot be written, or as ``Player.play``.
    """
    draw = painter(player) if with_thinking else frame_of
    returns: dict[int, float] = {}
    num_steps = 0
    has_ended = False
    steps = player.play(render=True)
    with silent_pygame(), writing(file, player.fps, _HINT) as add, contextlib.closing(steps):
        for shown in steps:
            add(draw(shown))
            returns[shown.episode] = shown.episode_return
            num_steps += 1
            has_ended = shown.recorded.is_terminated  # the limit truncates, too
            notify(shown)
    is_whole = has_ended and len(returns) == player.options.episodes
    return Recorded(list(returns.values()), num_steps, num_steps == player.options.steps and not is_whole)


def painter(player: Player) -> Callable[[Shown], np.ndarray]:
    """What draws steps with the thinking beside them."""
    subtitle = f"iteration {player.policy.iteration}"
    return ThinkingPanel(player.policy.actions, player.action_names, player.name, subtitle).draw


def frame_of(shown: Shown) -> np.ndarray:
    """The frame of a step, as it is shown alone."""
    assert shown.recorded.frame is not None
    return enlarge(shown.recorded.frame)


def _numbered(file: Path) -> Path:
    """The file itself, or with a number if it exists."""
    found, number = file, 1
    while os.path.lexists(found):
        number += 1
        found = file.with_stem(f"{file.stem}-{number}")
    return found
