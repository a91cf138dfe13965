"""Models that answer, side by side: results, accuracy and certainty by tick, halting, calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctm_rl.agents.evaluation.answers import describe_share
from ctm_rl.agents.report.compare.contenders import Contender
from ctm_rl.agents.report.compare.curves import SPREAD
from ctm_rl.agents.report.compare.overlay import Curve, difference, lay_over, over_seeds, spread
from ctm_rl.agents.report.document import Figure, Line, Lines, Section, Table
from ctm_rl.agents.report.scored import MIN_COUNT, Scored, accuracy_by_confidence, describe_score

NOTHING = "–"  # noqa: RUF001
"""In tables, where there is no value."""
Found = Mapping[str, Scored]
"""Results by the names of runs."""


def answering_sections(contenders: Sequence[Contender], found: Found) -> list[Section]:
    """The sections of models that answer.

    Args:
        contenders: all that are compared.
        found: the results of those runs that answer.
    """
    shown = [contender for contender in contenders if any(run.name in found for run in contender.runs)]
    if not shown:
        return []
    sections = [Section(name="answers", title="How well they answer", figures=_accuracy(shown, found))]
    halting = _halting(shown, found)
    if halting:
        sections.append(Section(name="ticks", title="What thinking costs", figures=halting))
    calibration = _calibration(shown, found)
    if calibration:
        text = "A calibrated model that says 80 % is right in 80 % of such cases."
        title = "Are they as sure as they are right"
        sections.append(Section(name="calibration", title=title, text=text, figures=calibration))
    return sections


def results_of(contender: Contender, found: Found) -> list[Scored]:
    """The results of a contender's runs."""
    return [found[run.name] for run in contender.runs if run.name in found]


def _accuracy(contenders: Sequence[Contender], found: Found) -> list[Figure]:
    """Tables of results, and accuracy and certainty by tick."""
    count, seed = (
        " or ".join(str(value) for value in sorted({scored.result[name] for scored in found.values()}))
        for name in ("episodes", "seed")
    )
    rows = [
        (
            contender.name,
            run.name,
            describe_share(found[run.name].result, "accuracy"),
            describe_share(found[run.name].result, "accuracy_whole"),
            _share(found[run.name].result.get("accuracy_last")),
        )
        for contender in contenders
        for run in contender.runs
        if run.name in found
    ]
    figures: list[Figure] = [
        Table(
            title="Results",
            caption=f"{count} held-out samples, the same for all models of a task, each read at its most certain tick, "
            "an order as emitted over all ticks; in parentheses the interval that holds the true share with 95 %. The "
            f"same numbers: ctm-rl evaluate --episodes {count} --seed {seed} --json.",
            columns=("line", "run", "right elements", "whole samples", "at the last tick"),
            rows=rows,
        ),
        *_seed_tables(contenders, found),
    ]
    if_read = "If all samples were read at this tick; the band holds the true share with 95 %."
    sure = "Mean certainty, 1 minus the normalised entropy of the answer."
    for title, label, name, caption in (
        ("Accuracy by tick", "right elements", "accuracy_by_tick", if_read),
        ("Whole samples by tick", "whole samples right", "accuracy_whole_by_tick", if_read),
        ("Certainty by tick", "certainty", "certainty_by_tick", sure),
    ):
        figures += _by_tick(title, label, name, caption, contenders, found)
    return figures


def _seed_tables(contenders: Sequence[Contender], found: Found) -> list[Figure]:
    """What the seeds of contenders have in common, and how contenders differ; none where nobody has several seeds."""
    accuracies = {
        contender.name: [scored.result["accuracy"] for scored in results_of(contender, found)]
        for contender in contenders
    }
    if all(len(values) < 2 for values in accuracies.values()):
        return []
    rows = []
    first = next(iter(accuracies))
    for name, values in accuracies.items():
        compared = NOTHING if name == first else _points(difference(values, accuracies[first]))
        rows.append((name, str(len(values)), _shares(spread(values)), compared))
    return [
        Table(
            title="Right elements over seeds",
            caption=f"{SPREAD} The difference is that of these means, in percentage points, with its interval by the "
            "stratified bootstrap; it has none where a line has a single seed.",
            columns=("line", "seeds", "right elements", f"difference from {first}"),
            rows=rows,
        )
    ]


