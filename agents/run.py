"""A run from start to stop: iterations, metrics and checkpoints, until the budget is used up or a signal comes."""

import contextlib
import dataclasses
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctm_rl import checkpoint
from ctm_rl.agents.capacity import Node
from ctm_rl.agents.cluster import check_machine, prepare_environment, ray_for, without_known_noise
from ctm_rl.agents.experiment_json import AnyExperiment, to_json
from ctm_rl.agents.learning import MODULE, Learning
from ctm_rl.agents.learning_to_act import LearningToAct
from ctm_rl.agents.learning_to_answer import LearningToAnswer
from ctm_rl.agents.mirror import Mirror, closing_mirror, mirror_of, tell_news
from ctm_rl.agents.progress import Progress, Row, SilentProgress
from ctm_rl.agents.run_dir import MetricsWriter, config_of, created, locked, new_run_dir, read_config, write_config
from ctm_rl.agents.shipping import tell_shipping
from ctm_rl.agents.stop import RunInterrupted, StopRequest
from ctm_rl.agents.storage import is_url
from ctm_rl.agents.supervised_experiment import SupervisedExperiment
from ctm_rl.checkpoint import CheckpointError
from ctm_rl.errors import EnvFault, UserError, expand

_LOG = logging.getLogger(__name__)

MAX_LOSSES = 3
"""How often learners may be lost without an iteration between before it is given up."""

_MAY_CHANGE = {("env", name) for name in ("step_time_limit", "check_bounds", "tolerate_faults")}
"""What a run may go on with as it was not begun: how faults of the environment are dealt with."""


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


def train(experiment: AnyExperiment, progress: Progress | None = None) -> Path:
    """Runs an experiment from the beginning.

    Args:
        experiment: what to train.
        progress: is told how it goes; ``None``: nobody is.

    Returns:
        The run's directory, absolute.

    Raises:
        UserError: it cannot be run as it is; nothing has been written then.
        RunInterrupted: a signal stopped it, after a checkpoint.
    """
    progress = progress or SilentProgress()
    with stoppable(progress) as request, begun(experiment, request, progress) as run:
        run.loop(request)
    return run.run_dir


def resume(run_dir: str | Path, experiment: AnyExperiment | None = None, progress: Progress | None = None) -> Path:
    """Goes on where the last checkpoint of a run stands.

    Args:
        run_dir: the run's directory.
        experiment: the run's experiment with another budget or address; ``None``: as in its ``config.json``.
        progress: is told how it goes; ``None``: nobody is.

    Returns:
        The run's directory, absolute.

    Raises:
        UserError: it is no run, has no usable checkpoint, or has used up its budget.
        RunInterrupted: a signal stopped it, after a checkpoint.
    """
    progress = progress or SilentProgress()
    with stoppable(progress) as request, resumed(expand(run_dir), experiment, request, progress) as run:
        run.loop(request)
    return run.run_dir


@contextlib.contextmanager
def begun(
    experiment: AnyExperiment, request: StopRequest, progress: Progress, *, is_placed: bool = False
) -> "Iterator[Run]":
    """A run at its beginning, its directory made and its first checkpoint written, ready to learn inside the body.

    Args:
        experiment: what to train.
        request: is looked at before anything is written.
        progress: is told how it goes.
        is_placed: Ray has set aside already what the run needs, as for a trial of a sweep.

    Yields:
        The run.

    Raises:
        UserError: it cannot be run as it is; nothing has been written then.
    """
    run_dir = new_run_dir(experiment)
    experiment = with_absolute_paths(experiment)
    started = time.monotonic()
    learning, config, nodes = _prepare(experiment, request, is_placed=is_placed)
    mirror = mirror_of(experiment, run_dir, is_new=True)
    with created(run_dir, config_of(experiment)) as keep, locked(run_dir), working_inside(run_dir, experiment):
        _tell_start(experiment, nodes, progress)
        run = Run(experiment, run_dir, learning, config, progress, started, mirror=mirror)
        with ray_for(experiment, request, nodes), run:
            request.check()
            run.save()
            run.begin_anew()
            keep()
            request.run_dir = str(run_dir)
            progress.say(f"run {run_dir}")
            yield run


