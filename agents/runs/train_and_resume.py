"""Trains and resumes runs: checks before the start, the run directory, Ray, and signals."""

import contextlib
import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctm_rl.agents.callbacks.by_name import make_callbacks
from ctm_rl.agents.callbacks.callback import Callback
from ctm_rl.agents.callbacks.early_stopping import EarlyStopping, measure_of
from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.ship_package import describe_shipping, users_modules
from ctm_rl.agents.cluster.signals import START_SECONDS, RunInterrupted, StopRequest
from ctm_rl.agents.cluster.users_folder import entered, remembered
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment, from_json, to_json
from ctm_rl.agents.experiments.settings import StopSettings
from ctm_rl.agents.loggers.by_name import build_loggers
from ctm_rl.agents.run_directory.directory import (
    config_of,
    created_directory,
    new_run_dir,
    opened_directory,
    read_config,
)
from ctm_rl.agents.run_directory.made_with import write_made_with
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.run_directory.trust import check_trusted, remember, run_claims
from ctm_rl.agents.run_directory.upload import uploader_for
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths, with_absolute_storage, working_inside
from ctm_rl.agents.runs import check_environment
from ctm_rl.agents.runs.acting_task import WINDOW, ActingTask
from ctm_rl.agents.runs.answering_task import AnsweringTask
from ctm_rl.agents.runs.check_state import check_training_state
from ctm_rl.agents.runs.schedules import describe_jumps
from ctm_rl.agents.runs.training_loop import Position, Run, is_used_up
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.errors import UserError, expand, user_errors
from ctm_rl.inference.policy import POLICY_ENTRY
from ctm_rl.zoo.entries import check_resumable

_MAY_CHANGE = {("env", name) for name in ("step_time_limit", "check_bounds", "tolerate_faults", "target", "words")}
"""Fields of the environment that may differ when a run is resumed: they do not change what it learns."""


def train(
    experiment: AnyExperiment,
    progress: Progress | None = None,
    *,
    callbacks: Callback | Sequence[Callback] = (),
) -> Path:
    """Trains an experiment from the beginning.

    Args:
        experiment: what to train.
        progress: shows how it goes; ``None``: nothing is shown.
        callbacks: called beside those that the experiment names; the run's configuration does not hold them.

    Returns:
        The run's directory, absolute.

    Raises:
        UserError: it cannot be run as it is; nothing has been written then.
        CallbackFailed: a callback has raised an exception, which is the cause; a checkpoint is saved.
        RunInterrupted: a signal stopped it, after a checkpoint.
    """
    progress = progress or Progress()
    with stop_on_signals(progress) as request, new_run(experiment, request, progress, callbacks) as run:
        run.loop(request)
    return run.run_dir


def resume(
    run_dir: str | Path,
    experiment: AnyExperiment | None = None,
    progress: Progress | None = None,
    *,
    trust: bool = False,
    callbacks: Callback | Sequence[Callback] = (),
) -> Path:
    """Continues a run from its last checkpoint.

    Args:
        run_dir: the run's directory.
        experiment: the run's experiment with another budget or address; ``None``: as in its ``config.json``.
        progress: shows how it goes; ``None``: nothing is shown.
        trust: whether it may import, join and write what no run of this user on this machine names, see
            ``run_directory.trust``.
        callbacks: as of ``train``; those of an earlier call are not remembered.

    Returns:
        The run's directory, absolute.

    Raises:
        UserError: it is not a run or not trusted, has no usable checkpoint, or has used up its budget.
        CallbackFailed: a callback has raised an exception, which is the cause; a checkpoint is saved.
        RunInterrupted: a signal stopped it, after a checkpoint.
    """
    check_resumable(run_dir)
    progress, run_dir = progress or Progress(), expand(run_dir)
    claims = run_claims(experiment or read_config(run_dir))
    check_trusted(claims, run_dir, is_trusted=trust)
    with stop_on_signals(progress) as request, resumed_run(run_dir, experiment, request, progress, callbacks) as run:
        remember(claims)
        run.loop(request)
    return run.run_dir


