"""What every run has, whatever is learned in it: for how long, where, and on which machines."""

import re
from dataclasses import dataclass, field
from typing import Literal

from ctm_rl.agents.experiments.validation import check_number

Placement = Literal["pack", "spread"]
MAX_SEED = 2**31 - 1
MAX_STEPS = 2**53
_ADDRESS = re.compile(r"auto|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """When a run is finished: whichever comes first. Both count over all resumes."""

    env_steps: int = 1_000_000
    """Steps taken in all environments together."""
    minutes: float | None = None
    """Wall time of training; None: no limit."""

    def __post_init__(self) -> None:
        """Refuses an empty budget."""
        check_number("budget.env_steps", self.env_steps, at_least=1, at_most=MAX_STEPS)
        if self.minutes is not None:
            check_number("budget.minutes", self.minutes, above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """A run without what is learned in it."""

    name: str
    """Name of the experiment; the default run directory begins with it."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """How long it learns."""
    seed: int = 1
    """Seed of everything random in the run."""
    run_dir: str | None = None
    """Where the run is written, new or empty; None: runs/<experiment>-<UTC time>."""
    num_env_runners: int = 0
    """Processes that run the environments; 0: the training process does so itself."""
    num_cpus_per_env_runner: float = 1.0
    """CPU cores Ray sets aside for each of these processes."""
    num_learners: int = 0
    """Processes that learn; 0: the training process learns itself."""
    num_threads: int = 1
    """CPU threads of the training process; more than 1 only pays for large models on an idle machine."""
    num_gpus_per_learner: float = 0.0
    """GPUs of each learner, at most 1; 0: learns on the CPU."""
    address: str | None = None
    """An existing Ray cluster: auto or host:port; None: a Ray of its own on this machine."""
    placement: Placement | None = None
    """In a cluster, put env runners on as few nodes as hold them (pack), or on as many as there are, evenly (spread);
    None: as Ray does, beside the training process until half of that node is taken."""
    storage: str | None = None
    """A shared directory, or a URL as s3://bucket/runs, where checkpoints and metrics are put besides, under the name
    of the run's directory; None: nowhere."""
    checkpoint_minutes: float = 5.0
    """A checkpoint is written at least this often, and at every stop."""
    checkpoint_iterations: int | None = None
    """Instead, a checkpoint is written every so many iterations. No checkpoint holds environments: new episodes begin
    with each, so that a resumed run equals an uninterrupted one."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run, as far as that shows without looking at the machine."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be letters, digits, dots, dashes and underscores, got {self.name!r}.")
        check_number("seed", self.seed, at_least=0, at_most=MAX_SEED)
        if self.run_dir is not None and not self.run_dir.strip():
            raise ValueError("run_dir must name a directory; it is empty.")
        if self.storage is not None and not self.storage.strip():
            raise ValueError("storage must name a directory or a URL; it is empty.")
        check_number("num_env_runners", self.num_env_runners, at_least=0)
        check_number("num_cpus_per_env_runner", self.num_cpus_per_env_runner, at_least=0)
        check_number("num_learners", self.num_learners, at_least=0)
        check_number("num_threads", self.num_threads, at_least=1)
        check_number("num_gpus_per_learner", self.num_gpus_per_learner, at_least=0, at_most=1)
        check_number("checkpoint_minutes", self.checkpoint_minutes, above=0)
        if self.checkpoint_iterations is not None:
            check_number("checkpoint_iterations", self.checkpoint_iterations, at_least=1)
        if self.placement is not None and (self.num_env_runners < 1 or self.num_cpus_per_env_runner == 0):
            raise ValueError(
                "placement has no effect without num_env_runners and num_cpus_per_env_runner; ask for some of both, or "
                "leave it out."
            )
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"address must be auto or host:port, got {self.address!r}.")
