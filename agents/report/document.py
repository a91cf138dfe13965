"""The contents of a report: sections of figures, as data that the page's JavaScript draws.

A figure may move: its array then has a leading time axis of N places, one for each tick that the sample's model took,
in order (for a policy: all ticks of the first step of the episode, then those of the second, ...). One slider goes
through that time and moves all figures of the sample together. In other sections the slider moves a cursor along the
axis of ticks, where a figure has one.
"""

import base64
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

Values = np.ndarray | Sequence[float]
"""Numbers; NaN where there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Compressed images, all of one size, such as the frames of an episode."""

    mime: str
    """Such as ``image/webp``."""
    files: Sequence[bytes]
    """Each a whole file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """What all figures have."""

    kind: ClassVar[str]
    title: str
    caption: str = ""
    """What is to be seen, in a sentence or two, with the units; also read out in place of the picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Figure):
    """A table; numbers come formatted, with their intervals."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code(Figure):
    """Text as it is, such as a command or a configuration; the page offers to copy it."""

    kind: ClassVar[str] = "code"
    text: str
    is_folded: bool = False
    """Whether it is closed at first, as a long configuration is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart, with an interval around it where ``low`` and ``high`` are given."""

    name: str
    y: Values
    low: Values | None = None
    high: Values | None = None
    colour: int | None = None
    """Its number among the colours, where the same thing has a line in several charts; ``None``: its place among the
    lines of this one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines(Figure):
    """A line chart, drawn with uPlot."""

    kind: ClassVar[str] = "lines"
    x: Values
    """Ascending, shared by all lines."""
    lines: Sequence[Line]
    x_label: str
    y_label: str
    y_range: tuple[float, float] | None = None
    """``None``: as the values need."""
    cursor: Literal["", "tick", "step", "time"] = ""
    """What of the slider's place moves a cursor along x: the tick in its step (from 1), the environment step (from 0),
    the place in the time itself (from 0), or nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars(Figure):
    """Bars, one for each label; moving where ``values`` is [N, n]."""

    kind: ClassVar[str] = "bars"
    labels: Sequence[str]
    values: Values
    """[n], or [N, n]."""
    low: Values | None = None
    """Lower ends of intervals, shaped as values."""
    high: Values | None = None
    x_label: str = ""
    y_label: str = ""
    y_range: tuple[float, float] | None = None
    marked: int | None = None
    """The bar that is right, such as the true class; it is drawn in another colour and with a sign."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traces(Figure):
    """Small multiples of one line each over the time, such as neurons; a cursor is at the slider's place."""

    kind: ClassVar[str] = "traces"
    values: np.ndarray
    """[N, n]."""
    names: Sequence[str]
    """Of the n traces."""
    others: np.ndarray | None = None
    """A second, paler line in each, on a scale of its own, such as pre-activations; [N, n]."""
    groups: Sequence[str] = ()
    """Of each trace, such as "synchronised" and "random": one colour for each; empty: all alike."""
    legend: tuple[str, str] = ("", "")
    """What ``values`` and ``others`` are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix(Figure):
    """A heat map; moving where ``values`` is [N, R, C]."""

    kind: ClassVar[str] = "matrix"
    values: np.ndarray
    """[R, C] or [N, R, C]; rows from top to bottom."""
    x_label: str
    y_label: str
    palette: Literal["sequential", "diverging"] = "sequential"
    """Diverging: zero is in the middle."""
    limits: tuple[float, float] | None = None
    """Values of the ends of the palette; ``None``: as the values need."""
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()
    cursor: Literal["", "tick", "step", "time"] = ""
    """What of the slider's place moves a cursor along the columns, see ``Lines.cursor`` (columns count from 0)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points(Figure):
    """Points in a plane, such as neurons, coloured by a value; the colours move where ``values`` is [N, n]."""

    kind: ClassVar[str] = "points"
    points: np.ndarray
    """[n, 2]."""
    values: np.ndarray
    """[n] or [N, n]; drawn with the diverging palette."""
    x_label: str = ""
    y_label: str = ""
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture(Figure):
    """Images with what is drawn over them: attention of heads, routes.

    Coordinates of places and routes are (row, column) in pixels of the image, at pixel centres.
    """

    kind: ClassVar[str] = "picture"
    images: np.ndarray | Images
    """[n, H, W, 3] or [n, H, W] of uint8, or compressed ones."""
    shown: np.ndarray | None = None
    """Which image at each place of the time, [N] of int; ``None``: the first."""
    attention: np.ndarray | None = None
    """Weights of each head, [N, heads, h, w], over a grid that covers the image; each head and time adds up to 1; NaN
    throughout where nothing is attended to. Heads can be chosen; with the path of each one's centre of mass."""
    is_pixelated: bool = True
    """Enlarge without smoothing."""
    route: np.ndarray | None = None
    """The right route, [L + 1, 2]."""
    routes: np.ndarray | None = None
    """The predicted route at each time, [N, L + 1, 2]; NaN after its end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence1D(Figure):
    """Symbols in a row with what belongs to each, such as a parity sequence: attention of heads, answers over time."""

    kind: ClassVar[str] = "sequence"
    symbols: Sequence[str]
    """[S], such as + and -."""
    attention: np.ndarray | None = None
    """Weights, [N, heads, S]; NaN where nothing is attended to."""
    answers: Sequence[Sequence[str]] = ()
    """What is answered for each symbol at each time, ``[N][S]``; empty: nothing."""
    confidence: np.ndarray | None = None
    """Probability of each answer, [N, S]."""
    truth: Sequence[str] = ()
    """The right answers, [S]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A span of the time on a timeline; one of a single place is an event."""

    row: str
    start: int
    """Its first place of the time, from 0."""
    end: int
    """The place after its last one."""
    label: str
    verdict: Literal["", "right", "wrong"] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline(Figure):
    """What happens when, in rows, over the time: what is shown, what is emitted."""

    kind: ClassVar[str] = "timeline"
    num_places: int
    """N."""
    spans: Sequence[Span]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readout(Figure):
    """Named values at the slider's place, as text, such as action, reward and value."""

    kind: ClassVar[str] = "readout"
    names: Sequence[str]
    values: Sequence[Sequence[str]]
    """Of each name, at each place of the time: ``[names][N]``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine(Figure):
    """A trained machine that runs in the page, see ``browser_model``."""

    kind: ClassVar[str] = "machine"
    task: Literal["mazes", "parity", "cartpole"]
    model: dict[str, Any]
    """Its configuration, sizes and weights: plain values and NumPy arrays."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One input that was answered, or one episode that was played, with the figures that its time moves."""

    name: str
    """Such as ``sample 17`` or ``episode 3, return 500``."""
    verdict: Literal["", "right", "wrong"] = ""
    steps: Sequence[int] = ()
    """The environment step of each place of the time, [N], of a policy; empty: all belong to one input."""
    num_places: int
    """N, the number of ticks in the time."""
    first_place: int = 0
    """The place of the time, from 0, at which the page first shows it."""
    figures: Sequence[Figure]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page."""

    name: str
    """Unique and short, in lower case with dashes: the address in the page."""
    title: str
    text: str = ""
    """What the section shows, in plain words; paragraphs are separated by an empty line."""
    figures: Sequence[Figure] = ()
    samples: Sequence[Sample] = ()
    """Of which one is shown at a time; at most one section has them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str = ""
    notes: Sequence[str] = ()
    """What is missing, and why; shown at the top."""
    sections: Sequence[Section]


