"""What the runs of a comparison have in common: normalised scores, means and differences with their intervals.

A score is 100 times (return - random policy's) / (reference - random policy's). Intervals are percentile bootstraps
over seeds, stratified by task and contender, and aggregates are interquartile means over tasks and seeds, as rliable
has them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctm_rl.agents.bench.learning.options import RANDOM
from ctm_rl.agents.bench.learning.results import Run
from ctm_rl.agents.bench.learning.tasks import reference_of
from ctm_rl.metrics import interquartile_mean, stratified_interval

MEASURES = ("area", "final", "evaluation")
"""The scores of a run: the mean of its curve, its last point, and its evaluation."""
PAIRS = (("ctm", "lstm"), ("lstm", "sb3"), ("ctm", "sb3"), ("lstm", "mlp"))
"""The contenders whose differences are reported, beside those of a variant from what it varies."""
Estimate = dict[str, float | None]
"""A number by the key ``value``, and the ends of its interval: ``low``, ``high``."""


class Scale(NamedTuple):
    """What returns on a task are measured by."""

    random: float
    """The mean return of a random policy."""
    reference: float
    """The return that is worth a score of 100."""

    def score(self, value: float | None) -> float:
        """The score of a return; a policy of which no episode has ended yet counts as a random one."""
        return 0.0 if value is None else 100 * (value - self.random) / (self.reference - self.random)


def scale_of(task: str, runs: Sequence[Run]) -> Scale | None:
    """Returns what a task is measured by; where no reference is known it is the best evaluation here.

    Returns:
        The scale; ``None``: there is no random policy's return yet, or none that is better.
    """
    here = [run for run in runs if run["task"] == task]
    randoms = [run["evaluation"] for run in here if run["contender"] == RANDOM]
    reference = reference_of(task)
    if reference is None:
        reference = max((run["evaluation"] for run in here if run["contender"] != RANDOM), default=None)
    if not randoms or reference is None or reference <= randoms[0]:
        return None
    return Scale(randoms[0], reference)


def scores_of(run: Run, scale: Scale) -> dict[str, float]:
    """Returns a run's scores by the names of ``MEASURES``."""
    curve = [scale.score(value) for value in run["curve"]]
    return {"area": sum(curve) / len(curve), "final": curve[-1], "evaluation": scale.score(run["evaluation"])}


class Group(NamedTuple):
    """The runs of a task at one number of steps."""

    task: str
    env_steps: int
    scale: Scale
    runs: dict[str, list[Run]]
    """The runs of each contender, in the order of their seeds."""

    def values(self, contender: str, measure: str) -> Tensor:
        """The scores of a contender's runs, [N]."""
        return torch.tensor([scores_of(run, self.scale)[measure] for run in self.runs[contender]], dtype=torch.float64)


