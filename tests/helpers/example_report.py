"""A report with a figure of every kind, without any run: what a page has to show."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ctm_rl.agents.report.document import (
    Bars,
    Code,
    Document,
    Figure,
    Images,
    Line,
    Lines,
    Matrix,
    Picture,
    Points,
    Readout,
    Sample,
    Section,
    Sequence1D,
    Span,
    Table,
    Timeline,
    Traces,
)

TICKS = 12
STEPS = 5
ATTACK = "</script><script>document.title = 'broken'</script><!-- & \u2028"
"""A text that would leave its element if it were not escaped."""


def _attention(generator: np.random.Generator, places: int, heads: int, rows: int, columns: int) -> np.ndarray:
    """Blobs that wander, one for each head: [places, heads, rows, columns], each adding up to 1."""
    time = np.arange(places)[:, None]
    phase = generator.uniform(0, 2 * math.pi, heads)
    row = (rows - 1) * (0.5 + 0.4 * np.sin(time / 3 + phase))
    column = (columns - 1) * (0.5 + 0.4 * np.cos(time / 4 + 2 * phase))
    distance = (np.arange(rows)[:, None] - row[..., None, None]) ** 2
    distance = distance + (np.arange(columns) - column[..., None, None]) ** 2
    weights = np.exp(-distance / 1.5)
    return weights / weights.sum((2, 3), keepdims=True)


def _maze(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of a maze with a staircase of a corridor through it, [size, size, 3], and the corridor."""
    image = np.where(generator.random((size, size)) < 0.4, 255, 0).astype(np.uint8)
    steps = [(1 + (i + 1) // 2, 1 + i // 2) for i in range(2 * (size - 3) + 1)]
    for row, column in steps:
        image[row, column] = 255
    picture = np.repeat(image[..., None], 3, axis=2)
    picture[steps[0]] = (255, 0, 0)
    picture[steps[-1]] = (0, 255, 0)
    return picture, np.array(steps, dtype=np.float64)


def _sums(values: np.ndarray) -> np.ndarray:
    """A random walk of each column."""
    return np.cumsum(values, axis=0)


def _loose_figures(generator: np.random.Generator) -> dict[str, Sequence[Figure]]:
    """The figures of the sections without samples, by section."""
    steps = np.arange(0, 200_000, 1000.0)
    curve = 1 - np.exp(-steps / 60_000) + generator.normal(0, 0.02, len(steps))
    gapped = np.where((steps > 80_000) & (steps < 95_000), np.nan, curve * 0.8)
    ticks = np.arange(1.0, TICKS + 1)
    accuracy = 1 - 0.6 * np.exp(-ticks / 4)
    movement = _sums(generator.normal(size=(TICKS, 60)))
    similarity = np.array(np.corrcoef(generator.normal(size=(24, 40))))
    similarity[3] = np.nan
    configuration = '{"model": {"num_ticks": 12, "num_neurons": 64}, "note": "' + ATTACK + '"}\n'
    return {
        "run": [
            Table(
                title="What ran",
                caption="Interquartile mean of three seeds with its 95 % interval.",
                columns=["measure", "value", "interval", "baseline", "episodes"],
                rows=[
                    ["return", "487.2", "[471.0, 499.8]", "21.4", "100"],
                    [ATTACK, "0.981", "[0.97, 0.99]", "0.5", "100"],
                ],
            ),
            Code(title="Make it again", text="ctm-rl train cartpole --seed 3 --budget.env-steps 200000\n"),
            Code(title="Configuration", text=configuration * 12, is_folded=True),
        ],
        "learning": [
            Lines(
                title="Return while training",
                caption="Mean over the episodes of an iteration; the bands are the spread of three seeds.",
                x=steps,
                lines=[
                    Line(name="machine", y=curve, low=curve - 0.08, high=curve + 0.08),
                    Line(name="LSTM", y=gapped, low=gapped - 0.05, high=gapped + 0.05),
                ],
                x_label="environment steps",
                y_label="return",
            ),
            Lines(
                title="Accuracy by tick",
                caption="Share of right answers after each tick.",
                x=list(ticks),
                lines=[Line(name="accuracy", y=accuracy, low=accuracy - 0.03, high=accuracy + 0.03)],
                x_label="tick",
                y_label="accuracy",
                y_range=(0, 1),
                cursor="tick",
            ),
            Lines(
                title="Compute against accuracy",
                caption="Each point is a threshold of certainty.",
                x=np.sort(generator.uniform(1, TICKS, 30)),
                lines=[Line(name="halting", y=np.sort(generator.uniform(0.4, 1, 30)), colour=3)],
                x_label="ticks used",
                y_label="accuracy",
            ),
            Bars(
                title="Most certain tick",
                caption="How many samples are most certain at which tick.",
                labels=[str(tick) for tick in range(1, TICKS + 1)],
                values=generator.integers(0, 60, TICKS).astype(float),
                x_label="tick",
                y_label="samples",
            ),
        ],
        "neurons": [
            Points(
                title="Neurons by their activity",
                caption="Two principal components; coloured by the post-activation.",
                points=generator.normal(size=(60, 2)) * (3, 1),
                values=np.tanh(movement),
                x_label="first component",
                y_label="second component",
                names=[f"neuron {index}" for index in range(60)],
            ),
            Matrix(
                title="How alike neurons are",
                caption="Correlation of post-activations; a neuron that never moves has none.",
                values=similarity,
                x_label="neuron",
                y_label="neuron",
                palette="diverging",
                limits=(-1, 1),
            ),
            Matrix(
                title="Accuracy by position and tick",
                caption="Share of right answers at each position.",
                values=generator.random((16, TICKS)),
                x_label="tick",
                y_label="position",
                cursor="tick",
            ),
        ],
    }


def _answer(generator: np.random.Generator, name: str, is_right: bool) -> Sample:
    """A sample of a model that answers, with the figures that its ticks move."""
    maze, route = _maze(generator, 21)
    predicted = np.full((TICKS, *route.shape), np.nan)
    for tick in range(TICKS):
        length = 3 + tick * len(route) // TICKS
        predicted[tick, :length] = route[:length]
    activations = np.tanh(_sums(generator.normal(size=(TICKS, 10)) * 0.6))
    logits = _sums(generator.normal(size=(TICKS, 5)) + np.array([0, 0, 0.4, 0, 0]))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = [str(value) for value in generator.integers(0, 2, 24)]
    answers = [
        [value if generator.random() < (tick + 4) / (TICKS + 3) else str(1 - int(value)) for value in truth]
        for tick in range(TICKS)
    ]
    attended = _attention(generator, TICKS, 3, 1, 24)[:, :, 0]
    digits = generator.integers(0, 255, (3, 14, 14), dtype=np.uint8)
    return Sample(
        name=name,
        verdict="right" if is_right else "wrong",
        num_places=TICKS,
        first_place=TICKS - 1,
        figures=[
            Picture(
                title="Attention and route",
                caption="Where each head attends, the path of its centre, and the route after this tick.",
                images=maze[None],
                attention=_attention(generator, TICKS, 4, 7, 7),
                route=route,
                routes=predicted,
            ),
            Bars(
                title="Probabilities",
                caption="Of each class after this tick.",
                labels=["cat", "dog", "a bird with a long name", "ship", "lorry"],
                values=probabilities,
                y_range=(0, 1),
                marked=2,
            ),
            Lines(
                title="Certainty",
                caption="One minus normalised entropy.",
                x=np.arange(1.0, TICKS + 1),
                lines=[Line(name="certainty", y=np.linspace(0.1, 0.9, TICKS))],
                x_label="tick",
                y_label="certainty",
                y_range=(0, 1),
                cursor="tick",
            ),
            Matrix(
                title="Synchronisation",
                caption="Of pairs of neurons.",
                values=_sums(generator.normal(size=(TICKS, 12, 12))),
                x_label="neuron",
                y_label="neuron",
                palette="diverging",
            ),
            Picture(
                title="What is shown", caption="One digit after another.", images=digits, shown=np.arange(TICKS) // 4
            ),
            Traces(
                title="Post-activations",
                caption="Ten neurons; pale: what goes into them.",
                values=activations,
                others=activations * 3 + generator.normal(size=activations.shape),
                names=[f"neuron {index}" for index in range(10)],
                groups=["synchronised"] * 5 + ["random"] * 5,
                legend=("post-activation", "pre-activation"),
            ),
            Sequence1D(
                title="Parity",
                caption="The sequence with attention, and the answer at each position.",
                symbols=["+" if value == "0" else "-" for value in truth],
                attention=attended,
                answers=answers,
                confidence=generator.uniform(0.5, 1, (TICKS, 24)),
                truth=truth,
            ),
            Timeline(
                title="What happens when",
                caption="What is shown, and what is answered.",
                num_places=TICKS,
                spans=[
                    Span(row="shown", start=0, end=4, label="digit 3"),
                    Span(row="shown", start=4, end=8, label="plus"),
                    Span(row="shown", start=8, end=9, label="digit 9"),
                    Span(row="answered", start=9, end=10, label="1", verdict="wrong"),
                    Span(row="answered", start=11, end=12, label="2", verdict="right"),
                ],
            ),
        ],
    )


def _frames(count: int) -> list[bytes]:
    """Frames of an episode, each a WebP file."""
    files = []
    for index in range(count):
        frame = np.full((40, 60, 3), 235, dtype=np.uint8)
        frame[18:30, 5 + 8 * index : 17 + 8 * index] = (30, 90, 160)
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "WEBP", lossless=True)
        files.append(file.getvalue())
    return files


def _episode(generator: np.random.Generator) -> Sample:
    """An episode of a policy: three ticks for each of its steps."""
    steps = np.repeat(np.arange(STEPS), 3)
    places = len(steps)
    return Sample(
        name="episode 1, return 5",
        steps=steps.tolist(),
        num_places=places,
        figures=[
            Picture(
                title="Frames",
                caption="What the environment shows before each action.",
                images=Images(mime="image/webp", files=_frames(STEPS)),
                shown=steps,
            ),
            Readout(
                title="Now",
                names=["action", "reward", "value"],
                values=[["left", "right", "left"] * STEPS, ["1"] * places, [f"{i / 3:.2f}" for i in range(places)]],
            ),
            Lines(
                title="Value by step",
                caption="After the last tick of each step.",
                x=list(range(STEPS)),
                lines=[
                    Line(name="value", y=np.linspace(4, 0, STEPS)),
                    Line(name="return", y=[5.0, 4.0, 3.0, 2.0, 1.0]),
                ],
                x_label="step",
                y_label="value",
                cursor="step",
            ),
            Traces(
                title="Neurons",
                values=_sums(generator.normal(size=(places, 4))),
                names=[f"neuron {i}" for i in range(4)],
            ),
        ],
    )


def example_report() -> Document:
    """A document with every kind of figure that is drawn without a model, and samples of all verdicts."""
    generator = np.random.default_rng(7)
    loose = _loose_figures(generator)
    samples = [_answer(generator, "sample 17", True), _answer(generator, "sample 4", False), _episode(generator)]
    return Document(
        title="A machine that thinks",
        subtitle="An example with a figure of every kind, made of random numbers.",
        notes=["Learning curves of two seeds are missing: their runs have no metrics.", ATTACK],
        sections=[
            Section(name="run", title="What ran", text="One run, and how to make it again.", figures=loose["run"]),
            Section(
                name="learning",
                title="Learning",
                text="How the return grew, and what the ticks are good for.\n\n"
                "The second paragraph says that more ticks help, up to a point: then answers stay what they are.",
                figures=loose["learning"],
            ),
            Section(name="neurons", title="Neurons", text="What the neurons do.", figures=loose["neurons"]),
            Section(
                name="samples",
                title="Samples",
                text="Inputs that were answered, rightly and wrongly. The bar below moves all figures together.",
                samples=samples,
            ),
        ],
    )
