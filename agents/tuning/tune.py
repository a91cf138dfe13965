"""Runs a sweep with Ray Tune, which draws values, schedules and stops trials, and restarts failed ones."""

import contextlib
import dataclasses
import logging
import math
import operator
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ctm_rl.agents.callbacks.by_name import make_callbacks
from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.cluster.users_folder import remembered
from ctm_rl.agents.loggers.by_name import build_loggers
from ctm_rl.agents.run_directory.directory import SWEEP_FILE, check_free, created_directory, opened_directory
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.run_directory.trust import remember
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths, working_inside
from ctm_rl.agents.runs.train_and_resume import build_checked_config, stop_on_signals
from ctm_rl.agents.tuning.plan import TUNE_FOLDER, Sweep, trial_name
from ctm_rl.agents.tuning.search_space import combinations, with_values
from ctm_rl.errors import UserError

_SETTINGS = {
    # The runs have loggers of their own.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # There is no return before an episode has ended, and no accuracy before the first test.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The callback shows the progress.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Seconds between two snapshots of the sweep; results after the last one are reported again.
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
}
"""Ray Tune's environment variables, unless they are set already."""


def tune(sweep: Sweep, progress: Progress, *, is_new: bool) -> tuple[Sweep, list[Any]]:
    """Runs all trials of a sweep that are not finished; each continues from its last checkpoint if it has one.

    Args:
        sweep: what to run.
        progress: shows how it goes.
        is_new: whether to create the sweep's directory; otherwise it has one, whose file describes the sweep.

    Returns:
        The sweep, whose directory has a number if another process has taken a name that was not given, and its
        trials, as Ray Tune leaves them.

    Raises:
        UserError: it cannot be run as it is; nothing has been written then.
        RunInterrupted: a signal stopped it.
    """
    if is_new:
        check_free(sweep.directory)
        sweep = dataclasses.replace(sweep, experiment=with_absolute_paths(sweep.experiment))
    directory, experiment = sweep.directory, sweep.experiment
    # Trials finish their iterations and save, each in a process of its own.
    with stop_on_signals(progress, math.inf) as request:
        request.run_dir = None if is_new else str(directory)
        needed, nodes = _check(sweep, request)
        content = sweep.to_json()
        if is_new:
            opened = created_directory(directory, content, SWEEP_FILE, is_numbered=experiment.run_dir is None)
        else:
            opened = opened_directory(directory, content, SWEEP_FILE)
        with opened as held:
            sweep = dataclasses.replace(sweep, directory=held.path)
            claims = sweep.claims  # read in the folder that modules are imported from
            with remembered(), working_inside(held.path):
                progress.show_waiting(f"{experiment.name}: starting Ray")
                with ray_for(experiment, request, nodes, num_cpus=needed):
                    request.check()
                    held.keep()
                    remember(claims)
                    request.run_dir = str(held.path)
                    return sweep, _search(sweep, progress, request, needed)


def _check(sweep: Sweep, request: StopRequest) -> tuple[float, list[Node]]:
    """Checks that the trials can be run here; returns the CPU cores of the largest trial, and the nodes."""
    build_loggers(sweep.experiment.logger)
    make_callbacks(sweep.experiment.callbacks)  # wrong names are refused here, before there are trials
    prepare_environment(sweep.experiment)
    experiments = [with_values(sweep.experiment, config) for config in combinations(sweep.searches)]
    sizes = {_size(experiment): experiment for experiment in experiments}
    nodes: list[Node] = []
    for experiment in sizes.values():
        nodes = check_machine(experiment)
        request.check()
    build_checked_config(experiments[0], request)
    request.check()
    from ctm_rl.agents.tuning.trial import resources_of

    needed = [resources_of(experiment).required_resources.get("CPU", 0.0) for experiment in sizes.values()]
    return max(map(float, needed)), nodes


_size = operator.attrgetter(
    *("num_env_runners", "num_cpus_per_env_runner", "num_learners", "num_gpus_per_learner", "num_threads")
)
"""The fields that determine how many processors a run needs."""