def groups_of(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Returns the runs by task and steps, and the tasks that have no scale."""
    groups, unscaled = [], []
    learned = [run for run in runs if run["contender"] != RANDOM]
    for task, env_steps in sorted({(run["task"], run["env_steps"]) for run in learned}):
        scale = scale_of(task, runs)
        if scale is None:
            unscaled.append(task)
            continue
        here = [run for run in learned if (run["task"], run["env_steps"]) == (task, env_steps)]
        names = sorted({run["contender"] for run in here}, key=_rank)
        by_name = {name: sorted((run for run in here if run["contender"] == name), key=_seed) for name in names}
        groups.append(Group(task, env_steps, scale, by_name))
    return groups, sorted(set(unscaled))


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns what is reported of runs.

    Returns:
        ``tasks``: for each task and number of steps the random policy's return, the reference, each contender's raw
        returns, scores and seconds, and differences of scores; ``aggregate`` and ``differences``: interquartile means
        of scores over tasks and seeds, and their differences over the tasks that both contenders have; ``unscaled``:
        tasks that are left out, since there is no random policy's return yet; ``mixed``: contenders on tasks whose
        runs were not made with the same settings.
    """
    groups, unscaled = groups_of(runs)
    names = sorted({name for group in groups for name in group.runs}, key=_rank)
    return {
        "tasks": [_summary_of(group) for group in groups],
        "aggregate": [
            {"contender": name, "num_tasks": len(found), **_aggregate([(group, name) for group in found])}
            for name in names
            if (found := [group for group in groups if name in group.runs])
        ],
        "differences": [
            {"of": one, "from": other, "num_tasks": len(found), **_aggregate_difference(found, one, other)}
            for one, other in pairs_of(names)
            if (found := [group for group in groups if {one, other} <= group.runs.keys()])
        ],
        "unscaled": unscaled,
        "mixed": [
            f"{name} on {group.task}"
            for group in groups
            for name, found in group.runs.items()
            if len({run.get("settings") for run in found}) > 1
        ],
    }


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the pairs of contenders whose differences are reported: ``PAIRS``, and variants with their kinds."""
    variants = [(name, name.partition(":")[0]) for name in names if ":" in name]
    return [pair for pair in (*PAIRS, *variants) if set(pair) <= set(names)]


def _summary_of(group: Group) -> dict[str, Any]:
    """What is reported of a task."""
    return {
        "task": group.task,
        "env_steps": group.env_steps,
        **group.scale._asdict(),
        "contenders": [_contender(group, name) for name in group.runs],
        "differences": [
            {"of": one, "from": other, **_difference(group, one, other)} for one, other in pairs_of(list(group.runs))
        ],
    }


def _contender(group: Group, name: str) -> dict[str, Any]:
    """What is reported of a contender on a task; ``area``, ``final`` and ``evaluation`` are scores."""
    runs = group.runs[name]
    finals = [group.scale.random if run["curve"][-1] is None else run["curve"][-1] for run in runs]
    return {
        "contender": name,
        "seeds": [run["seed"] for run in runs],
        "seconds": sum(run["seconds"] for run in runs) / len(runs),
        "final_return": _estimate([torch.tensor(finals, dtype=torch.float64)], _mean_of_all),
        "evaluation_return": _estimate(
            [torch.tensor([run["evaluation"] for run in runs], dtype=torch.float64)], _mean_of_all
        ),
        **{measure: _estimate([group.values(name, measure)], _mean_of_all) for measure in MEASURES},
    }


def _difference(group: Group, one: str, other: str) -> dict[str, Any]:
    """The differences of two contenders' mean scores, and the shares of the second's score that the first reaches."""
    values = {measure: [group.values(name, measure) for name in (one, other)] for measure in MEASURES}
    means = {measure: [float(item.mean()) for item in both] for measure, both in values.items()}
    return {
        **{measure: _estimate(both, _difference_of_means) for measure, both in values.items()},
        "share": {name: 100 * first / second if second > 0 else None for name, (first, second) in means.items()},
    }


def count_tasks(tasks: Sequence[dict[str, Any]], one: str, other: str, measure: str, above: float) -> int:
    """Returns on how many tasks the whole interval of the difference of two contenders is above a number of points.

    Args:
        tasks: of ``summarise``.
        one: the first contender.
        other: the second contender.
        measure: one of ``MEASURES``.
        above: the number.
    """
    lows = [found[measure]["low"] for task in tasks for found in task["differences"] if _is_of(found, one, other)]
    return sum(low is not None and low > above for low in lows)


def lowest_share(tasks: Sequence[dict[str, Any]], one: str, other: str, measure: str) -> float | None:
    """Returns the lowest share of the second contender's score that the first reaches on any task, in percent."""
    found = [item["share"][measure] for task in tasks for item in task["differences"] if _is_of(item, one, other)]
    return min((share for share in found if share is not None), default=None)


def _is_of(difference: dict[str, Any], one: str, other: str) -> bool:
    return (difference["of"], difference["from"]) == (one, other)


def _aggregate(members: Sequence[tuple[Group, str]]) -> dict[str, Estimate]:
    """Interquartile means of scores over tasks and seeds."""
    return {
        measure: _estimate([group.values(name, measure) for group, name in members], _interquartile_mean_of_all)
        for measure in MEASURES
    }


def _aggregate_difference(groups: Sequence[Group], one: str, other: str) -> dict[str, Estimate]:
    """Differences of interquartile means over the same tasks."""

    def difference(strata: list[Tensor]) -> Tensor:
        ours, theirs = strata[: len(groups)], strata[len(groups) :]
        return _interquartile_mean_of_all(ours) - _interquartile_mean_of_all(theirs)

    return {
        measure: _estimate([group.values(name, measure) for name in (one, other) for group in groups], difference)
        for measure in MEASURES
    }


def _estimate(strata: list[Tensor], statistic: Callable[[list[Tensor]], Tensor]) -> Estimate:
    """A statistic of groups of values with its interval."""
    low, high = stratified_interval(strata, statistic) or (None, None)
    return {"value": float(statistic([values[None] for values in strata])[0]), "low": low, "high": high}


def _mean_of_all(strata: list[Tensor]) -> Tensor:
    return torch.cat(strata, dim=1).mean(dim=1)


def _interquartile_mean_of_all(strata: list[Tensor]) -> Tensor:
    return interquartile_mean(torch.cat(strata, dim=1))


def _difference_of_means(strata: list[Tensor]) -> Tensor:
    one, other = strata
    return one.mean(dim=1) - other.mean(dim=1)


_ORDER = ("ctm", "lstm", "mlp", "sb3")


def _rank(name: str) -> tuple[int, str]:
    """The order of contenders in tables."""
    return _ORDER.index(name.partition(":")[0]), name


def _seed(run: Run) -> int:
    return run["seed"]