@contextlib.contextmanager
def resumed(
    run_dir: Path,
    experiment: AnyExperiment | None,
    request: StopRequest,
    progress: Progress,
    *,
    is_placed: bool = False,
) -> "Iterator[Run]":
    """A run where its last checkpoint stands, ready to learn on inside the body.

    Args:
        run_dir: the run's directory.
        experiment: the run's experiment, which may differ in what a run can change; ``None``: as in ``config.json``.
        request: is looked at before anything is written.
        progress: is told how it goes.
        is_placed: Ray has set aside already what the run needs, as for a trial of a sweep.

    Yields:
        The run.

    Raises:
        UserError: it is no run, has no usable checkpoint, or has used up its budget.
    """
    run_dir = run_dir.absolute()
    started = time.monotonic()
    kept = read_config(run_dir)
    experiment = _with_absolute_storage(experiment or kept)
    state = checkpoint.load(checkpoint.latest(run_dir))
    if "learner" not in state:
        raise UserError(f"{run_dir} was imported; it can be evaluated, and there is no training to resume.")
    position = Position(**state["position"])
    _check_same(experiment, state["experiment"], run_dir)
    if is_used_up(experiment, position):
        raise UserError(
            f"{run_dir} has used up its budget ({position.env_steps:,} env steps, {position.seconds / 60:.1f} minutes);"
            " give it more with --budget.env-steps N or --budget.minutes N."
        )
    request.run_dir = str(run_dir)
    learning, config, nodes = _prepare(experiment, request, is_placed=is_placed)
    learning.set_memory(position.memory)
    mirror = mirror_of(experiment, run_dir, is_new=False)
    with locked(run_dir), working_inside(run_dir, experiment):
        _tell_start(experiment, nodes, progress)
        write_config(run_dir, config_of(experiment))
        run = Run(experiment, run_dir, learning, config, progress, started - position.seconds, position, mirror)
        with ray_for(experiment, request, nodes), run:
            request.check()
            run.restore(state)
            progress.say(f"run {run_dir}, from iteration {position.iteration}")
            yield run


def _check_same(experiment: AnyExperiment, saved: dict[str, Any], run_dir: Path) -> None:
    """Refuses to go on with a policy or an environment that the checkpoint does not know.

    Raises:
        UserError: the configuration has been changed since.
    """
    given = to_json(experiment)
    for part in ("env", "model"):
        for name, value in saved[part].items():
            if (part, name) not in _MAY_CHANGE and given[part].get(name) != value:
                raise UserError(
                    f"{run_dir / 'config.json'} says {part}.{name} {given[part].get(name)!r}, and the checkpoint was "
                    f"trained with {value!r}; put it back, or train anew."
                )


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
    """

    def __init__(
        self,
        experiment: AnyExperiment,
        run_dir: Path,
        learning: Learning,
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
        from ctm_rl.agents.placement import placed

        with contextlib.ExitStack() as stack:
            stack.enter_context(_num_threads(self._experiment.num_threads))
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

    def save(self) -> None:
        """Writes a checkpoint of what has been learned so far, unless there is one."""
        from ctm_rl.agents.checkpoint import learner_state

        if self._saved_iteration == self._position.iteration:
            return
        position = dataclasses.replace(
            self._position, seconds=time.monotonic() - self._started, memory=self._learning.get_memory()
        )
        state = {
            "experiment": to_json(self._experiment),
            "position": asdict(position),
            **self._learning.describe(self._algorithm),
            "learner": learner_state(self._algorithm),
        }
        path = checkpoint.save(self.run_dir, self._position.iteration, state)
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

    def _try_to_save(self) -> None:
        """Writes a checkpoint if that can be done; learning goes on either way."""
        try:
            self.save()
        except CheckpointError as error:
            self._saved_at = time.monotonic()
            _LOG.warning("%s The last one stands; training goes on, and tries again.", error)

    def begin_anew(self) -> None:
        """Goes on as a run resumed from here would, where checkpoints are written by the iteration."""
        from ctm_rl.agents.checkpoint import learner_state, restore

        if self._experiment.checkpoint_iterations is not None:
            restore(self._algorithm, learner_state(self._algorithm))

    def restore(self, state: dict[str, Any]) -> None:
        """Puts a checkpoint's state into the algorithm."""
        from ctm_rl.agents.checkpoint import restore

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
                    self._try_to_save()
                    self.begin_anew()
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
            self._try_to_save()
            raise EnvFault(
                f"{fault} A checkpoint is saved in {self.run_dir}; --tolerate-env-faults goes on after faults."
            ) from fault

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
            option = "--learning.lr" if isinstance(self._experiment, SupervisedExperiment) else "--ppo.lr"
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


