"""The command line, ``ctm-rl``: finds the command, reads its options, runs it, and reports mistakes in one line."""

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctm_rl
from ctm_rl.agents.bench.settings import CLUSTER, CONTENDERS, ENVS, LEARNING, SCALING, BenchOptions
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.storage_url import mask_secrets
from ctm_rl.agents.run_directory.trust import check_trusted, installed_path, run_claims
from ctm_rl.agents.seeds.options import SeedOptions
from ctm_rl.agents.tuning.options import TuneOptions
from ctm_rl.agents.tuning.search_space import FORMS
from ctm_rl.cli.aliases import did_you_mean
from ctm_rl.cli.check_arguments import HELP, HELP_ALL, divide, is_help, parse
from ctm_rl.cli.choose import changed, choose, read_experiment
from ctm_rl.cli.command_options import (
    BENCH_LEARNING_USAGE,
    BENCH_USAGE,
    TRAIN_USAGE,
    TUNE_USAGE,
    USAGE,
    ClusterCheckOptions,
    EvaluateOptions,
    ImportOptions,
    ResumeOptions,
    ResumeSweepOptions,
    ZooOptions,
)
from ctm_rl.cli.output import dropping_output
from ctm_rl.configs import describe, load, names
from ctm_rl.errors import UserError, escape_controls, expand, shortened, user_errors

if TYPE_CHECKING:
    from ctm_rl.agents.run_directory.progress import TerminalProgress
    from ctm_rl.agents.seeds.plan import Seeds
    from ctm_rl.agents.tuning.plan import Sweep
    from ctm_rl.cli.report import Written

ONLY_HELP = [[option] for option in (*HELP, HELP_ALL)]
"""Arguments of a command that is to describe itself."""
PRINT_CONFIG = "--print-config"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; ``None``: those of the process.

    Returns:
        The exit code: 0 done, 1 training or an environment failed, 2 a mistake in the command line or in a file it
        names, 128 + N stopped by signal N, such as 130 or 143.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    is_run = bool(arguments) and arguments[0] in RUNS
    with dropping_output(is_run=is_run) as output:
        code = _run(arguments)
    # A run leaves its results in its directory; what another command has found out is lost.
    return code if is_run or output.error is None else code or 1


def _run(arguments: list[str]) -> int:
    """Runs one command, reports mistakes in one line, and returns the exit code."""
    try:
        _dispatch(arguments)
        return 0
    except UserError as error:
        _write_error(f"ctm-rl: {' '.join(str(error).split())}")
        return error.exit_code
    except SystemExit as stop:
        # Help has been written.
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as interrupt:
        return _report_interrupt(interrupt)


def _dispatch(arguments: list[str]) -> None:
    """Finds the command and runs it."""
    if arguments in ([], ["help"]) or arguments[0] in (*HELP, HELP_ALL):
        _write(USAGE)
        return
    name, *rest = arguments
    if name == "help":
        name, *rest = [*rest, HELP[0]]
    if name == "--version":
        _write(f"ctm-rl {ctm_rl.__version__}\n")
        return
    if name not in COMMANDS:
        guess = f"did you mean ctm-rl train {name}? " if name in names() else did_you_mean(name, COMMANDS)
        raise UserError(f"unknown command {name!r}; {guess}Commands: {', '.join(COMMANDS)}.")
    _check_working_directory()
    # Only what is installed is imported, until a command line or an own run has named a module of this folder.
    sys.path[:] = installed_path()
    if sys.flags.optimize > 1 and name != "list" and not is_help(rest):
        raise UserError(
            "Ray needs the docstrings that Python drops with PYTHONOPTIMIZE=2 or -OO; set at most 1, or -O."
        )
    COMMANDS[name](rest)


