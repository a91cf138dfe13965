"""The usage texts and the options of the commands of ``ctm-rl``."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ctm_rl.agents.experiments.json_option import JsonObject
from ctm_rl.agents.experiments.settings import BudgetConfig, Placement, StopSettings

USAGE = """\
ctm-rl: train, evaluate and compare Continuous Thought Machines

  ctm-rl list                               list the experiments
  ctm-rl train EXPERIMENT [--OPTION VALUE]  train an experiment with any of its fields changed
  ctm-rl train --env ID                     train on any Gymnasium environment (also module:ID)
  ctm-rl train --data PATH                  learn the classes of own images or numbers (folder, .npz, .parquet)
  ctm-rl train --task module:Class          learn a single-step task of one's own
  ctm-rl train --config FILE                train what a run's config.json or a YAML file describes
  ctm-rl train EXPERIMENT --seeds 1 2 3     train it with several seeds, one table at the end
  ctm-rl tune EXPERIMENT --search F=VALUES  train variants that differ in the searched fields
  ctm-rl resume DIR                         continue a run, seeds or a sweep from their checkpoints
  ctm-rl evaluate DIR [--checkpoint best]   play episodes with a run's policy; --json for programs
  ctm-rl zoo [NAME]                         list the trained runs that are shipped; zoo:NAME is one as DIR
  ctm-rl report DIR [--samples 6]           write a page of figures: how a run learned and how its model thinks
  ctm-rl record RUN [--with-thinking]       write a video of a run's policy: MP4, GIF or WebP
  ctm-rl enjoy RUN [--with-thinking]        watch a run's policy in a window or in the terminal
  ctm-rl compare DIR DIR ...                write such a page about several runs or seeds, side by side
  ctm-rl watch DIR [--port N]               show the report of a run in a browser while it trains
  ctm-rl import FILE --run-dir DIR          make a run of a published checkpoint
  ctm-rl cluster-check [--address auto]     show the versions and speed of a Ray cluster's nodes
  ctm-rl bench                              compare the speed of training with other libraries

  ctm-rl COMMAND --help                     describe a command
  ctm-rl train EXPERIMENT --help            describe the options that matter; --help-all: all of them
  ctm-rl --version                          show the version
"""

TRAIN_USAGE = """\
ctm-rl train EXPERIMENT | --env ID | --data PATH | --task module:Class | --config FILE  [--OPTION VALUE ...]

{experiments}

Every field of an experiment is an option:
  ctm-rl train EXPERIMENT --help        the fields that matter most, with their values in that experiment
  ctm-rl train EXPERIMENT --help-all    all of them
and of the command:
  --seeds N ...             train with these seeds, each in a directory of its own, and compare them
  --parallel N              how many of them at a time; by default as many as the CPU cores allow
  --print-config [yaml]     print the experiment as JSON or YAML, for --config, and train nothing
  --trust                   a file of --config that comes from somebody else may import modules of this folder,
                            join a cluster and write elsewhere

The usual names of other libraries work too: --total-timesteps 1e6, --learning-rate, --num-envs, --num-steps, ...
"""

TUNE_USAGE = """\
ctm-rl tune EXPERIMENT | --env ID | --data PATH | --task module:Class | --config FILE
            --search FIELD=VALUES ...  [--OPTION VALUE ...]

Runs an experiment many times with different values of the searched fields, as many trials at a time as fit, and stops
those early that do worse than others. Each trial is a run in the sweep's directory (--run-dir) that can be evaluated,
resumed and trained again like any other; ctm-rl resume DIR continues a sweep that was stopped.

  ctm-rl tune cartpole --search 'ppo.lr=loguniform(1e-4,3e-3)' --search 'model.num_ticks=choice(1,2,4)'

Values: {forms}

"""

BENCH_USAGE = """\
ctm-rl bench envs [--OPTION VALUE ...]
ctm-rl bench learning [--OPTION VALUE ...]
ctm-rl bench [scaling | cluster] [EXPERIMENT | --env ID | --config FILE]  [--OPTION VALUE ...]  [--FIELD VALUE ...]

Measures one iteration of training and its parts, alternating with other libraries (pip install "ctm-rl[bench]"
installs all of them). scaling: how the cost grows with ticks, steps and iterations. cluster: the cost of many env
runners and learners, computed from measured parts and simulated. envs: how fast the single-step environments make
samples. The default experiment is the published CartPole with two ticks. Any field of the experiment can be changed
by name, as in ctm-rl train.

learning, which has options of its own (ctm-rl bench learning --help): how much contenders learn in equal steps.

{contenders}

"""

BENCH_LEARNING_USAGE = """\
ctm-rl bench learning [--OPTION VALUE ...]  [--variant NAME --FIELD VALUE ...]

