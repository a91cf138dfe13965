"""Samples of models that answer: how they are chosen, and the figures that every task has of one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctm_rl.agents.report.document import Bars, Figure, Line, Lines, Readout, Traces
from ctm_rl.agents.report.neurons import NeuronRecord, Wiring
from ctm_rl.models.answers import Answer

MAX_CLASSES = 12
"""Classes whose probabilities are shown, at most: the likeliest ones."""


class Candidate(NamedTuple):
    """A held-out sample that was answered."""

    number: int
    """Among the held-out samples, from 0."""
    batch: int
    """The batch that it was made in, from 0."""
    observation: Any
    """As the environment shows it, without a batch axis."""
    target: np.ndarray
    """Classes, [G]; of an order [L]."""
    is_right: bool
    """Whether all elements were right, as ``evaluate`` reads them."""


class Shown(NamedTuple):
    """A sample with its recorded answer."""

    candidate: Candidate
    """The sample."""
    answer: Answer
    """Of one row, with its record; a model without ticks has none."""

    @property
    def num_places(self) -> int:
        """N, the ticks that the model took."""
        return 1 if self.answer.record is None else self.answer.record.post_activations.shape[1]

    @property
    def first_answer(self) -> int:
        """The place of the first tick that answers."""
        return self.num_places - len(self.probabilities)

    @property
    def probabilities(self) -> np.ndarray:
        """After each tick that answers, [K, G, C]."""
        if self.answer.record is None:
            found = self.answer.probabilities[:1]
            return found[:, None] if found.ndim == 2 else found
        found = self.answer.record.probabilities[0]
        return found[:, None] if found.ndim == 2 else found

    @property
    def certainty(self) -> np.ndarray:
        """After each tick that answers, [K]."""
        record = self.answer.record
        return self.answer.certainty[:1] if record is None else record.certainty[0]

    @property
    def attention(self) -> np.ndarray | None:
        """[N, heads, places...], NaN at the ticks that attended to nothing; ``None``: it never attends."""
        record = self.answer.record
        if record is None or record.attention is None:
            return None
        given = record.attention[0]
        rest = np.full((self.num_places - len(given), *given.shape[1:]), np.nan, given.dtype)
        return np.concatenate([given, rest]).astype(np.float16)


def choose(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Chooses samples that went right and wrong, half of each as far as there are, taking turns.

    Of either kind the first one of every batch comes first, then the second one of every batch, and so on: nobody has
    picked them.

    Args:
        candidates: in the order of the held-out samples.
        count: how many.
    """
    ordered = {verdict: _by_batch([one for one in candidates if one.is_right == verdict]) for verdict in (True, False)}
    half = min(len(ordered[False]), max(count // 2, count - len(ordered[True])))
    right, wrong = ordered[True][: count - half], ordered[False][:half]
    mixed = []
    for index in range(max(len(right), len(wrong))):
        mixed += [*right[index : index + 1], *wrong[index : index + 1]]
    return mixed


def _by_batch(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of every batch, then the second of every batch, and so on."""
    seen: dict[int, int] = {}
    ranked = []
    for candidate in candidates:
        seen[candidate.batch] = seen.get(candidate.batch, 0) + 1
        ranked.append((seen[candidate.batch], candidate))
    return [candidate for _, candidate in sorted(ranked, key=lambda item: item[0])]


def neurons_of(shown: Shown, wiring: Wiring | None) -> NeuronRecord | None:
    """The neurons of a sample; ``None``: the model has no ticks."""
    record = shown.answer.record
    if record is None:
        return None
    pre, action = record.pre_activations, record.action_sync
    return NeuronRecord(
        record.post_activations[0],
        None if pre is None else pre[0],
        record.output_sync[0],
        None if action is None else action[0],
        wiring,
    )


def certainty_figure(shown: Shown) -> list[Figure]:
    """Certainty over the ticks, and the tick at which the answer is read; none without ticks."""
    if shown.num_places < 2:
        return []
    values = np.full(shown.num_places, np.nan)
    values[shown.first_answer :] = shown.certainty
    tick = int(shown.answer.ticks[0])
    read = f"the answer is read at tick {tick}, the most certain one" if np.nanmax(values) == values[tick - 1] else ""
    return [
        Lines(
            title="Certainty",
            caption=f"1 minus the normalised entropy of the answer after each tick{'; ' if read else ''}{read}.",
            x=np.arange(1, shown.num_places + 1, dtype=np.float64),
            lines=[Line(name="certainty", y=values)],
            x_label="tick",
            y_label="certainty",
            y_range=(0.0, 1.0),
            cursor="tick",
        )
    ]


def probabilities_figure(shown: Shown, names: Sequence[str]) -> Figure:
    """Probability of each class after each tick, of an answer with one element.

    Args:
        shown: the sample.
        names: of the classes.
    """
    found = np.full((shown.num_places, shown.probabilities.shape[2]), np.nan)
    found[shown.first_answer :] = shown.probabilities[:, 0]
    target = int(shown.candidate.target[0])
    kept = np.arange(found.shape[1])
    if len(kept) > MAX_CLASSES:
        likeliest = np.argsort(-np.nanmax(found, 0), kind="stable")[: MAX_CLASSES - 1]
        kept = np.union1d(likeliest, [target])
    some = f"; the {len(kept)} likeliest of {found.shape[1]} classes" if len(kept) < found.shape[1] else ""
    return Bars(
        title="Probability of each class",
        caption=f"After each tick{some}. The right class is {names[target]}.",
        labels=[names[index] for index in kept.tolist()],
        values=found[:, kept] if shown.num_places > 1 else found[0, kept],
        x_label="class",
        y_label="probability",
        y_range=(0.0, 1.0),
        marked=int(np.searchsorted(kept, target)),
    )


def probability_traces(shown: Shown, names: Sequence[str]) -> list[Figure]:
    """Probability of the right class and of the likeliest others over the ticks, of an answer with one element."""
    if shown.num_places < 2 or shown.probabilities.shape[1] > 1:
        return []
    found = np.full((shown.num_places, shown.probabilities.shape[2]), np.nan)
    found[shown.first_answer :] = shown.probabilities[:, 0]
    target = int(shown.candidate.target[0])
    order = [index for index in np.argsort(-np.nanmax(found, 0), kind="stable").tolist() if index != target]
    kept = [target, *order[:3]]
    return [
        Lines(
            title="Probabilities over the ticks",
            caption="Of the right class and of the three likeliest others.",
            x=np.arange(1, shown.num_places + 1, dtype=np.float64),
            lines=[
                Line(name=f"{names[index]}{' (right)' if index == target else ''}", y=found[:, index]) for index in kept
            ],
            x_label="tick",
            y_label="probability",
            y_range=(0.0, 1.0),
            cursor="tick",
        )
    ]


def answers_readout(shown: Shown, names: Sequence[str], more: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """What is answered after each tick, as text; of long answers the number of right elements.

    Args:
        shown: the sample.
        names: of the classes.
        more: further values by name, at each tick that answers.
    """
    others = {} if more is None else more
    found = shown.probabilities.argmax(2)  # [K, G]
    target = shown.candidate.target.reshape(-1)
    blank = [""] * shown.first_answer
    if len(target) == 1:
        answers = [str(names[index]) for index in found[:, 0].tolist()]
        verdicts = ["right" if index == target[0] else "wrong" for index in found[:, 0].tolist()]
    else:
        answers = [f"{int((row == target).sum())} of {len(target)} right" for row in found]
        verdicts = ["right" if (row == target).all() else "wrong" for row in found]
    certainty = [f"{100 * value:.1f} %" for value in shown.certainty.tolist()]
    return Readout(
        title="Answer",
        caption="What the model would answer after this tick.",
        names=("answer", "verdict", "certainty", *others),
        values=[[*blank, *values] for values in (answers, verdicts, certainty, *others.values())],
    )


def vector_figures(shown: Shown) -> list[Figure]:
    """The numbers of a vector, or the parts of an observation with names, as bars."""
    observation = shown.candidate.observation
    parts = observation if isinstance(observation, dict) else {"": observation}
    figures: list[Figure] = []
    for name, part in parts.items():
        values = np.asarray(part, np.float64).reshape(-1)
        if 1 <= len(values) <= 256:
            figures.append(
                Bars(
                    title=f"Input {name}".rstrip(),
                    labels=[str(index) for index in range(len(values))],
                    values=values,
                    x_label="place",
                    y_label="value",
                )
            )
    return figures


def element_traces(shown: Shown) -> list[Figure]:
    """Probability of the right class of each element over the ticks, of an answer with several."""
    probabilities, target = shown.probabilities, shown.candidate.target.reshape(-1)
    if probabilities.shape[1] < 2 or shown.num_places < 2:
        return []
    kept = np.arange(min(len(target), 24))
    values = np.full((shown.num_places, len(kept)), np.nan, np.float16)
    values[shown.first_answer :] = probabilities[:, kept, target[kept]]
    return [
        Traces(
            title="Probability of the right class of each element",
            caption="Over the ticks, from 0 to 1.",
            values=values,
            names=[f"element {index + 1}" for index in kept.tolist()],
        )
    ]
