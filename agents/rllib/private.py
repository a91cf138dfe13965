"""Everything private of RLlib and Ray that this package uses, and every workaround, in one place.

Each function gives its reason; all were read in version 2.60.0. Importing this module loads neither ray nor torch.
"""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch
    from ray.job_config import JobConfig
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
    from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
    from ray.rllib.core.learner.learner_group import LearnerGroup
    from ray.rllib.core.learner.torch.torch_learner import TorchLearner
    from ray.rllib.core.learner.training_data import TrainingData
    from ray.rllib.env.env_runner import EnvRunner
    from ray.rllib.env.env_runner_group import EnvRunnerGroup
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.rllib.policy.sample_batch import MultiAgentBatch
    from ray.rllib.utils.actor_manager import FaultTolerantActorManager
    from ray.rllib.utils.checkpoints import Checkpointable

OVERRIDDEN = (
    ("ray.rllib.core.learner.torch.torch_learner", "TorchLearner._make_batch_if_necessary"),
    ("ray.rllib.core.learner.torch.torch_learner", "TorchLearner._update"),
    ("ray.rllib.env.single_agent_env_runner", "SingleAgentEnvRunner._try_env_reset"),
    ("ray.rllib.env.single_agent_env_runner", "SingleAgentEnvRunner._needs_initial_reset"),
    ("ray.rllib.env.single_agent_env_runner", "SingleAgentEnvRunner._weights_seq_no"),
    ("ray.rllib.env.env_runner_group", "EnvRunnerGroup._setup"),
    ("ray.rllib.algorithms.algorithm_config", "AlgorithmConfig._train_batch_size_per_learner"),
)
"""Private methods and attributes that our subclasses override or set, with the reason there; a test finds them."""

MAX_REQUESTS_IN_FLIGHT = 2
"""``max_requests_in_flight_per_env_runner``: with 1, RLlib skips sending new weights to an environment runner whose
last acknowledgement has not arrived yet."""


# Processes


def leave_new_memory_unfilled() -> None:
    """Keeps PyTorch from filling new tensors with NaN, which takes 4 to 5 % of an iteration.

    It does so with deterministic algorithms, which RLlib turns on with a seed, so that a read of memory that was not
    written yet can be seen. The algorithms stay deterministic.
    """
    import torch

    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


# Configurations


def keep_env_runner_states_apart(config: "AlgorithmConfig") -> None:
    """Turns off merging the connectors' states of environment runners after every iteration: ours have none."""
    config._dont_auto_sync_env_runner_states = True


def unused_parts_of(config: "AlgorithmConfig") -> dict[str, Any]:
    """The connectors, gradient scaler and rate schedulers that a user has set, by public name; ``None``: nothing."""
    return {
        "env_to_module_connector": config._env_to_module_connector,
        "module_to_env_connector": config._module_to_env_connector,
        "learner_connector": config._learner_connector,
        "torch_grad_scaler_class": config._torch_grad_scaler_class,
        "torch_lr_scheduler_classes": config._torch_lr_scheduler_classes,
    }


def registered_env(name: str) -> Callable[[Any], Any] | None:
    """What was registered under a name with ``ray.tune.register_env``; there is no public way to read it."""
    from ray.tune.registry import ENV_CREATOR, _global_registry

    return _global_registry.get(ENV_CREATOR, name) if _global_registry.contains(ENV_CREATOR, name) else None


# Learners