def _check_working_directory() -> None:
    """Refuses a working directory that was deleted."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the working directory cannot be used: {error.strerror}; change into one that exists."
        ) from error


def _list(arguments: list[str]) -> None:
    """Lists the experiments."""
    if arguments and arguments not in ONLY_HELP:
        raise UserError(f"list takes no arguments, got {shlex.join(arguments)}.")
    _write(_listing(describe, names()) + "\n")


def _listing(describe: Callable[[str], str], names: Collection[str]) -> str:
    """Names with their descriptions, one line each."""
    width = max(map(len, names)) + 2
    return "\n".join(f"  {name:<{width}}{describe(name)}" for name in names)


def _train(arguments: list[str]) -> None:
    """Trains an experiment."""
    if arguments in ONLY_HELP:
        _write(TRAIN_USAGE.format(experiments=_listing(describe, names())))
        return
    form, arguments = split_form(arguments)
    own, others = divide(SeedOptions, arguments)
    seeds = parse(SeedOptions, own, "ctm-rl train")
    # What is found in data is no part of a printed experiment.
    with contextlib.redirect_stdout(sys.stdout if form is None else sys.stderr):
        experiment = read_experiment("train", others, also=SeedOptions)
    if own:
        _check_seeds(seeds, others, form)
    from ctm_rl.agents.run_directory.directory import config_of, new_run_dir

    if form is not None:
        _write(_in_form(form, config_of(experiment)))
        return
    if seeds.seeds:
        from ctm_rl.agents.seeds.plan import Seeds

        _run_seeds(Seeds(new_run_dir(experiment), experiment, seeds), is_new=True)
        return
    new_run_dir(experiment)  # refused before anything else is loaded
    with _progress(experiment) as progress:
        from ctm_rl.agents.runs.train_and_resume import train

        run_dir = train(experiment, progress)
    _report_finished(run_dir)


def split_form(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Separates ``--print-config``: the form that the experiment is to be printed in, and the other arguments."""
    form, rest = None, []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") != PRINT_CONFIG:
            rest.append(argument)
            continue
        if not equals:
            value = remaining.pop(0) if remaining and not remaining[0].startswith("-") else "json"
        if value not in ("json", "yaml"):
            raise UserError(f"{PRINT_CONFIG} must be json or yaml, got {value!r}.")
        form = value
    return form, rest


def _in_form(form: str, values: dict[str, Any]) -> str:
    """A configuration as text that ``--config`` reads."""
    if form == "yaml":
        from ctm_rl.read_yaml import to_yaml

        return to_yaml(values)
    return json.dumps(values, indent=2) + "\n"


def _check_seeds(seeds: SeedOptions, others: list[str], form: str | None) -> None:
    """Refuses options of ``--seeds`` that have no effect."""
    if not seeds.seeds:
        raise UserError("--seeds needs at least one whole number, as in --seeds 1 2 3.")
    if form is not None:
        raise UserError(f"{PRINT_CONFIG} prints one experiment; leave --seeds out.")
    if any(argument.partition("=")[0] == "--seed" for argument in others):
        raise UserError("--seed and --seeds exclude each other; name all seeds with --seeds.")


def _run_seeds(seeds: "Seeds", *, is_new: bool, options: Sequence[str] = ()) -> None:
    """Trains several seeds, and writes and shows their results."""
    from rich.console import Console

    from ctm_rl.agents.seeds.display import SeedsDisplay
    from ctm_rl.agents.seeds.processes import count_parallel, train_seeds
    from ctm_rl.this_machine import count_cpus

    num_parallel = count_parallel(seeds, count_cpus())
    display = SeedsDisplay(seeds, Console())
    seeds, outcomes = train_seeds(seeds, display, num_parallel=num_parallel, is_new=is_new, options=options)
    from ctm_rl.agents.seeds import results

    found = results.collect(seeds, outcomes)
    results.write_results(seeds, found)
    place = shlex.quote(_short(seeds.directory))
    _write(f"{results.format_results(found)}\ndone: {place}\nevaluate them: ctm-rl evaluate {place}\n")
    results.check_outcomes(outcomes, place)


