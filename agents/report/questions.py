"""Figures of questions about digits: what is shown when, and accuracy by digits and operations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctm_rl.agents.report.document import Figure, Matrix, Picture, Span, Table, Timeline
from ctm_rl.agents.report.samples import Shown, answers_readout, probabilities_figure, probability_traces
from ctm_rl.config import AnswerConfig
from ctm_rl.metrics import wilson_interval
from ctm_rl.models.preprocessing import NOTHING

_OPERATORS = {-1: "plus", -2: "minus"}


def question_figures(result: dict[str, Any]) -> list[Figure]:
    """Accuracy by the numbers of digits and operations.

    Args:
        result: of the evaluation, with ``questions`` of ``QuestionScores``.
    """
    rows = result["questions"]
    digits = sorted({row["num_digits"] for row in rows})
    operations = sorted({row["num_operations"] for row in rows})
    values = np.full((len(digits), len(operations)), np.nan)
    for row in rows:
        values[digits.index(row["num_digits"]), operations.index(row["num_operations"])] = row["accuracy"]
    table = Table(
        title="Accuracy by digits and operations",
        caption="Read at the most certain tick, with the interval that holds the true share with 95 %.",
        columns=("digits", "operations", "samples", "accuracy", "at the last tick"),
        rows=[
            (
                str(row["num_digits"]),
                str(row["num_operations"]),
                str(row["num_samples"]),
                _share(row["accuracy"], row["num_samples"]),
                f"{100 * row['accuracy_last']:.1f} %",
            )
            for row in rows
        ],
    )
    if values.size < 2:
        return [table]
    matrix = Matrix(
        title="Digits and operations",
        caption="Accuracy for each number of digits (rows) and operations (columns).",
        values=values,
        x_label="operations",
        y_label="digits",
        limits=(0.0, 1.0),
        x_names=[str(number) for number in operations],
        y_names=[str(number) for number in digits],
    )
    return [matrix, table]


def _share(share: float, count: int) -> str:
    """A share in percent with its interval."""
    low, high = wilson_interval(share, count)
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def question_sample(shown: Shown, config: AnswerConfig, names: Sequence[str]) -> list[Figure]:
    """A question: what is shown at each tick, attention over the digits, and the answer.

    Args:
        shown: the sample.
        config: of the model, which says for how many ticks each part is shown.
        names: of the classes.
    """
    observation = shown.candidate.observation
    num_digits = int(observation["num_digits"])
    parts = [int(part) for part in observation["question"].tolist() if part != NOTHING]
    digits = np.asarray(observation["digits"])[:num_digits, ..., 0]  # [n, H, W]
    each = config.ticks_per_input
    asked = " ".join(_OPERATORS.get(part, f"digit {part + 1}") for part in parts)
    figures: list[Figure] = [
        Picture(
            title="The question",
            caption=f"All digits, from the first one on. Asked: {asked}, modulo 10. The right answer is "
            f"{names[int(shown.candidate.target[0])]}.",
            images=np.concatenate(list(digits), axis=1)[None],
        ),
        Timeline(
            title="What is shown when",
            caption="The digits one after the other, then the question, then nothing while the machine answers.",
            num_places=shown.num_places,
            spans=_spans(num_digits, parts, each, shown),
        ),
    ]
    if shown.num_places > 1:
        # after the last digit nothing is shown: a dark image
        images = np.concatenate([digits, np.zeros_like(digits[:1])])
        place = np.minimum(np.arange(shown.num_places) // each, num_digits)
        figures.append(
            Picture(
                title="What it attends to",
                caption="The digit that is shown at this tick, with the attention of each head; dark once no digit is "
                "shown.",
                images=images,
                shown=place,
                attention=shown.attention,
            )
        )
    figures += [answers_readout(shown, names), probabilities_figure(shown, names)]
    return [*figures, *probability_traces(shown, names)]


def _spans(num_digits: int, parts: Sequence[int], each: int, shown: Shown) -> list[Span]:
    """When each part is shown, and when the machine answers."""
    if shown.num_places < 2:
        each = 0
    spans = [
        Span(row="shown", start=index * each, end=max((index + 1) * each, 1), label=f"digit {index + 1}")
        for index in range(num_digits)
    ]
    for index, part in enumerate(parts):
        start = (num_digits + index) * each
        label = _OPERATORS.get(part, f"digit {part + 1}?")
        spans.append(Span(row="asked", start=start, end=max(start + each, 1), label=label))
    answer = int(shown.answer.classes[0])
    target = int(shown.candidate.target[0])
    spans.append(
        Span(
            row="answer",
            start=shown.first_answer,
            end=shown.num_places,
            label=f"{answer}" if answer == target else f"{answer}, right is {target}",
            verdict="right" if answer == target else "wrong",
        )
    )
    return spans
