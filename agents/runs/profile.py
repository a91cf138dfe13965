"""Where the time of a run's iterations goes: shares in one line, and a trace of a few iterations for Perfetto."""

import contextlib
import json
import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.rllib.spans import (
    COLLECT,
    ENVIRONMENT,
    LEARN,
    LOG,
    POLICY,
    SAVE,
    TEST,
    WEIGHTS,
    RunnerSpans,
    Span,
    SpanRecorder,
    record_in_runner,
    spans_of_runners,
    start_recording,
    timed,
)
from ctm_rl.agents.run_directory.progress import Progress

TRACE_FILE = "trace.json"
LAST_TRACED = 3
"""The last iteration in the trace, counted from the start of the process: PyTorch's profiler records its operations,
hundreds of thousands, about 70 MB, with a small model; our own spans are recorded from the first iteration on."""
_PARTS = (ENVIRONMENT, POLICY, COLLECT, LEARN, WEIGHTS, TEST, LOG, SAVE)
_RUNNER_PID = 1_000_000_000
"""Perfetto's number of an environment runner's process, plus its index; larger than those of this machine."""
_LOG = logging.getLogger(__name__)


class _Iteration(NamedTuple):
    """One iteration as it was recorded."""

    number: int
    begin: int
    """In nanoseconds since 1970."""
    duration: int
    """In nanoseconds."""
    parts: dict[str, int]
    """Nanoseconds of each part in the training process."""
    runner_parts: dict[str, int]
    """Sums over the environment runners in processes of their own."""
    num_runners: int


class Profile:
    """Records a run's iterations.

    Args:
        run_dir: the run's directory, which gets the trace.
        progress: gets the line with the shares.
    """

    def __init__(self, run_dir: Path, progress: Progress) -> None:
        self._path, self._progress = run_dir / TRACE_FILE, progress
        self._recorder = SpanRecorder()
        self._iterations: list[_Iteration] = []
        self._spans: list[Span] = []
        self._runner_spans: list[RunnerSpans] = []
        self._of_runners: list[RunnerSpans] = []
        self._profiler: Any = None
        self._is_written = False
        self._begin = time.time_ns()

    def attach(self, algorithm: Any) -> None:
        """Has this process and the environment runners of an algorithm record, and times what only RLlib does."""
        self._recorder = start_recording()
        group = algorithm.env_runner_group
        group.foreach_env_runner(record_in_runner)
        # Our own algorithms time these themselves; a span inside one of its name is not recorded twice.
        algorithm.learner_group.update = timed(LEARN, algorithm.learner_group.update)
        group.sync_weights = timed(WEIGHTS, group.sync_weights)

    def begin_iteration(self) -> None:
        """Called before each iteration, and again if it has to be repeated."""
        self._recorder.pop()
        if len(self._iterations) + 1 == LAST_TRACED and self._profiler is None:
            self._profiler = _start_profiler()
        self._begin = time.time_ns()

    def read(self, result: dict[str, Any]) -> None:
        """Takes what environment runners have recorded from a result of ``Algorithm.train``."""
        self._of_runners = spans_of_runners(result)

    def end_iteration(self, number: int) -> None:
        """Called after each iteration, when its metrics and its checkpoint have been written."""
        duration = time.time_ns() - self._begin
        spans, of_runners, self._of_runners = self._recorder.pop(), self._of_runners, []
        workers = {one.worker for one in of_runners}
        parts, runner_parts = _sums(spans), _sums([span for one in of_runners for span in one.spans])
        self._iterations.append(_Iteration(number, self._begin, duration, parts, runner_parts, len(workers)))
        if len(self._iterations) <= LAST_TRACED:
            self._spans += [*spans, Span(f"iteration {number}", self._begin, duration, 0)]
            self._runner_spans += of_runners
        if len(self._iterations) == LAST_TRACED:
            self._write()

    def close(self) -> None:
        """Writes the trace if it has not been written, and the line with the shares."""
        if not self._is_written:
            self._write()
        if self._iterations:
            self._progress.write(self.describe())
            if self._is_written:
                self._progress.write(f"trace of {self._traced}: {self._path}; ui.perfetto.dev opens it")

    def describe(self) -> str:
        """Returns the shares of an iteration's time, in one line.

        The first iteration and the one that PyTorch's profiler slowed down are left out, unless there are no others.
        """
        numbered = enumerate(self._iterations, 1)
        chosen = [one for number, one in numbered if number not in (1, LAST_TRACED)] or self._iterations[-1:]
        total = sum(one.duration for one in chosen)
        runners, names = max(one.num_runners for one in chosen), dict.fromkeys(_PARTS)
        shares = {name: sum(one.parts.get(name, 0) for one in chosen) / total for name in names}
        shown = _in_words({**shares, "rest": 1 - sum(shares.values())}, is_remote=runners > 0)
        count = f"{len(chosen)} iteration{'s' if len(chosen) > 1 else ''}"
        line = f"profile of {count}, {total / len(chosen) / 1e9:.3g} s each: {shown}"
        if runners:
            inner = {
                name: sum(one.runner_parts.get(name, 0) for one in chosen) / runners / total
                for name in (ENVIRONMENT, POLICY, COLLECT)
            }
            busy = _in_words({**inner, "idle": max(0.0, 1 - sum(inner.values()))}, is_remote=False)
            line += f"; {runners} env runner{'s' if runners > 1 else ''}: {busy}"
        return line

    @property
    def _traced(self) -> str:
        """The iterations in the trace."""
        numbers = [one.number for one in self._iterations[:LAST_TRACED]]
        return f"iterations {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"iteration {numbers[0]}"

    def _write(self) -> None:
        """Writes the trace: PyTorch's, with our spans put in front of its events."""
        profiler, self._profiler = self._profiler, None
        events = _events(self._spans, self._runner_spans)
        temporary = self._path.with_name(f".{TRACE_FILE}.new")
        try:
            if profiler is not None:
                profiler.stop()
                profiler.export_chrome_trace(str(temporary))
                _insert(temporary, self._path, events)
            elif self._iterations:
                self._path.write_text(json.dumps({"traceEvents": [_chrome(event, 0) for event in events]}))
            self._is_written = bool(self._iterations)
        except (OSError, RuntimeError) as error:
            _LOG.warning("%s cannot be written (%s).", self._path, getattr(error, "strerror", None) or error)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def closing_profile(profile: Profile | None) -> Iterator[None]:
    """Closes a profile after the body."""
    try:
        yield
    finally:
        if profile is not None:
            profile.close()


