"""Keeps the best weights of a run in ``checkpoints/best``, for a small share of the run's time."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ctm_rl.agents.runs.snapshot import MAX_SHARE
from ctm_rl.checkpoints.best import read_best, save_best
from ctm_rl.checkpoints.finite import find_not_finite, learned_part
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.errors import UserError

_LOG = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """Weights that may be the best of a run."""

    iteration: int
    """Number of training iterations that they have learned."""
    metric: str
    """What they are judged by; values of one metric are compared, and the largest is the best."""
    value: float
    """Its value."""
    content: dict[str, Any]
    """Of a checkpoint, without the state of the learner: a copy, which training does not change."""


class BestCheckpoint:
    """Compares weights with the best ones so far, which it reads from the disk, and writes better ones.

    Better ones wait in memory while writing them would take more than ``MAX_SHARE`` of the time, at most until the next
    checkpoint of the run. Of another metric, the first ones take the place of those before.

    Args:
        run_dir: the run's directory.
        restore: creates the directory again if it is gone; raises ``OSError`` or ``UserError`` if it cannot.
    """

    def __init__(self, run_dir: Path, restore: Callable[[], object] = lambda: None) -> None:
        self._run_dir, self._restore = run_dir, restore
        self._waiting: Candidate | None = None
        self._due_at = 0.0
        self._is_failing = False
        self._lock = threading.RLock()

    def offer(self, candidate: Candidate) -> None:
        """Keeps weights that are better than the best so far; of equal ones the first stay."""
        with self._lock:
            metric, value = self._best
            if metric != candidate.metric or value < candidate.value:
                self._waiting = candidate

    def write(self, *, is_forced: bool = False) -> None:
        """Writes what waits in memory; the log reports the first time that it cannot, and it is tried again later.

        Args:
            is_forced: write at once, into a directory that is there; otherwise only if the last time was long ago.
        """
        with self._lock:
            waiting, began = self._waiting, time.monotonic()
            if waiting is None or (began < self._due_at and not is_forced):
                return
            iteration, metric, value, content = waiting
            try:
                if find_not_finite(learned_part(content)) is None:
                    if not is_forced:
                        self._restore()
                    save_best(self._run_dir, content, iteration=iteration, metric=metric, value=value)
                self._waiting, self._is_failing = None, False
            except (OSError, UserError) as error:
                if not self._is_failing:
                    _LOG.warning(
                        "%s The best weights are kept in memory; training continues, and will try again.", error
                    )
                self._is_failing = True
            ended = time.monotonic()
            self._due_at = ended + (ended - began) / MAX_SHARE

    @property
    def _best(self) -> tuple[str | None, float]:
        """The metric and the value of the best weights so far."""
        if self._waiting is not None:
            return self._waiting.metric, self._waiting.value
        try:
            best = read_best(self._run_dir)
        except CheckpointError as error:
            _LOG.warning("%s The next evaluated weights take its place.", error)
            return None, 0.0
        return (None, 0.0) if best is None else (best.metric, best.value)
