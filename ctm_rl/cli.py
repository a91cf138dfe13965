"""The command line, ``ctm-rl``: reads what is asked for, hands it on, and tells mistakes in one line."""

import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ctm_rl
from ctm_rl.agents.bench.settings import CONTENDERS, BenchOptions
from ctm_rl.agents.experiment import Experiment
from ctm_rl.agents.experiment_json import AnyExperiment
from ctm_rl.agents.json_option import JsonObject
from ctm_rl.agents.run_settings import BudgetConfig
from ctm_rl.agents.sweep.settings import TuneOptions
from ctm_rl.agents.sweep.space import FORMS
from ctm_rl.configs import describe, for_env, load, names
from ctm_rl.errors import UserError, expand
from ctm_rl.options import divide, parse

if TYPE_CHECKING:
    from ctm_rl.agents.progress import TerminalProgress
    from ctm_rl.agents.sweep.plan import Sweep

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
ctm-rl bench [scaling] [EXPERIMENT | --env ID | --config FILE]  [--OPTION VALUE ...]  [--FIELD VALUE ...]

Measures one iteration of training, and its parts, in turn with other libraries (pip install "ctm-rl[bench]" for all
of them); scaling measures how ours grows with ticks, steps and iterations; envs measures how fast the single-step
environments make samples. Without an experiment: the published
CartPole with two ticks. Any field of the experiment can be changed by name, as for ctm-rl train.

{contenders}

"""

SOURCES = ("--env", "--config")
SHORT = {"--env-kwargs": "--env.kwargs", "--tolerate-env-faults": "--env.tolerate-faults"}
"""Options that have a second name."""
SCALING, ENVS = "scaling", "envs"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeOptions:
    """Goes on where the last checkpoint of a run stands."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's directory."""
    budget: BudgetConfig
    """How long it learns, all in all."""
    address: str | None = None
    """An existing Ray cluster: auto or host:port; None: a Ray of its own on this machine."""
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
    json: bool = False
    """Write one line of JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """Makes a run of a checkpoint in the published format; nothing in the file is executed."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The checkpoint."""
    run_dir: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The new run's directory, new or empty."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; ``None``: those of the process.

    Returns:
        The exit code: 0 done, 1 learning or an environment went wrong, 2 a mistake in what was asked for, 130 or 143
        stopped by a signal.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Environments of the user's own, as --env my_module:My-v0; last, so that nothing installed is hidden.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return _dispatch(arguments)
    except UserError as error:
        _tell(f"ctm-rl: {' '.join(str(error).split())}")
        return error.exit_code
    except SystemExit as stop:
        # Help has been written.
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as interrupt:
        return _tell_interrupt(interrupt)
    except BrokenPipeError:
        # Whoever read has gone, as in ctm-rl list | head -1; Python must not try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(arguments: list[str]) -> int:
    """Finds the command and runs it."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _write(USAGE)
        return 0
    name, *rest = arguments
    if name == "--version":
        _write(f"ctm-rl {ctm_rl.__version__}\n")
        return 0
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}; there are {', '.join(COMMANDS)}.")
    COMMANDS[name](rest)
    return 0


def _list(arguments: list[str]) -> None:
    """Writes the experiments."""
    if arguments and arguments not in (["--help"], ["-h"]):
        raise UserError(f"list takes no arguments, got {shlex.join(arguments)}.")
    _write(_experiments() + "\n")


def _experiments() -> str:
    """The experiments, one line each."""
    width = max(map(len, names())) + 2
    return "\n".join(f"  {name:<{width}}{describe(name)}" for name in names())


def _train(arguments: list[str]) -> None:
    """Trains an experiment."""
    if arguments in (["--help"], ["-h"]):
        _write(TRAIN_USAGE.format(experiments=_experiments()))
        return
    experiment = _read_experiment("train", arguments)
    from ctm_rl.agents.run_dir import new_run_dir

    experiment = dataclasses.replace(experiment, run_dir=str(new_run_dir(experiment)))
    with _progress(experiment) as progress:
        from ctm_rl.agents.run import train

        run_dir = train(experiment, progress)
    _tell_finished(run_dir)


def _tune(arguments: list[str]) -> None:
    """Searches for good values of an experiment's fields."""
    own, others = divide(TuneOptions, arguments)
    if others in (["--help"], ["-h"]):
        _write(TUNE_USAGE.format(forms=", ".join(FORMS.values())))
        parse(TuneOptions, ["--help"], "ctm-rl tune")
    options = parse(TuneOptions, own, "ctm-rl tune")
    experiment = _read_experiment("tune", others, also=TuneOptions)
    from ctm_rl.agents.run_dir import new_run_dir
    from ctm_rl.agents.sweep.plan import Sweep

    directory = new_run_dir(dataclasses.replace(experiment, name=f"{experiment.name}-tune"))
    sweep = Sweep(directory, experiment, options)
    with _progress(experiment) as progress:
        from ctm_rl.agents.sweep.run import tune

        trials = tune(sweep, progress)
    _tell_trials(sweep, trials)