def _tune(arguments: list[str]) -> None:
    """Searches for good values of an experiment's fields."""
    own, others = divide(TuneOptions, arguments)
    if others in ONLY_HELP:
        _write(TUNE_USAGE.format(forms=", ".join(FORMS.values())))
        parse(TuneOptions, ["--help"], "ctm-rl tune")
    options = parse(TuneOptions, own, "ctm-rl tune")
    experiment = read_experiment("tune", others, also=TuneOptions)
    from ctm_rl.agents.run_directory.directory import new_run_dir
    from ctm_rl.agents.tuning.plan import Sweep

    directory = new_run_dir(dataclasses.replace(experiment, name=f"{experiment.name}-tune"))
    sweep = Sweep(directory, experiment, options)
    _run_sweep(sweep, is_new=True)


def _run_sweep(sweep: "Sweep", *, is_new: bool) -> None:
    """Runs a sweep and writes its results."""
    with _progress(sweep.experiment) as progress:
        from ctm_rl.agents.tuning.tune import tune

        sweep, trials = tune(sweep, progress, is_new=is_new)
    from ctm_rl.agents.tuning.table import check_result, format_table

    _write(format_table(sweep, trials, _short(sweep.directory)) + "\n")
    check_result(sweep, trials)


def _resume(arguments: list[str]) -> None:
    """Continues a run or a sweep."""
    from ctm_rl.agents.run_directory.directory import read_config
    from ctm_rl.agents.run_directory.storage import find_run
    from ctm_rl.agents.seeds.plan import is_seeds
    from ctm_rl.agents.tuning.plan import is_sweep

    given = parse(ResumeOptions, arguments, "ctm-rl resume")
    if is_sweep(expand(given.dir)):
        _resume_sweep(arguments)
        return
    if is_seeds(expand(given.dir)):
        _resume_seeds(given, arguments)
        return

    def check(experiment: AnyExperiment, storage: str | None) -> None:
        named = {"address": given.address, "storage": storage}
        options = {f"--{name}" for name, value in named.items() if value is not None}
        check_trusted(run_claims(experiment), given.dir, named=options, is_trusted=given.trust)

    run_dir, storage = find_run(given.dir, given.storage, given.run_dir, check)
    saved = read_config(run_dir)
    # Parsed once more, now that the run's own values are known, which are the defaults.
    own = {name: getattr(saved, name) for name in ("budget", "stop", "address", "placement")}
    defaults = dataclasses.replace(given, **own, storage=storage or saved.storage)
    options = parse(ResumeOptions, arguments, "ctm-rl resume", default=defaults)
    changed = {name: getattr(options, name) for name in (*own, "storage")}
    with user_errors():
        experiment = dataclasses.replace(saved, **changed)
    if options.env.tolerate_faults:
        if not isinstance(experiment, ActingExperiment):
            raise UserError("--env.tolerate-faults is for runs that train a policy; leave it out for this run.")
        env = dataclasses.replace(experiment.env, tolerate_faults=True)
        experiment = dataclasses.replace(experiment, env=env)
    check(experiment, storage)
    with _progress(experiment) as progress:
        from ctm_rl.agents.runs.train_and_resume import resume

        run_dir = resume(run_dir, experiment, progress, trust=True)
    _report_finished(run_dir)


def _resume_sweep(arguments: list[str]) -> None:
    """Continues a sweep."""
    options = parse(ResumeSweepOptions, arguments, "ctm-rl resume")
    from ctm_rl.agents.tuning.plan import read_sweep

    sweep = read_sweep(expand(options.dir))
    named = set() if options.address is None else {"--address"}
    check_trusted(sweep.claims, options.dir, named=named, is_trusted=options.trust)
    if options.address is not None:
        with user_errors():
            experiment = dataclasses.replace(sweep.experiment, address=options.address)
        sweep = dataclasses.replace(sweep, experiment=experiment)
    _run_sweep(sweep, is_new=False)