def begin_update(
    learner: "TorchLearner",
    training_data: "TrainingData | None",
    batch: "MultiAgentBatch | None",
    timesteps: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Does what ``Learner.update`` does before its loop over minibatches, which our learners replace.

    Returns:
        The columns of the only module.
    """
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.core.learner.training_data import TrainingData

    learner._check_is_built()
    learner.before_gradient_based_update(timesteps=dict(timesteps or {}))
    training_data = training_data or TrainingData(batch=batch)
    training_data.solve_refs()
    assert training_data.batch is not None
    learner._weights_seq_no += 1
    return training_data.batch.policy_batches[DEFAULT_MODULE_ID]


def log_trained_steps(learner: "TorchLearner", num_steps: int) -> None:
    """Counts steps as ``Learner.update`` does after each of its minibatches; RLlib counts the rows of a batch."""
    import numpy as np

    from ctm_rl.agents.rllib.columns import batch_of

    rows = {"rewards": np.broadcast_to(np.float32(0), num_steps)}
    learner._log_steps_trained_metrics(batch_of(rows, num_steps))


def parameters_of(learner: "TorchLearner") -> "list[torch.Tensor]":
    """All parameters with an optimiser; the public way is one call for each module and optimiser."""
    return cast(Any, list(learner._params.values()))


def optimizers_of(learner: "TorchLearner") -> "dict[str, torch.optim.Optimizer]":
    """All optimisers by their names; the public way knows those of one module."""
    return learner._named_optimizers


def num_updates_of(learner: "TorchLearner") -> int:
    """How many updates the weights have seen; environment runners refuse weights that are not newer than theirs."""
    return learner._weights_seq_no


def set_num_updates(learner: "TorchLearner", number: int) -> None:
    """Restores the number of updates."""
    learner._weights_seq_no = number


def learning_rate_of(learner: "TorchLearner") -> float:
    """The learning rate that the first optimiser has now; the public way needs its name."""
    rate = next(iter(learner._named_optimizers.values())).param_groups[0]["lr"]
    # Before the first update it is a tensor, in float32.
    return rate if isinstance(rate, float) else float(f"{float(rate):.7g}")


def set_learning_rates(learner: "TorchLearner", num_env_steps: int) -> None:
    """Sets learning rates to the schedules' values: RLlib does so only after an update."""
    for optimizer, schedule in learner._optimizer_lr_schedules.items():
        learner._set_optimizer_lr(optimizer, schedule.update(timestep=num_env_steps))


def scale_learning_rates(learner: "TorchLearner", factor: Callable[[], float]) -> None:
    """Multiplies what the learning rates' schedules return by a factor, whenever RLlib or ``set_learning_rates`` asks.

    RLlib's schedules know the number of steps only, and the public way to a learning rate is undone by them.
    """

    class Scaled:
        def __init__(self, schedule: Any) -> None:
            self._schedule = schedule

        def update(self, timestep: int) -> float:
            return factor() * self._schedule.update(timestep=timestep)

    schedules = learner._optimizer_lr_schedules
    for optimizer, schedule in schedules.items():
        schedules[optimizer] = cast(Any, Scaled(schedule))


def learner_connector(learner: "TorchLearner") -> "ConnectorPipelineV2 | None":
    """The pipeline that turns episodes into a batch; there is no public way to read it."""
    return learner._learner_connector


def learner_index(learner: "TorchLearner") -> int:
    """Which of the learners it is, from 0."""
    return learner._learner_index or 0


def target_updates_of(learner: "APPOTorchLearner") -> dict[str, int]:
    """After how many steps each module's target network was last updated; RLlib does not save it."""
    return learner._last_update_ts_by_mid


def update_remote_learners(
    group: "LearnerGroup", seconds: float, report: Callable[[int, int], None], **arguments: Any
) -> list[Any]:
    """Does what ``LearnerGroup.update`` does with remote learners, which waits without end.

    Args:
        group: whose learners are in processes of their own.
        seconds: length of a slice of waiting.
        report: called before each slice with the number of learners that are done, and of all; may raise.
        **arguments: of ``update``.

    Returns:
        The learners' metrics, in their order.
    """
    manager = group._worker_manager
    assert manager is not None
    group.update(async_update=True, **arguments)
    results: list[Any] = []
    while manager.num_outstanding_async_reqs():
        report(len(results), len(group))
        results += manager.fetch_ready_async_reqs(timeout_seconds=seconds)
    return group._get_results(sorted(results, key=lambda result: result.actor_id))


def local_learner(group: "LearnerGroup") -> "TorchLearner":
    """The learner in this process; ``foreach_learner`` returns results only."""
    return cast(Any, group._learner)


def call_learners(group: "LearnerGroup", function: Callable[..., Any], **arguments: Any) -> list[Any]:
    """Calls a function with every learner and returns the results in the learners' order.

    Raises:
        Exception: what a learner has raised, or that it was lost: RLlib returns such errors among the results.
    """
    results = [result.get() for result in group.foreach_learner(function, **arguments)]
    for error in results:
        if isinstance(error, Exception):
            raise error
    return results


# Environment runners


def seed_of(runner: "EnvRunner") -> int | None:
    """The seed that RLlib derives from the configuration's and the runner's index; ``None``: there is none."""
    return runner._seed


def is_component_wanted(runner: "Checkpointable", name: str, components: Any, not_components: Any) -> bool:
    """Whether ``get_state`` should contain a component, by RLlib's rule."""
    return runner._check_component(name, components, not_components)


def drop_finished_episodes(runner: "SingleAgentEnvRunner") -> None:
    """Drops the episodes that ended since the last metrics."""
    runner._done_episodes_for_metrics.clear()


def pieces_of_finished_episodes(runner: "SingleAgentEnvRunner") -> list[list[Any]]:
    """All pieces of each episode that ended since the last metrics, the last piece first."""
    ongoing = runner._ongoing_episodes_for_metrics
    return [[episode, *ongoing.get(episode.id_, [])] for episode in runner._done_episodes_for_metrics]


def longest_episode_of(runner: "SingleAgentEnvRunner") -> int:
    """Environment steps of the longest episode under way; there is no public way to read these episodes."""
    return max(cast(Any, episode).t for episode in runner._ongoing_episodes or ())


def remote_args_of(group: "EnvRunnerGroup") -> dict[str, Any]:
    """Ray's options of the group's actors, to be changed before they are created."""
    return group._remote_args


def actor_manager_of(group: "EnvRunnerGroup") -> "FaultTolerantActorManager":
    """The manager of the group's actors: there is no public way to call one of them, or to mark it as lost."""
    return group._worker_manager


def kill_silent_actors(algorithm: "Algorithm", seconds: float) -> None:
    """Kills the environment runners and learners that do not answer: RLlib waits for them without end when it stops.

    Args:
        algorithm: which is about to be stopped.
        seconds: how long they may take.
    """
    import ray

    runners, learners = algorithm.env_runner_group, algorithm.learner_group
    managers = [group._worker_manager for group in (runners, learners) if group is not None]
    asked: dict[Any, tuple[Any, int]] = {
        actor.apply.remote(_do_nothing): (manager, number)
        for manager in managers
        if manager is not None
        for number, actor in manager.actors().items()
    }
    if not asked:
        return
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    for answer in silent:
        manager, number = asked[answer]
        ray.kill(manager.remove_actor(number), no_restart=True)


def _do_nothing(_: Any) -> None:
    """What an actor that answers is asked to do."""


# Jobs


def job_without_working_directory() -> "JobConfig":
    """Returns a job whose workers do not import from this process's working directory, the run's.

    ``ray.init`` adds the directory to this list, and workers put it in front of their import path: a file in a run
    directory would take the place of an installed module. There is no setting for it.
    """
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _ListWithout(os.getcwd())
    return job


class _ListWithout(list[str]):
    """A list that one text is never added to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def extend(self, items: Iterable[str]) -> None:
        """Adds the others."""
        super().extend(item for item in items if item != self._text)


# Ray itself

VITAL_PROCESSES = {"gcs_server": "GCS", "raylet": "raylet"}
"""The processes whose end is Ray's, by their kinds, with Ray's names for people."""


@contextlib.contextmanager
def ray_apart() -> Iterator[None]:
    """Keeps a Ray that is started inside the body apart from this process, and from the network.

    - Its processes get sessions of their own: signals to this process's group, as from a terminal or a scheduler, are
      for this process, which stops Ray itself. They still end when this process ends.
    - It listens on the loopback interface alone, as it does on other systems than Linux.
    - It does not handle SIGTERM in this process, nor print its processes' errors, whole logs among them: what a run
      needs of it fails with an exception.
    """
    from ray._private import ray_constants, services, utils, worker

    popen = functools.partial(services.ConsolePopen, start_new_session=True)
    with (
        _replaced(services, "ConsolePopen", popen),
        _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        _replaced(utils, "set_sigterm_handler", lambda handler: None),
        _replaced(worker, "listen_error_messages", lambda worker, threads_stopped: None),
    ):
        yield


def processes_of_local_ray() -> "dict[str, subprocess.Popen[bytes]]":
    """The processes that ``ray.init`` has started in this process, by their kinds: each is the first of its session."""
    from ray._private import worker

    node = worker._global_node
    processes = {} if node is None else node.all_processes
    return {kind: infos[0].process for kind, infos in processes.items()}


# Algorithms


def set_iteration(algorithm: "Algorithm", iteration: int) -> None:
    """Restores the count of iterations; RLlib restores it only with a checkpoint of its own."""
    algorithm._iteration = iteration


def make_evaluation_group(algorithm: "Algorithm") -> "EnvRunnerGroup":
    """Environment runners for evaluation as ``Algorithm.setup`` makes them if there is an interval."""
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

    config = algorithm.evaluation_config
    assert config is not None
    _, env_creator = algorithm._get_env_id_and_creator(config.env, config)
    return EnvRunnerGroup(env_creator=env_creator, config=config, logdir=algorithm.logdir, local_env_runner=True)


@contextlib.contextmanager
def env_runner_group_class(kind: "type[EnvRunnerGroup]") -> Iterator[None]:
    """Has algorithms that are built inside the body use this class; there is no setting for it."""
    from ray.rllib.algorithms import algorithm

    with _replaced(algorithm, "EnvRunnerGroup", kind):
        yield


@contextlib.contextmanager
def without_ray_results() -> Iterator[None]:
    """RLlib creates an empty directory in ~/ray_results for every algorithm; inside the body in a temporary one."""
    from ray.tune.trainable import trainable

    with tempfile.TemporaryDirectory() as scratch, _replaced(trainable, "DEFAULT_STORAGE_PATH", scratch):
        yield


@contextlib.contextmanager
def without_known_noise() -> Iterator[None]:
    """Drops Ray's native warning about every RLlib environment runner from standard error; the rest appears later."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            kept = [line for line in caught if b"constructor arguments in the object store" not in line]
            with contextlib.suppress(OSError):  # a full disk, or a closed pipe
                os.write(2, b"".join(kept))


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces a global of a module inside the body."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