def _tell_trials(sweep: "Sweep", trials: list[Any]) -> None:
    """Writes what came out of a sweep."""
    from ctm_rl.agents.sweep.table import write_table

    _write(write_table(sweep, trials, _short(sweep.directory)) + "\n")


def _read_experiment(command: str, arguments: list[str], also: type[Any] | None = None) -> AnyExperiment:
    """Finds the experiment that is meant, with the fields that are changed by name.

    Args:
        command: what is to be done with it.
        arguments: what stands behind the command.
        also: other options that the command takes.
    """
    experiment, rest, prog = _choose(command, arguments)
    chosen = experiment.env.kwargs
    experiment = parse(type(experiment), rest, prog, default=experiment, also=also)
    # What is said of the environment's arguments changes those of the experiment, one by one.
    env = dataclasses.replace(experiment.env, kwargs={**chosen, **experiment.env.kwargs})
    return dataclasses.replace(experiment, env=env)


def _choose(
    command: str, arguments: list[str], default: AnyExperiment | None = None
) -> tuple[AnyExperiment, list[str], str]:
    """Finds the experiment that is meant: by its name, by an environment, or in a file.

    Args:
        command: what is to be done with it.
        arguments: what stands behind the command.
        default: what is meant if nothing is said; ``None``: something has to be said.

    Returns:
        The experiment, the remaining arguments, and the command so far, for messages.
    """
    choices: list[tuple[str, str]] = []
    rest: list[str] = []
    remaining = list(arguments)
    if remaining and not remaining[0].startswith("-"):
        choices.append(("", remaining.pop(0)))
    while remaining:
        argument = remaining.pop(0)
        option, equals, value = argument.partition("=")
        if option not in SOURCES:
            rest.append(SHORT.get(option.replace("_", "-"), option) + equals + value)
            continue
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise UserError(f"{option} needs a value: {'an environment' if option == '--env' else 'a file'}.")
            value = remaining.pop(0)
        choices.append((option, value))
    if default is not None and not choices:
        return default, rest, f"ctm-rl {command}"
    if len(choices) != 1:
        problem = "only one of them is allowed" if choices else "none is given"
        raise UserError(
            f"{command} needs an experiment first ({', '.join(names())}), or --env ID, or --config FILE; {problem}."
        )
    ((option, value),) = choices
    prog = " ".join(filter(None, (f"ctm-rl {command}", option, value)))
    if option == "--env":
        experiment = _checked(lambda: for_env(value))
    elif option == "--config":
        from ctm_rl.agents.run_dir import load_config

        experiment = load_config(expand(value))
    else:
        experiment = load(value)
    return experiment, rest, prog


def _resume(arguments: list[str]) -> None:
    """Goes on with a run, or with a sweep of them."""
    from ctm_rl.agents.run_dir import read_config
    from ctm_rl.agents.sweep.plan import is_sweep

    directory = parse(ResumeOptions, arguments, "ctm-rl resume").dir
    if is_sweep(expand(directory)):
        _resume_sweep(arguments)
        return
    kept = read_config(expand(directory))
    # Once more, now that the run tells what stays as it is.
    defaults = ResumeOptions(dir=directory, budget=kept.budget, address=kept.address)
    options = parse(ResumeOptions, arguments, "ctm-rl resume", default=defaults)
    experiment = _checked(lambda: dataclasses.replace(kept, budget=options.budget, address=options.address))
    if options.tolerate_env_faults:
        if not isinstance(experiment, Experiment):
            raise UserError("--tolerate-env-faults is for runs that act; this one answers.")
        env = dataclasses.replace(experiment.env, tolerate_faults=True)
        experiment = dataclasses.replace(experiment, env=env)
    with _progress(experiment) as progress:
        from ctm_rl.agents.run import resume

        run_dir = resume(options.dir, experiment, progress)
    _tell_finished(run_dir)


def _resume_sweep(arguments: list[str]) -> None:
    """Goes on with a sweep."""
    options = parse(ResumeSweepOptions, arguments, "ctm-rl resume")
    from ctm_rl.agents.sweep.plan import read_sweep

    sweep = read_sweep(expand(options.dir))
    if options.address is not None:
        experiment = _checked(lambda: dataclasses.replace(sweep.experiment, address=options.address))
        sweep = dataclasses.replace(sweep, experiment=experiment)
    with _progress(sweep.experiment) as progress:
        from ctm_rl.agents.sweep.run import resume

        trials = resume(sweep, progress)
    _tell_trials(sweep, trials)


