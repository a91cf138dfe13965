"""The early stops that every run has, ``--stop.at-return`` and so on, as a callback."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ctm_rl.agents.callbacks.callback import Callback, RunView
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.settings import StopSettings
from ctm_rl.agents.run_directory.metrics_file import read_metrics

Metrics = Mapping[str, float | None]


class Measure(NamedTuple):
    """What a run is stopped by, and when there is a new value of it."""

    key: str
    """Of the line of metrics."""
    name: str
    """For messages."""
    unit: str
    """What patience counts."""
    every: int
    """Iterations between two values."""
    num_episodes: int
    """Episodes that have to end before a value counts."""


def measure_of(experiment: AnyExperiment, window: int) -> Measure:
    """Returns what an experiment is stopped by.

    The evaluation's value if ``eval.every`` is set, of a run that answers the held-out accuracy, otherwise the mean
    return of training.

    Args:
        experiment: what is trained.
        window: episodes that a mean return of training is taken over.
    """
    every = getattr(getattr(experiment, "eval", None), "every", None)
    if isinstance(experiment, AnsweringExperiment):
        if every:
            return Measure("eval_accuracy", "accuracy of the evaluation", "evaluations", every, 0)
        return Measure("accuracy", "held-out accuracy", "tests", experiment.held_out.num_iterations, 0)
    if every:
        return Measure("eval_return_mean", "mean return of the evaluation", "evaluations", every, 0)
    return Measure("episode_return_mean", f"mean return of {window} episodes", "iterations", 1, window)


class EarlyStopping(Callback):
    """Stops a run at a value, or when the value has not become better for some time.

    What it has seen follows from the run's lines of metrics, so that a resumed run goes on where it was. A run that
    patience has stopped begins to count again when it is resumed; the best value stays.

    Args:
        settings: when to stop.
        measure: the value.
    """

    def __init__(self, settings: StopSettings, measure: Measure) -> None:
        self._settings, self._measure = settings, measure
        self._clear()

    def on_iteration(self, run: RunView, metrics: Metrics) -> None:
        """Stops the run if it is time."""
        if metrics["iteration"] != self._iteration + 1:
            self._replay(run.directory, int(metrics["iteration"] or 0))
        value = self._update(metrics)
        if value is None:
            return
        settings, measure = self._settings, self._measure
        for option, limit in (("at-return", settings.at_return), ("at-accuracy", settings.at_accuracy)):
            if limit is not None and value >= limit:
                run.stop(f"{measure.name} is {value:.4g}, at least --stop.{option} {limit:g}")
        if settings.patience is not None and self._num_waited >= settings.patience:
            run.stop(
                f"{measure.name} was best in iteration {self._best_iteration} ({self._best:.4g}), and not better for "
                f"--stop.patience {settings.patience} {measure.unit}"
            )

    def _clear(self) -> None:
        """Forgets what it has seen."""
        self._iteration, self._num_episodes, self._num_waited = 0, 0.0, 0
        self._best, self._best_iteration = float("-inf"), 0

    def _replay(self, directory: Path, iteration: int) -> None:
        """Reads again what came before an iteration, after resuming and where iterations are trained again."""
        self._clear()
        for row in read_metrics(directory):
            if 0 < (row.get("iteration") or 0) < iteration:
                self._update(row)
                if self._settings.patience is not None and self._num_waited >= self._settings.patience:
                    self._num_waited = 0
        self._iteration = iteration - 1

    def _update(self, metrics: Metrics) -> float | None:
        """Takes up a line of metrics; returns its value if it counts and is new."""
        self._iteration = int(metrics["iteration"] or 0)
        self._num_episodes += metrics.get("num_episodes") or 0
        value = metrics.get(self._measure.key)
        is_new = self._iteration % self._measure.every == 0
        if value is None or not is_new or self._num_episodes < self._measure.num_episodes:
            return None
        if value > self._best:
            self._best, self._best_iteration, self._num_waited = value, self._iteration, 0
        else:
            self._num_waited += 1
        return value
