"""A sweep as a value: the experiment, what is searched and how, where it is written, and what each trial runs."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, build, from_json, to_json
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.acting_task import ActingTask
from ctm_rl.agents.runs.answering_task import AnsweringTask
from ctm_rl.agents.tuning.options import DEFAULT_NUM_SAMPLES, TuneOptions
from ctm_rl.agents.tuning.search_space import Config, Search, check_searches, parse_search, with_values
from ctm_rl.errors import UserError

SWEEP_FILE = "sweep.json"
TUNE_FOLDER = "tune"
"""Where Ray Tune keeps what it goes on from; of use to it alone."""

_CHANGEABLE = {
    "ppo": (
        *("lr", "gamma", "gae_lambda", "clip", "value_clip", "target_kl", "entropy_coefficient", "value_coefficient"),
        *("max_grad_norm", "num_epochs", "num_minibatches"),
    ),
    "learning": ("lr", "max_grad_norm", "min_num_ticks"),
    "bandit": ("clip", "entropy_coefficient", "value_coefficient"),
}
CHANGEABLE = tuple(f"{group}.{name}" for group, names in _CHANGEABLE.items() for name in names)
"""Fields that a run takes up when it goes on with other values. Of the rest some are refused then (environment, model),
some are kept in what a checkpoint holds (the optimiser's own settings), some would move what counts go by."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep, checked.

    Args:
        directory: where it is written, absolute.
        experiment: what is searched from.
        options: what is searched, and how.

    Raises:
        UserError: a search, or what it is compared by, is not possible for the experiment.
    """

    directory: Path
    experiment: AnyExperiment
    options: TuneOptions

    def __post_init__(self) -> None:
        """Refuses what cannot be searched."""
        if not self.options.search:
            raise UserError(
                "tune needs what to search, one --search FIELD=FUNCTION(VALUES) for each field, as "
                "--search 'ppo.lr=loguniform(1e-4,3e-3)'."
            )
        if self.experiment.storage is not None:
            raise UserError(
                "--storage is for a single run; put the sweep itself where all machines see it, with --run-dir."
            )
        if self.experiment.placement is not None:
            raise UserError("--placement is for a single run; Ray Tune places those of a sweep.")
        check_searches(self.experiment, self.searches)
        metrics = self._metrics()
        if self.options.metric is not None and self.options.metric not in metrics:
            raise UserError(f"--metric must be one of {', '.join(metrics)}; got {self.options.metric!r}.")
        if self.options.scheduler == "pbt":
            allowed = [name for name in CHANGEABLE if hasattr(self.experiment, name.partition(".")[0])]
            for search in self.searches:
                if search.field not in allowed:
                    raise UserError(
                        f"--search {search.field}: scheduler pbt changes values within a run, and a run can change "
                        f"{', '.join(allowed)}; use scheduler asha for others."
                    )

    @property
    def searches(self) -> list[Search]:
        """What is searched."""
        return [parse_search(text) for text in self.options.search]

    @property
    def num_samples(self) -> int:
        """How often values are drawn."""
        if self.options.num_samples is not None:
            return self.options.num_samples
        return DEFAULT_NUM_SAMPLES if any(search.is_random for search in self.searches) else 1

    @property
    def metric(self) -> str:
        """By what trials are compared."""
        is_supervised = isinstance(self.experiment, AnsweringExperiment)
        return self.options.metric or ("accuracy" if is_supervised else "episode_return_mean")

    @property
    def is_pbt(self) -> bool:
        """Whether trials change their values on the way."""
        return self.options.scheduler == "pbt"

    def run_dir(self, trial_id: str) -> Path:
        """Where a trial's run is written."""
        return self.directory / trial_name(trial_id)

    def experiment_of(self, config: Config, trial_id: str) -> AnyExperiment:
        """What a trial runs.

        Raises:
            UserError: its values are refused together.
        """
        try:
            experiment = with_values(self.experiment, config)
        except ValueError as error:
            raise UserError(str(error)) from error
        return dataclasses.replace(experiment, run_dir=str(self.run_dir(trial_id)))

    def to_json(self) -> dict[str, Any]:
        """What ``sweep.json`` holds."""
        return {
            "experiment": {**to_json(self.experiment), "run_dir": None},
            "options": dataclasses.asdict(self.options),
        }

    def _metrics(self) -> tuple[str, ...]:
        """Numbers that the trials tell."""
        if isinstance(self.experiment, AnsweringExperiment):
            return AnsweringTask(self.experiment).metrics
        return ActingTask.metrics


def is_sweep(directory: Path) -> bool:
    """Whether a directory is that of a sweep."""
    return (directory / SWEEP_FILE).is_file()


def read_sweep(directory: Path) -> Sweep:
    """Reads what a sweep was asked for.

    Raises:
        UserError: its file cannot be read.
    """
    file = directory / SWEEP_FILE
    try:
        values = json.loads(file.read_bytes())
        return Sweep(directory.absolute(), from_json(values["experiment"]), build(TuneOptions, values["options"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not what ctm-rl tune wrote: {error}") from error


def trial_name(trial_id: str) -> str:
    """The name of a trial, by its number in the sweep."""
    return f"trial-{trial_id.rpartition('_')[2]}"


def used_share(experiment: AnyExperiment, row: Row) -> float:
    """How much of its budget a run has used up, from 0 to 1, at a line of its metrics."""
    budget = experiment.budget
    share = (row["env_steps"] or 0) / budget.env_steps
    if budget.minutes is not None:
        share = max(share, (row["seconds"] or 0) / 60 / budget.minutes)
    return min(1.0, share)
