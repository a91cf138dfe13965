"""Writes what a comparison has found: tables for the terminal and for documents, and a figure of learning curves."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.bench.learning.curves import steps_of
from ctm_rl.agents.bench.learning.results import Run
from ctm_rl.agents.bench.learning.scores import MEASURES, Estimate, Group, count_tasks, groups_of, lowest_share
from ctm_rl.agents.bench.output import check_writable
from ctm_rl.agents.cluster.check import aligned

_NOTE = (
    "Scores: 100 x (return - random policy's) / (reference - random policy's). Area: the mean of the curve; last 100: "
    "of the last 100 training episodes; evaluated: of {episodes} episodes after training. In brackets the 95 % "
    "interval (percentile bootstrap over seeds); minutes: of training, wall clock."
)
COLOURS = ("#3b82f6", "#f5a524", "#30a46c", "#a855f7", "#ef4444", "#64748b")
"""Of contenders in figures, in turn."""


class Table(NamedTuple):
    """A table of a report."""

    titles: list[str]
    rows: list[list[str]]


def task_table(task: dict[str, Any]) -> Table:
    """The contenders on a task, as ``scores.summarise`` has them."""
    rows = [
        [
            one["contender"],
            str(len(one["seeds"])),
            _with_interval(one["area"], "z.1f"),
            _with_interval(one["final_return"], "z.4g"),
            _with_interval(one["evaluation_return"], "z.4g"),
            f"{one['seconds'] / 60:.1f}",
        ]
        for one in task["contenders"]
    ]
    return Table(["contender", "seeds", "area, score", "return, last 100", "return, evaluated", "minutes"], rows)


def difference_table(tasks: Sequence[dict[str, Any]]) -> Table:
    """The differences of scores on each task."""
    rows = [
        [
            name_of(task),
            f"{one['of']} - {one['from']}",
            *(_with_interval(one[measure], "+z.1f") for measure in ("area", "final", "evaluation")),
            _percent(one["share"]["area"]),
        ]
        for task in tasks
        for one in task["differences"]
    ]
    return Table(["task", "difference", "area", "last 100", "evaluated", "share of the area"], rows)


def aggregate_table(summary: dict[str, Any]) -> Table:
    """The interquartile means over tasks and seeds, and their differences."""
    rows = [
        [
            name,
            str(one["num_tasks"]),
            *(_with_interval(one[measure], form) for measure in ("area", "final", "evaluation")),
        ]
        for name, one, form in (
            *((one["contender"], one, "z.1f") for one in summary["aggregate"]),
            *((f"{one['of']} - {one['from']}", one, "+z.1f") for one in summary["differences"]),
        )
    ]
    return Table(["interquartile mean", "tasks", "area", "last 100", "evaluated"], rows)


def count_table(summary: dict[str, Any]) -> Table:
    """On how many tasks one contender is certainly not worse than another, or better, by each measure."""
    tasks = summary["tasks"]
    rows = []
    for pair in summary["differences"]:
        one, other = pair["of"], pair["from"]
        for measure, title in zip(MEASURES, ("area", "last 100", "evaluated"), strict=True):
            counts = [count_tasks(tasks, one, other, measure, above) for above in (-10.0, 0.0)]
            shown = [f"{count} of {pair['num_tasks']}" for count in counts]
            rows.append([f"{one} - {other}, {title}", *shown, _percent(lowest_share(tasks, one, other, measure))])
    return Table(["difference", "interval above -10", "above 0", "lowest share"], rows)


def name_of(task: dict[str, Any]) -> str:
    """A task with its steps."""
    return f"{task['task']}, {task['env_steps']:,} steps"


def scale_line(task: dict[str, Any]) -> str:
    """What a task's scores are measured by."""
    return f"random policy {task['random']:.4g}, reference {task['reference']:.4g}"


def to_text(summary: dict[str, Any], runs: Sequence[Run]) -> str:
    """The report for a terminal."""
    if not runs:
        return "no runs yet\n"
    lines = []
    for task in summary["tasks"]:
        lines += [f"{name_of(task)}: {scale_line(task)}", *_aligned(task_table(task)), ""]
    for table in (difference_table(summary["tasks"]), count_table(summary), aggregate_table(summary)):
        lines += [*_aligned(table), ""] if table.rows else []
    lines += [
        f"{task}: left out, since no random policy has played it, or no run is better than one"
        for task in summary["unscaled"]
    ]
    lines += [f"{name}: its runs were made with different settings or versions" for name in summary["mixed"]]
    episodes = sorted({run["episodes"] for run in runs})
    return "\n".join([*lines, _NOTE.format(episodes=" or ".join(map(str, episodes))), ""])


def draw(runs: Sequence[Run], path: Path) -> bool:
    """Draws the learning curves of all tasks into a PNG: means over seeds, and the range of the seeds.

    Args:
        runs: the runs.
        path: the file.

    Returns:
        Whether there is a figure: matplotlib is an optional extra, and there may be nothing to draw.

    Raises:
        UserError: it cannot be written.
    """
    groups, _ = groups_of(runs)
    if not groups or importlib.util.find_spec("matplotlib") is None:
        return False
    check_writable(path)
    figures: Any = importlib.import_module("matplotlib.figure")
    num_columns = min(3, len(groups))
    num_rows = -(-len(groups) // num_columns)
    figure = figures.Figure(figsize=(5 * num_columns, 3.4 * num_rows), layout="constrained")
    all_axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    names = dict.fromkeys(name for group in groups for name in group.runs)
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    for axes, group in zip(all_axes, groups, strict=False):
        for name in group.runs:
            steps, low, mean, high = curve_with_range(group, name)
            axes.plot(steps, mean, label=name, color=colours[name])
            axes.fill_between(steps, low, high, color=colours[name], alpha=0.2, linewidth=0)
        axes.axhline(group.scale.random, color="#64748b", linestyle=":", linewidth=1)
        axes.set(title=group.task, xlabel="env steps", ylabel="return, last 100 episodes", xlim=(0, group.env_steps))
        axes.legend()
    for axes in all_axes[len(groups) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
    return True


def curve_with_range(group: Group, contender: str) -> tuple[list[float], list[float], list[float], list[float]]:
    """A contender's learning curve: steps, and at each the lowest, the mean and the highest return of its seeds.

    It begins where every seed has finished an episode.
    """
    points = zip(steps_of(group.env_steps), *(run["curve"] for run in group.runs[contender]), strict=True)
    known = [(step, values) for step, *values in points if None not in values]
    return (
        [step for step, _ in known],
        [min(values) for _, values in known],
        [sum(values) / len(values) for _, values in known],
        [max(values) for _, values in known],
    )


def _with_interval(estimate: Estimate, form: str) -> str:
    """A number with its interval, if it has one."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    return f"{value:{form}}" + ("" if low is None else f" ({low:{form}} to {high:{form}})")


def _percent(share: float | None) -> str:
    """A share, if there is one."""
    return "" if share is None else f"{share:.0f} %"


def _aligned(table: Table) -> list[str]:
    return aligned([table.titles, *table.rows])
