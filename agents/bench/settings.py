"""Options of a benchmark, which the command line reads without loading torch or ray."""

from dataclasses import asdict, dataclass, field

from ctm_rl.agents.experiments.validation import check_number

SCALING, CLUSTER, ENVS, LEARNING = "scaling", "cluster", "envs", "learning"
"""What ``ctm-rl bench`` measures instead of the contenders."""

CONTENDERS = {
    "ctm-rl": "ours",
    "ctm-rl-lstm": "ours, an LSTM of as many parameters",
    "ctm-rl-small": "ours, with the rivals' environments, steps and minibatches",
    "rllib-ctm-20": "stock RLlib PPO, the same module, max_seq_len 20",
    "rllib-ctm-100": "stock RLlib PPO, the same module, max_seq_len 100",
    "rllib-lstm": "stock RLlib PPO, its own LSTM",
    "sb3-lstm": "sb3-contrib RecurrentPPO, its LSTM policy",
}
"""The contenders by name, with a description; in the order of measuring and of the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RivalSettings:
    """Sizes at which the LSTMs of other libraries are measured, and ctm-rl-small beside them."""

    num_envs: int = 64
    """Environments."""
    num_steps: int = 100
    """Steps of each environment in one iteration."""
    lstm_dim: int = 128
    """Width of the LSTM."""
    num_epochs: int = 4
    """Passes over each iteration's samples."""
    num_minibatches: int = 4
    """Gradient steps in each of these passes."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be measured."""
        for name, value in asdict(self).items():
            check_number(f"rival.{name}", value, at_least=1)
        if self.num_envs % self.num_minibatches:
            raise ValueError(
                f"rival.num_minibatches must divide the {self.num_envs} environments, got {self.num_minibatches}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingOptions:
    """Sizes over which scaling is measured."""

    ticks: tuple[int, ...] = (1, 2, 4, 8)
    """K: ticks of each environment step."""
    steps: tuple[int, ...] = (25, 50, 100, 200)
    """T: steps of every environment in an iteration."""
    iterations: int = 20
    """How many iterations are learned in a row, to see whether later ones cost more."""

    def __post_init__(self) -> None:
        """Refuses sizes through which no line can be fitted."""
        for name in ("ticks", "steps"):
            values = getattr(self, name)
            if len(set(values)) < 2 or min(values) < 1:
                raise ValueError(f"scale.{name} must be two or more different whole numbers above 0, got {values}.")
        check_number("scale.iterations", self.iterations, at_least=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """Clusters whose costs are predicted, and the size of the simulation."""

    env_runners: tuple[int, ...] = (1, 10, 100, 1000)
    """Numbers of env runners."""
    learners: tuple[int, ...] = (1, 8, 64)
    """Numbers of learners."""
    dummy_env_runners: int = 64
    """Highest number of env runners that are simulated; each is a process of about 70 MB."""
    dummy_learners: int = 8
    """Learners that are simulated, beside the case of one."""
    learner_speedup: float = 1.0
    """Speed of each learner relative to one core of this machine, as with more cores or a GPU."""
    network_gbits: float = 10.0
    """Network bandwidth of the driver's machine, in gigabits per second."""
    env_runners_per_node: int = 16
    """Env runners on each machine."""

    def __post_init__(self) -> None:
        """Refuses numbers that are too small."""
        for name in ("env_runners", "learners"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"cluster.{name} must be whole numbers above 0, got {values}.")
        for name in ("dummy_env_runners", "dummy_learners", "env_runners_per_node"):
            check_number(f"cluster.{name}", getattr(self, name), at_least=1)
        for name in ("learner_speedup", "network_gbits"):
            check_number(f"cluster.{name}", getattr(self, name), above=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """How to measure."""

    rounds: int = 3
    """How many iterations of each contender are measured, in turn, after one that is thrown away."""
    only: tuple[str, ...] = ()
    """Names of the contenders to measure; none: all of them."""
    num_threads: int | None = None
    """CPU threads of every contender; None: all cores this process may use."""
    rival: RivalSettings = field(default_factory=RivalSettings)
    """Sizes of other libraries' LSTMs."""
    scale: ScalingOptions = field(default_factory=ScalingOptions)
    """ctm-rl bench scaling: the sizes."""
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    """ctm-rl bench cluster: the clusters."""
    json: bool = False
    """Write one line of JSON."""
    out: str | None = None
    """A file for the JSON; scaling draws a figure beside it, if matplotlib is installed."""
    markdown: str | None = None
    """Measure nothing: write the table of an earlier JSON file as Markdown."""

    def __post_init__(self) -> None:
        """Refuses options that cannot be measured."""
        check_number("rounds", self.rounds, at_least=1)
        if self.num_threads is not None:
            check_number("num_threads", self.num_threads, at_least=1)
        for name in self.only:
            if name not in CONTENDERS:
                raise ValueError(f"only must name contenders ({', '.join(CONTENDERS)}), got {name!r}.")

    @property
    def contenders(self) -> tuple[str, ...]:
        """Names of the contenders to measure, in their order."""
        return tuple(name for name in CONTENDERS if not self.only or name in self.only)
