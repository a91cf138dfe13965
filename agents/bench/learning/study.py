"""Does the runs of a comparison that its file does not have yet, a few at a time."""

import concurrent.futures
import importlib.util
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctm_rl.agents.bench.learning.options import RANDOM, SB3, LearningOptions
from ctm_rl.agents.bench.learning.results import Key, Run, add_run, key_of, read_results
from ctm_rl.agents.bench.learning.runs import Job, Processes, RunFailed, RunStopped, do
from ctm_rl.agents.bench.learning.tasks import env_steps_of
from ctm_rl.agents.bench.machine import describe_circumstances
from ctm_rl.agents.bench.output import check_writable
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.errors import UserError, escape_controls, expand
from ctm_rl.this_machine import count_cpus

_POLL_SECONDS = 0.3
_USUAL_PARALLEL = 2
_SAME_TASK = ("--env.previous-", "--env.stagger-episodes", "--env.vectorization", "--env.wrappers")
"""Fields of the environment that leave a random policy's return as it is; wrappers are left to the user."""


class RunsFailed(UserError):
    """Some runs have failed; the others are in the file."""

    exit_code = 1


class StudyStopped(UserError):
    """A signal has stopped the runs.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__("stopped; finished runs are kept, and the same command goes on with the others.")
        self.exit_code = 128 + signum


def write_line(line: str) -> None:
    """Writes a line about the runs to standard error; standard output is for the report."""
    print(escape_controls(line), file=sys.stderr, flush=True)


def jobs_of(experiments: Mapping[str, ActingExperiment], fields: Sequence[str], options: LearningOptions) -> list[Job]:
    """Returns all runs of a comparison: of each task the random policy first, then seed by seed all contenders.

    Args:
        experiments: the tasks by their names.
        fields: what the command line changes of our experiments.
        options: contenders, seeds and steps.
    """
    jobs = []
    for task, experiment in experiments.items():
        env_steps = options.env_steps or env_steps_of(task, experiment.budget.env_steps)
        jobs.append(Job(Key(task, RANDOM, 0, 0), RANDOM, experiment, ()))
        for seed in options.seeds:
            for kind in options.contenders:
                name = kind if kind == SB3 or options.variant is None else f"{kind}:{options.variant}"
                jobs.append(Job(Key(task, name, seed, env_steps), kind, experiment, tuple(fields)))
    return jobs


def missing(jobs: Sequence[Job], runs: Sequence[Run]) -> list[Job]:
    """Returns the jobs whose runs are not there yet.

    Raises:
        UserError: runs of the same name are there that were made with other fields.
    """
    there = {key_of(run): run for run in runs}
    for job in jobs:
        run = there.get(job.key)
        if run is not None and list(job.fields) != run.get("fields", []):
            given = " ".join(run.get("fields", [])) or "none"
            raise UserError(
                f"the file has runs of {job.key.contender} on {job.key.task} with other fields ({given}); give these "
                "another name with --variant."
            )
    return [job for job in jobs if job.key not in there]


def run_study(
    experiments: Mapping[str, AnyExperiment],
    fields: Sequence[str],
    options: LearningOptions,
    command: str,
    report: Callable[[str], None] = write_line,
) -> dict[str, str]:
    """Does the missing runs, and adds each to the file as soon as it is finished.

    Args:
        experiments: the tasks by their names.
        fields: what the command line changes of our experiments, checked.
        options: what is compared.
        command: the command line.
        report: writes a line about what is being done.

    Returns:
        Why runs have failed, by their names; see ``check_failures``.

    Raises:
        UserError: the file cannot be used, a contender is not installed, or a task is no experiment that acts.
        StudyStopped: a signal has stopped the runs.
    """
    acting = {name: one for name, one in experiments.items() if isinstance(one, ActingExperiment)}
    for name in experiments.keys() - acting.keys():
        raise UserError(f"bench learning compares policies, and {name} answers; name an experiment that acts.")
    path = expand(options.out).absolute()
    check_writable(path)
    wanted, runs = jobs_of(acting, fields, options), read_results(path)
    jobs = missing(wanted, runs)
    there = {key_of(run): run for run in runs}
    if others := [job.name for job in wanted if job.key in there and _is_other(there[job.key], job, options)]:
        report(
            f"note: runs of {path.name} that were made with other settings or another version, or evaluated otherwise, "
            f"and are not repeated: {len(others)}, such as {others[0]}"
        )
    if not jobs:
        return {}
    if any(job.kind == SB3 for job in jobs) and importlib.util.find_spec("sb3_contrib") is None:
        raise UserError('sb3 needs sb3-contrib; install it with pip install "ctm-rl[bench]", or leave it out.')
    folder = path.with_name(f"{path.stem}-runs")
    folder.mkdir(exist_ok=True)
    num_parallel = options.parallel or min(_USUAL_PARALLEL, count_cpus())
    report(f"runs to do: {len(jobs)}, {num_parallel} at a time, in {folder}")
    circumstances, failures = _describe(command), {}
    num_done = 0
    for job, result in _finished(jobs, folder, options, num_parallel):
        if isinstance(result, RunFailed):
            failures[job.name] = str(result)
            report(f"{job.name} failed: {result}")
            continue
        num_done += 1
        add_run(path, {**result, **circumstances})
        report(f"{num_done} of {len(jobs)}: {job.name}: {_facts(result)}")
    return failures


def _is_other(run: Run, job: Job, options: LearningOptions) -> bool:
    """Whether a run is not what its job would do now."""
    evaluated = {"settings": job.settings, "episodes": options.episodes, "deterministic": options.deterministic}
    return any(run.get(name, value) != value for name, value in evaluated.items())


def _finished(
    jobs: Sequence[Job], folder: Path, options: LearningOptions, num_parallel: int
) -> Iterator[tuple[Job, Run | RunFailed]]:
    """Does jobs, so many at a time; yields each with its run, or why there is none, as soon as it has ended.

    Raises:
        StudyStopped: a signal has stopped them.
    """
    processes = Processes()
    pool = concurrent.futures.ThreadPoolExecutor(num_parallel)
    with pool, StopRequest(lambda: None, seconds=math.inf) as request:
        waiting = {pool.submit(do, job, folder, options, processes): job for job in jobs}
        try:
            while waiting:
                done, _ = concurrent.futures.wait(waiting, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
                if request.is_stopping:
                    pool.shutdown(wait=False, cancel_futures=True)
                    processes.stop(request.signum or signal.SIGTERM)
                    waiting = {future: job for future, job in waiting.items() if not future.cancelled()}
                for future in done & waiting.keys():
                    job, error = waiting.pop(future), future.exception()
                    if not isinstance(error, RunStopped):
                        yield job, error if isinstance(error, RunFailed) else future.result()
        except KeyboardInterrupt:  # a second signal
            raise StudyStopped(request.signum or signal.SIGINT) from None
        finally:  # or a run cannot be added to the file
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop(request.signum or signal.SIGTERM)
        if request.is_stopping:
            raise StudyStopped(request.signum or signal.SIGTERM)


def check_failures(failures: Mapping[str, str]) -> None:
    """Reports runs that have failed.

    Raises:
        RunsFailed: at least one has.
    """
    if failures:
        name, reason = next(iter(failures.items()))
        raise RunsFailed(
            f"{len(failures)} of the runs failed; {name}: {reason.rstrip('.')}. The logs lie beside the runs; the same "
            "command tries them again."
        )


def _facts(run: Run) -> str:
    """What a finished run has reached, for a line."""
    evaluated = f"evaluated at {run['evaluation']:g}"
    if not run["curve"]:
        return evaluated
    last = run["curve"][-1]
    return f"{'no episode ended' if last is None else f'return {last:g}'}, {evaluated}, {run['seconds']:g} s"


def _describe(command: str) -> dict[str, Any]:
    """Where runs are measured, in few words, kept with each of them."""
    found = describe_circumstances(command)
    machine = found["machine"]
    versions = (f"{name} {version}" for name, version in found["versions"].items() if version)
    return {"machine": f"{machine['cpu']}, {machine['cores']} cores", "versions": ", ".join(versions)}


def check_fields(options: LearningOptions, fields: Sequence[str]) -> None:
    """Refuses fields of experiments that are not for a variant, or that the comparison sets itself.

    Raises:
        UserError: one line with the field, or what is missing.
    """
    if not fields:
        return
    if options.report:
        raise UserError(f"--report runs nothing and takes no fields, got {' '.join(fields)}.")
    taken = {"--seed": "see --seeds", "--budget.env-steps": "see --env-steps", "--model.kind": "see --contenders"}
    taken |= dict.fromkeys(("--total-timesteps", "--n-timesteps", "--num-env-steps"), "see --env-steps")
    taken |= {"--run-dir": "see --out", "--num-threads": "each run has one thread"}
    for field in fields:
        name = field.partition("=")[0].replace("_", "-")
        if name in taken:
            raise UserError(f"bench learning sets {name} itself; {taken[name]}.")
        if name.startswith(("--budget.", "--stop.")):
            raise UserError(f"runs of bench learning all take --env-steps, without {name}.")
        if name.startswith("--env.") and not name.startswith(_SAME_TASK):
            raise UserError(f"{name} makes another task, with another random policy; give it as an experiment's name.")
    if options.variant is None:
        raise UserError(f"runs with other fields need a name, such as --variant mine; got {' '.join(fields)}.")
    if SB3 in options.contenders:
        raise UserError("fields are of our experiments; say who learns with them, such as --contenders ctm.")


def report_of(options: LearningOptions) -> str:
    """Returns the report of a file, for a person or as JSON; the figure is drawn beside the file.

    Raises:
        UserError: the file cannot be read, or the figure not be written.
    """
    from ctm_rl.agents.bench.learning.report import draw, to_text
    from ctm_rl.agents.bench.learning.scores import summarise

    path = expand(options.out).absolute()
    if options.report and not path.is_file():
        raise UserError(f"--report reads a file that ctm-rl bench learning has written, and there is no {path}.")
    runs = read_results(path)
    summary = summarise(runs)
    figure = path.with_suffix(".png")
    note = f"figure: {figure}\n" if draw(runs, figure) else ""
    return json.dumps(summary) + "\n" if options.json else to_text(summary, runs) + note
