"""Ray Tune's callback during a sweep: shows progress, stops on signals, saves the scheduler's state."""

import math
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.table import best_of, describe_trial

_SECONDS_BETWEEN_LINES = 10.0


class SweepCallback(Callback):
    """Shows a sweep's progress, stops it on signals, and saves the scheduler's state, which Tune itself does not.

    Args:
        sweep: the sweep that runs.
        scheduler: its scheduler; Tune saves trials, the search and callbacks, but no scheduler's comparisons.
        progress: shows how it goes.
        request: checked between two events.
    """

    def __init__(self, sweep: Sweep, scheduler: TrialScheduler, progress: Progress, request: StopRequest) -> None:
        self._sweep = sweep
        self._scheduler = scheduler
        self._progress = progress
        self._request = request
        self._shown_at = time.monotonic()
        self._stop_tune: Callable[[int, FrameType | None], Any] | None = None

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        """Installs our signal handlers again, after Tune has installed its own, which is kept for stopping it."""
        handler = signal.getsignal(signal.SIGUSR1)
        self._request.take()
        if callable(handler) and handler != signal.getsignal(signal.SIGUSR1):
            self._stop_tune = handler

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Stops Tune after a signal, as its own handler of signals does."""
        if self._request.signum is not None and self._stop_tune is not None:
            self._stop_tune(signal.SIGUSR1, None)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Shows the state of the sweep every few seconds; adds the metric if it is missing, since loggers need it."""
        result.setdefault(self._sweep.metric, math.nan)
        if time.monotonic() - self._shown_at >= _SECONDS_BETWEEN_LINES:
            self._shown_at = time.monotonic()
            self._progress.show_waiting(self._describe(trials))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Writes how a trial ended, or why it failed."""
        self._progress.write(describe_trial(self._sweep, trial))

    on_trial_error = on_trial_complete

    def get_state(self) -> dict[str, Any] | None:
        """Returns the scheduler's comparisons; None: it has none."""
        return dict(self._scheduler.__dict__) if isinstance(self._scheduler, ASHAScheduler) else None

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the scheduler's comparisons."""
        self._scheduler.__dict__.update(state)

    def _describe(self, trials: list[Trial]) -> str:
        """Describes how many trials have ended and which one is best."""
        num_ended = sum(trial.status in (Trial.TERMINATED, Trial.ERROR) for trial in trials)
        num_running = sum(trial.status == Trial.RUNNING for trial in trials)
        best = best_of(self._sweep, trials)
        counts = f"{num_ended} of {len(trials)} trials finished, {num_running} running"
        return counts if best is None else f"{counts}; best so far: {describe_trial(self._sweep, best)}"
