"""Measures all contenders in turn, so that other load on the machine affects all of them alike."""

import contextlib
import dataclasses
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ctm_rl.agents.bench import floor
from ctm_rl.agents.bench.client import Worker
from ctm_rl.agents.bench.machine import describe_circumstances
from ctm_rl.agents.bench.settings import CONTENDERS, BenchOptions
from ctm_rl.agents.bench.task import task_of
from ctm_rl.agents.bench.worker import ITERATION, PARTS
from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.cluster.users_folder import remembered
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import to_json
from ctm_rl.agents.run_directory.working_directory import working_inside
from ctm_rl.this_machine import count_cpus

Report = Callable[[str], None]
"""Called with a line about what is being done."""

OURS = "ctm-rl"
_DIGITS = {"env_steps": 0, "peak_mb": 1, "update_peak_mb": 1}


def bench(experiment: ActingExperiment, options: BenchOptions, command: str, report: Report) -> dict[str, Any]:
    """Measures the contenders on an experiment.

    Args:
        experiment: what our contenders learn; the others use its environment.
        options: how to measure.
        command: the command line, kept with the result.
        report: called with a line about what is being done.

    Returns:
        A result for JSON: ``machine``, ``versions``, ``command``, ``settings``, ``rows`` and, if ours is measured,
        ``minibatch``.

    Raises:
        UserError: the experiment cannot run on this machine.
    """
    num_threads = num_threads_of(options)
    with running_ray(experiment) as experiment, contextlib.ExitStack() as stack:
        workers = [Worker(name, experiment, num_threads, options.rival) for name in options.contenders]
        build(workers, stack, report)
        able = [worker for worker in workers if worker.unavailable is None]
        timings, parts = measure_in_turn(able, options.rounds, report, with_parts_of=OURS)
    rows = [_row(worker, timings.get(worker.label, [])) for worker in workers]
    result = {**circumstances(experiment, options, num_threads, command), "rows": rows}
    return {**result, "minibatch": _minibatch(experiment, parts)} if parts else result


def num_threads_of(options: BenchOptions) -> int:
    """CPU threads of every contender."""
    return options.num_threads or count_cpus()


def circumstances(
    experiment: ActingExperiment, options: BenchOptions, num_threads: int, command: str
) -> dict[str, Any]:
    """Describes what a reader needs to judge a measurement: the machine, versions, command and settings."""
    return {
        **describe_circumstances(command),
        "settings": {
            "rounds": options.rounds,
            "num_threads": num_threads,
            "rival": dataclasses.asdict(options.rival),
            "experiment": {**to_json(experiment), "address": None},
        },
    }


@contextlib.contextmanager
def running_ray(experiment: ActingExperiment) -> Iterator[ActingExperiment]:
    """Starts one Ray for all contenders, and works in a temporary directory meanwhile.

    What Ray prints goes to standard error: standard output is for results.

    Yields:
        The experiment with the address of that Ray.

    Raises:
        UserError: the machine has too few resources, or the environment is not supported.
    """
    prepare_environment(experiment)
    nodes = check_machine(experiment)
    task_of(experiment)  # raises at once what every contender would raise
    request = StopRequest(lambda: None)
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as directory,
        remembered(),
        working_inside(Path(directory)),
        ray_for(experiment, request, nodes),
        contextlib.ExitStack() as stack,
    ):
        import ray

        stack.enter_context(_interruptible())
        yield dataclasses.replace(experiment, address=ray.get_runtime_context().gcs_address)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Has SIGTERM end the body as Ctrl-C does; Ray's own handler, set when it starts, would abort."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise RunInterrupted(None, signum, is_saved=False)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def build(workers: list[Worker], stack: contextlib.ExitStack, report: Report) -> None:
    """Builds all contenders at the same time, and waits until all are built.

    Args:
        workers: not started yet.
        stack: stops them when it closes.
        report: called with a line about what is being done.
    """
    report(f"building {', '.join(worker.label for worker in workers)}")
    for worker in workers:
        stack.enter_context(worker)
    for worker in workers:
        worker.wait()


def measure_in_turn(
    workers: list[Worker], rounds: int, report: Report, with_parts_of: str | None = None
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Measures iterations of all workers in turn; the first of each is thrown away.

    Args:
        workers: built, and available.
        rounds: how many iterations of each are kept.
        report: called with a line about what is being done.
        with_parts_of: label of a worker that measures its minibatch as well, after each iteration.

    Returns:
        The timings of each worker by its label, and the measurements of that minibatch.
    """
    timings: dict[str, list[dict[str, Any]]] = {worker.label: [] for worker in workers}
    parts: list[dict[str, Any]] = []
    for number in range(rounds + 1):
        title = f"round {number} of {rounds}" if number else "warming up"
        for worker in workers:
            report(f"{title}: {worker.label}")
            timing = worker.request(ITERATION)
            if number:
                timings[worker.label].append(timing)
            if number and worker.label == with_parts_of:
                parts.append(worker.request(PARTS))
    return timings, parts


def median_of(timings: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every value over the rounds; ``None`` if it is unknown in a round."""
    result: dict[str, Any] = {}
    for key in timings[0]:
        values = [timing[key] for timing in timings]
        known = None if any(value is None for value in values) else statistics.median(values)
        result[key] = None if known is None else round(known, _DIGITS.get(key, 5))
    return result


def _row(worker: Worker, timings: list[dict[str, Any]]) -> dict[str, Any]:
    """One contender's row of the table."""
    row: dict[str, Any] = {"name": worker.label, "what": CONTENDERS[worker.label]}
    if worker.unavailable is not None or worker.description is None:
        return {**row, "unavailable": worker.unavailable}
    medians = median_of(timings)
    return {
        **row,
        **medians,
        "env_steps_per_second": round(medians["env_steps"] / medians["seconds"], 1),
        **worker.description,
        "seconds_of_rounds": [round(timing["seconds"], 4) for timing in timings],
    }


def _minibatch(experiment: ActingExperiment, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The measurements of our minibatch, beside its arithmetic floor."""
    from ctm_rl.agents.bench.parts import MinibatchProbe

    probe = MinibatchProbe(experiment)
    counted = floor.count(*probe.task)
    num_env_steps = probe.num_rows * probe.num_steps
    rate = max(part["matrix_rate"] for part in parts)
    work = floor.gflop(counted, num_env_steps)
    medians = median_of(parts)
    return {
        "rows": probe.num_rows,
        "steps": probe.num_steps,
        **{name: medians[name] for name in ("forward", "forward_backward", "peak_mb")},
        "multiply_adds_per_env_step": {**counted._asdict(), "total": counted.total},
        "gflop": round(work, 6),
        "matrix_rate_gflops": round(rate, 1),
        "floor": round(work / rate, 9),
        "times_floor": round(medians["forward_backward"] / (work / rate), 2),
    }
