"""Figures of sequences: parity, position by position, and sorting, emission by emission."""

from typing import Any

import numpy as np
import torch

from ctm_rl.agents.report.document import Bars, Figure, Line, Lines, Matrix, Sequence1D, Span, Timeline
from ctm_rl.agents.report.samples import Shown, answers_readout
from ctm_rl.metrics import Emissions, emissions

MAX_GAP_LABEL = "and more"


def parity_figures(result: dict[str, Any]) -> list[Figure]:
    """Figures of parity over all samples.

    Args:
        result: of the evaluation, as of ``PositionScores``.
    """
    chosen = result["accuracy_by_position"]
    return [
        Lines(
            title="Accuracy by position",
            caption="Share of samples that are right at each position of the sequence, read at the most certain tick "
            "and at the last one.",
            x=np.arange(1, len(chosen) + 1, dtype=np.float64),
            lines=[
                Line(name="most certain tick", y=chosen),
                Line(name="last tick", y=result["accuracy_by_position_last"]),
            ],
            x_label="position",
            y_label="accuracy",
            y_range=(0.0, 1.0),
        )
    ]


def parity_sample(shown: Shown) -> list[Figure]:
    """A sequence with the attention of every head, and the answers at each tick."""
    sequence = np.asarray(shown.candidate.observation).reshape(-1)
    classes = shown.probabilities.argmax(2)  # [K, G]
    confidence = shown.probabilities.max(2)
    attention = shown.attention
    if attention is not None:
        attention = attention.reshape(*attention.shape[:2], -1)
    has_answers = classes.shape[1] == len(sequence)
    figures: list[Figure] = [
        Sequence1D(
            title="The sequence",
            caption="The values, + and -, with the attention of each head at this tick; below them whether the number "
            "of - so far is odd or even, as answered at this tick, and as it is.",
            symbols=["+" if value > 0 else "-" for value in sequence.tolist()],
            attention=attention,
            answers=[[_parity(value) for value in row] for row in classes.tolist()] if has_answers else (),
            confidence=confidence.astype(np.float16) if has_answers else None,
            truth=[_parity(value) for value in shown.candidate.target.tolist()] if has_answers else (),
        ),
        answers_readout(shown, ("even", "odd")),
    ]
    if attention is not None:
        figures.append(
            Matrix(
                title="Attention over positions and ticks",
                caption="Mean over the heads: which positions are attended to at each tick.",
                values=attention.astype(np.float32).mean(1).T.astype(np.float16),
                x_label="tick",
                y_label="position",
                x_names=[str(tick + 1) for tick in range(shown.num_places)],
                y_names=[str(index + 1) for index in range(attention.shape[2])],
                cursor="time",
            )
        )
    return figures


def _parity(value: int) -> str:
    """Whether a number is odd or even, in a letter: 1 is odd."""
    return "o" if value else "e"


def sorting_figures(result: dict[str, Any], emitted: list[float]) -> list[Figure]:
    """Figures of sorting over all samples.

    Args:
        result: of the evaluation, as of ``SortingScores``.
        emitted: share of places emitted up to each tick.
    """
    places = result["wait_by_place"]
    bins = [point for point in result["wait_by_gap"] if point["count"]]
    return [
        Lines(
            title="What is emitted when",
            caption="Share of all places that have been emitted by each tick, right or wrong.",
            x=np.arange(1, len(emitted) + 1, dtype=np.float64),
            lines=[Line(name="emitted", y=emitted)],
            x_label="tick",
            y_label="share",
            y_range=(0.0, 1.0),
            cursor="tick",
        ),
        Bars(
            title="Waiting time by gap",
            caption="Ticks without an emission before a number, by its distance from the one before, where both are "
            "right. The paper's machine waits longer before larger gaps.",
            labels=[_bin(point) for point in bins],
            values=[float(point["wait"]) for point in bins],
            x_label="gap between neighbouring numbers",
            y_label="ticks",
        ),
        Bars(
            title="Waiting time by place",
            caption="Ticks without an emission before each place, right or wrong; the first one counts from the start.",
            labels=[str(index + 1) for index in range(len(places))],
            values=[np.nan if wait is None else float(wait) for wait in places],
            x_label="place",
            y_label="ticks",
        ),
    ]


def _bin(point: dict[str, Any]) -> str:
    """A bin of gaps."""
    return f"{point['low']:g} {MAX_GAP_LABEL}" if point["high"] is None else f"{point['low']:g} to {point['high']:g}"


def emissions_of(shown: Shown) -> Emissions:
    """What a sample has emitted, from its recorded probabilities."""
    logits = torch.from_numpy(np.log(np.maximum(shown.probabilities[:, 0], np.finfo(np.float32).tiny)))
    return emissions(logits.T[None])


def sorting_sample(shown: Shown) -> list[Figure]:
    """Numbers with what is emitted when."""
    numbers = np.asarray(shown.candidate.observation, np.float64).reshape(-1)
    target = shown.candidate.target
    found = emissions_of(shown)
    spans = []
    for place in range(int(found.counts[0])):
        index, tick = int(found.indices[0, place]), int(found.ticks[0, place])
        is_right = place < len(target) and index == target[place]
        label = f"{numbers[index]:.2f}"
        spans.append(
            Span(row="emitted", start=tick, end=tick + 1, label=label, verdict="right" if is_right else "wrong")
        )
    rank = np.argsort(target)  # the place of each index in the order
    probabilities = shown.probabilities[:, 0]  # [K, N + 1]
    ordered = np.concatenate([probabilities[:, target], probabilities[:, -1:]], axis=1)
    return [
        Timeline(
            title="What is emitted when",
            caption="Each number at the tick at which it is emitted; in between the machine emits nothing.",
            num_places=shown.num_places,
            spans=spans,
        ),
        Matrix(
            title="Probabilities over the ticks",
            caption="Of each number, the least one first, and last of emitting nothing. A right answer goes down step "
            "by step.",
            values=ordered.T.astype(np.float16),
            x_label="tick",
            y_label="number",
            limits=(0.0, 1.0),
            x_names=[str(tick + 1) for tick in range(shown.num_places)],
            y_names=[*(f"{numbers[index]:.2f}" for index in target.tolist()), "nothing"],
            cursor="time",
        ),
        Bars(
            title="The numbers",
            caption="As the machine is given them; below each its place in the order.",
            labels=[str(place + 1) for place in rank.tolist()],
            values=numbers,
            x_label="place in the order",
            y_label="value",
        ),
    ]