def _start_profiler() -> Any:
    """Starts PyTorch's profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes to standard error when it starts
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    profiler = profile(activities=activities)
    profiler.start()
    return profiler


def _sums(spans: list[Span]) -> dict[str, int]:
    """The time of each part, without that of the parts inside it."""
    sums: dict[str, int] = defaultdict(int)
    for span in spans:
        sums[span.name] += span.own
    return dict(sums)


def _in_words(shares: dict[str, float], *, is_remote: bool) -> str:
    """Shares in percent; parts below half a percent are left out."""
    names = {COLLECT: "waiting for env runners"} if is_remote else {}
    return ", ".join(f"{names.get(name, name)} {100 * share:.0f} %" for name, share in shares.items() if share >= 0.005)


def _events(spans: list[Span], of_runners: list[RunnerSpans]) -> list[dict[str, Any]]:
    """The spans as events of a Chrome trace, with times in nanoseconds since 1970."""
    here = os.getpid()
    found = [_event(span, here) for span in spans]
    found.append({"ph": "M", "name": "thread_name", "pid": here, "tid": 0, "args": {"name": "ctm_rl"}})
    if not of_runners:
        return found
    for worker, host in sorted({(one.worker, one.host) for one in of_runners}):
        names = {"name": f"env runner {worker} ({host})"}
        found.append({"ph": "M", "name": "process_name", "pid": _RUNNER_PID + worker, "tid": 0, "args": names})
    return found + [_event(span, _RUNNER_PID + one.worker) for one in of_runners for span in one.spans]


def _event(span: Span, process: int) -> dict[str, Any]:
    """A span as an event."""
    times = {"ts": span.begin, "dur": span.duration}
    return {"ph": "X", "cat": "ctm_rl", "name": span.name, "pid": process, "tid": 0, **times}


def _chrome(event: dict[str, Any], base: int) -> dict[str, Any]:
    """An event with times in microseconds since a base in nanoseconds."""
    if "ts" not in event:
        return event
    return {**event, "ts": (event["ts"] - base) / 1000, "dur": event["dur"] / 1000}


def _insert(source: Path, target: Path, events: list[dict[str, Any]]) -> None:
    """Copies PyTorch's trace, which may be large, with events put in front of its own.

    Raises:
        RuntimeError: it has another form than expected.
    """
    mark = b'"traceEvents": ['
    with source.open("rb") as reader:
        head = reader.read(2**20)
        begin, base = head.find(mark), re.search(rb'"baseTimeNanoseconds": (\d+)', head)
        if begin < 0 or base is None:
            raise RuntimeError("PyTorch's trace has another form than expected")
        own = ",\n".join(json.dumps(_chrome(event, int(base[1]))) for event in events).encode()
        with target.open("wb") as writer:
            writer.write(head[: begin + len(mark)] + b"\n" + own + b",\n")
            reader.seek(begin + len(mark))
            while block := reader.read(2**20):
                writer.write(block)
