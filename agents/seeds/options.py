"""Options of ``ctm-rl train`` for several seeds, readable from a command line without loading torch or ray."""

from collections import Counter
from dataclasses import dataclass

from ctm_rl.agents.experiments.settings import MAX_SEED
from ctm_rl.agents.experiments.validation import check_number


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedOptions:
    """Which seeds an experiment is trained with."""

    seeds: tuple[int, ...] = ()
    """Train with each of these seeds, in a directory of its own, and compare the results."""
    parallel: int | None = None
    """How many of them train at the same time; None: as many as the CPU cores allow."""

    def __post_init__(self) -> None:
        """Refuses seeds that are the same or out of range."""
        for seed in self.seeds:
            check_number("seeds", seed, at_least=0, at_most=MAX_SEED)
        twice = [seed for seed, count in Counter(self.seeds).items() if count > 1]
        if twice:
            raise ValueError(f"seeds must differ, got {twice[0]} twice.")
        if self.parallel is not None:
            check_number("parallel", self.parallel, at_least=1)
            if not self.seeds:
                raise ValueError("parallel has no effect without seeds; leave it out.")
