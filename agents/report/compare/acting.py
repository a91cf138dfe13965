"""Policies, side by side: returns of the same episodes, and their differences."""

from collections.abc import Mapping, Sequence

import torch

from ctm_rl.agents.evaluation.answers import describe_share
from ctm_rl.agents.report.compare.answering import NOTHING
from ctm_rl.agents.report.compare.contenders import Contender
from ctm_rl.agents.report.compare.curves import SPREAD
from ctm_rl.agents.report.compare.measured import Played
from ctm_rl.agents.report.compare.overlay import Spread, difference, spread
from ctm_rl.agents.report.document import Figure, Section, Table
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.metrics import mean_interval

Found = Mapping[str, Played]
"""Results by the names of runs."""


def acting_sections(contenders: Sequence[Contender], found: Found, *, is_one_task: bool) -> list[Section]:
    """The section of policies.

    Args:
        contenders: all that are compared.
        found: the results of those runs that act.
        is_one_task: whether returns have the same unit, so that they have differences.
    """
    shown = [contender for contender in contenders if any(run.name in found for run in contender.runs)]
    if not shown:
        return []
    figures: list[Figure] = [_returns(shown, found)]
    if is_one_task and (len(shown) > 1 or len(shown[0].runs) > 1):
        figures.append(_differences(shown, found))
    return [Section(name="returns", title="How well they act", figures=figures)]


def _returns(contenders: Sequence[Contender], found: Found) -> Table:
    """The returns of each run."""
    count, seed = _shared(found)
    has_successes = any("success_rate" in played.result for played in found.values())
    rows = []
    for contender in contenders:
        for run in contender.runs:
            if run.name not in found:
                continue
            result = found[run.name].result
            success = describe_share(result, "success_rate") if "success_rate" in result else NOTHING
            ends = f"{describe_return(result['episode_return_min'])} to {describe_return(result['episode_return_max'])}"
            rows.append(
                (
                    contender.name,
                    run.name,
                    with_interval(result["episode_return_mean"], result["episode_return_interval"]),
                    describe_return(result["episode_return_std"]),
                    ends,
                    f"{result['episode_length_mean']:.1f}",
                    *((success,) if has_successes else ()),
                )
            )
    return Table(
        title="Evaluated returns",
        caption=f"{count} episodes of each run, of the same seeds for all; in parentheses the 95 % interval of the "
        f"mean by the bootstrap over episodes. The same numbers: ctm-rl evaluate --episodes {count} --seed {seed} "
        "--json.",
        columns=("line", "run", "mean return", "std", "from, to", "mean length", *(("successes",) * has_successes)),
        rows=rows,
    )


def _differences(contenders: Sequence[Contender], found: Found) -> Table:
    """What the runs of each contender have in common, and how that differs from the first one's."""
    first = contenders[0]
    rows = []
    for contender in contenders:
        values = _means(contender, found)
        common = spread(values)
        if contender is first:
            compared, method = NOTHING, NOTHING
        else:
            compared, method = _difference(contender, first, found)
        rows.append((contender.name, str(len(values)), _text(common), compared, method))
    return Table(
        title=f"Differences from {first.name}",
        caption=f"{SPREAD} A difference of two single runs is paired: that of the same episodes, whose interval is of "
        "these episodes and says nothing about other seeds of training. Otherwise it is that of the means over seeds, "
        "by the stratified bootstrap, and has no interval where a line has a single seed.",
        columns=("line", "seeds", "return", "difference", "interval over"),
        rows=rows,
    )


def _difference(one: Contender, other: Contender, found: Found) -> tuple[str, str]:
    """How the returns of two contenders differ, and what its interval is over."""
    ours, theirs = ([found[run.name] for run in each.runs if run.name in found] for each in (one, other))
    if len(ours) == len(theirs) == 1:
        pairs = torch.from_numpy(ours[0].returns - theirs[0].returns)
        low, high = mean_interval(pairs) or (None, None)
        return _text(Spread(float(pairs.mean()), low, high), is_signed=True), "episodes"
    compared = difference(_means(one, found), _means(other, found))
    return _text(compared, is_signed=True), "seeds" if compared.low is not None else NOTHING


def _means(contender: Contender, found: Found) -> list[float]:
    """The mean returns of a contender's runs."""
    return [_mean(found[run.name]) for run in contender.runs if run.name in found]


def _mean(played: Played) -> float:
    """The mean return of a run."""
    return played.result["episode_return_mean"]


def _shared(found: Found) -> tuple[int, int]:
    """The number of episodes, and their seed; both are the same for all runs."""
    result = next(iter(found.values())).result
    return result["episodes"], result["seed"]


def _text(found: Spread, *, is_signed: bool = False) -> str:
    """A return, or a difference of returns, with its interval."""
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return with_interval(found.value, ends, is_signed=is_signed)


def with_interval(value: float, interval: Sequence[float] | None, *, is_signed: bool = False) -> str:
    """A return with its interval, if it has one.

    Args:
        value: the return.
        interval: its ends.
        is_signed: whether a plus is written before what is above zero, as for differences.
    """

    def text(number: float) -> str:
        return ("+" if is_signed and number > 0 else "") + describe_return(number)

    ends = "" if interval is None else f" ({text(interval[0])} to {text(interval[1])})"
    return f"{text(value)}{ends}"
