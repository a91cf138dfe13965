"""Options of ``ctm-rl tune``, readable from a command line without loading torch or ray."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ctm_rl.agents.experiments.validation import check_number

Scheduler = Literal["asha", "pbt", "none"]

DEFAULT_NUM_SAMPLES = 8
_REDUCTION_FACTOR = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneOptions:
    """Which fields are searched, and how."""

    search: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FIELD=VALUES")] = ()
    """A field of the experiment and its values, such as 'ppo.lr=loguniform(1e-4,3e-3)'; repeat for more fields.
    Values: uniform(a,b), loguniform(a,b), quniform(a,b,step), randint(a,b) (b excluded), choice(x,y,...) or
    grid(x,y,...)."""
    num_samples: int | None = None
    """How often values are drawn; each time all values of a grid are tried. None: 8, or 1 if there are only grids."""
    scheduler: Scheduler = "asha"
    """asha: stops bad trials early; pbt: bad trials continue from a good trial's checkpoint, with its values slightly
    changed; none: all trials use up their budget."""
    interval: float = 0.1
    """Share of a trial's budget, at most 1: before its first comparison with the others (asha), or between two
    comparisons (pbt)."""
    reduction_factor: float = _REDUCTION_FACTOR
    """asha: factor by which the share grows from one comparison to the next; each keeps one trial in this many."""
    metric: str | None = None
    """The key of metrics.jsonl that trials are compared by; None: episode_return_mean, or accuracy if they answer."""
    mode: Literal["max", "min"] = "max"
    """Whether a large metric is good (max) or a small one (min)."""
    max_concurrent: int | None = None
    """Trials that run at the same time; None: as many as fit. On a cluster, --run-dir must be a directory that all
    machines share."""
    max_failures: int = 2
    """How often a trial whose processes die continues from its last checkpoint."""

    def __post_init__(self) -> None:
        """Refuses impossible options, and options without effect."""
        if self.num_samples is not None:
            check_number("num_samples", self.num_samples, at_least=1)
        check_number("interval", self.interval, above=0, at_most=1)
        check_number("reduction_factor", self.reduction_factor, above=1)
        if self.max_concurrent is not None:
            check_number("max_concurrent", self.max_concurrent, at_least=1)
        check_number("max_failures", self.max_failures, at_least=0)
        if self.scheduler != "asha" and self.reduction_factor != _REDUCTION_FACTOR:
            raise ValueError(f"reduction_factor has no effect with scheduler {self.scheduler}; leave it out.")
