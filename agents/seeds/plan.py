"""The directory of several seeds: the experiment, the seeds, and a run's directory for each."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, build
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, load_config
from ctm_rl.agents.run_directory.metrics_file import last_row
from ctm_rl.agents.run_directory.progress import Row, used_share
from ctm_rl.agents.seeds.options import SeedOptions
from ctm_rl.errors import UserError, sentence
from ctm_rl.read_json import read_json

SEEDS_FILE = "seeds.json"
EXPERIMENT_FILE = "experiment.json"
RESULTS_FILE = "results.json"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Several runs of an experiment that differ in their seeds."""

    directory: Path
    """Where they lie, absolute."""
    experiment: AnyExperiment
    """What they train."""
    options: SeedOptions
    """Their seeds."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are compared, the most important one first."""
        is_answering = isinstance(self.experiment, AnsweringExperiment)
        return ("accuracy", "accuracy_whole") if is_answering else ("episode_return_mean",)

    def run_dir(self, seed: int) -> Path:
        """Returns the directory of a seed's run."""
        return self.directory / f"seed-{seed}"

    def has_begun(self, seed: int) -> bool:
        """Whether there is a run of a seed."""
        return (self.run_dir(seed) / CONFIG_FILE).is_file()

    def log(self, seed: int) -> Path:
        """Returns the file of what a seed's process has written."""
        return self.directory / f"seed-{seed}.log"

    def last_row(self, seed: int) -> Row | None:
        """Returns the newest line of metrics of a seed; ``None``: there is none."""
        return last_row(self.run_dir(seed))

    def is_used_up(self, seed: int) -> bool:
        """Whether the budget of a seed's run is used up."""
        row = self.last_row(seed)
        return row is not None and used_share(self.experiment.budget, row) >= 1.0


def is_seeds(directory: Path) -> bool:
    """Whether a directory is that of several seeds."""
    return (directory / SEEDS_FILE).is_file()


def read_seeds(directory: Path) -> Seeds:
    """Reads what the directory of several seeds holds.

    Raises:
        UserError: its files cannot be read.
    """
    file = directory / SEEDS_FILE
    try:
        options = build(SeedOptions, read_json(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a file that ctm-rl train --seeds has written: {sentence(error)}") from error
    return Seeds(directory.absolute(), load_config(directory / EXPERIMENT_FILE), options)


def finished_before(seeds: Seeds, *, has_new_budget: bool) -> list[int]:
    """Returns the seeds that have nothing left to do when the others are continued.

    Args:
        seeds: the runs.
        has_new_budget: whether their budget may be larger than before: what had ended with the old one goes on.
    """
    before: Any = {}
    if not has_new_budget:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            listed = read_json(seeds.directory / RESULTS_FILE)["seeds"]
            before = {item["seed"]: item["status"] for item in listed}
    return [seed for seed in seeds.options.seeds if before.get(seed) == "finished" or seeds.is_used_up(seed)]
