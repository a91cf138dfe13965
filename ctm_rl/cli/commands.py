"""What the commands of ``ctm-rl`` take: their usage and their options."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ctm_rl.agents.experiments.json_option import JsonObject
from ctm_rl.agents.experiments.settings import BudgetConfig, Placement

USAGE = """\
ctm-rl: train, look into and ship Continuous Thought Machines

  ctm-rl list                               experiments, one line each
  ctm-rl train EXPERIMENT [--FIELD VALUE]   trains one of them; any field can be changed by name
  ctm-rl train --env ID                     trains on any Gymnasium environment (module:ID works too)
  ctm-rl train --config FILE                trains what a run's config.json says
  ctm-rl tune EXPERIMENT --search F=VALUES  trains many of them that differ in the fields searched
  ctm-rl resume DIR                         goes on where the last checkpoint of a run, or of each trial, stands
  ctm-rl evaluate DIR --episodes N          plays episodes with a run's policy; --json for programs
  ctm-rl import FILE --run-dir DIR          makes a run of a published checkpoint
  ctm-rl cluster-check [--address auto]     what every node of a Ray cluster has, and how fast it is
  ctm-rl bench                              measures training beside other libraries; --json for programs

  ctm-rl COMMAND --help                     tells more; ctm-rl train EXPERIMENT --help lists all fields
  ctm-rl --version
"""

TRAIN_USAGE = """\
ctm-rl train EXPERIMENT | --env ID | --config FILE  [--FIELD VALUE ...]

{experiments}

Fields used most; ctm-rl train EXPERIMENT --help lists all, with their values in that experiment:
  --seed N                     --run-dir DIR               --model.kind ctm|lstm|gru|mlp
  --budget.env-steps N         --budget.minutes N          --model.num-ticks N
  --ppo.lr RATE                --num-env-runners N         --address auto|HOST:PORT
  --env-kwargs JSON            --env.wrappers NAME ...     --tolerate-env-faults
  --storage PATH|URL           --placement pack|spread
"""

TUNE_USAGE = """\
ctm-rl tune EXPERIMENT | --env ID | --config FILE  --search FIELD=VALUES ...  [--OPTION VALUE ...]  [--FIELD VALUE ...]

Runs an experiment many times with other values in the fields searched, as many at a time as there is room for, and
stops early those that do worse than others. Each trial is a run of its own inside the sweep's directory (--run-dir),
to be evaluated, resumed and trained again like any other; ctm-rl resume DIR goes on with a sweep that was stopped.

  ctm-rl tune cartpole --search 'ppo.lr=loguniform(1e-4,3e-3)' --search 'model.num_ticks=choice(1,2,4)'

Values: {forms}

"""

BENCH_USAGE = """\
ctm-rl bench envs [--OPTION VALUE ...]
ctm-rl bench [scaling | cluster] [EXPERIMENT | --env ID | --config FILE]  [--OPTION VALUE ...]  [--FIELD VALUE ...]

Measures one iteration of training, and its parts, in turn with other libraries (pip install "ctm-rl[bench]" for all
of them); scaling measures how ours grows with ticks, steps and iterations; cluster adds up, from measured parts, what
many env runners and learners cost, and simulates them; envs measures how fast the single-step environments make
samples. Without an experiment: the published CartPole with two ticks. Any field of the experiment can be changed by
name, as for ctm-rl train.

{contenders}

"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeOptions:
    """Goes on where the last checkpoint of a run stands."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's directory, or its path or URL in a storage, from where it is fetched."""
    budget: BudgetConfig
    """How long it learns, all in all."""
    address: str | None = None
    """An existing Ray cluster: auto or host:port; None: a Ray of its own on this machine."""
    placement: Placement | None = None
    """In a cluster, put env runners on as few nodes as hold them (pack), or on all evenly (spread); None: as Ray
    does."""
    storage: str | None = None
    """A shared directory or a URL where checkpoints and metrics are put besides; a run whose directory is gone is
    fetched from there."""
    run_dir: str | None = None
    """Where a run in a storage is fetched to, new or empty; None: runs/ and its name."""
    tolerate_env_faults: bool = False
    """From here on make the environment anew after a fault, count it and go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeSweepOptions:
    """Goes on with a sweep: trials that are over stay, the others go on from their last checkpoints."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The sweep's directory."""
    address: str | None = None
    """An existing Ray cluster: auto or host:port; None: a Ray of its own on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions:
    """Plays exactly as many episodes as asked for with a run's policy."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's directory, or one checkpoint in it."""
    episodes: int = 100
    """How many episodes."""
    seed: int = 0
    """The same seed plays the same episodes; none of them was trained on."""
    deterministic: bool = False
    """Take the likeliest action instead of drawing one."""
    device: str = "cpu"
    """Where the policy computes: cpu, cuda or cuda:N."""
    env_kwargs: JsonObject = field(default_factory=dict)
    """Arguments of the environment that differ from those it was trained with, as '{"size": 15}'."""
    decay_rate: float | None = None
    """Answering models: set every pair's decay rate; 15 cuts the memory that synchronisation is."""
    human_labels: str | None = None
    """Answering models: compare with the human answers in this file, in CIFAR-10H's format."""
    halt_certainty: float | None = None
    """Let each sample, or environment, stop thinking once it is this certain, from 0 to 1; a policy must have been
    trained with train_random_ticks."""
    halt_curve: bool = False
    """Also tell result, ticks and time for several such certainties."""
    num_ticks: int | None = None
    """Policies trained with train_random_ticks: take so many ticks at every step, or at most so many where they
    halt."""
    json: bool = False
    """Write one line of JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """Makes a run of a checkpoint in the published format; nothing in the file is executed."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The checkpoint."""
    run_dir: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The new run's directory, new or empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterCheckOptions:
    """Looks at every node of a Ray cluster: size, versions, the way there and back, and how fast it plays CartPole."""

    address: str | None = None
    """An existing Ray cluster: auto or host:port; None: a Ray of its own on this machine."""
    json: bool = False
    """Write one line of JSON."""
