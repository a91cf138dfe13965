"""Frames as half blocks, and steps as lines."""

import io
import re

import numpy as np
import pytest
from counting_env import Counting
from gymnasium.spaces import MultiDiscrete
from rich.console import Console
from small_player import COUNTING, player_for

from ctm_rl.agents.video.terminal import TerminalScreen, half_blocks, plain_line
from ctm_rl.agents.video.thinking import bars_of

RANDOM = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def pixels_of(line: str, size: int) -> list[tuple[list[int], list[int]]]:
    """The colours of the upper and of the lower half of each character."""
    colours: dict[int, list[int]] = {}
    found = []
    for which, numbers, sign in re.findall(r"\x1b\[(38|48);\d;([\d;]+)m|(\u2580)", line):
        if sign:
            found.append((colours[38], colours[48]))
        else:
            colours[int(which)] = list(map(int, numbers.split(";")))
    assert line.endswith("\x1b[0m")
    assert all(len(part) == size for pair in found for part in pair)
    return found


def test_every_character_is_a_pixel_above_another_one() -> None:
    lines = half_blocks(RANDOM, has_true_colour=True)
    assert len(lines) == 3
    read = [pixels_of(line, 3) for line in lines]
    rows = np.array([[pixel[half] for pixel in line] for line in read for half in (0, 1)])
    assert (rows[:5] == RANDOM).all()
    assert (rows[5] == RANDOM[4]).all()


def test_with_256_colours_the_nearest_is_taken() -> None:
    frame = np.array([[[0, 0, 0], [255, 255, 255], [250, 3, 100]]] * 2, np.uint8)
    (line,) = half_blocks(frame, has_true_colour=False)
    assert [pixel[0] for pixel in pixels_of(line, 1)] == [[16], [231], [16 + 5 * 36 + 1]]


def test_a_step_fits_on_the_terminal() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="truecolor", width=60, height=20)
    player = player_for(COUNTING)
    screen = TerminalScreen(console, player, with_thinking=True)
    steps = list(player.play(render=True))
    for shown in steps:
        screen.show(shown)
    pictures = file.getvalue().split("\x1b[H")[1:]
    assert len(pictures) == len(steps)
    for number, picture in enumerate(pictures, 1):
        lines = [re.sub(r"\x1b\[[\d;?]*\w", "", line) for line in picture.split("\n")]
        assert len(lines) <= 20
        assert max(map(len, lines)) <= 60
        assert f"episode 1  step {number}  action" in picture
        assert sum("certainty" in line for line in lines) == 1


def test_a_step_is_one_plain_line() -> None:
    player = player_for(COUNTING)
    (first, *_) = player.play(render=False)
    line = plain_line(player, first, with_thinking=False)
    reward = f"{first.recorded.reward:g}"
    assert line == f"episode 1  step 1  action {first.recorded.action}  reward {reward}  return {reward}"
    more = plain_line(player, first, with_thinking=True)
    assert more.startswith(f"{line}  probability 0.")
    assert more.endswith(f"certainty {first.recorded.ticks.certainty[-1]:.3f}  ticks 2")


def test_the_probability_of_several_choices_is_that_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "action_space", MultiDiscrete([3, 4]))
    monkeypatch.setattr(Counting, "step", lambda self, action: (self.observation, 0.0, True, False, {}))
    player = player_for(COUNTING)
    (shown,) = player.play(render=False)
    bars = bars_of(player.policy.actions, player.action_names, shown)
    line = plain_line(player, shown, with_thinking=True)
    assert f"  probability {bars[0].value * bars[1].value:.3f}  value " in line