def _search(sweep: Sweep, progress: Progress, request: StopRequest, needed: float) -> list[Any]:
    """Lets Ray Tune run all trials that are not finished."""
    import ray
    from ray import tune
    from ray.tune.search import BasicVariantGenerator
    from ray.tune.tune_config import ResumeConfig

    from ctm_rl.agents.tuning.callback import SweepCallback
    from ctm_rl.agents.tuning.schedulers import build_scheduler, build_space
    from ctm_rl.agents.tuning.trial import SweepTrial, resources_of

    num_cpus = ray.cluster_resources().get("CPU", 0.0)
    if needed > num_cpus:
        raise UserError(f"a trial needs {needed:g} CPU cores, its own process included, and Ray has {num_cpus:g}.")
    scheduler = build_scheduler(sweep)
    folder = sweep.directory / TUNE_FOLDER
    resumed: Any = ResumeConfig.ResumeType.RESUME
    is_begun = any(folder.glob("experiment_state-*.json"))
    trainable = tune.with_resources(
        tune.with_parameters(SweepTrial, sweep=sweep),
        lambda config: resources_of(with_values(sweep.experiment, config)),
    )
    progress.write(f"sweep {sweep.directory}")
    with _prepared_tune(sweep.experiment.seed):
        analysis = tune.run(
            trainable,
            name=TUNE_FOLDER,
            storage_path=str(sweep.directory),
            config=build_space(sweep),
            num_samples=sweep.num_samples,
            metric=sweep.metric,
            mode=sweep.options.mode,
            search_alg=BasicVariantGenerator(
                random_state=sweep.experiment.seed, max_concurrent=sweep.options.max_concurrent or 0
            ),
            scheduler=scheduler,
            # Other trials resume from their run directories. Four, since one may be replaced while it is copied.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if sweep.is_pbt else None),
            trial_name_creator=lambda trial: trial_name(trial.trial_id),
            trial_dirname_creator=lambda trial: trial_name(trial.trial_id),
            max_failures=sweep.options.max_failures,
            resume_config=ResumeConfig(errored=resumed) if is_begun else None,
            reuse_actors=True,
            raise_on_failed_trial=False,
            callbacks=[SweepCallback(sweep, scheduler, progress, request)],
            verbose=0,
        )
    if request.signum is not None:
        raise RunInterrupted(str(sweep.directory), request.signum, is_saved=_is_saved(sweep, analysis.trials))
    return list(analysis.trials)


def _is_saved(sweep: Sweep, trials: list[Any]) -> bool:
    """Whether the trials' checkpoints hold everything they have learned."""
    from ctm_rl.checkpoints import store as checkpoint

    if sweep.is_pbt:
        return False  # trials continue from their last comparison
    for run_dir in (sweep.run_dir(trial.trial_id) for trial in trials):
        rows = read_metrics(run_dir)
        if rows and checkpoint.iteration_of(checkpoint.latest(run_dir)) != rows[-1]["iteration"]:
            return False
    return True


@contextlib.contextmanager
def _prepared_tune(seed: int) -> Iterator[None]:
    """Sets random generators, environment variables and logging for Ray Tune, and restores them."""
    generator = random.getstate()
    random.seed(seed)  # pbt changes values by it
    missing = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    log, end_log = logging.getLogger("ray.tune"), logging.getLogger("ray.tune.tune")
    level, is_main = log.level, threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGUSR1)
    os.environ.update(missing)
    log.setLevel(logging.ERROR)
    end_log.addFilter(_is_not_repeated)
    try:
        yield
    finally:
        random.setstate(generator)
        end_log.removeFilter(_is_not_repeated)
        log.setLevel(level)
        for name in missing:
            os.environ.pop(name, None)
        if is_main:
            signal.signal(signal.SIGUSR1, handler)


def _is_not_repeated(record: logging.LogRecord) -> bool:
    """Drops the log line that repeats the table of trials."""
    return not str(record.msg).startswith("Trials did not complete")
