"""Options of ``ctm-rl bench learning``, which the command line reads without loading torch or ray."""

import re
from dataclasses import dataclass

from ctm_rl.agents.experiments.settings import MAX_SEED, MAX_STEPS
from ctm_rl.agents.experiments.validation import check_number

SB3, RANDOM = "sb3", "random"
LEARNERS = {
    "ctm": "ours, the machine",
    "lstm": "ours, an LSTM of as many parameters",
    "mlp": "ours, a policy without memory of as many parameters",
    SB3: "sb3-contrib RecurrentPPO with the settings of rl-baselines3-zoo",
}
"""The contenders by name, with a description; a random policy is always measured as well."""
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningOptions:
    """Which runs are compared, and the file of their results."""

    tasks: tuple[str, ...] = ("cartpole", "pendulum-no-velocity", "mountaincar-no-velocity")
    """Experiments that act, by name, or any environments, by Gymnasium's id (MyEnv-v0, module:MyEnv-v0); other
    libraries learn on the same environments."""
    contenders: tuple[str, ...] = ("ctm", "lstm", "sb3")
    """Who learns: ctm, lstm, mlp, sb3; a random policy is measured too."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Every contender learns every task with each of these seeds."""
    env_steps: int | None = None
    """Environment steps of every run; None: the usual number for a task, or the experiment's own budget."""
    episodes: int = 100
    """Episodes of the evaluation after training."""
    deterministic: bool = True
    """Evaluate the most probable actions instead of drawing them."""
    parallel: int | None = None
    """How many runs train at the same time, with one thread each; None: two, or one on a single core."""
    variant: str | None = None
    """A name for runs of ours whose fields are changed: the contender is then called ctm:NAME."""
    out: str = "learning.json"
    """The file of results: runs that are in it are not repeated, others are added. The runs lie in a folder beside
    it, and a figure of learning curves, if matplotlib is installed."""
    report: bool = False
    """Run nothing: write the report and the figure of what the file has."""
    json: bool = False
    """Write the report as one line of JSON."""

    def __post_init__(self) -> None:
        """Refuses what cannot be compared."""
        for name in ("tasks", "contenders", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must be one or more different values, got {' '.join(map(str, values))!r}.")
        for name in self.contenders:
            if name not in LEARNERS:
                raise ValueError(f"contenders must be of {', '.join(LEARNERS)}, got {name!r}.")
        for seed in self.seeds:
            check_number("seeds", seed, at_least=0, at_most=MAX_SEED)
        if self.env_steps is not None:
            check_number("env_steps", self.env_steps, at_least=1, at_most=MAX_STEPS)
        check_number("episodes", self.episodes, at_least=1)
        if self.parallel is not None:
            check_number("parallel", self.parallel, at_least=1)
        if not self.out.endswith(".json"):
            raise ValueError(f"out must be a file that ends in .json, got {self.out!r}; the figure lies beside it.")
        if self.variant is not None and not _VARIANT.fullmatch(self.variant):
            raise ValueError(f"variant must be a name of letters, digits, dots and dashes, got {self.variant!r}.")
