"""A run from start to stop: iterations, metrics and checkpoints, until the budget is used up or a signal comes."""

import contextlib
import logging
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctm_rl import checkpoint
from ctm_rl.agents.cluster import check_machine, prepare_environment, ray_for, without_known_noise
from ctm_rl.agents.experiment import Experiment
from ctm_rl.agents.experiment_json import to_json
from ctm_rl.agents.progress import Progress, Row, SilentProgress
from ctm_rl.agents.run_dir import MetricsWriter, config_of, created, locked, new_run_dir, read_config, write_config
from ctm_rl.agents.stop import RunInterrupted, StopRequest
from ctm_rl.errors import UserError, expand
from ctm_rl.policy import POLICY_ENTRY, describe

_LOG = logging.getLogger(__name__)
_MODULE = "default_policy"
_WINDOW = 100


class Diverged(UserError):
    """Learning went wrong: a loss is no number any more."""

    exit_code = 1


@dataclass(slots=True)
class _Position:
    """How far a run is; all of it counts over resumes."""

    iteration: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    returns: list[float] = field(default_factory=list)
    """Of the last episodes that ended, at most ``_WINDOW``."""
    lengths: list[int] = field(default_factory=list)
    """Of the same."""


def train(experiment: Experiment, progress: Progress | None = None) -> Path:
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
    run_dir = new_run_dir(experiment)
    started = time.monotonic()
    with _stoppable(progress) as request:
        config = _prepare(experiment, request)
        with created(run_dir, config_of(experiment)) as keep, locked(run_dir), working_inside(run_dir, experiment):
            progress.wait(_starting(experiment))
            run = _Run(experiment, run_dir, config, progress, started)
            with ray_for(experiment, request), run:
                request.check()
                run.save()
                keep()
                request.run_dir = str(run_dir)
                progress.say(f"run {run_dir}")
                run.loop(request)
    return run_dir


def resume(run_dir: str | Path, experiment: Experiment | None = None, progress: Progress | None = None) -> Path:
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
    run_dir = expand(run_dir).absolute()
    started = time.monotonic()
    kept = read_config(run_dir)
    experiment = experiment or kept
    state = checkpoint.load(checkpoint.latest(run_dir))
    if "learner" not in state:
        raise UserError(f"{run_dir} was imported; it can be evaluated, and there is no training to resume.")
    position = _Position(**state["position"])
    _check_same(experiment, state["experiment"], run_dir)
    if _is_used_up(experiment, position):
        raise UserError(
            f"{run_dir} has used up its budget ({position.env_steps:,} env steps, {position.seconds / 60:.1f} minutes);"
            " give it more with --budget.env-steps N or --budget.minutes N."
        )
    with _stoppable(progress) as request:
        request.run_dir = str(run_dir)
        config = _prepare(experiment, request)
        with locked(run_dir), working_inside(run_dir, experiment):
            progress.wait(_starting(experiment))
            write_config(run_dir, config_of(experiment))
            run = _Run(experiment, run_dir, config, progress, started - position.seconds, position)
            with ray_for(experiment, request), run:
                request.check()
                run.restore(state)
                progress.say(f"run {run_dir}, from iteration {position.iteration}")
                run.loop(request)
    return run_dir


def _check_same(experiment: Experiment, saved: dict[str, Any], run_dir: Path) -> None:
    """Refuses to go on with a policy or an environment that the checkpoint does not know.

    Raises:
        UserError: the configuration has been changed since.
    """
    given = to_json(experiment)
    for part in ("env", "model"):
        for name, value in saved[part].items():
            if given[part][name] != value:
                raise UserError(
                    f"{run_dir / 'config.json'} says {part}.{name} {given[part][name]!r}, and the checkpoint was "
                    f"trained with {value!r}; put it back, or train anew."
                )