def _resume_seeds(given: ResumeOptions, arguments: list[str]) -> None:
    """Continues the runs of several seeds that are not finished."""
    from ctm_rl.agents.seeds.plan import Seeds, read_seeds

    saved = read_seeds(expand(given.dir))
    own = {name: getattr(saved.experiment, name) for name in ("budget", "address", "placement")}
    options = parse(ResumeOptions, arguments, "ctm-rl resume", default=dataclasses.replace(given, **own))
    for name in ("run_dir", "storage"):
        if getattr(given, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for a single run; leave it out for several seeds.")
    named = set() if given.address is None else {"--address"}
    check_trusted(run_claims(saved.experiment), given.dir, named=named, is_trusted=options.trust)
    with user_errors():
        experiment = dataclasses.replace(saved.experiment, **{name: getattr(options, name) for name in own})
    changes = {f"--{name}": getattr(options, name) for name in ("address", "placement")}
    if options.budget != saved.experiment.budget:
        budget = dataclasses.asdict(options.budget)
        changes |= {f"--budget.{name.replace('_', '-')}": str(value) for name, value in budget.items()}
    rest = [word for option, value in changes.items() if value is not None for word in (option, value)]
    rest += ["--env.tolerate-faults"] if options.env.tolerate_faults else []
    _run_seeds(Seeds(saved.directory, experiment, saved.options), is_new=False, options=rest)


def _evaluate(arguments: list[str]) -> None:
    """Evaluates a run, or the runs of several seeds, and writes the result."""
    options = parse(EvaluateOptions, arguments, "ctm-rl evaluate")
    from ctm_rl.agents.seeds.plan import is_seeds
    from ctm_rl.agents.tuning.plan import describe_trials, is_sweep

    directory = expand(options.dir)
    if is_sweep(directory):
        raise UserError(describe_trials(directory, _short(directory)))
    from ctm_rl.agents.evaluation import evaluate as evaluation
    from ctm_rl.envs.data.human_labels import read_human_labels

    values = dataclasses.asdict(options)
    file, as_json = values.pop("human_labels"), values.pop("json")
    if file is not None:
        with user_errors():
            values["human"] = read_human_labels(expand(file))
    del values["dir"]
    values["env_kwargs"] = values.pop("env")["kwargs"]
    if is_seeds(directory):
        _evaluate_seeds(directory, values, as_json=as_json)
        return
    # What an environment prints must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        result = evaluation.evaluate(directory, **values)
    _write((evaluation.to_json if as_json else evaluation.to_text)(result) + "\n")


def _evaluate_seeds(directory: Path, values: dict[str, Any], *, as_json: bool) -> None:
    """Evaluates the runs of several seeds, each as ``_evaluate`` does, and writes what they have in common."""
    from ctm_rl.agents.evaluation import evaluate as evaluation
    from ctm_rl.agents.seeds import results
    from ctm_rl.agents.seeds.plan import read_seeds

    seeds = read_seeds(directory)
    begun = [seed for seed in seeds.options.seeds if seeds.has_begun(seed)]
    if not begun:
        raise UserError(f"no seed in {directory} has begun; continue them with: ctm-rl resume {directory}")
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        found = {seed: evaluation.evaluate(seeds.run_dir(seed), **values) for seed in begun}
    collected = results.collect_evaluations(found)
    lines = {seed: evaluation.to_text(result) for seed, result in found.items()}
    _write((evaluation.to_json(collected) if as_json else results.format_evaluations(collected, lines)) + "\n")


def _zoo(arguments: list[str]) -> None:
    """Lists the trained runs that are shipped, or describes one."""
    options = parse(ZooOptions, arguments, "ctm-rl zoo")
    from ctm_rl.cli.zoo import zoo_text

    _write(zoo_text(options.name, as_json=options.json))


def _report(arguments: list[str]) -> None:
    """Writes the report of a run."""
    from ctm_rl.cli.report import report

    _show_written("report", report(arguments))


def _compare(arguments: list[str]) -> None:
    """Writes a page that compares runs."""
    from ctm_rl.cli.compare import compare

    _show_written("comparison", compare(arguments))


def _watch(arguments: list[str]) -> None:
    """Shows the report of a run while it trains."""
    from ctm_rl.cli.watch import watch

    watch(arguments, lambda text: _write(f"{text}\n"))


def _show_written(what: str, written: "Written") -> None:
    """Writes what is missing in a page, where it is, and how to open it."""
    for note in written.notes:
        _write_error(f"ctm-rl: {note}")
    _write(f"{what}: {_short(written.file)}\nopen it: {written.how_to_open}\n")


def _record(arguments: list[str]) -> None:
    """Writes a video of a run's policy."""
    from ctm_rl.cli.video import record

    _write(record(arguments))


def _enjoy(arguments: list[str]) -> None:
    """Shows a run's policy at play."""
    from ctm_rl.cli.video import enjoy

    _write(enjoy(arguments))


def _import(arguments: list[str]) -> None:
    """Makes a run of a published checkpoint."""
    options = parse(ImportOptions, arguments, "ctm-rl import")
    from ctm_rl.agents.runs.import_published import import_official

    _write(import_official(expand(options.file), expand(options.run_dir)) + "\n")


def _cluster_check(arguments: list[str]) -> None:
    """Examines every node of a cluster."""
    options = parse(ClusterCheckOptions, arguments, "ctm-rl cluster-check")
    from ctm_rl.agents.cluster import check as cluster_check
    from ctm_rl.agents.run_directory.progress import status_line

    def build_config() -> Any:
        from ctm_rl.agents.runs.build_algorithm import build_algorithm_config

        return build_algorithm_config(load("cartpole"))

    with status_line() as show:
        report = cluster_check.check_cluster(build_config, options.address, show)
    _write((cluster_check.to_line if options.json else cluster_check.to_text)(report))
    if report.problems:
        raise cluster_check.ClusterDiffers(
            "a node differs from this process, or failed a check; see the problems above."
        )


def _bench(arguments: list[str]) -> None:
    """Measures the speed of training."""
    command = shlex.join(["ctm-rl", "bench", *arguments])
    kind = arguments.pop(0) if arguments and arguments[0] in (SCALING, CLUSTER, ENVS, LEARNING) else None
    prog = "ctm-rl bench" if kind is None else f"ctm-rl bench {kind}"
    if kind == LEARNING:
        _bench_learning(arguments, command, prog)
        return
    if kind == ENVS:
        options = parse(BenchOptions, arguments, prog)
        from ctm_rl.agents.bench import envs
        from ctm_rl.agents.bench.output import measure

        _write(measure(options, lambda show: envs.bench_envs(command, options.rounds, show), envs.to_text))
        return
    own, others = divide(BenchOptions, arguments)
    if others in ONLY_HELP:
        _write(BENCH_USAGE.format(contenders=_listing(CONTENDERS.__getitem__, CONTENDERS)))
        parse(BenchOptions, ["--help"], prog)
    options = parse(BenchOptions, own, prog)
    if options.markdown is not None:
        if others:
            raise UserError(f"--markdown measures nothing and takes no other arguments, got {shlex.join(others)}.")
        from ctm_rl.agents.bench.output import read

        _write(read(expand(options.markdown)))
        return
    experiment, rest, prog = choose(prog.removeprefix("ctm-rl "), others, load("cartpole-paper"))
    if not isinstance(experiment, ActingExperiment):
        raise UserError(f"bench measures experiments that act, and {experiment.name} answers; name another experiment.")
    experiment = changed(experiment, rest, prog, also=BenchOptions)
    assert isinstance(experiment, ActingExperiment)
    from ctm_rl.agents.bench.output import measure

    if kind == SCALING:
        from ctm_rl.agents.bench.scaling import scaling as run
        from ctm_rl.agents.bench.scaling import to_text
    elif kind == CLUSTER:
        from ctm_rl.agents.bench.cluster.report import cluster as run
        from ctm_rl.agents.bench.cluster.report import to_text
    else:
        from ctm_rl.agents.bench.measure import bench as run
        from ctm_rl.agents.bench.table import to_text
    _write(measure(options, lambda show: run(experiment, options, command, show), to_text))


def _bench_learning(arguments: list[str], command: str, prog: str) -> None:
    """Compares how well contenders learn."""
    from ctm_rl.agents.bench.learning.options import LEARNERS, LearningOptions

    own, fields = divide(LearningOptions, arguments)
    if fields in ONLY_HELP:
        _write(BENCH_LEARNING_USAGE.format(contenders=_listing(LEARNERS.__getitem__, LEARNERS)))
        parse(LearningOptions, ["--help"], prog)
    options = parse(LearningOptions, own, prog)
    from ctm_rl.agents.bench.learning import study
    from ctm_rl.agents.bench.learning.tasks import arguments_of

    study.check_fields(options, fields)
    failures: dict[str, str] = {}
    if not options.report:
        command_name = prog.removeprefix("ctm-rl ")
        experiments = {
            task: read_experiment(command_name, [*arguments_of(task), *fields], LearningOptions)
            for task in options.tasks
        }
        failures = study.run_study(experiments, fields, options, command)
    _write(study.report_of(options))
    study.check_failures(failures)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "train": _train,
    "tune": _tune,
    "resume": _resume,
    "evaluate": _evaluate,
    "zoo": _zoo,
    "report": _report,
    "record": _record,
    "enjoy": _enjoy,
    "compare": _compare,
    "watch": _watch,
    "import": _import,
    "cluster-check": _cluster_check,
    "bench": _bench,
}