def to_plain(part: Any, exact: bool = False) -> Any:
    """A document, or a part of it, as JSON takes it; NaN and infinities become ``null``.

    Arrays of floats are written in half precision, whole numbers as int32, uint8 and bool as uint8: ``{"type": "f16",
    "shape": [...], "data": base64}``, little-endian. Floats of charts and machines are written in single precision,
    ``f32``, unless they come in half precision.

    Args:
        part: what to write.
        exact: whether floats are written in single precision.
    """
    if isinstance(part, Figure):
        named = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        exact = exact or isinstance(part, (Lines, Bars, Machine))
        return {"kind": part.kind} | {name: to_plain(value, exact) for name, value in named.items()}
    if isinstance(part, Images):
        return {"type": "images", "mime": part.mime, "files": [_base64(one) for one in part.files]}
    if dataclasses.is_dataclass(part):
        return {field.name: to_plain(getattr(part, field.name), exact) for field in dataclasses.fields(part)}
    if isinstance(part, np.ndarray):
        return _encode(part, exact)
    if isinstance(part, dict):
        return {str(key): to_plain(value, exact) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [to_plain(value, exact) for value in part]
    if isinstance(part, np.generic):
        part = part.item()
    return None if isinstance(part, float) and not math.isfinite(part) else part


def _encode(array: np.ndarray, exact: bool) -> dict[str, Any]:
    """An array with its type and shape."""
    if array.dtype.kind == "f":
        kind, stored = ("f32", "<f4") if exact and array.dtype != np.float16 else ("f16", "<f2")
        with np.errstate(over="ignore"):
            written = array.astype(stored)
    elif array.dtype in (np.uint8, np.bool_):
        kind, written = "u8", array.astype(np.uint8)
    elif array.dtype.kind in "iu":
        kind, written = "i32", array.astype("<i4")
    else:
        raise TypeError(f"an array of a report must hold numbers, got {array.dtype}.")
    return {"type": kind, "shape": list(array.shape), "data": _base64(np.ascontiguousarray(written).tobytes())}


def _base64(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")