def _by_tick(
    title: str, label: str, name: str, caption: str, contenders: Sequence[Contender], found: Found
) -> list[Figure]:
    """One number of each tick."""

    def curve(results: Sequence[Scored]) -> Curve | None:
        if any(scored.by_tick is None for scored in results):
            return None
        return _seeds_by_tick(results, lambda scored: scored.result[name], lambda scored: _interval(scored, name))

    curves = _curves(contenders, found, curve)
    if not curves:
        return []
    x, lines = lay_over(curves)
    return [
        Lines(
            title=title,
            caption=f"{caption} {_over(contenders)}".rstrip(),
            x=x,
            lines=lines,
            x_label=_tick_label(contenders, found),
            y_label=label,
            y_range=(0.0, 1.0),
            cursor="tick",
        )
    ]


def _tick_label(contenders: Sequence[Contender], found: Found) -> str:
    """What a tick is called on an axis, if all models have the same name for it."""
    labels = {scored.tick_label for contender in contenders for scored in results_of(contender, found)}
    return labels.pop() if len(labels) == 1 else "tick"


def _interval(scored: Scored, name: str) -> Sequence[Sequence[float]] | None:
    """The intervals of one number of each tick; ``None``: it has none."""
    assert scored.by_tick is not None
    return scored.by_tick.get(f"{name}_interval")


def _over(contenders: Sequence[Contender]) -> str:
    """What lines of several seeds are."""
    return SPREAD if any(len(contender.runs) > 1 for contender in contenders) else ""


def _curves(
    contenders: Sequence[Contender], found: Found, make: Callable[[Sequence[Scored]], Curve | None]
) -> list[tuple[Contender, Curve]]:
    """The curves that a function makes of the results of each contender, as far as there are any."""
    made = [(contender, make(results)) for contender in contenders if (results := results_of(contender, found))]
    return [(contender, curve) for contender, curve in made if curve is not None]


def _seeds_by_tick(
    results: Sequence[Scored],
    values: Callable[[Scored], Sequence[float]],
    intervals: Callable[[Scored], Sequence[Sequence[float]] | None],
    ticks: Sequence[float] | None = None,
) -> Curve | None:
    """A number of each tick: of one run with its own interval, of several seeds with their spread."""
    numbers = list(ticks) if ticks is not None else list(range(1, len(values(results[0])) + 1))
    if len(results) > 1:
        return over_seeds([list(zip(numbers, values(scored), strict=True)) for scored in results])
    ends = intervals(results[0])
    low, high = (None, None) if ends is None else (np.array(ends)[:, 0], np.array(ends)[:, 1])
    return Curve(np.array(numbers, np.float64), np.array(values(results[0]), np.float64), low, high)


def _halting(contenders: Sequence[Contender], found: Found) -> list[Figure]:
    """Compute against accuracy where samples stop once they are certain."""
    curves = _curves(contenders, found, _halting_curve)
    if not curves:
        return []
    x, lines = lay_over(curves)
    rows = []
    for contender in contenders:
        for run in contender.runs:
            points = _distinct(found[run.name].halting) if run.name in found else []
            rows += [
                (
                    contender.name,
                    run.name,
                    "all ticks" if point["threshold"] is None else f"{point['threshold']:g}",
                    f"{point['ticks_mean']:.2f}",
                    describe_share(point, "accuracy"),
                    f"{1e3 * point['seconds_per_sample']:.3f}",
                )
                for point in points
            ]
    return [
        Lines(
            title="Compute against accuracy",
            caption="Right elements of samples that stop at a certainty, against the mean number of ticks that they "
            f"take, for several certainties; up and to the left is better. {_over(contenders)}".rstrip(),
            x=x,
            lines=lines,
            x_label="mean ticks",
            y_label="right elements",
            y_range=(0.0, 1.0),
        ),
        Table(
            title="Halting",
            caption="The same as numbers, with the time that a sample takes now, on this machine; certainties that "
            "change no number of ticks are left out.",
            columns=("line", "run", "halt at a certainty of", "mean ticks", "right elements", "ms per sample"),
            rows=rows,
        ),
    ]


