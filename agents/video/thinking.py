"""The thinking of a policy beside what it sees: action probabilities, value, certainty and neurons, drawn by Pillow."""

import collections
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ctm_rl.agents.evaluation.frames import fit
from ctm_rl.agents.video.player import Shown
from ctm_rl.spaces.actions import Actions, Choices, Numbers

WIDTH, HEIGHT = 1280, 720
_MARGIN = 28
_RIGHT = 700
"""Where the right column begins."""
_COLUMN = WIDTH - _MARGIN - _RIGHT
_GAP = 20
_NUM_TICKS, _NUM_STEPS = 80, 200
"""How many ticks of the neurons, and steps of values and certainties, are shown at a time."""
_MIN_ROOM = 30
"""Curves of fewer values leave room at the right."""
_TRACES = 6, 5
"""Columns and rows of the grid of neurons."""
_MAX_BARS = 8
"""Probabilities in one column; as many again in a second one."""
_BAR_HEIGHT, _BARS_HEIGHT = 28.0, 196.0
"""Of one bar, and of all of them at most."""
_CHART_HEIGHT = 84.0
_FINE = 2
"""Lines are drawn this many times as large, and scaled down, which smooths them."""
_BACKGROUND, _CARD = "#0e1117", "#181e29"
_TEXT, _MUTED = "#e6ebf2", "#8b97a8"
_ACCENT, _CHOSEN, _GOOD = "#4aa8ff", "#ffb454", "#5fd38d"
_COLOURS = ("#4aa8ff", "#ffb454", "#5fd38d", "#ff7a90", "#b48cff", "#4fd6d2")
"""Of the neurons' traces, column by column."""
_MIN_SPAN = 0.2
"""Smallest range of a trace: what moves less is drawn as flat as it is."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Bar(NamedTuple):
    """One action, or one number of an action, with its probability or its place between its bounds."""

    name: str
    value: float
    """Probability, or place, from 0 to 1."""
    text: str
    is_chosen: bool = False
    span: tuple[float, float] | None = None
    """Of a number: a standard deviation around the mean, as places from 0 to 1."""


def bars_of(actions: Actions, names: Sequence[str], shown: Shown) -> list[Bar]:
    """The distribution of the action that a step took, after its last tick.

    Args:
        actions: the action space.
        names: of the options of a single choice, or of numbers; empty: they are numbered.
        shown: the step.
    """
    outputs = torch.from_numpy(shown.recorded.ticks.logits[-1:])
    taken = np.asarray(shown.recorded.action).reshape(-1)
    if isinstance(actions, Numbers):
        return _number_bars(actions, names, outputs, taken)
    probabilities = actions.grouped(outputs).softmax(-1).numpy().reshape(len(actions.sizes), -1)
    starts = list(actions.starts) or [0] * len(actions.sizes)
    if len(actions.sizes) > 1:
        rows = [int(value) - start for value, start in zip(taken, starts, strict=True)]
        return [
            Bar(f"choice {index}: {value}", float(of_choice[row]), f"{of_choice[row]:.2f}", True)
            for index, (of_choice, row, value) in enumerate(zip(probabilities, rows, taken, strict=True))
        ]
    row = int(taken[0]) - starts[0]
    labels = list(names) or [f"action {starts[0] + index}" for index in range(actions.num_outputs)]
    return [
        Bar(label, float(value), f"{value:.2f}", index == row)
        for index, (label, value) in enumerate(zip(labels, probabilities[0], strict=True))
    ]


def likeliest(bars: list[Bar], count: int) -> list[Bar]:
    """The bars with the largest values, and the chosen one, in their order."""
    if len(bars) <= count:
        return bars
    shown = np.argsort([-bar.value - bar.is_chosen for bar in bars], kind="stable")[:count]
    return [bars[index] for index in sorted(shown.tolist())]


def _number_bars(actions: Numbers, names: Sequence[str], outputs: torch.Tensor, taken: np.ndarray) -> list[Bar]:
    """The numbers of an action between their bounds, each with a standard deviation around its mean."""
    ends = [actions.place(outputs, torch.full((1, len(actions.low)), side)).numpy() for side in (-1.0, 1.0)]
    low, high = (actions.to_env(end).reshape(-1).astype(float) for end in ends)
    bounds = np.stack([np.asarray(actions.low), np.asarray(actions.high)])
    is_open = ~np.isfinite(bounds).all(0)
    reach = np.maximum(1.0, np.abs(np.stack([low, high, taken.astype(float)])).max(0))
    bounds = np.where(is_open, np.stack([-reach, reach]), bounds)
    places, lows, highs = ((values - bounds[0]) / (bounds[1] - bounds[0]) for values in (taken, low, high))
    names = names or [f"action {index}" for index in range(len(taken))]
    return [
        Bar(names[index], float(places[index]), f"{taken[index]:+.2f}", True, (float(lows[index]), float(highs[index])))
        for index in range(len(taken))
    ]


class ThinkingPanel:
    """Draws steps of a policy with its thinking, 1280 x 720 pixels each; keeps the last ticks and steps of an episode.

    Args:
        actions: the action space.
        names: of actions, see ``bars_of``.
        title: what is shown at the top, such as the name of the experiment.
        subtitle: beside it, paler.
    """

    def __init__(self, actions: Actions, names: Sequence[str], title: str, subtitle: str = "") -> None:
        self._actions, self._names = actions, names
        self._title, self._subtitle = shorten(title, 30), subtitle
        self._chosen: np.ndarray | None = None
        self._begin()

    def _begin(self) -> None:
        """Forgets the episode before."""
        self._neurons: collections.deque[np.ndarray] = collections.deque(maxlen=_NUM_TICKS)
        self._values: collections.deque[float] = collections.deque(maxlen=_NUM_STEPS)
        self._certainties: collections.deque[float] = collections.deque(maxlen=_NUM_STEPS)

    def draw(self, shown: Shown) -> np.ndarray:
        """Draws a step, and keeps what it adds to the curves.

        Args:
            shown: the step; without a frame, the place of it says so.

        Returns:
            [720, 1280, 3] of uint8.
        """
        if shown.step == 1:
            self._begin()
        ticks = shown.recorded.ticks
        activations = ticks.post_activations
        self._neurons.extend(activations)
        self._values.append(float(ticks.value[-1]))
        self._certainties.append(float(ticks.certainty[-1]))
        image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
        draw = ImageDraw.Draw(image)
        self._draw_frame(image, draw, shown)
        bottom = self._draw_bars(draw, bars_of(self._actions, self._names, shown))
        lines = _Lines(_RIGHT, bottom, WIDTH - _MARGIN, HEIGHT - _MARGIN)
        bottom = self._draw_charts(lines, bottom + 14)
        self._draw_neurons(lines, bottom + 16, activations.shape[1])
        lines.paste(image)
        return np.asarray(image)

    def _draw_frame(self, image: Image.Image, draw: ImageDraw.ImageDraw, shown: Shown) -> None:
        """The left column: title, frame, and what the step was."""
        width, top, bottom = _RIGHT - 2 * _MARGIN, 80, 596
        _text(draw, (_MARGIN, 22), self._title, 26)
        x = _MARGIN + _font(26).getlength(self._title) + 14
        _text(draw, (x, 29), self._subtitle, 18, _MUTED)
        _text(draw, (_RIGHT - _MARGIN, 29), f"episode {shown.episode}", 18, _MUTED, anchor="ra")
        draw.rounded_rectangle((_MARGIN, top, _MARGIN + width, bottom), 10, _CARD)
        if shown.recorded.frame is None:
            _text(draw, (_MARGIN + width / 2, (top + bottom) / 2), "no frame", 20, _MUTED, anchor="mm")
        else:
            frame = fit(shown.recorded.frame, width - 24, bottom - top - 24)
            at = _MARGIN + (width - frame.width) // 2, top + (bottom - top - frame.height) // 2
            image.paste(frame, at)
        readouts = {
            "step": f"{shown.step}",
            "action": shorten(action_text(self._actions, self._names, shown), 18),
            "reward": short_number(shown.recorded.reward),
            "return": short_number(shown.episode_return),
            "ticks": f"{shown.recorded.ticks_used}",
        }
        shares = (0.0, 0.16, 0.48, 0.66, 0.88)
        for share, (name, value) in zip(shares, readouts.items(), strict=True):
            x = _MARGIN + share * width
            _text(draw, (x, 622), name, 17, _MUTED)
            _text(draw, (x, 646), value, 25, _CHOSEN if name == "action" else _TEXT)

    def _draw_bars(self, draw: ImageDraw.ImageDraw, bars: list[Bar]) -> float:
        """The distribution of actions; of many, the likeliest, in their order. Returns where it ends."""
        is_numbers = any(bar.span is not None for bar in bars)
        title = "Action, and one standard deviation around its mean" if is_numbers else "Probabilities"
        _text(draw, (_RIGHT, 22), title, 18, _MUTED)
        bars = likeliest(bars, 2 * _MAX_BARS)
        num_columns = 1 if len(bars) <= _MAX_BARS else 2
        num_rows = -(-len(bars) // num_columns)
        width, height = (_COLUMN - _GAP * (num_columns - 1)) / num_columns, min(_BAR_HEIGHT, _BARS_HEIGHT / num_rows)
        name_width = 96 if num_columns == 1 else 76
        for index, bar in enumerate(bars):
            x, y = _RIGHT + index // num_rows * (width + _GAP), 52 + index % num_rows * height
            self._draw_bar(draw, bar, (x, y, x + width, y + height), name_width)
        return 52 + num_rows * height

    def _draw_bar(self, draw: ImageDraw.ImageDraw, bar: Bar, box: Box, name_width: int) -> None:
        """One line of the distribution: name, bar, number."""
        left, top, right, bottom = box
        middle, size = (top + bottom) / 2, min(17, int(bottom - top) - 3)
        colour = _CHOSEN if bar.is_chosen else _ACCENT
        _text(draw, (left, middle), shorten(bar.name, name_width // 9), size, colour if bar.is_chosen else _TEXT, "lm")
        _text(draw, (right, middle), bar.text, size, _TEXT, anchor="rm")
        begin, end = left + name_width, right - 56
        half = min(8.0, (bottom - top) / 2 - 2)
        draw.rounded_rectangle((begin, middle - half, end, middle + half), 4, _CARD)
        scale = end - begin
        if bar.span is None:
            if bar.value * scale >= 1:
                draw.rounded_rectangle((begin, middle - half, begin + bar.value * scale, middle + half), 4, colour)
            return
        low, high = (begin + min(1.0, max(0.0, place)) * scale for place in bar.span)
        draw.rounded_rectangle((low, middle - half, max(low + 2, high), middle + half), 4, _ACCENT)
        at = begin + min(1.0, max(0.0, bar.value)) * scale
        draw.rectangle((at - 2, middle - half - 3, at + 2, middle + half + 3), _CHOSEN)

    def _draw_charts(self, lines: "_Lines", top: float) -> float:
        """Value and, where actions are chosen, certainty over the last steps. Returns where they end."""
        certainties = np.asarray(self._certainties)
        has_certainty = bool(np.isfinite(certainties).any())
        width = (_COLUMN - _GAP) / 2 if has_certainty else _COLUMN
        bottom = top + 28 + _CHART_HEIGHT
        lines.chart((_RIGHT, top, _RIGHT + width, bottom), "value", np.asarray(self._values), _ACCENT)
        if has_certainty:
            right = _RIGHT + width + _GAP, top, _RIGHT + _COLUMN, bottom
            lines.chart(right, "certainty", certainties, _GOOD, limits=(0.0, 1.0))
        return bottom

    def _draw_neurons(self, lines: "_Lines", top: float, num_neurons: int) -> None:
        """Traces of some neurons over the last ticks, each on its own scale."""
        num_columns, num_rows = _TRACES
        chosen = self._choose(num_neurons, num_columns * num_rows)
        title = f"{len(chosen)} of {num_neurons} neurons: post-activations of the last {_NUM_TICKS} ticks"
        lines.text((_RIGHT, top), title, 18, _MUTED)
        top += 30
        traces = np.stack(self._neurons)[:, chosen]
        low, high = traces.min(0), traces.max(0)
        places = 0.5 + (traces - (low + high) / 2) / np.maximum(high - low, _MIN_SPAN)
        width, height = (_COLUMN + 6) / num_columns, (HEIGHT - _MARGIN + 6 - top) / num_rows
        for index, neuron in enumerate(chosen.tolist()):
            x, y = _RIGHT + index % num_columns * width, top + index // num_columns * height
            box = x, y, x + width - 6, y + height - 6
            lines.card(box)
            lines.text((x + 5, y + 3), str(neuron), 11, _MUTED)
            inner = x + 6, y + 16, x + width - 13, y + height - 13
            lines.line(inner, places[:, index], _COLOURS[index % num_columns % len(_COLOURS)])

    def _choose(self, num_neurons: int, count: int) -> np.ndarray:
        """The neurons that are shown: evenly spaced, the same all the time."""
        if self._chosen is None:
            self._chosen = np.unique(np.linspace(0, num_neurons - 1, min(count, num_neurons)).round().astype(int))
        return self._chosen


def action_text(actions: Actions, names: Sequence[str], shown: Shown) -> str:
    """The action of a step, by its name where it has one."""
    taken = np.asarray(shown.recorded.action).reshape(-1)
    if isinstance(actions, Choices) and len(actions.sizes) == 1:
        row = int(taken[0]) - (actions.starts[0] if actions.starts else 0)
        return names[row].removeprefix("action ") if row < len(names) else str(int(taken[0]))
    texts = [f"{value:+.2f}" if isinstance(actions, Numbers) else str(value) for value in taken.tolist()]
    return " ".join(texts)


def short_number(value: float) -> str:
    """A number in few characters."""
    return f"{value:.4g}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"


def shorten(text: str, length: int) -> str:
    """A text, or its beginning."""
    return text if len(text) <= length else f"{text[: max(1, length - 2)]}.."


class _Lines:
    """A part of the picture in which lines are smooth; coordinates are those of the whole picture."""

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self._at = int(left), int(top)
        size = int(right) - self._at[0], int(bottom) - self._at[1]
        self._image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), _BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[tuple[tuple[float, float], str, int, str, str]] = []

    def card(self, box: Box) -> None:
        """A rectangle that something is drawn on."""
        left, top = self._place(box[:2])
        right, bottom = self._place(box[2:])
        self._draw.rounded_rectangle((left, top, right, bottom), 5 * _FINE, _CARD)

    def text(self, at: tuple[float, float], text: str, size: int, colour: str, anchor: str = "la") -> None:
        """A text of one line, drawn last."""
        self._texts.append((at, text, size, colour, anchor))

    def line(self, box: Box, places: np.ndarray, colour: str) -> None:
        """A line through values, with a dot at the last one.

        Args:
            box: where it is drawn.
            places: the values, from 0 at the bottom to 1 at the top; NaN: none.
            colour: of the line.
        """
        left, top, right, bottom = box
        x = np.linspace(left, right, max(_MIN_ROOM, len(places)))[: len(places)]
        y = bottom - np.clip(places, 0.0, 1.0) * (bottom - top)
        is_there = np.isfinite(y)
        points = [self._place(point) for point in zip(x[is_there].tolist(), y[is_there].tolist(), strict=True)]
        if len(points) > 1:
            self._draw.line(points, colour, 2 * _FINE, joint="curve")
        if points:
            self._draw.circle(points[-1], 2.5 * _FINE, colour)

    def chart(
        self, box: Box, name: str, values: np.ndarray, colour: str, limits: tuple[float, float] | None = None
    ) -> None:
        """A line chart, with the last value in its title and its limits at the left."""
        left, top, right, bottom = box
        self.text((left, top), name, 18, _MUTED)
        self.text((right, top), f"{values[-1]:.2f}", 18, _TEXT, "ra")
        top += 28
        self.card((left, top, right, bottom))
        finite = values[np.isfinite(values)]
        if not len(finite):
            return
        low, high = limits or (float(finite.min()), float(finite.max()))
        self.text((left + 6, top + 3), f"{high:.2g}", 12, _MUTED)
        self.text((left + 6, bottom - 4), f"{low:.2g}", 12, _MUTED, "ld")
        if limits is None:
            middle, half = (low + high) / 2, max((high - low) / 2, 0.02 * max(abs(low), abs(high)), 1e-3)
            low, high = middle - half, middle + half
        inner = left + 52, top + 8, right - 10, bottom - 8
        self.line(inner, (values - low) / (high - low), colour)

    def paste(self, image: Image.Image) -> None:
        """Puts the part into the picture."""
        image.paste(self._image.reduce(_FINE), self._at)
        draw = ImageDraw.Draw(image)
        for at, text, size, colour, anchor in self._texts:
            _text(draw, at, text, size, colour, anchor)

    def _place(self, point: Sequence[float]) -> tuple[float, float]:
        """A point of the picture as one of this part."""
        return (point[0] - self._at[0]) * _FINE, (point[1] - self._at[1]) * _FINE


@functools.cache
def _font(size: int) -> Any:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: str = _TEXT,
    anchor: str = "la",
) -> None:
    """A text of one line."""
    draw.text(at, text, colour, _font(size), anchor=anchor)
