"""Frames and thinking as text: half blocks in 24-bit or 256 colours, or one plain line for each step."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from ctm_rl.agents.evaluation.frames import fit
from ctm_rl.agents.video.player import Player, Shown
from ctm_rl.agents.video.thinking import Bar, action_text, bars_of, likeliest, short_number, shorten

_RESET = "\x1b[0m"
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_UPPER_HALF = "\u2580"
_BAR = "\u2588"
_MAX_BARS = 6
_TICK_ROWS = 3
"""Lines of the map of neurons, two ticks each."""
_ZERO, _NEGATIVE, _POSITIVE = np.array([24, 30, 41]), np.array([74, 168, 255]), np.array([255, 180, 84])
"""Colours of activity."""
_CHOSEN, _OTHER = (215,), (75,)
"""Of the bars, among the 256 colours."""
_CUBE = np.array([0, 95, 135, 175, 215, 255])
"""Levels of red, green and blue among the 256 colours."""


def half_blocks(frame: np.ndarray, *, has_true_colour: bool) -> list[str]:
    """Writes an image as lines of text, in which each character is a pixel above another one.

    Args:
        frame: [H, W, 3] of uint8; an odd last row is repeated.
        has_true_colour: whether colours have 24 bits; otherwise the nearest ones of 256 are taken.

    Returns:
        One string for two rows, each of which ends with the terminal's own colours.
    """
    if frame.shape[0] % 2:
        frame = np.concatenate([frame, frame[-1:]])
    codes = frame.astype(int) if has_true_colour else _nearest(frame)
    lines = []
    for upper, lower in zip(codes[::2].tolist(), codes[1::2].tolist(), strict=True):
        parts, before = [], (None, None)
        for pair in zip(upper, lower, strict=True):
            if pair[0] != before[0]:
                parts.append(_colour(38, pair[0]))
            if pair[1] != before[1]:
                parts.append(_colour(48, pair[1]))
            parts.append(_UPPER_HALF)
            before = pair
        lines.append("".join(parts) + _RESET)
    return lines


def _nearest(frame: np.ndarray) -> np.ndarray:
    """The numbers of the nearest of 256 colours, [H, W, 1]."""
    levels = np.abs(frame.astype(int)[..., None] - _CUBE).argmin(-1)
    return (16 + levels @ np.array([36, 6, 1]))[..., None]


def _colour(which: int, code: Sequence[int]) -> str:
    """The escape sequence of a colour: 38 of the sign, 48 of what is behind it."""
    kind = "5" if len(code) == 1 else "2"
    return f"\x1b[{which};{kind};{';'.join(map(str, code))}m"


class TerminalScreen:
    """Draws steps on a terminal, each over the one before.

    Args:
        console: the terminal; it has colours.
        player: who plays.
        with_thinking: show probabilities, value, certainty and neurons below the frame.
    """

    def __init__(self, console: Console, player: Player, *, with_thinking: bool) -> None:
        self._console, self._player, self._with_thinking = console, player, with_thinking
        self._has_true_colour = console.color_system == "truecolor"
        self._ticks: list[np.ndarray] = []

    def show(self, shown: Shown) -> None:
        """Draws a step."""
        width, height = self._console.size
        below = [shorten(_state_of(self._player, shown), width)]
        if self._with_thinking:
            below += self._thinking(shown, width)
        room = max(2, height - len(below))
        assert shown.recorded.frame is not None
        image = np.asarray(fit(shown.recorded.frame, width, 2 * room))
        lines = [*half_blocks(image, has_true_colour=self._has_true_colour), *below]
        text = "\n".join(f"{line}{_TO_END_OF_LINE}" for line in lines[:height])
        self._write(f"{_HOME}{text}{_TO_END_OF_SCREEN}")

    def _thinking(self, shown: Shown, width: int) -> list[str]:
        """The lines below the frame."""
        bars = likeliest(bars_of(self._player.policy.actions, self._player.action_names, shown), _MAX_BARS)
        ticks = shown.recorded.ticks
        certainty = float(ticks.certainty[-1])
        if np.isfinite(certainty):
            bars = [*bars, Bar("certainty", certainty, f"{certainty:.2f}")]
        lines = [_bar_line(bar, width) for bar in bars]
        lines.append(shorten(f"{'value':<12}{ticks.value[-1]:.3f}", width))
        self._ticks = [*([] if shown.step == 1 else self._ticks), *ticks.post_activations][-2 * _TICK_ROWS :]
        return lines + half_blocks(_activity(self._ticks, width), has_true_colour=self._has_true_colour)

    def _write(self, text: str) -> None:
        """Writes to the terminal at once."""
        self._console.file.write(text)
        self._console.file.flush()


def _bar_line(bar: Bar, width: int) -> str:
    """A name, a bar and a number; of a number of an action, where it is between its bounds."""
    room = max(4, min(width - 20, 40))
    place = round(min(1.0, max(0.0, bar.value)) * room)
    drawn = _BAR * place if bar.span is None else f"{' ' * min(place, room - 1)}|"
    mark = ">" if bar.is_chosen else " "
    line = f"{mark}{shorten(bar.name, 10):<11}{drawn:<{room}} {bar.text}"[:width]
    return f"{_colour(38, _CHOSEN if bar.is_chosen else _OTHER)}{line}{_RESET}"


def _activity(ticks: Sequence[np.ndarray], width: int) -> np.ndarray:
    """A map of the neurons of the last ticks: a column for each neuron, the newest tick at the bottom."""
    rows = np.zeros((2 * _TICK_ROWS, min(width, ticks[-1].shape[0])))
    rows[-len(ticks) :] = np.stack(ticks)[:, : rows.shape[1]]
    shares = np.clip(rows / max(0.2, float(np.quantile(np.abs(rows), 0.9))), -1, 1)[..., None]
    colours = _ZERO + np.abs(shares) * (np.where(shares < 0, _NEGATIVE, _POSITIVE) - _ZERO)
    return colours.astype(np.uint8)


def _state_of(player: Player, shown: Shown) -> str:
    """What a step was, in one line."""
    action = action_text(player.policy.actions, player.action_names, shown)
    return (
        f"episode {shown.episode}  step {shown.step}  action {action}  reward {short_number(shown.recorded.reward)}  "
        f"return {short_number(shown.episode_return)}"
    )


def plain_line(player: Player, shown: Shown, *, with_thinking: bool) -> str:
    """A step as one line, for files and terminals without colours."""
    line = _state_of(player, shown)
    if not with_thinking:
        return line
    ticks = shown.recorded.ticks
    values: dict[str, Any] = {"value": ticks.value[-1], "certainty": ticks.certainty[-1]}
    bars = bars_of(player.policy.actions, player.action_names, shown)
    chosen = [bar.value for bar in bars if bar.is_chosen and bar.span is None]
    if chosen:
        values = {"probability": math.prod(chosen), **values}  # of all choices together
    known = [f"{name} {value:.3f}" for name, value in values.items() if np.isfinite(value)]
    return "  ".join([line, *known, f"ticks {shown.recorded.ticks_used}"])