def _distinct(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that take other numbers of ticks than those before."""
    ticks = [point["ticks_mean"] for point in points]
    return [point for index, point in enumerate(points) if point["ticks_mean"] not in ticks[:index]]


def _halting_curve(results: Sequence[Scored]) -> Curve | None:
    """Mean ticks against accuracy; of several seeds the means at each certainty."""
    if not all(scored.halting for scored in results):
        return None
    points = []
    for at_threshold in zip(*(scored.halting for scored in results), strict=True):
        ticks = spread([point["ticks_mean"] for point in at_threshold]).value
        found = spread([point["accuracy"] for point in at_threshold])
        low, high = (found.low, found.high) if len(results) > 1 else at_threshold[0]["accuracy_interval"]
        points.append((ticks, found.value, low, high))
    ascending: list[tuple[float, ...]] = []
    for point in sorted(points):
        if not ascending or point[0] > ascending[-1][0]:
            ascending.append(point)
    return Curve(*np.array(ascending, np.float64).T)


def _calibration(contenders: Sequence[Contender], found: Found) -> list[Figure]:
    """Reliability, calibration error by tick, and both scores."""
    with_classes = {name: scored for name, scored in found.items() if "calibration" in scored.result}
    if not with_classes:
        return []
    figures: list[Figure] = [_reliability(contenders, with_classes)]

    def errors(results: Sequence[Scored]) -> Curve | None:
        if not all(scored.calibration for scored in results):
            return None
        ticks = [point["tick"] for point in results[0].calibration]
        return _seeds_by_tick(
            results,
            lambda scored: [point["last"]["ece"] for point in scored.calibration],
            lambda scored: [point["last"]["ece_interval"] for point in scored.calibration],
            ticks,
        )

    curves = _curves(contenders, with_classes, errors)
    if curves:
        x, lines = lay_over(curves)
        figures.append(
            Lines(
                title="Calibration error by tick",
                caption="Expected calibration error of answers read at this tick: the mean distance between confidence "
                f"and accuracy; the band holds 95 % of resampled samples. {_over(contenders)}".rstrip(),
                x=x,
                lines=lines,
                x_label=_tick_label(contenders, found),
                y_label="calibration error",
                cursor="tick",
            )
        )
    figures.append(
        Table(
            title="Calibration",
            caption="Of answers read at the most certain tick; in parentheses the middle 95 % of resampled samples.",
            columns=("line", "run", "calibration error", "Brier score"),
            rows=[
                (
                    contender.name,
                    run.name,
                    *(describe_score(_chosen(with_classes[run.name]), name) for name in ("ece", "brier")),
                )
                for contender in contenders
                for run in contender.runs
                if run.name in with_classes
            ],
        )
    )
    return figures


def _chosen(scored: Scored) -> dict[str, Any]:
    """The calibration of answers that are read at the most certain tick."""
    return scored.result["calibration"]["most_certain"]


def _reliability(contenders: Sequence[Contender], found: Found) -> Figure:
    """Accuracy against confidence, bin by bin; of several seeds the mean of those that have enough answers there."""
    bins = _chosen(next(iter(found.values())))["reliability"]
    centres = np.array([(one["low"] + one["high"]) / 2 for one in bins])
    lines = [
        Line(
            name=contender.title,
            y=_mean_where_known(np.array([accuracy_by_confidence(_chosen(scored)) for scored in results])),
            colour=contender.colour,
        )
        for contender in contenders
        if (results := results_of(contender, found))
    ]
    last = max(contender.colour for contender in contenders) + 1
    return Lines(
        title="Reliability",
        caption="Accuracy of answers at the most certain tick by their confidence, the largest probability, in bins; "
        "on the diagonal a model is as sure as it is right, below it is too sure. Bins of fewer than "
        f"{MIN_COUNT} answers of a run are left out.",
        x=centres,
        lines=[*lines, Line(name="calibrated", y=centres, colour=last)],
        x_label="confidence",
        y_label="accuracy",
        y_range=(0.0, 1.0),
    )


def _mean_where_known(values: np.ndarray) -> np.ndarray:
    """Means over the first axis without NaN, [N, n] to [n]; NaN where there is nothing else."""
    is_known = ~np.isnan(values)
    total = np.where(is_known, values, 0).sum(0)
    count = is_known.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _share(share: float | None) -> str:
    """A share in percent, if there is one."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def _shares(found: Any) -> str:
    """A share in percent with its interval, as far as it has one."""
    interval = "" if found.low is None else f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"{100 * found.value:.1f} %{interval}"


def _points(found: Any) -> str:
    """A difference of shares in percentage points, with its interval."""
    interval = "" if found.low is None else f" ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"{100 * found.value:+.1f}{interval}"
