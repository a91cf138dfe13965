"""One trial of a sweep: a run as ``ctm-rl train`` makes one, learned an iteration at a time for Ray Tune."""

import contextlib
import math
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory, Trainable

from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.agents.run_directory.directory import (
    CONFIG_FILE,
    METRICS_FILE,
    config_of,
    locked,
    read_metrics,
    write_config,
)
from ctm_rl.agents.run_directory.progress import Row, SilentProgress
from ctm_rl.agents.runs.run import Position, Run, is_used_up
from ctm_rl.agents.runs.train import begun, resumed
from ctm_rl.agents.tuning.plan import Sweep, used_share
from ctm_rl.agents.tuning.search_space import Config
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.errors import UserError

USED_SHARE = "used_share"
"""How much of its budget a trial has used up: what schedulers go by."""
FAILED = "failed"
"""Why a trial cannot go on, in one line."""
FINISHED = "is_finished"
"""Whether a trial has used up its budget."""

_LOCK_SECONDS = 30.0


def resources_of(experiment: RunSettings) -> PlacementGroupFactory:
    """What Ray sets aside for a trial: its own process, which may learn, then environment runners, then learners."""
    gpus, learners = experiment.num_gpus_per_learner, experiment.num_learners
    own = {"CPU": float(experiment.num_threads), "GPU": 0.0 if learners else gpus}
    learner = {"CPU": 0.0, "GPU": gpus} if gpus else {"CPU": 1.0}
    runner = {"CPU": experiment.num_cpus_per_env_runner}
    others = [runner] * experiment.num_env_runners + [learner] * learners
    return PlacementGroupFactory([own, *(bundle for bundle in others if any(bundle.values()))])


class SweepTrial(Trainable):
    """A run in a process of Ray Tune's.

    A run's own directory is what it goes on from: after a crash the lines of metrics up to its last checkpoint are
    told again, without learning them, and those after it are learned again. Only where values change on the way do
    checkpoints go through Tune, which hands one trial's to another.

    What a person has to mend, as a loss that is no number, ends a trial without ending the sweep.
    """

    def setup(self, config: Config, sweep: Sweep | None = None) -> None:
        """Takes note of what is to be run.

        Args:
            config: the values drawn for this trial.
            sweep: what it belongs to.
        """
        if sweep is not None:
            self._sweep = sweep
        self._values = config
        self._run: Run | None = None
        self._rows: Generator[tuple[Row, bool], None, None] | None = None
        self._last: Row = {}
        self._is_handed = False
        self._num_intervals: int | None = None

    def reset_config(self, new_config: Config) -> bool:
        """Ends this run, and takes note of another."""
        self.cleanup()
        SweepTrial.setup(self, new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Learns an iteration, or tells one that has been learned before."""
        try:
            if self._rows is None:
                self._experiment = self._sweep.experiment_of(self._values, self.trial_id)
                self._rows = self._learn(self._experiment)
            row, is_over = next(self._rows, (None, True))
        except UserError as error:
            return {**self._last, FAILED: " ".join(str(error).split()), "done": True}
        if row is None:
            return {**self._last, FINISHED: True, "done": True}
        self._last = {name: value for name, value in row.items() if name != self._sweep.metric}
        share = used_share(self._experiment, row)
        result = {**self._last, USED_SHARE: share, FINISHED: is_over, "done": is_over}
        value = row[self._sweep.metric]
        if value is not None and math.isfinite(value):
            result[self._sweep.metric] = value
        if self._sweep.is_pbt:
            result["should_checkpoint"] = self._is_interval_over(share)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Hands out a checkpoint, with the lines of metrics that led to it."""
        run_dir = self._run_dir
        if self._run is not None:
            self._run.save()
        latest = checkpoint.latest(run_dir)
        shutil.copytree(latest, Path(checkpoint_dir) / checkpoint.FOLDER / latest.name)
        shutil.copyfile(run_dir / METRICS_FILE, Path(checkpoint_dir) / METRICS_FILE)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes a checkpoint, of this trial or of another, in the place of all that this run had learned."""
        self.cleanup()
        self._rows = self._run = None
        run_dir = self._run_dir
        with _patiently_locked(run_dir):
            shutil.rmtree(run_dir / checkpoint.FOLDER, ignore_errors=True)
            shutil.copytree(Path(checkpoint_dir) / checkpoint.FOLDER, run_dir / checkpoint.FOLDER)
            shutil.copyfile(Path(checkpoint_dir) / METRICS_FILE, run_dir / METRICS_FILE)
        self._is_handed = True

    def cleanup(self) -> None:
        """Saves what has been learned, and stops the run's processes."""
        if self._rows is None:
            return
        if self._run is not None:
            self._run.save()
        self._rows.close()

    @property
    def _run_dir(self) -> Path:
        """Where this trial's run is written."""
        return self._sweep.run_dir(self.trial_id)

    def _is_interval_over(self, share: float) -> bool:
        """Whether another interval of the budget has gone by since the last iteration."""
        before, self._num_intervals = self._num_intervals, int(share / self._sweep.options.interval + 1e-9)
        return before is not None and self._num_intervals > before

    def _learn(self, experiment: AnyExperiment) -> Generator[tuple[Row, bool], None, None]:
        """All iterations of the run, each with whether it is the last; learns those that are not in its checkpoint."""
        run_dir = self._run_dir
        with _patiently_locked(run_dir):
            position = self._find_position(experiment)
            if position is None:
                shutil.rmtree(run_dir)
        if position is not None:
            is_over = is_used_up(experiment, position)
            if not self._is_handed:
                for row in read_metrics(run_dir):
                    if row["iteration"] is not None and row["iteration"] <= position.iteration:
                        yield row, is_over and row["iteration"] == position.iteration
            if is_over:
                return
        request, silent = StopRequest(lambda: None), SilentProgress()
        with contextlib.ExitStack() as stack:
            if position is None:
                run = stack.enter_context(begun(experiment, request, silent, is_placed=True))
            else:
                write_config(run_dir, config_of(experiment))
                run = stack.enter_context(resumed(run_dir, experiment, request, silent, is_placed=True))
            self._run = run
            stack.callback(setattr, self, "_run", None)
            rows = stack.enter_context(contextlib.closing(run.rows()))
            for row in rows:
                if run.is_over:
                    run.save()
                yield row, run.is_over

    def _find_position(self, experiment: AnyExperiment) -> Position | None:
        """Where the run's last checkpoint stands, if there is one that this trial may go on from."""
        if self._sweep.is_pbt and not self._is_handed:
            return None  # whose values it was learned with is not known
        if not self._is_handed and not (self._run_dir / CONFIG_FILE).is_file():
            return None
        try:
            state = checkpoint.load(checkpoint.latest(self._run_dir))
        except checkpoint.CheckpointError:
            return None
        return Position(**state["position"])


@contextlib.contextmanager
def _patiently_locked(run_dir: Path) -> Generator[None, None, None]:
    """Keeps others from a run, whose last process may still be about to end."""
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
