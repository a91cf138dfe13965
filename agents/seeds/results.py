"""The results of several seeds: a table, and the same as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctm_rl.agents.cluster.check import aligned
from ctm_rl.agents.run_directory.directory import write_config
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import describe_return
from ctm_rl.agents.seeds.plan import RESULTS_FILE, Seeds
from ctm_rl.agents.seeds.processes import Outcome
from ctm_rl.agents.seeds.statistics import CONFIDENCE, aggregate, curve
from ctm_rl.errors import UserError

_METHOD = "Student's t over seeds"
_SHARES = ("accuracy", "accuracy_whole")


class SeedsFailed(UserError):
    """Some seeds have failed; the others are there."""

    exit_code = 1


def collect(seeds: Seeds, outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """Returns the results of all seeds, as ``results.json`` holds them.

    Args:
        seeds: the runs.
        outcomes: how each has ended; the means are over those that have finished.

    Returns:
        ``experiment``; ``seeds``: for each its number, directory, status, env steps, seconds and last metrics;
        ``metrics``: for each metric what ``aggregate`` returns; ``curve``: for the first metric what ``curve`` returns.
    """
    rows = {seed: read_metrics(seeds.run_dir(seed)) for seed in outcomes}
    finished = [seed for seed, outcome in outcomes.items() if outcome.status == "finished" and rows[seed]]
    listed = [
        {
            "seed": seed,
            "run_dir": seeds.run_dir(seed).name,
            **outcome._asdict(),
            **{
                name: rows[seed][-1].get(name) if rows[seed] else None
                for name in ("env_steps", "seconds", *seeds.metrics)
            },
        }
        for seed, outcome in outcomes.items()
    ]
    first = seeds.metrics[0]
    points = [
        [(row["env_steps"] or 0.0, value) for row in rows[seed] if (value := row.get(first)) is not None]
        for seed in finished
    ]
    return {
        "experiment": seeds.experiment.name,
        "confidence": CONFIDENCE,
        "interval": _METHOD,
        "seeds": listed,
        "metrics": {
            name: aggregate(
                [value for seed in finished if (value := rows[seed][-1].get(name)) is not None],
                is_share=name in _SHARES,
            )
            for name in seeds.metrics
        },
        "curve": {"metric": first, **curve(points, is_share=first in _SHARES)},
    }


def write_results(seeds: Seeds, results: dict[str, Any]) -> Path:
    """Writes ``results.json``; returns its path.

    Raises:
        UserError: it cannot be written.
    """
    path = seeds.directory / RESULTS_FILE
    try:
        write_config(seeds.directory, results, RESULTS_FILE)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def format_results(results: Mapping[str, Any]) -> str:
    """Formats ``collect``'s results: a line for each seed, then what they have in common."""
    metrics = list(results["metrics"])
    table = [["seed", *metrics, "env steps", "minutes", ""]]
    for item in results["seeds"]:
        steps, seconds = item["env_steps"] or 0, item["seconds"] or 0
        state = Outcome(item["status"], item["reason"]).in_words()
        shown = [_format(name, item[name]) for name in metrics]
        table.append([str(item["seed"]), *shown, f"{int(steps):,}", f"{seconds / 60:.1f}", state])
    return "\n".join([*aligned(table), "", *_summary(results["metrics"])])


def check_outcomes(outcomes: Mapping[int, Outcome], place: str) -> None:
    """Reports seeds that have not finished.

    Args:
        outcomes: how each has ended.
        place: their directory, for commands to type.

    Raises:
        SeedsFailed: at least one has.
    """
    failed = {seed: outcome for seed, outcome in outcomes.items() if outcome.status != "finished"}
    if failed:
        named = "; ".join(f"seed {seed} {outcome.in_words().rstrip('.')}" for seed, outcome in failed.items())
        raise SeedsFailed(
            f"{len(failed)} of {len(outcomes)} seeds did not finish ({named}); what they have written is in "
            f"{place}/seed-N.log; continue them with: ctm-rl resume {place}"
        )


def collect_evaluations(results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the evaluations of several seeds and what they have in common.

    Args:
        results: what ``evaluate`` has returned for each seed.
    """
    names = [name for name in ("episode_return_mean", *_SHARES) if all(name in one for one in results.values())]
    return {
        "confidence": CONFIDENCE,
        "interval": _METHOD,
        "seeds": [{"train_seed": seed, **result} for seed, result in results.items()],
        "metrics": {
            name: aggregate([result[name] for result in results.values()], is_share=name in _SHARES) for name in names
        },
    }


def format_evaluations(results: Mapping[str, Any], lines: Mapping[int, str]) -> str:
    """Formats ``collect_evaluations``'s results.

    Args:
        results: the results.
        lines: each seed's own result as text.
    """
    return "\n".join([*(f"seed {seed}: {line}" for seed, line in lines.items()), "", *_summary(results["metrics"])])


def _summary(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each metric: its mean over seeds, and how sure that is."""
    lines = []
    for name, found in metrics.items():
        if found["mean"] is None:
            lines.append(f"{name}: no seed has a value")
            continue
        spread = ""
        if found["std"] is not None:
            low, high, std = (_format(name, found[key]) for key in ("low", "high", "std"))
            spread = f" (95 % interval {low} to {high}, std {std})"
        line = f"{name}: {_format(name, found['mean'])}{spread}, mean of {found['num_seeds']} seeds"
        lines.append(line)
    return lines


def _format(name: str, value: float | None) -> str:
    """A value of a metric."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if name in _SHARES else describe_return(value)