class _Run:
    """One stretch of a run, with its algorithm alive while it is entered."""

    def __init__(
        self,
        experiment: Experiment,
        run_dir: Path,
        config: Any,
        progress: Progress,
        started: float,
        position: _Position | None = None,
    ) -> None:
        self._experiment = experiment
        self._run_dir = run_dir
        self._config = config
        self._progress = progress
        self._started = started
        self._position = position or _Position()
        self._saved_iteration = -1
        self._saved_at = time.monotonic()

    def __enter__(self) -> "_Run":
        """Builds the algorithm."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_num_threads(self._experiment.num_threads))
            stack.enter_context(no_results_at_home())
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
        module = self._algorithm.get_module(_MODULE)
        state = {
            "experiment": to_json(self._experiment),
            "position": {**asdict(self._position), "seconds": time.monotonic() - self._started},
            POLICY_ENTRY: describe(module.agent, module.observation_space.shape),
            "learner": learner_state(self._algorithm),
        }
        checkpoint.save(self._run_dir, self._position.iteration, state)
        self._saved_iteration = self._position.iteration
        self._saved_at = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Puts a checkpoint's state into the algorithm."""
        from ctm_rl.agents.checkpoint import restore

        restore(self._algorithm, state["learner"])
        self._saved_iteration = self._position.iteration

    def loop(self, request: StopRequest) -> None:
        """Learns until the budget is used up or a signal comes; both leave a checkpoint."""
        metrics = MetricsWriter(self._run_dir, self._position.iteration)
        with contextlib.closing(metrics), contextlib.closing(self._progress):
            while request.signum is None and not _is_used_up(self._experiment, self._position):
                row = self._learn()
                metrics.write(row)
                self._progress.show(row)
                if time.monotonic() - self._saved_at >= self._experiment.checkpoint_minutes * 60:
                    self.save()
            self.save()
        if request.signum is not None:
            raise RunInterrupted(str(self._run_dir), request.signum, is_saved=True)

    def _learn(self) -> Row:
        """One iteration; gives its line of metrics."""
        from ctm_rl.agents.episodes import finished_episodes

        began = time.monotonic()
        result = self._algorithm.train()
        ended = time.monotonic()
        runners = result["env_runners"]
        steps = int(runners["num_env_steps_sampled"])
        episodes = finished_episodes(result)
        self._position.iteration += 1
        self._position.env_steps += steps
        self._position.seconds = ended - self._started
        self._position.returns = [*self._position.returns, *(item.episode_return for item in episodes)][-_WINDOW:]
        self._position.lengths = [*self._position.lengths, *(item.length for item in episodes)][-_WINDOW:]
        learner = result["learners"][_MODULE]
        if not math.isfinite(learner["total_loss"]):
            raise Diverged(
                f"the loss is no finite number in iteration {self._position.iteration}; lower --ppo.lr. "
                f"The last checkpoint of {self._run_dir} is from before."
            )
        return {
            "iteration": self._position.iteration,
            "env_steps": self._position.env_steps,
            "seconds": round(self._position.seconds, 3),
            "env_steps_per_second": round(steps / (ended - began), 1),
            "episode_return_mean": _mean(self._position.returns),
            "episode_length_mean": _mean(self._position.lengths),
            "num_episodes": len(episodes),
            "total_loss": _number(learner, "total_loss"),
            "policy_loss": _number(learner, "policy_loss"),
            "value_loss": _number(learner, "vf_loss"),
            "entropy": _number(learner, "entropy"),
            "kl": _number(learner, "kl"),
            "clip_fraction": _number(learner, "clip_fraction"),
            "explained_variance": _number(learner, "vf_explained_var"),
            "gradient_norm": _number(learner, "gradients_default_optimizer_global_norm"),
            "lr": _number(learner, "default_optimizer_learning_rate"),
            "memory_mb": _peak_memory_mb(),
        }


@contextlib.contextmanager
def _stoppable(progress: Progress) -> Iterator[StopRequest]:
    """Listens to signals inside the body, and says of a stop before or amid the iterations what it leaves behind."""
    with StopRequest(progress.stop) as request:
        try:
            yield request
        except RunInterrupted:
            raise
        except KeyboardInterrupt:
            raise RunInterrupted(request.run_dir, request.signum, is_saved=False) from None


def _starting(experiment: Experiment) -> str:
    """What is being waited for."""
    where = f"joining the Ray cluster at {experiment.address}" if experiment.address else "starting Ray on this machine"
    return f"{experiment.name}: {where}"


def _prepare(experiment: Experiment, request: StopRequest) -> Any:
    """Checks that the experiment can be run here, and gives it as RLlib takes it."""
    prepare_environment(experiment)
    check_machine(experiment)
    request.check()
    from ctm_rl.agents.algorithm import build_algorithm_config

    try:
        config = build_algorithm_config(experiment)
    except ValueError as error:
        # What does not fit the environment is the user's to mend.
        raise UserError(str(error)) from error
    request.check()
    return config


def _is_used_up(experiment: Experiment, position: _Position) -> bool:
    """Whether nothing is left of the budget."""
    minutes = experiment.budget.minutes
    return position.env_steps >= experiment.budget.env_steps or (
        minutes is not None and position.seconds >= minutes * 60
    )


@contextlib.contextmanager
def working_inside(run_dir: Path, experiment: Experiment) -> Iterator[None]:
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


def _mean(values: Sequence[float]) -> float | None:
    """The mean, if there is anything."""
    return math.fsum(values) / len(values) if values else None


def _number(values: dict[str, Any], name: str) -> float | None:
    """A metric, if RLlib has it and it is a number."""
    value = values.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def _peak_memory_mb() -> float:
    """The most memory that the training process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
