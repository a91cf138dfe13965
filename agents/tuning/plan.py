"""A sweep as a value: the experiment, the searched fields, its directory, and the experiment of each trial."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, build, from_json
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, SWEEP_FILE, config_of
from ctm_rl.agents.run_directory.trust import Claim, run_claims, value_claims
from ctm_rl.agents.runs.acting_task import ActingTask
from ctm_rl.agents.runs.answering_task import AnsweringTask
from ctm_rl.agents.tuning.options import DEFAULT_NUM_SAMPLES, TuneOptions
from ctm_rl.agents.tuning.search_space import Config, Search, check_searches, parse_search, with_values
from ctm_rl.errors import UserError, sentence, user_errors

TUNE_FOLDER = "tune"
"""Ray Tune's own files, which it resumes a sweep from."""

_CHANGEABLE = {
    "ppo": (
        *("lr", "gamma", "gae_lambda", "clip", "value_clip", "target_kl", "entropy_coefficient", "value_coefficient"),
        *("max_grad_norm", "num_epochs", "num_minibatches"),
    ),
    "learning": ("lr", "max_grad_norm", "min_num_ticks"),
    "bandit": ("clip", "entropy_coefficient", "value_coefficient"),
}
CHANGEABLE = tuple(f"{group}.{name}" for group, names in _CHANGEABLE.items() for name in names)
"""Fields that can change within a run. Others are refused when a run is resumed (environment, model), or restored from
the checkpoint (the optimiser's settings), or would change the meaning of its counters."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep, checked.

    Args:
        directory: its directory, absolute.
        experiment: the experiment whose fields are searched.
        options: the searched fields, and how they are searched.

    Raises:
        UserError: a search or the metric does not fit the experiment.
    """

    directory: Path
    experiment: AnyExperiment
    options: TuneOptions

    def __post_init__(self) -> None:
        """Refuses searches and options that the experiment does not allow."""
        if not self.options.search:
            raise UserError(
                "tune needs at least one --search FIELD=FUNCTION(VALUES), such as "
                "--search 'ppo.lr=loguniform(1e-4,3e-3)'."
            )
        if self.experiment.storage is not None:
            raise UserError("--storage is for a single run; put the sweep where all machines see it, with --run-dir.")
        if self.experiment.placement is not None:
            raise UserError("--placement is for a single run; Ray Tune places the trials of a sweep.")
        check_searches(self.experiment, self.searches)
        if isinstance(self.experiment, AnsweringExperiment):
            metrics = AnsweringTask(self.experiment).metrics
        else:
            metrics = ActingTask(self.experiment).metrics
        if self.options.metric is not None and self.options.metric not in metrics:
            raise UserError(f"--metric must be one of {', '.join(metrics)}; got {self.options.metric!r}.")
        if self.options.scheduler == "pbt":
            allowed = [name for name in CHANGEABLE if hasattr(self.experiment, name.partition(".")[0])]
            for search in self.searches:
                if search.field not in allowed:
                    raise UserError(
                        f"--search {search.field}: scheduler pbt changes values within a run, where only "
                        f"{', '.join(allowed)} can change; use --scheduler asha for other fields."
                    )

    @property
    def searches(self) -> list[Search]:
        """The searched fields with their values."""
        return [parse_search(text) for text in self.options.search]

    @property
    def claims(self) -> list[Claim]:
        """What resuming the sweep asks for; Ray Tune's own files hold pickles, and are bound to their place."""
        place = str(self.directory.resolve())
        searched = value_claims({"--search": [search.arguments for search in self.searches]})
        return [Claim("DIR", "run what Ray Tune's files in {} hold", place), *run_claims(self.experiment), *searched]

    @property
    def num_samples(self) -> int:
        """How often values are drawn."""
        if self.options.num_samples is not None:
            return self.options.num_samples
        return DEFAULT_NUM_SAMPLES if any(search.is_random for search in self.searches) else 1

    @property
    def metric(self) -> str:
        """The metric that trials are compared by."""
        is_supervised = isinstance(self.experiment, AnsweringExperiment)
        return self.options.metric or ("accuracy" if is_supervised else "episode_return_mean")

    @property
    def is_pbt(self) -> bool:
        """Whether trials change their values while they run."""
        return self.options.scheduler == "pbt"

    def run_dir(self, trial_id: str) -> Path:
        """Returns the directory of a trial's run."""
        return self.directory / trial_name(trial_id)

    def experiment_of(self, config: Config, trial_id: str) -> AnyExperiment:
        """Returns the experiment of a trial.

        Raises:
            UserError: the experiment refuses its values.
        """
        with user_errors():
            experiment = with_values(self.experiment, config)
        return dataclasses.replace(experiment, run_dir=str(self.run_dir(trial_id)))

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``sweep.json``."""
        return {
            "experiment": config_of(self.experiment),
            "options": dataclasses.asdict(self.options),
        }


def is_sweep(directory: Path) -> bool:
    """Whether a directory is the directory of a sweep."""
    return (directory / SWEEP_FILE).is_file()


def read_sweep(directory: Path) -> Sweep:
    """Reads a sweep from its directory.

    Raises:
        UserError: its file cannot be read.
    """
    file = directory / SWEEP_FILE
    try:
        values = json.loads(file.read_bytes())
        options = dict(values["options"])
        # In sweeps of version 0.1.0, which wrote TensorBoard and JSON anyway.
        former = [name for name in options.pop("logger", ()) if name not in ("tensorboard", "json")]
        experiment = from_json(values["experiment"])
        experiment = dataclasses.replace(experiment, logger=tuple(dict.fromkeys((*experiment.logger, *former))))
        return Sweep(directory.absolute(), experiment, build(TuneOptions, options))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a file that ctm-rl tune has written: {sentence(error)}") from error


def describe_trials(directory: Path, place: str) -> str:
    """Returns a line that names a sweep's trials with their last values, and how to evaluate the best one.

    Args:
        directory: the sweep's directory.
        place: the same, for commands to type.

    Raises:
        UserError: its file cannot be read.
    """
    from ctm_rl.agents.run_directory.metrics_file import read_metrics

    sweep = read_sweep(directory)
    scores: dict[str, float | None] = {}
    for trial in sorted(path.parent.name for path in directory.glob(f"trial-*/{CONFIG_FILE}")):
        rows = read_metrics(directory / trial)
        scores[trial] = rows[-1].get(sweep.metric) if rows else None
    if not scores:
        return f"{place} is a sweep without trials; continue it with: ctm-rl resume {shlex.quote(place)}"
    named = ", ".join(name if value is None else f"{name} ({value:.4g})" for name, value in scores.items())
    known = {name: value for name, value in scores.items() if value is not None}
    best = (max if sweep.options.mode == "max" else min)(known or scores, key=lambda name: known.get(name, 0.0))
    return (
        f"{place} is a sweep, of which one trial can be evaluated: {named}, by {sweep.metric}; the best: "
        f"ctm-rl evaluate {shlex.quote(f'{place}/{best}')}"
    )


def trial_name(trial_id: str) -> str:
    """Returns the name of a trial: its number in the sweep."""
    return f"trial-{trial_id.rpartition('_')[2]}"