def _evaluate(arguments: list[str]) -> None:
    """Plays episodes and writes how they went."""
    options = parse(EvaluateOptions, arguments, "ctm-rl evaluate")
    from ctm_rl.agents import evaluation

    # An environment may print what it likes, but not into JSON.
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        result = evaluation.evaluate(
            expand(options.dir),
            episodes=options.episodes,
            seed=options.seed,
            deterministic=options.deterministic,
            device=options.device,
            env_kwargs=options.env_kwargs,
            decay_rate=options.decay_rate,
            human=None if options.human_labels is None else _read_human_labels(options.human_labels),
            halt_certainty=options.halt_certainty,
            halt_curve=options.halt_curve,
        )
    _write((evaluation.to_json if options.json else evaluation.to_text)(result) + "\n")


def _read_human_labels(file: str) -> Any:
    """Reads human answers; what is wrong with the file is the user's to mend."""
    from ctm_rl.envs.data.human_labels import read_human_labels

    try:
        return read_human_labels(expand(file))
    except ValueError as error:
        raise UserError(str(error)) from error


def _import(arguments: list[str]) -> None:
    """Makes a run of a published checkpoint."""
    options = parse(ImportOptions, arguments, "ctm-rl import")
    from ctm_rl.agents.importing import import_official

    _write(import_official(expand(options.file), expand(options.run_dir)) + "\n")


def _bench(arguments: list[str]) -> None:
    """Measures what training costs."""
    command = shlex.join(["ctm-rl", "bench", *arguments])
    if arguments[:1] == [ENVS]:
        options = parse(BenchOptions, arguments[1:], f"ctm-rl bench {ENVS}")
        from ctm_rl.agents.bench.output import measure_envs

        _write(measure_envs(options, command))
        return
    is_scaling = arguments[:1] == [SCALING]
    prog = f"ctm-rl bench {SCALING}" if is_scaling else "ctm-rl bench"
    own, others = divide(BenchOptions, arguments[1:] if is_scaling else arguments)
    if others in (["--help"], ["-h"]):
        width = max(map(len, CONTENDERS)) + 2
        contenders = "\n".join(f"  {name:<{width}}{what}" for name, what in CONTENDERS.items())
        _write(BENCH_USAGE.format(contenders=contenders))
        parse(BenchOptions, ["--help"], prog)
    options = parse(BenchOptions, own, prog)
    if options.markdown is not None:
        if others:
            raise UserError(f"--markdown measures nothing and takes nothing else, got {shlex.join(others)}.")
        from ctm_rl.agents.bench.output import read

        _write(read(expand(options.markdown)))
        return
    experiment, rest, prog = _choose(prog.removeprefix("ctm-rl "), others, load("cartpole-paper"))
    if not isinstance(experiment, Experiment):
        raise UserError(f"bench measures learning to act, and {experiment.name} learns to answer.")
    experiment = parse(Experiment, rest, prog, default=experiment, also=BenchOptions)
    from ctm_rl.agents.bench.output import measure

    _write(measure(experiment, options, command, is_scaling=is_scaling))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "train": _train,
    "tune": _tune,
    "resume": _resume,
    "evaluate": _evaluate,
    "import": _import,
    "bench": _bench,
}


def _checked(make: Callable[[], AnyExperiment]) -> AnyExperiment:
    """Makes an experiment of what a person gave; its refusal is theirs to read."""
    try:
        return make()
    except ValueError as error:
        raise UserError(str(error)) from error


def _progress(experiment: AnyExperiment) -> "contextlib.closing[TerminalProgress]":
    """What shows a run's progress; something is to be seen at once, since loading torch and ray takes seconds."""
    from rich.console import Console

    from ctm_rl.agents.progress import TerminalProgress

    console = Console()
    progress = TerminalProgress(experiment.budget, console)
    if console.is_terminal:
        progress.wait(f"{experiment.name}: loading")
    return contextlib.closing(progress)


def _tell_finished(run_dir: Path) -> None:
    """Says where a finished run is and what can be done with it."""
    place = shlex.quote(_short(run_dir))
    _write(f"done: {place}\nevaluate it: ctm-rl evaluate {place} --episodes 100\n")


def _tell_interrupt(interrupt: KeyboardInterrupt) -> int:
    """Says what a stopped run left and how to go on; gives the exit code that shells know."""
    run_dir = getattr(interrupt, "run_dir", None)
    signum = getattr(interrupt, "signum", 2)
    if run_dir is None:
        _tell("ctm-rl: stopped; nothing was written.")
    else:
        place = shlex.quote(_short(Path(run_dir)))
        saved = "a checkpoint is saved" if getattr(interrupt, "is_saved", False) else "the last checkpoint stands"
        _tell(f"ctm-rl: stopped, {saved}; go on with: ctm-rl resume {place}")
    return 128 + signum


def _short(path: Path) -> str:
    """A path as seen from here, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def _write(text: str) -> None:
    """Writes a result."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _tell(line: str) -> None:
    """Writes a message about what went wrong."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
