"""A sweep from start to stop, by Ray Tune: it draws values, schedules and stops trials, and starts them again."""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ctm_rl.agents.cluster.capacity import Node
from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import RunInterrupted, StopRequest
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.directory import check_free, created, locked, read_metrics
from ctm_rl.agents.run_directory.progress import Progress
from ctm_rl.agents.run_directory.working_directory import with_absolute_paths, working_inside
from ctm_rl.agents.runs.train import learning_of, stoppable
from ctm_rl.agents.tuning.plan import SWEEP_FILE, TUNE_FOLDER, Sweep, trial_name
from ctm_rl.agents.tuning.search_space import combinations, with_values
from ctm_rl.errors import UserError

_EXTRAS = ("wandb", "mlflow")
_SETTINGS = {
    # The runs write TensorBoard and JSON themselves.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # There is no return before an episode has ended, and no accuracy before the first test.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # What there is to see is told by the callback.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Seconds between two snapshots of the sweep: what came after the last is told again.
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
}
"""How Ray Tune is to be, as far as nobody has said otherwise."""


def tune(sweep: Sweep, progress: Progress) -> list[Any]:
    """Runs a sweep from the beginning.

    Args:
        sweep: what to run.
        progress: is told how it goes.

    Returns:
        Its trials, as Ray Tune leaves them.

    Raises:
        UserError: it cannot be run as it is; nothing has been written then.
        RunInterrupted: a signal stopped it.
    """
    check_free(sweep.directory)
    sweep = dataclasses.replace(sweep, experiment=with_absolute_paths(sweep.experiment))
    with stoppable(progress) as request:
        needed, nodes = _check(sweep, request)
        with (
            created(sweep.directory, sweep.to_json(), SWEEP_FILE) as keep,
            locked(sweep.directory),
            working_inside(sweep.directory, sweep.experiment),
        ):
            progress.wait(f"{sweep.experiment.name}: starting Ray")
            with ray_for(sweep.experiment, request, nodes, num_cpus=needed):
                request.check()
                keep()
                return _search(sweep, progress, request, needed)


def resume(sweep: Sweep, progress: Progress) -> list[Any]:
    """Goes on with a sweep: trials that are over stay, the others go on from their last checkpoints.

    Args:
        sweep: as its file says.
        progress: is told how it goes.

    Returns:
        Its trials, as Ray Tune leaves them.

    Raises:
        UserError: it cannot be run here.
        RunInterrupted: a signal stopped it.
    """
    with stoppable(progress) as request:
        request.run_dir = str(sweep.directory)
        needed, nodes = _check(sweep, request)
        with locked(sweep.directory), working_inside(sweep.directory, sweep.experiment):
            progress.wait(f"{sweep.experiment.name}: starting Ray")
            with ray_for(sweep.experiment, request, nodes, num_cpus=needed):
                request.check()
                return _search(sweep, progress, request, needed)


def _check(sweep: Sweep, request: StopRequest) -> tuple[float, list[Node]]:
    """Refuses what could not be run, as far as that shows; gives the CPU cores of the largest trial, and the nodes."""
    for name in _EXTRAS:
        if name in sweep.options.logger and importlib.util.find_spec(name) is None:
            raise UserError(f'--logger {name} needs {name}, which is not installed: pip install "ctm-rl[{name}]".')
    prepare_environment(sweep.experiment)
    first, sizes = None, {}
    for config in combinations(sweep.searches):
        experiment = with_values(sweep.experiment, config)
        first = first or experiment
        sizes[_size(experiment)] = experiment
    nodes: list[Node] = []
    for experiment in sizes.values():
        nodes = check_machine(experiment)
        request.check()
    assert first is not None
    try:
        learning_of(first).build_config()
    except ValueError as error:
        # What does not fit the environment is the user's to mend.
        raise UserError(str(error)) from error
    request.check()
    from ctm_rl.agents.tuning.trial import resources_of

    needed = [resources_of(experiment).required_resources.get("CPU", 0.0) for experiment in sizes.values()]
    return max(map(float, needed)), nodes


def _size(experiment: AnyExperiment) -> tuple[float, ...]:
    """What tells how many processors a run needs."""
    return (
        experiment.num_env_runners,
        experiment.num_cpus_per_env_runner,
        experiment.num_learners,
        experiment.num_gpus_per_learner,
        experiment.num_threads,
    )


def _search(sweep: Sweep, progress: Progress, request: StopRequest, needed: float) -> list[Any]:
    """Has Ray Tune run all trials that are not over."""
    import ray
    from ray import tune
    from ray.tune.search import BasicVariantGenerator
    from ray.tune.tune_config import ResumeConfig

    from ctm_rl.agents.tuning.callback import SweepCallback
    from ctm_rl.agents.tuning.schedulers import build_loggers, build_scheduler, build_space
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
    progress.say(f"sweep {sweep.directory}")
    with _tune_prepared(sweep.experiment.seed):
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
            # Elsewhere runs are their own checkpoints. Some more than two, for one that is being copied.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if sweep.is_pbt else None),
            trial_name_creator=lambda trial: trial_name(trial.trial_id),
            trial_dirname_creator=lambda trial: trial_name(trial.trial_id),
            max_failures=sweep.options.max_failures,
            resume_config=ResumeConfig(errored=resumed) if is_begun else None,
            reuse_actors=True,
            raise_on_failed_trial=False,
            callbacks=[SweepCallback(sweep, scheduler, progress, request), *build_loggers(sweep)],
            verbose=0,
        )
    if request.signum is not None:
        raise RunInterrupted(str(sweep.directory), request.signum, is_saved=_is_saved(sweep, analysis.trials))
    return list(analysis.trials)


def _is_saved(sweep: Sweep, trials: list[Any]) -> bool:
    """Whether nothing that trials have learned will have to be learned again."""
    from ctm_rl.checkpoints import store as checkpoint

    if sweep.is_pbt:
        return False  # goes on from where trials were last compared
    for run_dir in (sweep.run_dir(trial.trial_id) for trial in trials):
        rows = read_metrics(run_dir)
        if rows and checkpoint.iteration_of(checkpoint.latest(run_dir)) != rows[-1]["iteration"]:
            return False
    return True


@contextlib.contextmanager
def _tune_prepared(seed: int) -> Iterator[None]:
    """Sets Ray Tune up for a sweep, and puts everything back."""
    generator = random.getstate()
    random.seed(seed)  # by which values change on the way
    missing = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    log, its_end = logging.getLogger("ray.tune"), logging.getLogger("ray.tune.tune")
    level, is_main = log.level, threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGUSR1)
    os.environ.update(missing)
    log.setLevel(logging.ERROR)
    its_end.addFilter(_is_news)
    try:
        yield
    finally:
        random.setstate(generator)
        its_end.removeFilter(_is_news)
        log.setLevel(level)
        for name in missing:
            os.environ.pop(name, None)
        if is_main:
            signal.signal(signal.SIGUSR1, handler)


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out what the table of trials tells."""
    return not str(record.msg).startswith("Trials did not complete")
