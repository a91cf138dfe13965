"""The training loop of a run, from its beginning or a checkpoint to a stop: iterations, metrics, checkpoints."""

import contextlib
import dataclasses
import logging
import math
import shlex
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ctm_rl.agents.callbacks.callback import Callback, RunView
from ctm_rl.agents.callbacks.calls import CallbackFailed, Calls
from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, to_json
from ctm_rl.agents.loggers.metrics_log import MetricsLog
from ctm_rl.agents.loggers.protocol import LoggedVideo, Logger
from ctm_rl.agents.rllib.finished_episodes import FinishedEpisode, finished_episodes
from ctm_rl.agents.rllib.iteration import IterationStopped, observed_by
from ctm_rl.agents.rllib.private import kill_silent_actors, without_known_noise, without_ray_results
from ctm_rl.agents.rllib.spans import LOG, SAVE, span, stop_recording
from ctm_rl.agents.run_directory.directory import RunDirectory
from ctm_rl.agents.run_directory.progress import Progress, Row
from ctm_rl.agents.run_directory.upload import MAX_SECONDS, Uploader, finishing_upload, report_upload
from ctm_rl.agents.run_directory.working_directory import num_threads
from ctm_rl.agents.runs.acting_task import ActingTask
from ctm_rl.agents.runs.answering_task import AnsweringTask
from ctm_rl.agents.runs.best_checkpoint import BestCheckpoint, Candidate
from ctm_rl.agents.runs.profile import Profile, closing_profile
from ctm_rl.agents.runs.snapshot import Snapshot
from ctm_rl.agents.runs.task import MODULE
from ctm_rl.agents.runs.videos import Videos
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.finite import find_not_finite, learned_part
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.errors import Diverged, EnvFault, UserError, sentence

if TYPE_CHECKING:
    from ctm_rl.agents.runs.init_from import Source

_LOG = logging.getLogger(__name__)

MAX_LOST_LEARNERS = 3
"""How often a learner may be lost without an iteration in between before the run gives up."""

STOP_SECONDS, END_SECONDS = 2.0, 60.0
"""How long an actor may take to answer when a run is stopped, or has ended, before it is killed."""

FINISH_SECONDS = 2.0
"""How long an iteration may go on after a stop if there is no copy of the iteration before it."""

OVERTIME_SHARE, MAX_OVERTIME_SECONDS = 0.1, 10.0
"""How long after the budget's minutes an iteration may end: a share of them, and seconds. It is broken off then."""


