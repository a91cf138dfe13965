"""What Ray Tune calls while a sweep goes on: tells a person, listens to signals, keeps what Tune itself forgets."""

import math
import os
import signal
import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.table import best_of, describe_trial, is_scored

_SECONDS_BETWEEN_LINES = 10.0


class SweepCallback(Callback):
    """The first of a sweep's callbacks.

    Args:
        sweep: what goes on.
        scheduler: Tune saves trials, the search and callbacks, but not what a scheduler has compared so far.
        progress: is told how it goes.
        request: is looked at between two events.
    """

    def __init__(self, sweep: Sweep, scheduler: TrialScheduler, progress: Progress, request: StopRequest) -> None:
        self._sweep = sweep
        self._scheduler = scheduler
        self._progress = progress
        self._request = request
        self._told_at = time.monotonic()

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        """Takes the signals over, which Tune takes when it begins."""
        self._request.take()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Has Tune stop when it has been asked for, by the signal that it stops at."""
        if self._request.signum is not None:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Tells now and then how it goes; loggers find the metric in every result."""
        result.setdefault(self._sweep.metric, math.nan)
        if time.monotonic() - self._told_at >= _SECONDS_BETWEEN_LINES:
            self._told_at = time.monotonic()
            self._progress.wait(self._describe(trials))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tells of a trial that has ended."""
        self._progress.say(describe_trial(self._sweep, trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tells of a trial that has broken off."""
        self._progress.say(describe_trial(self._sweep, trial))

    def get_state(self) -> dict[str, Any] | None:
        """What trials have been compared by."""
        return dict(self._scheduler.__dict__) if isinstance(self._scheduler, ASHAScheduler) else None

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts it back."""
        self._scheduler.__dict__.update(state)

    def _describe(self, trials: list[Trial]) -> str:
        """How many trials there are, and how the best one does."""
        num_over = sum(trial.status in (Trial.TERMINATED, Trial.ERROR) for trial in trials)
        num_running = sum(trial.status == Trial.RUNNING for trial in trials)
        best = best_of(self._sweep, [trial for trial in trials if is_scored(self._sweep, trial)])
        said = f"{num_over} of {len(trials)} trials over, {num_running} running"
        return said if best is None else f"{said}; best so far: {describe_trial(self._sweep, best)}"