@contextlib.contextmanager
def stoppable(progress: Progress) -> Iterator[StopRequest]:
    """Listens to signals inside the body, and says of a stop before or amid the iterations what it leaves behind."""
    with StopRequest(progress.stop) as request:
        try:
            yield request
        except RunInterrupted:
            raise
        except KeyboardInterrupt:
            raise RunInterrupted(request.run_dir, request.signum, is_saved=False) from None


def _tell_start(experiment: AnyExperiment, nodes: Sequence[Node], progress: Progress) -> None:
    """Says what is being waited for, and what nodes are sent."""
    sent = tell_shipping(nodes)
    if sent is not None:
        progress.say(sent)
    where = f"joining the Ray cluster at {experiment.address}" if experiment.address else "starting Ray on this machine"
    progress.wait(f"{experiment.name}: {where}")


def _prepare(experiment: AnyExperiment, request: StopRequest, *, is_placed: bool) -> tuple[Learning, Any, list[Node]]:
    """Checks that the experiment can be run here; gives what is learned, the same as RLlib takes it, and the nodes."""
    prepare_environment(experiment)
    nodes = [] if is_placed else check_machine(experiment)
    request.check()
    learning = learning_of(experiment)
    try:
        config = learning.build_config()
    except ValueError as error:
        # What does not fit the environment is the user's to mend.
        raise UserError(str(error)) from error
    request.check()
    return learning, config, nodes


def learning_of(experiment: AnyExperiment) -> Learning:
    """The kind of learning that an experiment asks for."""
    if isinstance(experiment, SupervisedExperiment):
        return LearningToAnswer(experiment)
    return LearningToAct(experiment)


def is_used_up(experiment: AnyExperiment, position: Position) -> bool:
    """Whether nothing is left of the budget."""
    minutes = experiment.budget.minutes
    return position.env_steps >= experiment.budget.env_steps or (
        minutes is not None and position.seconds >= minutes * 60
    )


def with_absolute_paths(experiment: AnyExperiment) -> AnyExperiment:
    """Writes out where data and storage lie, as seen from here: a run changes its directory, others have others.

    Of the environment's arguments ``path`` and ``folder`` are changed, where they name something that is there.
    """

    def absolute(kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: _absolute(value) if name in ("path", "folder") else value for name, value in kwargs.items()}

    experiment = _with_absolute_storage(experiment)
    if not isinstance(experiment, SupervisedExperiment):
        return experiment
    env = experiment.env
    env = dataclasses.replace(env, kwargs=absolute(env.kwargs), held_out_kwargs=absolute(env.held_out_kwargs))
    return dataclasses.replace(experiment, env=env)


def _with_absolute_storage(experiment: AnyExperiment) -> AnyExperiment:
    """Writes out where the storage lies, unless it is a URL."""
    if experiment.storage is None or is_url(experiment.storage):
        return experiment
    return dataclasses.replace(experiment, storage=str(expand(experiment.storage).absolute()))


def _absolute(value: Any) -> Any:
    """A path written out, if it is one."""
    if not isinstance(value, str) or not value:
        return value
    place = expand(value).absolute()
    return str(place) if place.exists() else value


@contextlib.contextmanager
def working_inside(run_dir: Path, experiment: AnyExperiment) -> Iterator[None]:
    """Works from the run's directory, and leaves the user's modules on the path of a Ray of our own.

    Ray puts the driver's directory on its workers' path, and a checkout there would hide the installed package.
    """
    before = Path.cwd()
    path = os.environ.get("PYTHONPATH")
    if ":" in experiment.env.id and str(before) in sys.path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (path, str(before))))
    os.chdir(run_dir)
    try:
        yield
    finally:
        os.chdir(before)
        if path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = path


@contextlib.contextmanager
def _num_threads(count: int) -> Iterator[None]:
    """Computes with so many CPU threads inside the body."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def no_results_at_home() -> Iterator[None]:
    """RLlib makes an empty directory in ~/ray_results for every algorithm; inside the body in a temporary one."""
    from ray.tune.trainable import trainable

    name = "DEFAULT_STORAGE_PATH"
    before = getattr(trainable, name)
    with tempfile.TemporaryDirectory() as scratch:
        setattr(trainable, name, scratch)
        try:
            yield
        finally:
            setattr(trainable, name, before)
