"""A run from start to stop: what is checked before it, where it begins or goes on, and the Ray around it."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.ship_package import tell_shipping
from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, to_json
from ctm_rl.agents.run_directory.directory import config_of, created, locked, new_run_dir, read_config, write_config
from ctm_rl.agents.run_directory.progress import Progress, SilentProgress
from ctm_rl.agents.run_directory.upload import mirror_of
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths, with_absolute_storage, working_inside
from ctm_rl.agents.runs.acting_task import ActingTask
from ctm_rl.agents.runs.answering_task import AnsweringTask
from ctm_rl.agents.runs.run import Position, Run, is_used_up
from ctm_rl.agents.runs.task import Task
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.errors import UserError, expand

_MAY_CHANGE = {("env", name) for name in ("step_time_limit", "check_bounds", "tolerate_faults")}
"""What a run may go on with as it was not begun: how faults of the environment are dealt with."""


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
            run.begin()
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

    Args, beside those of ``begun``:
        run_dir: the run's directory.
        experiment: the run's experiment, which may differ in what a run can change; ``None``: as in ``config.json``.

    Yields:
        The run.

    Raises:
        UserError: it is no run, has no usable checkpoint, or has used up its budget.
    """
    run_dir = run_dir.absolute()
    started = time.monotonic()
    kept = read_config(run_dir)
    experiment = with_absolute_storage(experiment or kept)
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


def _prepare(experiment: AnyExperiment, request: StopRequest, *, is_placed: bool) -> tuple[Task, Any, list[Node]]:
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


def learning_of(experiment: AnyExperiment) -> Task:
    """The kind of learning that an experiment asks for."""
    if isinstance(experiment, AnsweringExperiment):
        return AnsweringTask(experiment)
    return ActingTask(experiment)