class RunLost(UserError):
    """A run ended with an error that is not its environment's, such as the loss of Ray."""

    exit_code = 1


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
        loggers: where metrics go beside ``metrics.jsonl``, by their names.
        callbacks: with what messages call them, in the order in which they are called.
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
        loggers: Mapping[str, Logger],
        callbacks: Sequence[tuple[str, Callback]] = (),
    ) -> None:
        self._experiment, self._settings = experiment, to_json(experiment)
        self._directory = directory
        self.run_dir = directory.path
        self._task = task
        self._config = config
        self._progress = progress
        self._started = started
        self._position = position
        self._uploader = uploader
        self._loggers = loggers
        self._videos = None
        if isinstance(experiment, ActingExperiment) and experiment.video_every:
            self._videos = Videos(experiment, directory.path)
        self._is_resumed = False
        self._profile = Profile(directory.path, progress) if experiment.profile else None
        self._saved_iteration = -1
        self._saved_at = time.monotonic()
        self._num_lost_learners = 0
        self._snapshot = Snapshot()
        self._best = BestCheckpoint(directory.path, directory.restore)
        self._is_broken_off = False
        self._saving = threading.RLock()
        self._request: StopRequest | None = None
        self._calls = Calls(callbacks)
        self.view = RunView(
            self.run_dir,
            experiment,
            position=lambda: self._position,
            algorithm=lambda: self._algorithm,
            policy=self._copy_policy,
        )
        self._episodes: list[FinishedEpisode] = []
        self._reported_iteration: int | None = None
        """Iteration of the last checkpoint that the callbacks know; ``None``: they are not called, or no longer."""

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
            stack.callback(self._kill_silent_actors)
            stack.callback(self._task.close)
            if self._profile is not None:
                self._profile.attach(self._algorithm)
                stack.callback(stop_recording)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the algorithm's processes."""
        self._stack.close()

    def _kill_silent_actors(self) -> None:
        """Kills what would keep the algorithm from stopping."""
        is_stopping = self._is_broken_off or (self._request is not None and self._request.is_stopping)
        kill_silent_actors(self._algorithm, STOP_SECONDS if is_stopping else END_SECONDS)

    def initialise(self, source: "Source") -> str:
        """Takes the weights of another run, as far as they fit; call it before ``begin``.

        Returns:
            What was taken, in one line.

        Raises:
            UserError: nothing fits.
        """
        from ctm_rl.agents.runs.init_from import initialise

        (described,) = self._task.describe(self._algorithm).values()
        return initialise(self._algorithm, described["weights"], described["config"]["num_neurons"], source)

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
        """Writes a checkpoint of the last whole iteration, unless it has one, and what the run's directory has lost.

        Callbacks get to know it.

        Args:
            state: the algorithm's state, if the caller has read it already.

        Raises:
            CheckpointError: it cannot be written; the last one remains.
            Diverged: weights or optimiser are not finite; the last one remains.
            CallbackFailed: a callback has raised an exception.
        """
        self._save(state)
        if self._reported_iteration is not None and self._reported_iteration < self._saved_iteration:
            self._reported_iteration = self._saved_iteration
            self._call("on_checkpoint", checkpoint.path_of(self.run_dir, self._saved_iteration))

    def _save(self, state: dict[str, Any] | None = None) -> None:
        """As ``save``, without callbacks."""
        self._restore_directory()
        if not checkpoint.path_of(self.run_dir, self._position.iteration).is_dir():
            self._saved_iteration = min(self._saved_iteration, self._position.iteration - 1)
        if self._saved_iteration == self._position.iteration:
            return
        if not self._is_broken_off:
            self._take_snapshot(state)
        self._write()

    def _take_snapshot(self, state: dict[str, Any] | None = None) -> None:
        """Copies what a checkpoint of this iteration holds; call it between two iterations."""
        from ctm_rl.agents.runs.algorithm_state import learner_state

        began = time.monotonic()
        content = {
            "experiment": self._settings,
            "position": asdict(dataclasses.replace(self._position, memory=self._task.get_memory())),
            **self._task.describe(self._algorithm),
            "learner": learner_state(self._algorithm) if state is None else state,
        }
        with self._saving:
            self._snapshot.take(content, self._position.iteration, began)

    def _write(self) -> None:
        """Writes a checkpoint from memory, and the best weights if there are better ones; in any thread.

        Raises:
            CheckpointError: it cannot be written; the last one remains.
            Diverged: weights or optimiser are not finite; the last one remains.
        """
        try:
            path = self._write_checkpoint()
        finally:
            self._best.write(is_forced=True)
        if self._uploader is not None and path is not None:
            self._uploader.put(path)

    def _offer(self, candidate: Candidate) -> None:
        """Keeps weights if they are the best so far."""
        self._best.offer(candidate._replace(content={"experiment": self._settings, **candidate.content}))

    def _write_checkpoint(self) -> Path | None:
        """Writes a checkpoint from memory, unless there is one of this iteration, or a later one; returns its path."""
        with self._saving:
            content, iteration = self._snapshot.content, self._snapshot.iteration
            if content is None or iteration <= self._saved_iteration:
                return None
            if (name := find_not_finite(learned_part(content))) is not None:
                raise self._located(Diverged(f"{name} is not finite; lower the learning rate."), iteration)
            content["position"]["seconds"] = time.monotonic() - self._started
            path = checkpoint.save(self.run_dir, iteration, content, self._experiment.keep_checkpoints)
            self._saved_iteration = iteration
            self._saved_at = time.monotonic()
            if (candidate := self._task.candidate_of(content)) is not None:
                self._offer(candidate)
            return path

    def _rescue(self) -> bool:
        """Writes a checkpoint from memory, if there is a newer one; returns whether it has the last whole iteration."""
        self._write()
        return self._saved_iteration == self._position.iteration

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
        from ctm_rl.agents.runs.algorithm_state import check_spaces, restore
        from ctm_rl.inference.policy import POLICY_ENTRY

        if POLICY_ENTRY in state:
            check_spaces(self._algorithm, state[POLICY_ENTRY])
        restore(self._algorithm, state["learner"])
        self._is_resumed = True
        self._saved_iteration = self._position.iteration

    def loop(self, request: StopRequest) -> None:
        """Trains until the budget is used up or a signal comes, then writes a checkpoint."""
        self._request = request
        upload_seconds = 0.0 if self._uploader is None else MAX_SECONDS
        with contextlib.closing(self._progress), finishing_upload(self._uploader, self._progress):
            with request.training(self._rescue, upload_seconds), contextlib.closing(self.rows()) as rows:
                while not request.is_stopping and next(rows, None) is not None:
                    pass
            self._save_last()
            self.end()
        if self.view.stop_reason is not None:
            self._progress.write(f"stopped after iteration {self._position.iteration}: {self.view.stop_reason}")
        if request.signum is None:
            request.check()
        else:
            raise RunInterrupted(str(self.run_dir), request.signum, is_saved=True)

    def rows(self) -> Generator[Row, None, None]:
        """Trains one iteration after the other until the budget is used up.

        A caller that wants no more of them closes the generator, and may save.

        An iteration that is broken off, by a stop or because the budget's minutes are over, leaves no trace.

        Yields:
            The line of metrics of each iteration, after it has been written.
        """
        metrics = MetricsLog(
            self._experiment,
            self.run_dir,
            self._position.iteration,
            self._loggers,
            self._task.metrics,
            is_resumed=self._is_resumed,
            restore=self._directory.restore,
        )
        profile = self._profile
        with contextlib.closing(metrics), closing_profile(profile):
            self._reported_iteration = self._saved_iteration
            self._call("on_start")
            while not self.is_over:
                if profile is not None:
                    profile.begin_iteration()
                try:
                    row = self._train_or_save()
                except IterationStopped:
                    num_written = self._position.iteration
                    self._break_off()
                    if self._position.iteration < num_written:
                        metrics.truncate(self._position.iteration)
                    return
                if row is None:
                    metrics.truncate(self._position.iteration)
                    continue
                with span(LOG):
                    if (video := self._record_video()) is not None:
                        metrics.write_video(video, self._position.env_steps)
                    metrics.write(row)
                    self._progress.show_metrics(row)
                    report_upload(self._uploader, self._progress)
                for episode in self._episodes:
                    self._call("on_episode", episode)
                self._call("on_iteration", {**row})
                if self._is_due():
                    with span(SAVE):
                        self._save_and_continue()
                if profile is not None:
                    profile.end_iteration(self._position.iteration)
                yield row

    def end(self) -> None:
        """Reports to the callbacks, once, that training has ended; call it after the last checkpoint.

        Raises:
            CallbackFailed: a callback has raised an exception.
        """
        if self._reported_iteration is not None:
            self._call("on_end")
            self._reported_iteration = None

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up, or a callback has stopped the run."""
        return self.view.stop_reason is not None or is_used_up(self._experiment, self._position)

    def _call(self, method: str, *arguments: Any) -> None:
        """Calls a method of every callback.

        Raises:
            CallbackFailed: one has raised an exception; what was learned is saved, and no callback is called any more.
        """
        try:
            self._calls.call(method, self.view, *arguments)
        except CallbackFailed as error:
            self._reported_iteration = None
            if self._request is not None and self._request.is_stopping:
                # The signal may have hit others too, such as a program that the callback has started.
                _LOG.warning("%s The run stops.", error)
                return
            saved = self._save_after_error()
            raise CallbackFailed(f"{error} {saved}; continue with: ctm-rl resume {self.run_dir}") from error.__cause__

    def _record_video(self) -> LoggedVideo | None:
        """Writes a video of the policy, if it is time for one; it is dropped if the run is to stop meanwhile."""
        if self._videos is None:
            return None
        with observed_by(self._observe):
            return self._videos.update(self._position.iteration, self._copy_policy)

    def _copy_policy(self) -> Any:
        """A copy of what is trained, see ``RunView.policy``."""
        import torch

        from ctm_rl.inference.load_model import MODEL_ENTRY, rebuild_model
        from ctm_rl.inference.policy import Policy

        place = checkpoint.path_of(self.run_dir, self._position.iteration)
        # Random numbers are drawn for the weights, before they get their values.
        with torch.random.fork_rng(devices=[]), checkpoint.rebuilding("policy", place):
            content = self._task.describe(self._algorithm)
            return (rebuild_model if MODEL_ENTRY in content else Policy.from_state)(place, content)

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self._experiment.checkpoint_iterations is not None:
            return self._position.iteration % self._experiment.checkpoint_iterations == 0
        return time.monotonic() - self._saved_at >= self._experiment.checkpoint_minutes * 60

    def _train_or_save(self) -> Row | None:
        """Trains one iteration; ``None``: a learner was lost, and the run has been restarted from its last checkpoint.

        Other errors end the run; what was learned before the iteration is saved.

        Raises:
            IterationStopped: the iteration is broken off; after a signal, which may have hit others too, by any error.
        """
        from ray.exceptions import RayError

        try:
            row = self._train()
            self._num_lost_learners = 0
            return row
        except Diverged:
            raise
        except Exception as error:  # whatever an environment, a callback or Ray may raise
            if self._request is not None and self._request.is_stopping:
                raise IterationStopped from error
            is_of_ray = isinstance(error, RayError)
            if is_of_ray and self._experiment.num_learners and self._num_lost_learners < MAX_LOST_LEARNERS:
                self._num_lost_learners += 1
                self._restart(error)
                return None
            self._end(error, is_of_ray=is_of_ray)

    def _end(self, error: Exception, *, is_of_ray: bool) -> NoReturn:
        """Saves the last whole iteration and raises the error, with what is saved in its message."""
        iteration = self._position.iteration + 1
        self._break_off()
        saved = self._save_after_error()
        if isinstance(error, EnvFault):
            is_tolerant = isinstance(self._experiment, ActingExperiment) and self._experiment.env.tolerate_faults
            hint = (
                "too many faults for --env.tolerate-faults"
                if is_tolerant
                else "--env.tolerate-faults continues after faults"
            )
            raise EnvFault(f"{sentence(error)} {saved}; {hint}.") from error
        going_on = f"{saved}; continue with: ctm-rl resume {self.run_dir}"
        if isinstance(error, UserError):
            raise RunLost(f"{sentence(error)} {going_on}") from error
        if is_of_ray:
            raise RunLost(f"Ray failed in iteration {iteration} ({_first_line(error)}). {going_on}") from error
        _LOG.error("iteration %d failed. %s", iteration, going_on)
        raise error

    def _save_after_error(self) -> str:
        """Writes a checkpoint if it can; returns what is saved."""
        try:
            self._save()
            return f"A checkpoint is saved in {self.run_dir}"
        except CheckpointError as problem:
            return f"{problem} The last one in {self.run_dir} remains"

    def _located(self, error: Diverged, iteration: int) -> Diverged:
        """The error with where it happened, and where the run can be continued from."""
        text = f"iteration {iteration} has diverged: {sentence(error)}"
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
        self._snapshot = Snapshot()
        self._position = Position(**state["position"])
        self._task.set_memory(self._position.memory)
        self.restore(state)

    def _break_off(self) -> None:
        """Returns to the last whole iteration that there is a copy of, but for the time that is used up."""
        self._is_broken_off = True
        if self._request is None or not self._request.is_stopping:
            self._saved_iteration = -1
        content = self._snapshot.content
        assert content is not None
        self._position = Position(**content["position"])
        self._position.seconds = time.monotonic() - self._started

    def _observe(self, what: str, num_done: int, num_parts: int) -> None:
        """Shows how far the iteration is, and breaks it off if the run is to stop.

        Raises:
            IterationStopped: the run is to stop.
        """
        now = time.monotonic()
        stopped_at = None if self._request is None else self._request.stopped_at
        if stopped_at is not None:
            is_copied = self._snapshot.iteration == self._position.iteration
            if is_copied or now - stopped_at > FINISH_SECONDS:
                raise IterationStopped
        minutes = self._experiment.budget.minutes
        if minutes is not None:
            overtime = now - self._started - 60 * minutes
            if overtime > min(MAX_OVERTIME_SECONDS, OVERTIME_SHARE * 60 * minutes):
                raise IterationStopped
        self._progress.show_part(self._position.iteration + 1, what, num_done, num_parts)

    def _train(self) -> Row:
        """Trains one iteration and returns its line of metrics."""
        if self._snapshot.iteration < self._position.iteration and self._snapshot.is_due:
            with span(SAVE):
                self._take_snapshot()
        with observed_by(self._observe):
            return self._train_observed()

    def _train_observed(self) -> Row:
        """Trains one iteration that may be broken off, and returns its line of metrics."""
        began = time.monotonic()
        try:
            result = self._algorithm.train()
            if not math.isfinite(result["learners"][MODULE]["total_loss"]):
                # Our own learners have named the cause before.
                raise Diverged("the loss is not finite; lower --ppo.lr, or scale rewards and observations.")
        except Diverged as error:
            # What a remote learner raises is an error of Ray too, with its cause.
            raise self._located(getattr(error, "cause", error), self._position.iteration + 1) from error
        ended = time.monotonic()
        if self._profile is not None:
            self._profile.read(result)
        steps = int(result["env_runners"]["num_env_steps_sampled"])
        self._episodes = finished_episodes(result) if self._calls.has("on_episode") else []
        self._position.iteration += 1
        self._position.env_steps += steps
        self._position.seconds = ended - self._started
        row = {
            "iteration": self._position.iteration,
            "env_steps": self._position.env_steps,
            "seconds": round(self._position.seconds, 3),
            "env_steps_per_second": round(steps / (ended - began), 1),
            **self._task.read(self._algorithm, result, is_last=self.is_over),
        }
        for candidate in self._task.pop_candidates():
            self._offer(candidate)
        self._best.write()
        return row


def _first_line(error: Exception) -> str:
    """An error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def is_used_up(experiment: AnyExperiment, position: Position) -> bool:
    """Whether nothing is left of the budget."""
    minutes = experiment.budget.minutes
    return position.env_steps >= experiment.budget.env_steps or (
        minutes is not None and position.seconds >= minutes * 60
    )
