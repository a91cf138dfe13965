"""The training loop of a run, from its beginning or a checkpoint to a stop: iterations, metrics, checkpoints."""

import contextlib
import dataclasses
import logging
import math
import shlex
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Any

from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, to_json
from ctm_rl.agents.rllib.private import without_known_noise, without_ray_results
from ctm_rl.agents.run_directory.directory import RunDirectory
from ctm_rl.agents.run_directory.metrics_file import MetricsWriter
from ctm_rl.agents.run_directory.progress import Progress, Row
from ctm_rl.agents.run_directory.upload import Uploader, finishing_upload, report_upload
from ctm_rl.agents.run_directory.working_directory import num_threads
from ctm_rl.agents.runs.acting_task import ActingTask
from ctm_rl.agents.runs.answering_task import AnsweringTask
from ctm_rl.agents.runs.task import MODULE
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.finite import find_not_finite, learned_part
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.errors import Diverged, EnvFault, UserError

_LOG = logging.getLogger(__name__)

MAX_LOST_LEARNERS = 3
"""How often a learner may be lost without an iteration in between before the run gives up."""


class NotSaved(UserError):
    """The checkpoint that a run ends with cannot be written."""

    exit_code = 1


@dataclass(slots=True)
class Position:
    """How far a run is; counts go on when it is resumed."""

    iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    """Values that the metrics need from earlier iterations, see ``ActingTask.get_memory``."""


