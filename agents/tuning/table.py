"""The result of a sweep: a table of its trials, the best one, and how to run that again."""

import math
import shlex
from typing import Any

from ray.tune.experiment import Trial

from ctm_rl.agents.cluster.check import aligned
from ctm_rl.agents.run_directory.directory import CONFIG_FILE
from ctm_rl.agents.tuning.plan import TUNE_FOLDER, Sweep, trial_name
from ctm_rl.agents.tuning.trial import FAILED, FINISHED
from ctm_rl.errors import UserError


class NoResult(UserError):
    """A sweep has ended, and none of its trials can be compared."""

    exit_code = 1


def format_table(sweep: Sweep, trials: list[Trial], directory: str) -> str:
    """Formats the results of all trials.

    Args:
        sweep: the sweep.
        trials: its trials, as Ray Tune left them.
        directory: the sweep's directory, for commands to type.

    Returns:
        Lines of text: the table, best trials first, then the best trial and what to do with it.
    """
    fields = [search.field for search in sweep.searches]
    rows = [["trial", *fields, sweep.metric, "env steps", "minutes", ""]]
    for trial in sorted(trials, key=lambda one: _key(sweep, one)):
        result = trial.last_result or {}
        rows.append(
            [
                trial_name(trial.trial_id),
                *(_format(trial.config.get(field)) for field in fields),
                _format(score_of(sweep, trial)),
                f"{int(result.get('env_steps') or 0):,}",
                f"{(result.get('seconds') or 0) / 60:.1f}",
                state_of(sweep, trial),
            ]
        )
    return "\n".join([*aligned(rows), "", *_describe_best(sweep, trials, directory)]).rstrip()


def check_result(sweep: Sweep, trials: list[Trial]) -> None:
    """Refuses a sweep in which there is nothing to compare.

    Raises:
        NoResult: no trial has a value of the metric; the line says what to change.
    """
    if best_of(sweep, trials) is not None:
        return
    if trials and all(FAILED in (trial.last_result or {}) or trial.status == Trial.ERROR for trial in trials):
        raise NoResult("no trial can be compared: all of them have failed, for the reasons in the table.")
    raise NoResult(
        f"no trial can be compared: none has a value of {sweep.metric}, which there is once an episode or a test has "
        f"ended; raise --budget.env-steps (now {sweep.experiment.budget.env_steps:,}), or name another --metric."
    )


def _describe_best(sweep: Sweep, trials: list[Trial], directory: str) -> list[str]:
    """The best trial, and the commands to use it."""
    best = best_of(sweep, trials)
    if best is None:
        return []
    place = f"{directory}/{trial_name(best.trial_id)}"
    lines = [f"best: {describe_trial(sweep, best)}"]
    if sweep.is_pbt:
        lines.append("its values changed while it ran, so that no single configuration repeats it")
    else:
        lines.append(f"run it again: ctm-rl train --config {shlex.quote(f'{place}/{CONFIG_FILE}')}")
    return [*lines, f"evaluate it: ctm-rl evaluate {shlex.quote(place)}"]


def describe_trial(sweep: Sweep, trial: Trial) -> str:
    """Describes a trial in one line: its values, its score, and how it ended."""
    values = ", ".join(f"{search.field} {_format(trial.config.get(search.field))}" for search in sweep.searches)
    state = state_of(sweep, trial)
    facts = f"{sweep.metric} {_format(score_of(sweep, trial))}"
    return f"{trial_name(trial.trial_id)} ({values}): {facts}{f', {state}' if state else ''}"


def best_of(sweep: Sweep, trials: list[Trial]) -> Trial | None:
    """Returns the trial with the best last score; None if none has a score and did not fail."""
    return min((one for one in trials if _is_scored(sweep, one)), key=lambda one: _key(sweep, one), default=None)


def _is_scored(sweep: Sweep, trial: Trial) -> bool:
    """Whether a trial can be the best one: it has a score and did not fail."""
    return score_of(sweep, trial) is not None and FAILED not in (trial.last_result or {})


def score_of(sweep: Sweep, trial: Trial) -> float | None:
    """Returns a trial's last score; None if it has none."""
    value = (trial.last_result or {}).get(sweep.metric)
    return None if value is None or math.isnan(value) else float(value)


def state_of(sweep: Sweep, trial: Trial) -> str:
    """Describes how a trial ended; empty if it has not."""
    result = trial.last_result or {}
    if FAILED in result:
        return f"failed: {result[FAILED]}"
    if trial.status == Trial.ERROR:
        folder = sweep.directory / TUNE_FOLDER / trial_name(trial.trial_id)
        return f"crashed: see {folder / 'error.txt'}"
    if trial.status != Trial.TERMINATED and not result.get("done"):
        return ""
    return "finished" if result.get(FINISHED) else "stopped early"


def _key(sweep: Sweep, trial: Trial) -> tuple[bool, float, str]:
    """A sort key: best score first, trials without one last."""
    value = score_of(sweep, trial)
    sign = -1.0 if sweep.options.mode == "max" else 1.0
    return not _is_scored(sweep, trial), 0.0 if value is None else sign * value, trial.trial_id


def _format(value: Any) -> str:
    """A value in the table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
