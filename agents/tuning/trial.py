"""One trial of a sweep: a run like one of ``ctm-rl train``, trained one iteration at a time for Ray Tune."""

import contextlib
import math
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory, Trainable

from ctm_rl.agents.callbacks.calls import CallbackFailed
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, config_of, empty_directory, locked, write_config
from ctm_rl.agents.run_directory.metrics_file import METRICS_FILE, read_metrics
from ctm_rl.agents.run_directory.progress import Progress, Row, used_share
from ctm_rl.agents.runs.train_and_resume import new_run, resumed_run
from ctm_rl.agents.runs.training_loop import Position, Run, is_used_up
from ctm_rl.agents.tuning.plan import Sweep
from ctm_rl.agents.tuning.search_space import Config
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.errors import Diverged, UserError

USED_SHARE = "used_share"
"""How much of its budget a trial has used up: the schedulers' time."""
FAILED = "failed"
"""Why a trial cannot go on, in one line."""
FINISHED = "is_finished"
"""Whether a trial has used up its budget."""

_LOCK_SECONDS = 30.0


def resources_of(experiment: RunSettings) -> PlacementGroupFactory:
    """Returns what Ray reserves for a trial: its own process, then its environment runners, then its learners."""
    gpus, learners = experiment.num_gpus_per_learner, experiment.num_learners
    own = {"CPU": float(experiment.num_threads), "GPU": 0.0 if learners else gpus}
    learner = {"CPU": 0.0, "GPU": gpus} if gpus else {"CPU": 1.0}
    runner = {"CPU": experiment.num_cpus_per_env_runner}
    others = [runner] * experiment.num_env_runners + [learner] * learners
    return PlacementGroupFactory([own, *(bundle for bundle in others if any(bundle.values()))])


class SweepTrial(Trainable):
    """A run in a process of Ray Tune.

    A trial continues from its run's own directory: after a crash, the metrics up to the last checkpoint are reported
    again without training, and later iterations are trained again. Checkpoints go through Tune only with scheduler
    pbt, which copies them from one trial to another.

    A ``UserError``, such as a loss that is not finite, ends a trial but not the sweep.
    """

    def setup(self, config: Config, sweep: Sweep | None = None) -> None:
        """Stores what is to be run.

        Args:
            config: the values drawn for this trial.
            sweep: its sweep; ``None``: the same as before.
        """
        if sweep is not None:
            self._sweep = sweep
        self._values = config
        self._run: Run | None = None
        self._rows: Generator[tuple[Row, bool], None, None] | None = None
        self._last: Row = {}
        self._is_from_tune = False
        self._num_intervals: int | None = None

    def reset_config(self, new_config: Config) -> bool:
        """Ends this run and stores the values of the next."""
        self.cleanup()
        SweepTrial.setup(self, new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains one iteration, or reports one that was trained before."""
        try:
            if self._rows is None:
                self._experiment = self._sweep.experiment_of(self._values, self.trial_id)
                self._rows = self._iterate(self._experiment)
            row, is_over = next(self._rows, (None, True))
        except UserError as error:
            return {**self._last, FAILED: " ".join(str(error).split()), "done": True}
        if row is None:
            return {**self._last, FINISHED: True, "done": True}
        self._last = {name: value for name, value in row.items() if name != self._sweep.metric}
        share = used_share(self._experiment.budget, row)
        result = {**self._last, USED_SHARE: share, FINISHED: is_over, "done": is_over}
        value = row.get(self._sweep.metric)
        if value is not None and math.isfinite(value):
            result[self._sweep.metric] = value
        if self._sweep.is_pbt:
            result["should_checkpoint"] = self._is_interval_over(share)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copies the newest checkpoint and the metrics up to it for Tune."""
        run_dir = self._run_dir
        if self._run is not None:
            self._run.save()
        latest = checkpoint.latest(run_dir)
        shutil.copytree(latest, Path(checkpoint_dir) / checkpoint.FOLDER / latest.name)
        shutil.copyfile(run_dir / METRICS_FILE, Path(checkpoint_dir) / METRICS_FILE)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Replaces this run by a checkpoint of this trial or of another."""
        self.cleanup()
        self._rows = self._run = None
        run_dir = self._run_dir
        with _locked_patiently(run_dir):
            shutil.rmtree(run_dir / checkpoint.FOLDER, ignore_errors=True)
            shutil.copytree(Path(checkpoint_dir) / checkpoint.FOLDER, run_dir / checkpoint.FOLDER)
            shutil.copyfile(Path(checkpoint_dir) / METRICS_FILE, run_dir / METRICS_FILE)
        self._is_from_tune = True

    def cleanup(self) -> None:
        """Saves a checkpoint and stops the run's processes."""
        if self._rows is None:
            return
        if self._run is not None:
            # The trial has reported it, and its last checkpoint is finite.
            with contextlib.suppress(Diverged, CallbackFailed):
                self._run.save()
                self._run.end()
        self._rows.close()

    @property
    def _run_dir(self) -> Path:
        """The directory of this trial's run."""
        return self._sweep.run_dir(self.trial_id)

    def _is_interval_over(self, share: float) -> bool:
        """Whether another interval of the budget has ended since the last iteration."""
        before, self._num_intervals = self._num_intervals, int(share / self._sweep.options.interval + 1e-9)
        return before is not None and self._num_intervals > before

    def _iterate(self, experiment: AnyExperiment) -> Generator[tuple[Row, bool], None, None]:
        """Yields the metrics of all iterations and whether each is the last; trains those after the last checkpoint."""
        run_dir = self._run_dir
        with _locked_patiently(run_dir):
            position = self._find_position(experiment)
            if position is None:
                empty_directory(run_dir)
        if position is not None:
            is_over = is_used_up(experiment, position)
            if not self._is_from_tune:
                for row in read_metrics(run_dir):
                    if row["iteration"] is not None and row["iteration"] <= position.iteration:
                        yield row, is_over and row["iteration"] == position.iteration
            if is_over:
                return
        request, silent = StopRequest(lambda: None), Progress()
        with contextlib.ExitStack() as stack:
            if position is None:
                run = stack.enter_context(new_run(experiment, request, silent, is_placed=True))
            else:
                write_config(run_dir, config_of(experiment))
                run = stack.enter_context(resumed_run(run_dir, experiment, request, silent, is_placed=True))
            self._run = run
            stack.callback(setattr, self, "_run", None)
            rows = stack.enter_context(contextlib.closing(run.rows()))
            for row in rows:
                if run.is_over:
                    run.save()
                    run.end()
                yield row, run.is_over

    def _find_position(self, experiment: AnyExperiment) -> Position | None:
        """The position of the run's last checkpoint; None if there is none that this trial may continue from."""
        if self._sweep.is_pbt and not self._is_from_tune:
            return None  # it may have been trained with other values
        if not self._is_from_tune and not (self._run_dir / CONFIG_FILE).is_file():
            return None
        try:
            state = checkpoint.read_newest(self._run_dir, lambda _, state: state)
        except checkpoint.CheckpointError:
            return None
        return Position(**state["position"])


@contextlib.contextmanager
def _locked_patiently(run_dir: Path) -> Generator[None, None, None]:
    """Locks a run, waiting for its previous process, which may still be about to end."""
    run_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _LOCK_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(run_dir))
                break
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield
