"""Named spans of time: recorded in a process while a run is profiled; otherwise ``span`` does nothing.

The times are those of the system's clock, so that spans of several processes fit together, those of other machines as
far as their clocks do.
"""

import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from ctm_rl.agents.rllib.finished_episodes import series_of

ENVIRONMENT, POLICY, COLLECT = "environment", "policy", "collecting"
"""Steps of environments; the policy's forward passes on them; both with what is around them, or waiting for it."""
LEARN, WEIGHTS, TEST = "learner", "weights", "evaluation"
"""Updates, or waiting for them; sending weights to environment runners; evaluation between two iterations."""
LOG, SAVE = "logging", "checkpoints"
SPANS = "spans"
"""Key in a result's ``env_runners``: what environment runners in processes of their own have recorded."""
_NOTHING = contextlib.nullcontext()


class Span(NamedTuple):
    """Something that has been done."""

    name: str
    begin: int
    """In nanoseconds since 1970."""
    duration: int
    """In nanoseconds."""
    own: int
    """The part of it that is in no inner span."""


class RunnerSpans(NamedTuple):
    """What an environment runner in a process of its own has recorded."""

    worker: int
    """Its index."""
    host: str
    spans: list[Span]


class SpanRecorder:
    """Records the spans of one thread."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.offset = time.time_ns() - time.perf_counter_ns()
        self.open: list[_OpenSpan] = []

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Records the time inside the body; nothing of what is inside ``TEST``, nor a span inside one of its name."""
        names = [one.name for one in self.open]
        return _NOTHING if name in names or TEST in names else _OpenSpan(self, name)

    def pop(self) -> list[Span]:
        """Returns the spans that have ended since the last call, in the order of their ends."""
        spans, self.spans = self.spans, []
        return spans


class _OpenSpan:
    """A span while it lasts."""

    __slots__ = ("_began", "_recorder", "inner", "name")

    def __init__(self, recorder: SpanRecorder, name: str) -> None:
        self.name, self._recorder = name, recorder
        self._began = self.inner = 0

    def __enter__(self) -> None:
        self._recorder.open.append(self)
        self._began = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        duration = time.perf_counter_ns() - self._began
        recorder = self._recorder
        recorder.open.pop()
        if recorder.open:
            recorder.open[-1].inner += duration
        span = Span(self.name, self._began + recorder.offset, duration, duration - self.inner)
        recorder.spans.append(span)


_recorder: SpanRecorder | None = None


def span(name: str) -> AbstractContextManager[Any]:
    """Records the time inside the body, if this process records."""
    return _NOTHING if _recorder is None else _recorder.span(name)


def start_recording() -> SpanRecorder:
    """Has this process record from now on."""
    global _recorder
    _recorder = SpanRecorder()
    return _recorder


def stop_recording() -> None:
    """Has this process record no longer."""
    global _recorder
    _recorder = None


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose calls are recorded as spans."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with span(name):
            return function(*args, **kwargs)

    return call


def record_in_runner(runner: Any) -> None:
    """Has an environment runner record; called in the runner's process."""
    if runner.worker_index:
        start_recording()
    if isinstance(runner, SingleAgentEnvRunner) and runner.env is not None and runner.module is not None:
        # RLlib's own, where we have no line to put a span on.
        env: Any = runner.env
        env.step = timed(ENVIRONMENT, env.step)
        for name in ("forward_exploration", "forward_inference"):
            setattr(runner.module, name, timed(POLICY, getattr(runner.module, name)))


def pop_spans(worker: int | None) -> list[RunnerSpans]:
    """What an environment runner has recorded since the last call; runner 0 leaves it to the training process."""
    if _recorder is None or not worker:
        return []
    return [RunnerSpans(worker, f"{socket.gethostname()} {os.getpid()}", _recorder.pop())]


def spans_of_runners(result: dict[str, Any]) -> list[RunnerSpans]:
    """What environment runners have recorded in an iteration, from a result of ``Algorithm.train``."""
    found = [RunnerSpans(*entry) for entry in series_of(result, SPANS)]
    return [one._replace(spans=[Span(*span) for span in one.spans]) for one in found]