RUNS = ("train", "tune", "resume")
"""The commands that go on, and succeed, without anything reading what they write."""


def _progress(experiment: AnyExperiment) -> "contextlib.closing[TerminalProgress]":
    """Shows a run's progress, from the start, since loading torch and ray takes seconds."""
    from rich.console import Console

    from ctm_rl.agents.run_directory.progress import TerminalProgress

    console = Console()
    words = () if isinstance(experiment, ActingExperiment) else experiment.env.words
    progress = TerminalProgress(experiment.budget, console, _end_stuck_process, words)
    if console.is_terminal:
        progress.show_waiting(f"{experiment.name}: loading")
    return contextlib.closing(progress)


def _report_finished(run_dir: Path) -> None:
    """Writes where a finished run is and how to evaluate it."""
    place = shlex.quote(_short(run_dir))
    _write(f"done: {place}\nevaluate it: ctm-rl evaluate {place}\n")


def _report_interrupt(interrupt: KeyboardInterrupt) -> int:
    """Writes what a stopped run has left and how to continue; returns a shell's exit code for the signal."""
    run_dir = getattr(interrupt, "run_dir", None)
    signum = getattr(interrupt, "signum", 2)
    if run_dir is None:
        _write_error("ctm-rl: stopped; nothing was written.")
    else:
        place = shlex.quote(_short(Path(run_dir)))
        saved = "a checkpoint is saved" if getattr(interrupt, "is_saved", False) else "the last checkpoint remains"
        _write_error(f"ctm-rl: stopped, {saved}; continue with: ctm-rl resume {place}")
    return 128 + signum


def _end_stuck_process(reason: BaseException) -> None:
    """Ends the process although its main thread waits for something that does not answer; called in another thread."""
    code = getattr(reason, "exit_code", 128 + getattr(reason, "signum", 2))
    with contextlib.suppress(OSError):  # nobody may be left who reads it
        if isinstance(reason, KeyboardInterrupt):
            _report_interrupt(reason)
        else:
            _write_error(f"ctm-rl: {reason}")
    os._exit(code)


def _short(path: Path) -> str:
    """A path relative to the working directory, if it is inside."""
    try:
        here = Path.cwd()
    except OSError:  # it has been removed meanwhile
        return str(path)
    if not path.is_relative_to(here) or path == here:
        return str(path)
    short = str(path.relative_to(here))
    return f"./{short}" if short.startswith("-") else short  # as an option it would not be understood


def _write(text: str) -> None:
    """Writes a result."""
    print(escape_controls(text), end="", flush=True)


def _write_error(line: str) -> None:
    """Writes an error message, without secrets of URLs and terminal escapes in it."""
    print(shortened(escape_controls(mask_secrets(line))), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