Trains contenders on tasks with several seeds at equal environment steps, each in a process of its own, evaluates them,
and reports returns, areas under learning curves, and differences with intervals. Every run is added to a file (--out):
the same command goes on where it was stopped, another one adds tasks, contenders or seeds, and --report only reads it.
Tasks are experiments by their names, or any environments by their ids, your own as well. Fields of our experiments can
be changed by name, as in ctm-rl train, for runs that are called a --variant.

{contenders}

"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumedEnv:
    """What may change about the environment of a run that is resumed."""

    tolerate_faults: bool = False
    """From now on, recreate the environment after a fault, count the fault and continue."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedEnv:
    """What differs between evaluation and training."""

    kwargs: JsonObject = field(default_factory=dict)
    """Arguments of the environment that differ from those in training, such as '{"size": 15}'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeOptions:
    """Continues a run, the runs of several seeds, or the trials of a sweep, from the last checkpoints."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The directory of the run, seeds or sweep; or a run's path or URL in a storage, from which it is fetched."""
    budget: BudgetConfig
    """How long the run trains in total, including the time before it is resumed; by default as before."""
    stop: StopSettings
    """When the run ends before its budget is used up; by default as before."""
    address: str | None = None
    """An existing Ray cluster, auto or host:port; None: start Ray on this machine."""
    placement: Placement | None = None
    """In a cluster, put env runners on few nodes (pack), or evenly on all (spread); None: Ray decides."""
    storage: str | None = None
    """A shared directory or a URL for copies of checkpoints and metrics; a run whose directory no longer exists is
    fetched from there."""
    run_dir: str | None = None
    """The directory, new or empty, that a run in a storage is fetched into; None: runs/ and its name."""
    env: ResumedEnv = field(default_factory=ResumedEnv)
    """What may change about its environment."""
    trust: bool = False
    """The run may import modules of this folder, join its cluster and write to its storage, although no run that you
    have trained on this machine names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeSweepOptions:
    """Continues a sweep: finished trials stay, the others continue from their last checkpoints."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The sweep's directory."""
    address: str | None = None
    """An existing Ray cluster, auto or host:port; None: start Ray on this machine."""
    trust: bool = False
    """Continue a sweep that was not begun by you in this directory: Ray Tune's files in it can run any program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions:
    """Plays episodes with a run's policy, or tests a model that answers on held-out samples."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's directory, one checkpoint in it, the directory of several seeds, or zoo:NAME."""
    checkpoint: str | None = None
    """Which checkpoint of the run: best, last, or the number of an iteration; None: the last one."""
    episodes: int | None = None
    """How many episodes, or samples; None: 100 episodes, or 2,000 samples (all of a smaller held-out set)."""
    seed: int = 0
    """The same seed plays the same episodes; training uses none of them."""
    deterministic: bool = False
    """Take the most probable action instead of drawing one."""
    device: str = "cpu"
    """Where the policy computes: cpu, cuda or cuda:N."""
    env: EvaluatedEnv = field(default_factory=EvaluatedEnv)
    """What differs from training."""
    decay_rate: float | None = None
    """Models that answer: set every pair's decay rate; 15 leaves synchronisation practically without memory."""
    human_labels: str | None = None
    """Models that answer: compare with the human answers in this file, in CIFAR-10H's format."""
    halt_certainty: float | None = None
    """Stop the ticks of a sample or an environment once the model is this certain, from 0 to 1; a policy must have been
    trained with train_random_ticks."""
    halt_curve: bool = False
    """Also report results, ticks and time for several such certainties."""
    num_ticks: int | None = None
    """Policies trained with train_random_ticks: the ticks of every step, or the most ticks with halt_certainty."""
    max_episode_steps: int = 100_000
    """Policies: truncate an episode after so many steps; the result says how many were."""
    json: bool = False
    """Write one line of JSON."""
    trust: bool = False
    """The run may import its environment's module from this folder, although no run that you have trained on this
    machine does so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooOptions:
    """Lists the trained runs that are shipped with this package; wherever a run is named, zoo:NAME is one of them."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """Describe this one, such as cartpole or zoo:cartpole; None: list all."""
    json: bool = False
    """Write one line of JSON: how each was trained and evaluated, with all results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """Makes a run of a checkpoint of the official code; nothing in the file is executed."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The checkpoint file."""
    run_dir: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The run's directory, new or empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterCheckOptions:
    """Examines every node of a Ray cluster: size, versions, connection to this process, and its speed in CartPole."""

    address: str | None = None
    """An existing Ray cluster, auto or host:port; None: start Ray on this machine."""
    json: bool = False
    """Write one line of JSON."""
