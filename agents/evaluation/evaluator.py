"""Evaluates a policy while it is trained: in a process of its own, beside training, or in the training process."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ctm_rl.agents.evaluation.play import PlayOptions, play_all, seeds_of_episodes
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.settings import EvalSettings
from ctm_rl.agents.rllib.generators import read_generators, write_generators
from ctm_rl.agents.rllib.iteration import SLICE_SECONDS, report
from ctm_rl.checkpoints import store
from ctm_rl.inference.policy import Policy

_NICENESS = 10
"""How much the process of evaluations gives way to those of training where there are too few CPU cores."""


class EvaluationLost(Exception):
    """The process of an evaluation has ended, or cannot be reached."""


def evaluate_weights(
    env: EnvConfig, settings: EvalSettings, iteration: int, content: Mapping[str, Any]
) -> dict[str, Any]:
    """Plays the episodes of one evaluation; ``ctm-rl evaluate`` with the same seed and checkpoint plays them again.

    Args:
        env: the environment, which is made for this call.
        settings: how many episodes, and how.
        iteration: number of training iterations that the weights have learned.
        content: of a checkpoint: what describes the policy.

    Returns:
        See ``play.play_all``.

    Raises:
        UserError: the environment cannot be made, does not fit the policy, or fails.
    """
    policy = Policy.from_state(store.path_of(Path(), iteration), content)
    options = PlayOptions(
        deterministic=settings.deterministic,
        seed=settings.seed,
        halt_certainty=None,
        num_ticks=None,
        max_episode_steps=settings.max_episode_steps,
    )
    return play_all(policy, env, seeds_of_episodes(settings.seed, settings.episodes), options)


class EvaluationRunner:
    """Evaluates in a process of its own, one evaluation after the other: an actor of Ray."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)

    def evaluate(
        self, env: EnvConfig, settings: EvalSettings, iteration: int, content: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See ``evaluate_weights``."""
        return evaluate_weights(env, settings, iteration, content)


class Evaluator:
    """Evaluates weights, one set at a time: ``start``, then ``wait``.

    Args:
        experiment: names the environment and the settings of evaluations.
        is_beside: whether to evaluate in a process of its own; otherwise ``start`` does it in this process, and leaves
            its random generators as they were.
    """

    def __init__(self, experiment: ActingExperiment, *, is_beside: bool) -> None:
        self._env, self._settings = experiment.evaluated_env, experiment.eval
        self._is_beside = is_beside
        self._runner: Any = None
        self._result: Any = None

    def start(self, iteration: int, content: Mapping[str, Any]) -> None:
        """Starts the evaluation of some weights.

        Args:
            iteration: number of training iterations that they have learned.
            content: of a checkpoint: what describes the policy; not changed until ``wait`` returns.

        Raises:
            UserError: without a process of its own, the environment fails.
        """
        if not self._is_beside:
            before = read_generators()
            try:
                self._result = evaluate_weights(self._env, self._settings, iteration, content)
            finally:
                write_generators(before)
            return
        if self._runner is None:
            # Without a reservation: Ray would wait for a CPU core that does not become free.
            self._runner = ray.remote(num_cpus=0)(EvaluationRunner).remote()
        self._result = self._runner.evaluate.remote(self._env, self._settings, iteration, content)

    @property
    def is_done(self) -> bool:
        """Whether ``wait`` returns at once."""
        return not isinstance(self._result, ray.ObjectRef) or bool(ray.wait([self._result], timeout=0)[0])

    def wait(self) -> dict[str, Any]:
        """Waits for the evaluation that was started last.

        Returns:
            Its result.

        Raises:
            UserError: the environment fails.
            EvaluationLost: its process has ended; the next evaluation starts another one.
            IterationStopped: the run is to stop.
        """
        result, self._result = self._result, None
        if not isinstance(result, ray.ObjectRef):
            return result
        while not ray.wait([result], timeout=SLICE_SECONDS)[0]:
            report("evaluations", 0, 1)
        try:
            return ray.get(result)
        except RayTaskError as error:  # the environment's fault, not that of the process
            raise error.cause from error
        except RayError as error:
            self.close()
            raise EvaluationLost(type(error).__name__) from error

    def close(self) -> None:
        """Ends the process of evaluations, whatever it does."""
        if self._runner is not None:
            ray.kill(self._runner)
            self._runner = None


def has_spare_cpu(experiment: ActingExperiment) -> bool:
    """Whether evaluations have a CPU core beside training; Ray runs, and the algorithm has its processes.

    With environment runners in processes of their own, the learner and they take turns, and leave time to evaluations.
    In a trial of a sweep, the other cores belong to other trials.
    """
    if experiment.num_env_runners > 0:
        return True
    if ray.util.get_current_placement_group() is not None:
        return False
    return ray.available_resources().get("CPU", 0.0) - experiment.num_threads >= 1
