"""What a sweep is asked for, readable from a command line without loading torch or ray."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ctm_rl.agents.experiments.validation import check_number

Scheduler = Literal["asha", "pbt", "none"]
Logger = Literal["tensorboard", "csv", "json", "wandb", "mlflow"]

DEFAULT_NUM_SAMPLES = 8
_REDUCTION_FACTOR = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneOptions:
    """What is searched, and how."""

    search: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FIELD=VALUES")] = ()
    """A field of the experiment and the values it may take, as 'ppo.lr=loguniform(1e-4,3e-3)'; once for each field.
    uniform(a,b), loguniform(a,b), quniform(a,b,step), randint(a,b) (without b), choice(x,y,...) or grid(x,y,...)."""
    num_samples: int | None = None
    """How often values are drawn; a grid is gone through each time. None: 8 times, or once if there are only grids."""
    scheduler: Scheduler = "asha"
    """asha: bad trials are stopped early; pbt: bad trials go on from a good one's checkpoint with its values changed a
    little; none: all trials use up their budget."""
    interval: float = 0.1
    """asha: the share of its budget after which a trial is first compared with the others; pbt: between two
    comparisons."""
    reduction_factor: float = _REDUCTION_FACTOR
    """asha: each comparison comes after so many times the share of the last, and stops all but one in so many."""
    metric: str | None = None
    """Of metrics.jsonl, by which trials are compared; None: episode_return_mean, or accuracy."""
    mode: Literal["max", "min"] = "max"
    """Whether much of it is good, or little."""
    max_concurrent: int | None = None
    """Trials at a time; None: as many as there is room for. On a cluster their directory has to be one that all
    machines share."""
    max_failures: int = 2
    """How often a trial whose processes die goes on from its last checkpoint."""
    logger: Annotated[tuple[Logger, ...], tyro.conf.UseAppendAction] = ()
    """Where metrics go beside TensorBoard and metrics.jsonl, which every trial writes: csv, wandb or mlflow; several
    are given one by one."""

    def __post_init__(self) -> None:
        """Refuses what cannot be done, and what would have no effect."""
        if self.num_samples is not None:
            check_number("num_samples", self.num_samples, at_least=1)
        check_number("interval", self.interval, above=0, at_most=1)
        check_number("reduction_factor", self.reduction_factor, above=1)
        if self.max_concurrent is not None:
            check_number("max_concurrent", self.max_concurrent, at_least=1)
        check_number("max_failures", self.max_failures, at_least=0)
        if self.scheduler != "asha" and self.reduction_factor != _REDUCTION_FACTOR:
            raise ValueError(f"reduction_factor has no effect with scheduler {self.scheduler}; leave it out.")
