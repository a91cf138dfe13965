"""The sections of a model that answers: how well and when it answers, how sure it is, samples, neurons."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ctm_rl.agents.evaluation.answers import EvaluationTask, describe_share
from ctm_rl.agents.experiments.make_task import make_samples_env, task_of
from ctm_rl.agents.report import images, mazes, questions, sequences
from ctm_rl.agents.report.document import Bars, Figure, Line, Lines, Matrix, Picture, Sample, Section, Table
from ctm_rl.agents.report.neurons import (
    NeuronLayout,
    NeuronRecord,
    Wiring,
    lay_out,
    neuron_figures,
    neuron_summary,
    wiring_of,
)
from ctm_rl.agents.report.samples import (
    Candidate,
    Shown,
    answers_readout,
    certainty_figure,
    choose,
    element_traces,
    neurons_of,
    probabilities_figure,
    probability_traces,
    vector_figures,
)
from ctm_rl.agents.report.scored import (
    MIN_COUNT,
    SECONDS,
    AnsweringModel,
    Scored,
    accuracy_by_confidence,
    describe_score,
    score,
)
from ctm_rl.metrics import find_peaks
from ctm_rl.models.answering import ContinuousThoughtMachine

_OWN_DATA = "ctm_rl/Data-v0"
"""The environment whose classes have names."""


class AnsweringOptions(NamedTuple):
    """What is shown of a model that answers."""

    num_samples: int
    """Samples that are shown, at most."""
    episodes: int | None
    """Samples that are answered for the numbers; ``None``: see ``scored.score``."""
    seed: int
    """Of the samples."""
    human: np.ndarray | None = None
    """The share of people who chose each class, [N, C]."""
    seconds: float = SECONDS
    """Time for the numbers, see ``scored.score``."""


def answering_sections(
    model: AnsweringModel, task: EvaluationTask, options: AnsweringOptions
) -> tuple[list[Section], list[str]]:
    """The sections of a model that answers.

    Args:
        model: the model, on the CPU.
        task: with held-out samples.
        options: what is shown.

    Returns:
        The sections, and notes on what is missing.

    Raises:
        UserError: the samples cannot be made, or do not fit the model.
    """
    model = model.eval()
    human = None if options.human is None else torch.from_numpy(options.human)
    scored = score(model, task, episodes=options.episodes, seed=options.seed, human=human, seconds=options.seconds)
    is_order = task.loss == "order"
    sections = [_accuracy_section(scored, task, is_order=is_order)]
    if scored.by_tick is not None:
        sections += [_ticks_section(scored, _words(task)), _calibration_section(scored)]
    elif not is_order:
        sections.append(_one_calibration(scored))
    sections += _human_section(scored)
    chosen = choose(scored.candidates, options.num_samples)
    sections += _task_section(model, task, scored, chosen, options.seed)
    shown, notes = _record(model, chosen)
    samples, neurons = _samples(model, task, shown, options)
    if samples:
        sections.append(
            Section(
                name="samples",
                title="Samples",
                text="The first held-out samples of each batch that went right, and the first that went wrong, taking "
                "turns: nobody has picked them. The slider goes through the ticks.",
                samples=samples,
            )
        )
    sections += _neuron_section(neurons)
    return sections, notes


def _accuracy_section(scored: Scored, task: EvaluationTask, *, is_order: bool) -> Section:
    """How well the model answers, over all ticks."""
    result = scored.result
    count = result["episodes"]
    words = _words(task)
    rows = [(f"right {words[0]}", describe_share(result, "accuracy"))]
    if result["accuracy_whole"] != result["accuracy"]:
        rows.append((f"right {words[1]}", describe_share(result, "accuracy_whole")))
    if "accuracy_last" in result:
        rows.append((f"right {words[0]} at the last tick", _percent(result["accuracy_last"])))
    if "solved_by_reapplying" in result:
        rows.append(("mazes solved piece by piece", _percent(result["solved_by_reapplying"])))
    figures: list[Figure] = [
        Table(
            title="Results",
            caption=f"{count} held-out samples of {result['task']}, seed {result['seed']}, "
            f"{'as emitted over all ticks' if is_order else 'each read at its most certain tick'}; in parentheses the "
            "interval that holds the true share with 95 %. The same numbers: "
            f"ctm-rl evaluate RUN --episodes {count} --seed {result['seed']} --json.",
            columns=("what", "share"),
            rows=rows,
        )
    ]
    if scored.by_tick is not None:
        figures += _by_tick(scored, words)
    return Section(name="answers", title="How well it answers", figures=figures)


def _words(task: EvaluationTask) -> tuple[str, str]:
    """What an element of an answer and a whole sample are called."""
    elements, whole = [*task.env.words, *("elements", "whole samples")[len(task.env.words) :]]
    return elements, whole


def _by_tick(scored: Scored, words: Sequence[str]) -> list[Figure]:
    """Accuracy and certainty after each tick."""
    result, found = scored.result, scored.by_tick
    assert found is not None
    ticks = np.arange(1, len(result["accuracy_by_tick"]) + 1, dtype=np.float64)
    lines = [_with_interval(words[0], result["accuracy_by_tick"], found["accuracy_by_tick_interval"])]
    if result["accuracy_whole_by_tick"] != result["accuracy_by_tick"]:
        intervals = found["accuracy_whole_by_tick_interval"]
        lines.append(_with_interval(words[1], result["accuracy_whole_by_tick"], intervals))
    low, median, high = found["certainty_band"]
    return [
        Lines(
            title="Accuracy by tick",
            caption="Share of right answers if all samples were read at this tick; the band holds the true share with "
            "95 %.",
            x=ticks,
            lines=lines,
            x_label=scored.tick_label,
            y_label="accuracy",
            y_range=(0.0, 1.0),
            cursor="" if scored.has_answer_ticks else "tick",
        ),
        Lines(
            title="Certainty by tick",
            caption="Mean certainty, 1 minus the normalised entropy of the answer, and its median with the middle 80 % "
            "of the samples.",
            x=ticks,
            lines=[
                Line(name="mean", y=result["certainty_by_tick"]),
                Line(name="median and middle 80 %", y=median, low=low, high=high),
            ],
            x_label=scored.tick_label,
            y_label="certainty",
            y_range=(0.0, 1.0),
            cursor="" if scored.has_answer_ticks else "tick",
        ),
    ]


def _with_interval(name: str, values: Sequence[float], intervals: Sequence[Sequence[float]]) -> Line:
    """A line with the intervals of its values."""
    return Line(name=name, y=values, low=[low for low, _ in intervals], high=[high for _, high in intervals])


def _ticks_section(scored: Scored, words: tuple[str, str]) -> Section:
    """When the model knows: first right tick, most certain tick, and what halting would cost."""
    found = scored.by_tick
    assert found is not None
    first, chosen = found["first_right_tick"], found["most_certain_tick"]
    count = found["num_samples"]
    labels = [str(tick + 1) for tick in range(len(first))]
    never = found["never_right"]
    figures: list[Figure] = [
        Bars(
            title="Tick of the first right answer",
            caption=f"Share of samples that are right as a whole for the first time at this tick; {never} of {count} "
            f"never are ({_percent(never / count)}).",
            labels=labels,
            values=[number / count for number in first],
            x_label=scored.tick_label,
            y_label="share of samples",
        ),
        Bars(
            title="Most certain tick",
            caption=f"Share of samples that are most certain at this tick. {describe_peaks(chosen)}",
            labels=labels,
            values=[number / count for number in chosen],
            x_label=scored.tick_label,
            y_label="share of samples",
        ),
    ]
    if scored.halting:
        figures += halting_figures(scored.halting, scored.num_halting, words)
    return Section(
        name="ticks",
        title="When it knows",
        text="How many ticks of thought the samples need, and how many the machine would take if it stopped once it is "
        "certain.",
        figures=figures,
    )


def describe_peaks(counts: Sequence[int]) -> str:
    """Whether a histogram of ticks has two peaks, in a sentence.

    Args:
        counts: of each tick.
    """
    peaks = [peak + 1 for peak in find_peaks(counts)]
    if len(peaks) == 2:
        return f"There are two peaks, at ticks {peaks[0]} and {peaks[1]}."
    return f"There is one peak, at tick {peaks[0]}." if peaks else ""


def halting_figures(points: Sequence[dict[str, Any]], count: int, words: tuple[str, str]) -> list[Figure]:
    """Compute against accuracy, where samples stop once they are certain.

    Args:
        points: of ``halting_curve``.
        count: number of samples.
        words: what an element and a whole sample are called.
    """
    ordered = sorted(points, key=lambda point: point["ticks_mean"])
    has_parts = any(point["accuracy"] != point["accuracy_whole"] for point in points)
    names = {"accuracy": words[0], "accuracy_whole": words[1]} if has_parts else {"accuracy": words[0]}
    lines = [
        _with_interval(word, [point[name] for point in ordered], [point[f"{name}_interval"] for point in ordered])
        for name, word in names.items()
    ]
    table = Table(
        title="Halting",
        caption="The same as numbers, with the time that a sample takes on this machine; certainties that change "
        "nothing are left out.",
        columns=(
            "halt at a certainty of",
            "mean ticks",
            *(f"right {word}" for word in names.values()),
            "ms per sample",
        ),
        rows=[
            (
                "all ticks" if point["threshold"] is None else f"{point['threshold']:g}",
                f"{point['ticks_mean']:.2f}",
                *(describe_share(point, name) for name in names),
                f"{1e3 * point['seconds_per_sample']:.3f}",
            )
            for index, point in enumerate(points)
            if index == 0 or _of(point) != _of(points[index - 1])
        ],
    )
    kept = [index for index, point in enumerate(ordered) if _is_new(ordered, index)]
    return [
        Lines(
            title="Compute against accuracy",
            caption=f"Accuracy of {count} samples that stop at a certainty, against the mean number of ticks that they "
            "take, for several certainties; a model that halts well is right with few ticks.",
            x=np.array([ordered[index]["ticks_mean"] for index in kept]),
            lines=[_rows_of(line, kept) for line in lines],
            x_label="mean ticks",
            y_label="accuracy",
            y_range=(0.0, 1.0),
        ),
        table,
    ]


def _of(point: dict[str, Any]) -> tuple[float, float]:
    """What a point of the halting curve is told apart by."""
    return point["ticks_mean"], point["accuracy"]


def _is_new(points: Sequence[dict[str, Any]], index: int) -> bool:
    """Whether a point takes more ticks than the one before: positions on an axis ascend."""
    return index == 0 or points[index]["ticks_mean"] > points[index - 1]["ticks_mean"]


def _rows_of(line: Line, rows: Sequence[int]) -> Line:
    """Some points of a line."""
    parts = [None if part is None else np.asarray(part)[list(rows)] for part in (line.y, line.low, line.high)]
    assert parts[0] is not None
    return Line(name=line.name, y=parts[0], low=parts[1], high=parts[2])


def _calibration_section(scored: Scored) -> Section:
    """Whether certainty is accuracy, by tick."""
    points = scored.calibration
    ticks = np.array([point["tick"] for point in points], np.float64)
    readings = {"last": "at this tick", "averaged": "mean of the ticks so far"}
    errors = [
        _with_interval(name, [point[key]["ece"] for point in points], [point[key]["ece_interval"] for point in points])
        for key, name in readings.items()
    ]
    result = scored.result["calibration"]
    return Section(
        name="calibration",
        title="Is it as sure as it is right",
        text="A calibrated model that says 80 % is right in 80 % of such cases.",
        figures=[
            _reliability("Reliability by tick", {f"tick {point['tick']}": point["last"] for point in points}),
            Lines(
                title="Calibration error by tick",
                caption="Expected calibration error: the mean distance between confidence and accuracy; the band holds "
                "95 % of resampled samples.",
                x=ticks,
                lines=errors,
                x_label=scored.tick_label,
                y_label="calibration error",
                cursor="" if scored.has_answer_ticks else "tick",
            ),
            _calibration_table(result),
        ],
    )


def _one_calibration(scored: Scored) -> Section:
    """Calibration of a model that answers once."""
    result = scored.result["calibration"]
    return Section(
        name="calibration",
        title="Is it as sure as it is right",
        figures=[_reliability("Reliability", {"model": result["last"]}), _calibration_table(result)],
    )


def _calibration_table(result: dict[str, Any]) -> Table:
    """Calibration error and Brier score of each reading."""
    names = {"most_certain": "most certain tick", "last": "last tick", "averaged": "mean of all ticks"}
    return Table(
        title="Calibration",
        caption="Of each way to read an answer; in parentheses the middle 95 % of resampled samples.",
        columns=("answer read at", "calibration error", "Brier score"),
        rows=[
            (name, *(describe_score(result[key], score_name) for score_name in ("ece", "brier")))
            for key, name in names.items()
        ],
    )


def _reliability(title: str, readings: dict[str, dict[str, Any]]) -> Lines:
    """Accuracy against confidence, bin by bin."""
    bins = next(iter(readings.values()))["reliability"]
    centres = np.array([(one["low"] + one["high"]) / 2 for one in bins])
    lines = [
        Line(
            name=name,
            y=accuracy_by_confidence(found),
        )
        for name, found in readings.items()
    ]
    return Lines(
        title=title,
        caption="Accuracy of answers by their confidence, the largest probability, in bins; on the diagonal the model "
        f"is as sure as it is right, below it is too sure. Bins of fewer than {MIN_COUNT} answers are left out.",
        x=centres,
        lines=[*lines, Line(name="calibrated", y=centres)],
        x_label="confidence",
        y_label="accuracy",
        y_range=(0.0, 1.0),
    )


def _human_section(scored: Scored) -> list[Section]:
    """The model beside people who were asked the same."""
    if scored.human is None:
        return []
    result = scored.result
    names = {"most_certain": "most certain tick", "last": "last tick", "averaged": "mean of all ticks"}
    rows = [
        (
            name,
            f"{result['human'][key]['kl']:.4f}",
            f"{result['human'][key]['cross_entropy']:.4f}",
            _optional(result["human"][key]["correlation"]),
            _optional(result["human"][key]["entropy_correlation"]),
        )
        for key, name in names.items()
    ]
    readings = {"people": scored.human, "model": result["calibration"]["most_certain"]}
    table = Table(
        title="Calibration of people and of the model",
        caption="In parentheses the middle 95 % of resampled samples.",
        columns=("who", "calibration error", "Brier score"),
        rows=[(who, describe_score(found, "ece"), describe_score(found, "brier")) for who, found in readings.items()],
    )
    agreement = Table(
        title="Agreement with people",
        caption="Divergence and cross-entropy in nats; correlations of the probabilities of all classes, and of how "
        "undecided both are about an image.",
        columns=("answer read at", "divergence", "cross-entropy", "correlation", "correlation of entropies"),
        rows=rows,
    )
    figures = [_reliability("Reliability beside people", readings), table, agreement]
    return [Section(name="people", title="Beside people", figures=figures)]


def _optional(value: float | None) -> str:
    """A correlation, if there is one."""
    return "none: one side is constant" if value is None else f"{value:.3f}"


def _task_section(
    model: AnsweringModel, task: EvaluationTask, scored: Scored, chosen: Sequence[Candidate], seed: int
) -> list[Section]:
    """The figures of a task over all samples."""
    result = scored.result
    kind = kind_of(model, task, chosen)
    figures: list[Figure] = []
    if kind == "maze":
        figures += mazes.maze_figures(result)
        if "solved_by_reapplying" in result:
            figures += mazes.reapplication(model, task, result, seed)
    if kind == "parity":
        figures += sequences.parity_figures(result)
    if kind == "question":
        figures += questions.question_figures(result)
    if kind == "order":
        figures += sequences.sorting_figures(result, scored.emitted)
    if scored.by_tick is not None and len(scored.by_tick["accuracy_by_element"]) > 1:
        figures.append(_by_element(scored.by_tick["accuracy_by_element"], kind))
    titles = {"maze": "Mazes", "parity": "Positions", "question": "Questions", "order": "Emissions"}
    return [Section(name="task", title=titles.get(kind, "Elements"), figures=figures)] if figures else []


def _by_element(shares: Sequence[Sequence[float]], kind: str) -> Figure:
    """Accuracy by element and tick."""
    name = {"parity": "position", "maze": "move"}.get(kind, "element")
    return Matrix(
        title=f"Accuracy by {name} and tick",
        caption=f"Share of samples that are right at each {name} (rows, from the first) after each tick (columns).",
        values=np.array(shares),
        x_label="tick",
        y_label=name,
        limits=(0.0, 1.0),
        x_names=[str(tick + 1) for tick in range(len(shares[0]))],
        y_names=[str(index + 1) for index in range(len(shares))],
        cursor="tick",
    )


def kind_of(model: AnsweringModel, task: EvaluationTask, chosen: Sequence[Candidate]) -> str:
    """Which figures a task has: maze, parity, question, order, image, or other."""
    first = chosen[0].observation if chosen else None
    if task.loss == "order":
        return "order"
    if model.config.encoder == "digits":
        return "question"
    if model.config.encoder == "parity":
        return "parity"
    if task.loss == "route" and mazes.is_maze(first):
        return "maze"
    return "image" if images.is_image(first) else "other"


def _record(model: AnsweringModel, chosen: Sequence[Candidate]) -> tuple[list[Shown], list[str]]:
    """Answers the chosen samples once more, one by one, and records what happens inside."""
    can_record = isinstance(model, ContinuousThoughtMachine)
    shown = [Shown(candidate, _answer(model, candidate, can_record)) for candidate in chosen]
    notes = [] if can_record else ["The model answers in one pass: there are no ticks to look into."]
    return shown, notes


def _answer(model: AnsweringModel, candidate: Candidate, can_record: bool) -> Any:
    """The answer to one sample."""
    observation = candidate.observation
    batch = (
        {name: np.asarray(part)[None] for name, part in observation.items()}
        if isinstance(observation, dict)
        else np.asarray(observation)[None]
    )
    return model.answer(batch, record=can_record)


def _samples(
    model: AnsweringModel, task: EvaluationTask, shown: Sequence[Shown], options: AnsweringOptions
) -> tuple[list[Sample], list[NeuronRecord]]:
    """Samples with their figures, and their neurons."""
    wiring = wiring_of(model)
    neurons = [record for one in shown if (record := neurons_of(one, wiring)) is not None]
    layout = lay_out(neurons)
    kind = kind_of(model, task, [one.candidate for one in shown])
    names = class_names(task, model)
    made: list[Sample] = []
    for one in shown:
        figures = [*sample_figures(one, model, kind, names), *_inside(one, wiring, layout)]
        made.append(_sample(_name_of(one), one, figures))
    if kind == "maze" and shown:
        made += _extra_mazes(model, task, shown, wiring, layout, options.seed)
    return made, neurons


def _inside(shown: Shown, wiring: Wiring | None, layout: NeuronLayout | None) -> list[Figure]:
    """Certainty and neurons of a sample."""
    record = neurons_of(shown, wiring)
    return [*certainty_figure(shown), *([] if record is None else neuron_figures(record, layout))]


def _sample(name: str, shown: Shown, figures: list[Figure]) -> Sample:
    """A sample of the page."""
    verdict = "right" if shown.candidate.is_right else "wrong"
    num_places = shown.num_places
    # what is shown part by part is dark in the end; everything else is first seen as it was answered
    first_place = 0 if shown.first_answer else num_places - 1
    return Sample(name=name, verdict=verdict, num_places=num_places, first_place=first_place, figures=figures)


def _name_of(shown: Shown) -> str:
    """The name of a sample; with several elements how many are right."""
    target = shown.candidate.target.reshape(-1)
    number = f"sample {shown.candidate.number}"
    if len(target) == 1:
        return number
    return f"{number}, {int((shown.answer.classes[0] == target).sum())} of {len(target)} right"


def sample_figures(shown: Shown, model: AnsweringModel, kind: str, names: Sequence[str]) -> list[Figure]:
    """The figures of a task of one sample, without neurons and certainty.

    Args:
        shown: the sample.
        model: the model.
        kind: of the task, see ``kind_of``.
        names: of the classes.
    """
    if kind == "maze":
        return mazes.maze_sample(shown)
    if kind == "parity":
        return sequences.parity_sample(shown)
    if kind == "question":
        return questions.question_sample(shown, model.config, names)
    if kind == "order":
        return sequences.sorting_sample(shown)
    if kind == "image":
        return images.image_figures(shown, names)
    figures: list[Figure] = [answers_readout(shown, names), *vector_figures(shown), *element_traces(shown)]
    if len(shown.candidate.target) == 1:
        figures += [probabilities_figure(shown, names), *probability_traces(shown, names)]
    return figures


def class_names(task: EvaluationTask, model: AnsweringModel) -> list[str]:
    """Names of the classes, as the samples of a user's own data have them; otherwise numbers."""
    count, found = model.config.num_classes, None
    if task.env.id.endswith(_OWN_DATA):
        env = make_samples_env(task.env, 1)
        found = getattr(getattr(task_of(env), "data", None), "classes", None)
        env.close()
    return [str(name) for name in found] if found is not None and len(found) == count else list(map(str, range(count)))