@contextlib.contextmanager
def new_run(
    experiment: AnyExperiment,
    request: StopRequest,
    progress: Progress,
    callbacks: Callback | Sequence[Callback] = (),
    *,
    is_placed: bool = False,
) -> Iterator[Run]:
    """Starts a run: makes its directory and writes its first checkpoint; the body trains it.

    Args:
        experiment: what to train.
        request: checked before anything is written.
        progress: shows how it goes.
        callbacks: called beside those that the experiment names.
        is_placed: whether Ray has already reserved what the run needs, as for a trial of a sweep.

    Yields:
        The run, ready to train.

    Raises:
        UserError: it cannot be run as it is; nothing has been written then.
    """
    run_dir = new_run_dir(experiment)
    experiment = with_absolute_paths(experiment)
    claims = run_claims(experiment)
    source = None
    if experiment.init_from is not None:
        from ctm_rl.agents.runs.init_from import read_source

        source = read_source(experiment.init_from)
    with _running(experiment, run_dir, request, progress, None, callbacks, is_placed=is_placed) as (run, keep):
        if source is not None:
            progress.write(run.initialise(source))
        run.begin()
        keep()
        remember(claims)
        request.run_dir = str(run.run_dir)
        progress.write(f"run {run.run_dir}")
        yield run


@contextlib.contextmanager
def resumed_run(
    run_dir: Path,
    experiment: AnyExperiment | None,
    request: StopRequest,
    progress: Progress,
    callbacks: Callback | Sequence[Callback] = (),
    *,
    is_placed: bool = False,
) -> Iterator[Run]:
    """Restores a run from its last checkpoint; the body goes on training it.

    Args, beside those of ``new_run``:
        run_dir: the run's directory.
        experiment: the run's experiment, with changes that a resumed run allows; ``None``: as in ``config.json``.

    Yields:
        The run, ready to train.

    Raises:
        UserError: it is not a run, has no usable checkpoint, or has used up its budget.
    """
    run_dir = run_dir.absolute()
    saved_experiment = read_config(run_dir)
    experiment = with_absolute_storage(experiment or saved_experiment)
    place, state = load_training_state(run_dir, experiment)
    position = Position(**state["position"])
    if is_used_up(experiment, position):
        raise UserError(
            f"{run_dir} has used up its budget ({position.env_steps:,} env steps, {position.seconds / 60:.1f} minutes);"
            " extend it with --budget.env-steps N or --budget.minutes N."
        )
    request.run_dir = str(run_dir)
    built = _with_saved_encoder(experiment, state)
    with _running(experiment, run_dir, request, progress, position, callbacks, is_placed=is_placed, built=built) as (
        run,
        _,
    ):
        with checkpoint.rebuilding("training state", place):
            run.restore(state)
        progress.write(f"run {run_dir}, from iteration {position.iteration}")
        lr_factor = (state["learner"]["own"] or {}).get("lr_factor", 1.0)
        jumps = describe_jumps(from_json(state["experiment"]), experiment, position.env_steps, lr_factor)
        if jumps is not None:
            progress.write(jumps)
        yield run


def _with_saved_encoder(experiment: AnyExperiment, state: Mapping[str, Any]) -> AnyExperiment:
    """The experiment with the encoders that its checkpoint was trained with: ``auto`` may have chosen others then."""
    if not isinstance(experiment, ActingExperiment) or experiment.model.encoder != "auto":
        return experiment
    encoder = state[POLICY_ENTRY]["config"]["encoder"]
    # what large images got before there were patches, and normalised vectors before there was plain
    if "conv" not in encoder and "control" not in encoder:
        return experiment
    return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, encoder=encoder))


