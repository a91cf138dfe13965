"""Settings that every run has, of a policy or of a single-step task: budget, directory and machines."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Literal

from ctm_rl.agents.experiments.json_option import JsonObject
from ctm_rl.agents.experiments.storage_url import check_storage
from ctm_rl.agents.experiments.validation import check_number

Placement = Literal["pack", "spread"]
MAX_SEED = 2**31 - 1
MAX_STEPS = 2**53
MAX_PROCESSES = 10_000
MAX_THREADS = 1024
"""More than any machine has cores; the operating system refuses many times as many, and ends the process."""
_ADDRESS = re.compile(r"auto|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_NAMES = {"run_dir": "a directory", "storage": "a directory or a URL", "init_from": "a run or a checkpoint"}
"""Fields that name a place, which must not be empty."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """When a run is finished: at whichever limit comes first. Both count on when it is resumed."""

    env_steps: int = 1_000_000
    """Steps of all environments together."""
    minutes: float | None = None
    """Wall time of training; None: no limit."""

    def __post_init__(self) -> None:
        """Refuses an empty budget."""
        check_number("budget.env_steps", self.env_steps, at_least=1, at_most=MAX_STEPS)
        if self.minutes is not None:
            check_number("budget.minutes", self.minutes, above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class StopSettings:
    """When a run ends before its budget is used up; it can be resumed."""

    at_return: float | None = None
    """Stop once the mean return is at least this: of the last evaluation, or without any of the last 100 episodes of
    training; None: never."""
    at_accuracy: float | None = None
    """Runs that answer: stop once the accuracy on held-out samples is at least this, from 0 to 1; None: never."""
    patience: int | None = None
    """Stop after so many evaluations (without any: iterations; runs that answer: tests on held-out samples) in a row
    whose mean return or accuracy is not above the best one so far; None: never."""

    def __post_init__(self) -> None:
        """Refuses values that no run reaches."""
        if self.at_return is not None:
            check_number("stop.at_return", self.at_return)
        if self.at_accuracy is not None:
            check_number("stop.at_accuracy", self.at_accuracy, above=0, at_most=1)
        if self.patience is not None:
            check_number("stop.patience", self.patience, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """Evaluations during training. A run that answers is tested on its held-out samples, and takes every alone."""

    every: int | None = None
    """Iterations between two evaluations, and one after the last iteration; None: none, and of a run that answers as
    held_out says."""
    episodes: int = 20
    """Episodes of an evaluation."""
    deterministic: bool = False
    """Take the most probable action instead of drawing one."""
    seed: int = 1
    """The same episodes are played in every evaluation; training plays none of them, and ctm-rl evaluate others unless
    it is given this seed."""
    env: str | None = None
    """Gymnasium's id of the environment, with the run's wrappers and eval.kwargs; None: the run's own."""
    kwargs: JsonObject = field(default_factory=dict)
    """Arguments of the environment that differ from those in training, such as '{"size": 15}'."""
    max_episode_steps: int = 100_000
    """Truncate an episode after so many steps."""

    def __post_init__(self) -> None:
        """Refuses evaluations of nothing, and settings without evaluations."""
        if self.every is not None:
            check_number("eval.every", self.every, at_least=1)
        for name in ("episodes", "max_episode_steps"):
            check_number(f"eval.{name}", getattr(self, name), at_least=1, at_most=MAX_STEPS)
        check_number("eval.seed", self.seed, at_least=0, at_most=MAX_SEED)
        if self.env is not None and not self.env.strip():
            raise ValueError("eval.env must name an environment, such as CartPole-v1; it is empty.")
        if self.every is None and self.changed:
            raise ValueError(
                f"eval.{self.changed[0]} has no effect without eval.every, the number of iterations between two "
                "evaluations; set it, such as to 10."
            )

    @property
    def changed(self) -> list[str]:
        """The fields that are not at their defaults, beside ``every``."""
        fields = {item.name: item for item in dataclasses.fields(self) if item.name not in ("every", "kwargs")}
        changed = [name for name, item in fields.items() if getattr(self, name) != item.default]
        return [*changed, *(["kwargs"] if self.kwargs else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The settings that every run has."""

    name: str
    """Name of the experiment; the default run directory begins with it."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """How long the run trains."""
    seed: int = 1
    """Seed of everything random in the run."""
    run_dir: str | None = None
    """The run's directory, new or empty; None: runs/<experiment>-<UTC time>."""
    num_env_runners: int = 0
    """Processes that run the environments; 0: the training process runs them itself."""
    num_cpus_per_env_runner: float = 1.0
    """CPU cores that Ray reserves for each of these processes."""
    num_learners: int = 0
    """Processes that compute the updates; 0: the training process computes them itself."""
    num_threads: int = 1
    """CPU threads of the training process; more than 1 are only faster with large models on an idle machine."""
    num_gpus_per_learner: float = 0.0
    """GPUs of each learner, at most 1; 0: it computes on the CPU."""
    address: str | None = None
    """An existing Ray cluster, auto or host:port; None: start Ray on this machine."""
    placement: Placement | None = None
    """In a cluster, put env runners on as few nodes as possible (pack), or evenly on all (spread); None: Ray decides,
    beginning with the node of the training process until half of it is in use."""
    storage: str | None = None
    """A shared directory, or a URL such as s3://bucket/runs, for copies of checkpoints and metrics, under the name of
    the run's directory; None: no copies."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints; one more is written at every stop."""
    checkpoint_iterations: int | None = None
    """Iterations between two checkpoints, instead of minutes."""
    callbacks: tuple[str, ...] = ()
    """Own code that is called after every iteration, episode and checkpoint, as module:Class of a file in the current
    folder or of an installed module, derived from ctm_rl.agents.Callback; it may stop the run."""
    stop: StopSettings = field(default_factory=StopSettings)
    """When the run ends before its budget is used up."""
    init_from: str | None = None
    """Another run, one of its checkpoints, or zoo:NAME, to begin with the weights and normalisation of, as far as
    shapes fit, on any environment or task; None: begin with random weights."""
    logger: tuple[str, ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl: tensorboard, csv, wandb, mlflow, module:Class of your own, or a name that
    an installed package declares; several, separated by spaces, or none."""
    profile: bool = False
    """Measure where an iteration's time goes: shares at the end, and trace.json in the run's directory, which Perfetto
    (ui.perfetto.dev) opens."""
    keep_checkpoints: int | None = 3
    """How many of the newest checkpoints are kept, beside the best one; None: all."""
    eval: EvalSettings = field(default_factory=EvalSettings)
    """Evaluations during training."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run on any machine."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be letters, digits, dots, dashes and underscores, got {self.name!r}.")
        check_number("seed", self.seed, at_least=0, at_most=MAX_SEED)
        for name, what in _NAMES.items():
            if getattr(self, name) == "" or str(getattr(self, name)).isspace():
                raise ValueError(f"{name} must name {what}; it is empty.")
        if self.storage is not None:
            check_storage(self.storage)
        check_number("num_env_runners", self.num_env_runners, at_least=0, at_most=MAX_PROCESSES)
        check_number("num_cpus_per_env_runner", self.num_cpus_per_env_runner, at_least=0)
        check_number("num_learners", self.num_learners, at_least=0, at_most=MAX_PROCESSES)
        check_number("num_threads", self.num_threads, at_least=1, at_most=MAX_THREADS)
        check_number("num_gpus_per_learner", self.num_gpus_per_learner, at_least=0, at_most=1)
        check_number("checkpoint_minutes", self.checkpoint_minutes, above=0)
        for name in ("checkpoint_iterations", "keep_checkpoints"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), at_least=1)
        if len(set(self.logger)) < len(self.logger):
            raise ValueError(f"logger must name each logger once, got {' '.join(self.logger)}.")
        if self.placement is not None and (self.num_env_runners < 1 or self.num_cpus_per_env_runner == 0):
            raise ValueError(
                "placement has no effect without num_env_runners and num_cpus_per_env_runner; set both above 0, or "
                "leave it out."
            )
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"address must be auto or host:port, got {self.address!r}.")