class Run:
    """A run whose algorithm exists while it is entered: trains, writes metrics and checkpoints.

    Args:
        experiment: what is trained.
        directory: its directory, locked.
        task: reads the metrics and describes the model.
        config: RLlib's configuration of the experiment.
        progress: shows how it goes.
        started: when it began, on the monotonic clock, minus the time trained before it was resumed.
        position: how far it is.
        uploader: copies checkpoints to a storage; ``None``: the run has none.
    """

    def __init__(
        self,
        experiment: AnyExperiment,
        directory: RunDirectory,
        task: ActingTask | AnsweringTask,
        config: Any,
        progress: Progress,
        started: float,
        position: Position,
        uploader: Uploader | None,
    ) -> None:
        self._experiment = experiment
        self._directory = directory
        self.run_dir = directory.path
        self._task = task
        self._config = config
        self._progress = progress
        self._started = started
        self._position = position
        self._uploader = uploader
        self._saved_iteration = -1
        self._saved_at = time.monotonic()
        self._num_lost_learners = 0

    def __enter__(self) -> "Run":
        """Builds the algorithm."""
        from ctm_rl.agents.cluster.placement import placed_env_runners

        with contextlib.ExitStack() as stack:
            stack.enter_context(num_threads(self._experiment.num_threads))
            stack.enter_context(without_ray_results())
            stack.enter_context(placed_env_runners(self._experiment.placement))
            with without_known_noise():
                self._algorithm = self._config.build_algo()
            stack.callback(self._algorithm.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the algorithm's processes."""
        self._stack.close()

    def begin(self) -> None:
        """Writes the first checkpoint.

        Raises:
            CheckpointError: it cannot be written.
        """
        from ctm_rl.agents.runs.algorithm_state import learner_state

        state = learner_state(self._algorithm)
        self.save(state)
        self._continue_from(state)

    def save(self, state: dict[str, Any] | None = None) -> None:
        """Writes a checkpoint, unless this iteration has one; what has disappeared from the run's directory as well.

        Args:
            state: the algorithm's state, if the caller has read it already.

        Raises:
            CheckpointError: it cannot be written; the last one remains.
            Diverged: weights or optimiser are not finite; the last one remains.
        """
        from ctm_rl.agents.runs.algorithm_state import learner_state

        self._restore_directory()
        is_there = checkpoint.path_of(self.run_dir, self._position.iteration).is_dir()
        if self._saved_iteration == self._position.iteration and is_there:
            return
        position = dataclasses.replace(
            self._position, seconds=time.monotonic() - self._started, memory=self._task.get_memory()
        )
        content = {
            "experiment": to_json(self._experiment),
            "position": asdict(position),
            **self._task.describe(self._algorithm),
            "learner": learner_state(self._algorithm) if state is None else state,
        }
        if (name := find_not_finite(learned_part(content))) is not None:
            raise self._located(Diverged(f"{name} is not finite; lower the learning rate."), self._position.iteration)
        path = checkpoint.save(self.run_dir, self._position.iteration, content)
        if self._uploader is not None:
            self._uploader.put(path)
        self._saved_iteration = self._position.iteration
        self._saved_at = time.monotonic()

    def _restore_directory(self) -> None:
        """Writes again what has disappeared from the run's directory.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            self._directory.restore()
        except (OSError, UserError) as error:
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise CheckpointError(f"run directory {self.run_dir} cannot be used: {reason}.") from error

    def _save_last(self) -> None:
        """Writes the checkpoint that a run ends with.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.save()
        except CheckpointError as error:
            try:
                last = checkpoint.iteration_of(checkpoint.latest(self.run_dir))
            except CheckpointError:
                raise NotSaved(f"{error} What the run has learned is lost: it has no other checkpoint.") from error
            raise NotSaved(
                f"{error} What {self.run_dir} has learned since its last checkpoint, iteration {last}, is lost; make "
                f"room, then continue with: ctm-rl resume {shlex.quote(str(self.run_dir))}"
            ) from error

    def _save_and_continue(self) -> None:
        """Writes a checkpoint if it can; training continues either way."""
        from ctm_rl.agents.runs.algorithm_state import learner_state

        state = learner_state(self._algorithm)
        try:
            self.save(state)
        except CheckpointError as error:
            self._saved_at = time.monotonic()
            _LOG.warning("%s The last one remains; training continues, and will try again.", error)
        self._continue_from(state)

    def _continue_from(self, state: dict[str, Any]) -> None:
        """With ``exact_resume``, continues exactly as a run resumed from this checkpoint would.

        Raises:
            UserError: an episode has lasted since the last checkpoint; it would never end.
        """
        from ctm_rl.agents.runs.algorithm_state import longest_episode, restore

        experiment = self._experiment
        if not isinstance(experiment, ActingExperiment) or not experiment.exact_resume:
            return
        interval = (experiment.checkpoint_iterations or 1) * experiment.ppo.num_rollout_steps
        if longest_episode(self._algorithm) >= interval:
            raise UserError(
                f"an episode has lasted all {interval} steps between two checkpoints, and would never end, since "
                "--exact-resume begins new episodes with each checkpoint: take a larger --checkpoint-iterations (now "
                f"{experiment.checkpoint_iterations}), or leave --exact-resume out; {self.run_dir / 'config.json'} has "
                "both for ctm-rl resume."
            )
        restore(self._algorithm, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the algorithm from a checkpoint."""
        from ctm_rl.agents.runs.algorithm_state import restore

        restore(self._algorithm, state["learner"])
        self._saved_iteration = self._position.iteration

    def loop(self, request: StopRequest) -> None:
        """Trains until the budget is used up or a signal comes, then writes a checkpoint."""
        with contextlib.closing(self._progress), finishing_upload(self._uploader, self._progress):
            with contextlib.closing(self.rows()) as rows:
                while request.signum is None and next(rows, None) is not None:
                    pass
            self._save_last()
        if request.signum is not None:
            raise RunInterrupted(str(self.run_dir), request.signum, is_saved=True)

    def rows(self) -> Generator[Row, None, None]:
        """Trains one iteration after the other until the budget is used up.

        A caller that wants no more of them closes the generator, and may save.

        Yields:
            The line of metrics of each iteration, after it has been written.
        """
        metrics = MetricsWriter(self.run_dir, self._position.iteration, self._task.metrics, self._directory.restore)
        with contextlib.closing(metrics):
            while not self.is_over:
                row = self._train_or_save()
                if row is None:
                    metrics.truncate(self._position.iteration)
                    continue
                metrics.write(row)
                self._progress.show_metrics(row)
                report_upload(self._uploader, self._progress)
                if self._is_due():
                    self._save_and_continue()
                yield row

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return is_used_up(self._experiment, self._position)

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self._experiment.checkpoint_iterations is not None:
            return self._position.iteration % self._experiment.checkpoint_iterations == 0
        return time.monotonic() - self._saved_at >= self._experiment.checkpoint_minutes * 60

    def _train_or_save(self) -> Row | None:
        """Trains one iteration; ``None``: a learner was lost, and the run has been restarted from its last checkpoint.

        A fault of the environment ends the run; what was learned before it is saved.
        """
        from ray.exceptions import RayError

        try:
            row = self._train()
            self._num_lost_learners = 0
            return row
        except (Diverged, RayError) as error:
            # What a remote learner raises is both.
            cause = getattr(error, "cause", error)
            if isinstance(cause, Diverged):
                raise self._located(cause, self._position.iteration + 1) from error
            if self._experiment.num_learners == 0 or self._num_lost_learners == MAX_LOST_LEARNERS:
                raise
            self._num_lost_learners += 1
            self._restart(error)
            return None
        except EnvFault as fault:
            try:
                self.save()
                saved = f"A checkpoint is saved in {self.run_dir}"
            except CheckpointError as error:
                saved = f"{error} The last one in {self.run_dir} remains"
            is_tolerant = isinstance(self._experiment, ActingExperiment) and self._experiment.env.tolerate_faults
            hint = (
                "too many faults for --tolerate-env-faults"
                if is_tolerant
                else "--tolerate-env-faults continues after faults"
            )
            raise EnvFault(f"{fault} {saved}; {hint}.") from fault

    def _located(self, error: Diverged, iteration: int) -> Diverged:
        """The error with where it happened, and where the run can be continued from."""
        text = f"iteration {iteration} has diverged: {error}"
        with contextlib.suppress(CheckpointError):  # there is none before the first
            last = checkpoint.iteration_of(checkpoint.latest(self.run_dir))
            text += (
                f" The checkpoint of iteration {last} is from before that: change {self.run_dir / 'config.json'}, then "
                f"continue with: ctm-rl resume {self.run_dir}"
            )
        return Diverged(text)

    def _restart(self, error: Exception) -> None:
        """Builds the algorithm again and restores the last checkpoint: a learner's newest weights were lost with it."""
        place, state = checkpoint.read_newest(self.run_dir, lambda place, state: (place, state))
        _LOG.warning(
            "a learner was lost in iteration %d (%s); training continues from %s.",
            self._position.iteration + 1,
            type(error).__name__,
            place,
        )
        self._stack.close()
        self.__enter__()
        self._position = Position(**state["position"])
        self._task.set_memory(self._position.memory)
        self.restore(state)

    def _train(self) -> Row:
        """Trains one iteration and returns its line of metrics."""
        began = time.monotonic()
        result = self._algorithm.train()
        ended = time.monotonic()
        if not math.isfinite(result["learners"][MODULE]["total_loss"]):
            # Our own learners have named the cause before.
            raise Diverged("the loss is not finite; lower --ppo.lr, or scale rewards and observations.")
        steps = int(result["env_runners"]["num_env_steps_sampled"])
        self._position.iteration += 1
        self._position.env_steps += steps
        self._position.seconds = ended - self._started
        return {
            "iteration": self._position.iteration,
            "env_steps": self._position.env_steps,
            "seconds": round(self._position.seconds, 3),
            "env_steps_per_second": round(steps / (ended - began), 1),
            **self._task.read(self._algorithm, result, is_last=self.is_over),
        }


def is_used_up(experiment: AnyExperiment, position: Position) -> bool:
    """Whether nothing is left of the budget."""
    minutes = experiment.budget.minutes
    return position.env_steps >= experiment.budget.env_steps or (
        minutes is not None and position.seconds >= minutes * 60
    )
