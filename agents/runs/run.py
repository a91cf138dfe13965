"""One stretch of a run, from a beginning or a checkpoint to a stop: iterations, metrics, checkpoints."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, to_json
from ctm_rl.agents.rllib.private import no_results_at_home, without_known_noise
from ctm_rl.agents.run_directory.directory import MetricsWriter
from ctm_rl.agents.run_directory.progress import Progress, Row
from ctm_rl.agents.run_directory.upload import Mirror, closing_mirror, tell_news
from ctm_rl.agents.run_directory.working_directory import num_threads
from ctm_rl.agents.runs.task import MODULE, Task
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.errors import EnvFault, UserError

_LOG = logging.getLogger(__name__)

MAX_LOSSES = 3
"""How often learners may be lost without an iteration between before it is given up."""


class Diverged(UserError):
    """Learning went wrong: a loss is no number any more."""

    exit_code = 1


class Unsaved(UserError):
    """The last checkpoint of a run cannot be written."""

    exit_code = 1


@dataclass(slots=True)
class Position:
    """How far a run is; all of it counts over resumes."""

    iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    """What the metrics go on from."""


class Run:
    """One stretch of a run, with its algorithm alive while it is entered.

    Args:
        experiment: what is learned.
        run_dir: where it is written.
        learning: the kind of learning.
        config: the same as RLlib takes it.
        progress: is told how it goes.
        started: when it began, on the monotonic clock, the time of earlier stretches included.
        position: how far it is; ``None``: at the beginning.
        mirror: puts checkpoints into a storage besides; ``None``: there is none.
    """

    def __init__(
        self,
        experiment: AnyExperiment,
        run_dir: Path,
        learning: Task,
        config: Any,
        progress: Progress,
        started: float,
        position: Position | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self._experiment = experiment
        self.run_dir = run_dir
        self._learning = learning
        self._config = config
        self._progress = progress
        self._started = started
        self._position = position or Position()
        self._mirror = mirror
        self._saved_iteration = -1
        self._saved_at = time.monotonic()
        self._num_losses = 0

    def __enter__(self) -> "Run":
        """Builds the algorithm."""
        from ctm_rl.agents.cluster.placement import placed

        with contextlib.ExitStack() as stack:
            stack.enter_context(num_threads(self._experiment.num_threads))
            stack.enter_context(no_results_at_home())
            stack.enter_context(placed(self._experiment.placement))
            with without_known_noise():
                self._algorithm = self._config.build_algo()
            stack.callback(self._algorithm.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops its processes."""
        self._stack.close()

    def begin(self) -> None:
        """Writes the first checkpoint.

        Raises:
            CheckpointError: it cannot be written.
        """
        from ctm_rl.agents.runs.algorithm_state import learner_state

        state = learner_state(self._algorithm)
        self.save(state)
        self._go_on_from(state)

    def save(self, state: dict[str, Any] | None = None) -> None:
        """Writes a checkpoint of what has been learned so far, unless there is one.

        Args:
            state: what learning goes on from, if it is known already.

        Raises:
            CheckpointError: it cannot be written; the last one stands.
        """
        from ctm_rl.agents.runs.algorithm_state import learner_state

        if self._saved_iteration == self._position.iteration:
            return
        position = dataclasses.replace(
            self._position, seconds=time.monotonic() - self._started, memory=self._learning.get_memory()
        )
        content = {
            "experiment": to_json(self._experiment),
            "position": asdict(position),
            **self._learning.describe(self._algorithm),
            "learner": learner_state(self._algorithm) if state is None else state,
        }
        path = checkpoint.save(self.run_dir, self._position.iteration, content)
        if self._mirror is not None:
            self._mirror.put(path)
        self._saved_iteration = self._position.iteration
        self._saved_at = time.monotonic()

    def _save_last(self) -> None:
        """Writes the checkpoint that a run ends with.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.save()
        except CheckpointError as error:
            raise Unsaved(
                f"{error} What {self.run_dir} has learned since its last checkpoint, iteration "
                f"{checkpoint.iteration_of(checkpoint.latest(self.run_dir))}, is lost; make room, then go on with: "
                f"ctm-rl resume {self.run_dir}"
            ) from error

    def _save_and_go_on(self) -> None:
        """Writes a checkpoint if that can be done; learning goes on either way."""
        from ctm_rl.agents.runs.algorithm_state import learner_state

        state = learner_state(self._algorithm)
        try:
            self.save(state)
        except CheckpointError as error:
            self._saved_at = time.monotonic()
            _LOG.warning("%s The last one stands; training goes on, and tries again.", error)
        self._go_on_from(state)

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Goes on as a run resumed from a checkpoint would, where these are written by the iteration."""
        from ctm_rl.agents.runs.algorithm_state import restore

        if self._experiment.checkpoint_iterations is not None:
            restore(self._algorithm, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Puts a checkpoint's state into the algorithm."""
        from ctm_rl.agents.runs.algorithm_state import restore

        restore(self._algorithm, state["learner"])
        self._saved_iteration = self._position.iteration

    def loop(self, request: StopRequest) -> None:
        """Learns until the budget is used up or a signal comes; both leave a checkpoint."""
        with contextlib.closing(self._progress), closing_mirror(self._mirror, self._progress):
            with contextlib.closing(self.rows()) as rows:
                while request.signum is None and next(rows, None) is not None:
                    pass
            self._save_last()
        if request.signum is not None:
            raise RunInterrupted(str(self.run_dir), request.signum, is_saved=True)

    def rows(self) -> Generator[Row, None, None]:
        """Learns one iteration after the other until the budget is used up.

        Whoever asks for no more may close it, and save.

        Yields:
            The line of metrics of each, when it has been written.
        """
        metrics = MetricsWriter(self.run_dir, self._position.iteration, self._learning.metrics)
        with contextlib.closing(metrics):
            while not self.is_over:
                row = self._learn_or_save()
                if row is None:
                    metrics.cut(self._position.iteration)
                    continue
                metrics.write(row)
                self._progress.show(row)
                tell_news(self._mirror, self._progress)
                if self._is_due():
                    self._save_and_go_on()
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

    def _learn_or_save(self) -> Row | None:
        """One iteration, or ``None``: a learner was lost, and the run stands at its last checkpoint again.

        What has been learned before a fault of the environment is kept.
        """
        from ray.exceptions import RayError

        try:
            row = self._learn()
            self._num_losses = 0
            return row
        except RayError as error:
            if self._experiment.num_learners == 0 or self._num_losses == MAX_LOSSES:
                raise
            self._num_losses += 1
            self._go_back(error)
            return None
        except EnvFault as fault:
            try:
                self.save()
                saved = f"A checkpoint is saved in {self.run_dir}"
            except CheckpointError as error:
                saved = f"{error} The last one in {self.run_dir} stands"
            raise EnvFault(f"{fault} {saved}; --tolerate-env-faults goes on after faults.") from fault

    def _go_back(self, error: Exception) -> None:
        """Builds everything anew, and puts the last checkpoint into it: a learner's newest weights died with it."""
        place = checkpoint.latest(self.run_dir)
        state = checkpoint.load(place)
        _LOG.warning(
            "a learner was lost in iteration %d (%s); training goes on from %s.",
            self._position.iteration + 1,
            type(error).__name__,
            place,
        )
        self._stack.close()
        self.__enter__()
        self._position = Position(**state["position"])
        self._learning.set_memory(self._position.memory)
        self.restore(state)

    def _learn(self) -> Row:
        """One iteration; gives its line of metrics."""
        began = time.monotonic()
        result = self._algorithm.train()
        ended = time.monotonic()
        steps = int(result["env_runners"]["num_env_steps_sampled"])
        self._position.iteration += 1
        self._position.env_steps += steps
        self._position.seconds = ended - self._started
        if not math.isfinite(result["learners"][MODULE]["total_loss"]):
            option = "--learning.lr" if isinstance(self._experiment, AnsweringExperiment) else "--ppo.lr"
            raise Diverged(
                f"the loss is no finite number in iteration {self._position.iteration}; lower {option}. "
                f"The last checkpoint of {self.run_dir} is from before."
            )
        return {
            "iteration": self._position.iteration,
            "env_steps": self._position.env_steps,
            "seconds": round(self._position.seconds, 3),
            "env_steps_per_second": round(steps / (ended - began), 1),
            **self._learning.read(self._algorithm, result, is_last=self.is_over),
        }


def is_used_up(experiment: AnyExperiment, position: Position) -> bool:
    """Whether nothing is left of the budget."""
    minutes = experiment.budget.minutes
    return position.env_steps >= experiment.budget.env_steps or (
        minutes is not None and position.seconds >= minutes * 60
    )