def _extra_mazes(
    model: AnsweringModel,
    task: EvaluationTask,
    shown: Sequence[Shown],
    wiring: Wiring | None,
    layout: NeuronLayout | None,
    seed: int,
) -> list[Sample]:
    """A maze with start and goal set by hand, and a larger one that is solved piece by piece."""
    candidate = shown[0].candidate
    moved = mazes.swapped(candidate, len(candidate.target))
    answer = _answer(model, moved, isinstance(model, ContinuousThoughtMachine))
    is_right = bool((answer.classes[0] == moved.target).all())
    again = Shown(moved._replace(is_right=is_right), answer)
    figures = [*mazes.maze_sample(again), *_inside(again, wiring, layout)]
    name = f"the maze of sample {candidate.number}, start and goal set by hand"
    size = mazes.larger_sizes(len(candidate.observation))[-1]
    return [_sample(name, again, figures), *_larger(model, task, size, seed)]


def _larger(model: AnsweringModel, task: EvaluationTask, size: int, seed: int) -> list[Sample]:
    """A larger maze, going on from where each route has ended."""
    if not isinstance(model, ContinuousThoughtMachine):
        return []
    parts = mazes.pieces(model, mazes.larger_maze(task, size, seed))
    num_ticks = len(parts[0][1].record.certainty[0]) if parts[0][1].record is not None else 1
    routes, attention, shown = [], [], []
    for index, (image, answer) in enumerate(parts):
        assert answer.record is not None
        routes.append(mazes.walk(image, answer.record.probabilities[0].argmax(2)))
        attention.append(answer.record.attention[0] if answer.record.attention is not None else None)
        shown += [index] * num_ticks
    image, answer = parts[-1]
    is_solved = mazes.reaches_goal(image, answer.classes.reshape(-1))
    has_attention = all(part is not None and part.ndim == 4 for part in attention)
    verb = "solved" if is_solved else "not solved"
    picture = Picture(
        title="Larger maze",
        caption=f"A maze of {size} pixels, {verb} in {len(parts)} pieces: each one begins where the route of the one "
        "before has ended, read at its most certain tick. With the attention of each head, the route predicted at this "
        "tick, and the right one from the first start.",
        images=np.stack([image for image, _ in parts]),
        shown=np.array(shown),
        attention=np.concatenate([part for part in attention if part is not None]).astype(np.float16)
        if has_attention
        else None,
        route=mazes.whole_route(parts[0][0]),
        routes=np.concatenate(routes),
    )
    return [
        Sample(
            name=f"a larger maze, {size} x {size}, piece by piece",
            verdict="right" if is_solved else "wrong",
            num_places=len(shown),
            first_place=len(shown) - 1,
            figures=[picture],
        )
    ]


def _neuron_section(records: Sequence[NeuronRecord]) -> list[Section]:
    """What neurons do over all recorded samples."""
    figures = neuron_summary(records)
    return [Section(name="neurons", title="Neurons", figures=figures)] if figures else []


def _percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"