def load_training_state(run_dir: Path, experiment: AnyExperiment) -> tuple[Path, dict[str, Any]]:
    """Reads the newest checkpoint that a run can be continued from, and checks all that it holds.

    Args:
        run_dir: the run's directory.
        experiment: the run's experiment.

    Returns:
        The checkpoint's path and state.

    Raises:
        UserError: there is none, or it is not of this experiment.
    """

    def checked(place: Path, state: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        if "learner" not in state:
            raise UserError(f"{run_dir} was imported; it can be evaluated, but there is no training to resume.")
        with checkpoint.rebuilding("training state", place):
            saved = from_json(state["experiment"])
        _check_same(experiment, to_json(saved), run_dir)
        check_training_state(place, state)
        return place, state

    return checkpoint.read_newest(run_dir, checked)


@contextlib.contextmanager
def _running(
    experiment: AnyExperiment,
    run_dir: Path,
    request: StopRequest,
    progress: Progress,
    position: Position | None,
    callbacks: Callback | Sequence[Callback],
    *,
    is_placed: bool,
    built: AnyExperiment | None = None,
) -> Iterator[tuple[Run, Callable[[], None]]]:
    """Checks that an experiment can be run here, then holds its directory, Ray and the algorithm inside the body.

    Args, beside those of ``new_run``:
        run_dir: the run's directory, which a new run makes.
        position: how far the run is; ``None``: it is new.
        built: the experiment from which the model is built; ``None``: ``experiment``.

    Yields:
        The run with a freshly built algorithm, and the function that keeps a new run's directory, see
        ``created_directory``.
    """
    is_new = position is None
    position = position or Position()
    started = time.monotonic() - position.seconds
    loggers = build_loggers(experiment.logger)
    prepare_environment(experiment)
    called = make_callbacks(experiment.callbacks, callbacks)
    if experiment.stop != StopSettings():
        called.append(("--stop", EarlyStopping(experiment.stop, measure_of(experiment, WINDOW))))
    nodes = [] if is_placed else check_machine(experiment)
    request.check()
    # The environment of a trial has been checked with its sweep.
    built = built or experiment
    config = build_config(built) if is_placed else build_checked_config(built, request)
    request.check()
    task = AnsweringTask(experiment) if isinstance(experiment, AnsweringExperiment) else ActingTask(experiment)
    if not is_new:
        task.set_memory(position.memory)
    content = config_of(experiment)
    if is_new:
        # A name that was not given may get a number.
        opened = created_directory(run_dir, content, is_numbered=experiment.run_dir is None)
    else:
        opened = opened_directory(run_dir, content)
    with opened as directory, remembered(), working_inside(directory.path):
        uploader = uploader_for(experiment, directory.path, is_new=is_new)
        _show_start(experiment, nodes, progress)
        if not is_new:
            directory.write_config()
        write_made_with(directory)
        run = Run(experiment, directory, task, config, progress, started, position, uploader, loggers, called)
        with ray_for(experiment, request, nodes), entered():
            if not is_placed:
                check_environment.try_out_on_a_worker(experiment, request)
            with run:
                request.check()
                yield run, directory.keep


def build_checked_config(experiment: AnyExperiment, request: StopRequest) -> Any:
    """Returns RLlib's configuration of an experiment after its environment has been tried out; imports Ray.

    Args:
        experiment: what is to be trained.
        request: checked while the environment is tried out.

    Raises:
        UserError: the environment fails, or the experiment does not fit it.
    """
    with check_environment.environment_check(experiment, request) as wait:
        importlib.import_module("ctm_rl.agents.runs.build_algorithm")
        wait()
    return build_config(experiment)


def build_config(experiment: AnyExperiment) -> Any:
    """Returns RLlib's configuration of an experiment; imports Ray.

    Raises:
        UserError: the experiment does not fit its environment.
    """
    from ctm_rl.agents.runs.build_algorithm import build_algorithm_config

    with user_errors():
        return build_algorithm_config(experiment)


def _show_start(experiment: AnyExperiment, nodes: Sequence[Node], progress: Progress) -> None:
    """Shows what is sent to the nodes, and what the run waits for."""
    sent = describe_shipping(nodes, users_modules() if experiment.address else ())
    if sent is not None:
        progress.write(sent)
    where = f"joining the Ray cluster at {experiment.address}" if experiment.address else "starting Ray on this machine"
    progress.show_waiting(f"{experiment.name}: {where}")


def _check_same(experiment: AnyExperiment, saved: dict[str, Any], run_dir: Path) -> None:
    """Refuses to resume with a policy or an environment other than the checkpoint's.

    Raises:
        UserError: the configuration has been changed since.
    """
    given = to_json(experiment)
    for part in ("env", "model"):
        for name, value in saved[part].items():
            if (part, name) not in _MAY_CHANGE and given[part].get(name) != value:
                raise UserError(
                    f"{run_dir / 'config.json'} says {part}.{name} {given[part].get(name)!r}, and the checkpoint was "
                    f"trained with {value!r}; restore that value, or train a new run."
                )


@contextlib.contextmanager
def stop_on_signals(progress: Progress, seconds: float = START_SECONDS) -> Iterator[StopRequest]:
    """Catches signals inside the body; a stop outside of the training loop also reports which run it leaves behind.

    Args:
        progress: shows that the process stops, and ends it if it does not.
        seconds: how long it may take outside of the training loop.
    """
    with StopRequest(progress.show_stopping, progress.end_process, seconds) as request:
        try:
            yield request
        except RunInterrupted:
            raise
        except KeyboardInterrupt:
            raise request.interruption() from None
