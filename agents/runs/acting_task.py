"""A run that trains a policy: its metrics are returns, episode lengths and the losses of an actor-critic algorithm."""

import functools
import math
from collections.abc import Mapping
from typing import Any

from ctm_rl.agents.experiments.acting import ASYNCHRONOUS, ActingExperiment
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.best_checkpoint import Candidate
from ctm_rl.agents.runs.evaluations import EVAL_METRICS, Evaluations
from ctm_rl.agents.runs.snapshot import copy_values
from ctm_rl.agents.runs.task import COMMON_METRICS, MODULE, mean_of, peak_memory_mb, read_losses

WINDOW = 100
"""Episodes over which returns and lengths are averaged."""

_LOSSES = (
    "total_loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "kl",
    "clip_fraction",
    "explained_variance",
    "gradient_norm",
    "lr",
)
_RLLIB_NAMES = {
    "value_loss": "vf_loss",
    "explained_variance": "vf_explained_var",
    "gradient_norm": "gradients_default_optimizer_global_norm",
}
_IMPALA_NAMES = {"policy_loss": "mean_pi_loss", "value_loss": "mean_vf_loss"}
"""IMPALA reports sums over the steps as well; these are the means, as the other algorithms report them."""

ACTING_METRICS = (
    *COMMON_METRICS,
    "episode_return_mean",
    "episode_length_mean",
    "num_episodes",
    "env_faults",
    *_LOSSES,
    "memory_mb",
)
"""Keys of a line of metrics, in their order. Returns and lengths are means over the last 100 episodes. A value is
``null`` where there is none, as before the first episode has ended. ``env_faults`` counts all faults that the run has
tolerated so far. ``lr`` is that of the iteration's last gradient step.
Only our own learner has ``kl`` and ``clip_fraction``, only PPO has ``explained_variance``."""


SUCCESS_RATE = "success_rate"
"""One more key, from the first line on whose episodes the environment calls successes or not; others do not have it.
The share of successes is of the last 100 such episodes."""


class ActingTask:
    """Reads the metrics of a run that learns to act, evaluates its policy, and describes it for a checkpoint.

    Args:
        experiment: what is trained.
    """

    def __init__(self, experiment: ActingExperiment) -> None:
        self._experiment = experiment
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._successes: list[float] = []
        self._num_faults = 0
        self._evaluations = None if experiment.eval.every is None else Evaluations(experiment)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of a line of metrics, in their order; every line has them, except for ``SUCCESS_RATE``."""
        return (*ACTING_METRICS, SUCCESS_RATE, *(() if self._evaluations is None else EVAL_METRICS))

    def describe(self, algorithm: Any) -> dict[str, Any]:
        """Returns the part of a checkpoint that rebuilds the policy, weights included."""
        from ctm_rl.agents.runs.algorithm_state import refresh_local_policy
        from ctm_rl.inference.policy import POLICY_ENTRY, describe

        if self._experiment.algorithm in ASYNCHRONOUS:
            refresh_local_policy(algorithm)
        module = algorithm.get_module(MODULE)
        return {POLICY_ENTRY: describe(module.agent)}

    def read(self, algorithm: Any, result: dict[str, Any], *, is_last: bool) -> Row:
        """Returns the means over the last episodes, and the losses: the metrics without those that every run has.

        Args:
            algorithm: after the iteration.
            result: the return value of its ``train``.
            is_last: whether the budget ends with this iteration.
        """
        from ctm_rl.agents.rllib.count_faults import faults_of, show_notes
        from ctm_rl.agents.rllib.finished_episodes import SUCCESSES, finished_episodes, series_of

        episodes = finished_episodes(result)
        self._returns = [*self._returns, *(item.episode_return for item in episodes)][-WINDOW:]
        self._lengths = [*self._lengths, *(item.length for item in episodes)][-WINDOW:]
        self._successes = [*self._successes, *series_of(result, SUCCESSES)][-WINDOW:]
        self._num_faults += faults_of(result)
        show_notes(result)
        learner = result["learners"][MODULE]
        is_impala = "mean_pi_loss" in learner
        evaluated: Row = {}
        if self._evaluations is not None:
            iteration, describe = int(result["training_iteration"]), functools.partial(self.describe, algorithm)
            evaluated = self._evaluations.update(iteration, describe, is_last=is_last)
        return {
            "episode_return_mean": mean_of(self._returns),
            "episode_length_mean": mean_of(self._lengths),
            "num_episodes": len(episodes),
            "env_faults": self._num_faults,
            **read_losses(learner, _LOSSES, {**_RLLIB_NAMES, **(_IMPALA_NAMES if is_impala else {})}),
            "memory_mb": peak_memory_mb(),
            **({SUCCESS_RATE: mean_of(self._successes)} if self._successes else {}),
            **evaluated,
        }

    def pop_candidates(self) -> list[Candidate]:
        """Returns the weights that have been evaluated since the last call, with their returns."""
        return [] if self._evaluations is None else self._evaluations.pop_candidates()

    def candidate_of(self, content: Mapping[str, Any]) -> Candidate | None:
        """Returns the weights of a checkpoint, if it is checkpoints that the best ones are chosen among.

        That is without evaluations: they are judged by the returns in training, once there are enough for a mean.

        Args:
            content: of the checkpoint; later ones may be written into its memory.
        """
        from ctm_rl.inference.policy import POLICY_ENTRY

        position = content["position"]
        returns = position["memory"]["returns"]
        if self._evaluations is not None or len(returns) < WINDOW:
            return None
        weights = copy_values({POLICY_ENTRY: content[POLICY_ENTRY]})
        return Candidate(position["iteration"], "episode_return_mean", math.fsum(returns) / len(returns), weights)

    def close(self) -> None:
        """Ends the evaluation under way."""
        if self._evaluations is not None:
            self._evaluations.close()

    def get_memory(self) -> dict[str, Any]:
        """Returns what ``read`` carries to the next iteration, which is part of every checkpoint.

        That is the last episodes' returns and lengths, and the number of faults so far; if there are any, their
        successes, and the results of the last evaluation.
        """
        return {
            "returns": self._returns,
            "lengths": self._lengths,
            "num_faults": self._num_faults,
            **({"successes": self._successes} if self._successes else {}),
            **({} if self._evaluations is None else {"evaluated": self._evaluations.get_memory()}),
        }

    def set_memory(self, memory: dict[str, Any]) -> None:
        """Restores what ``get_memory`` returned."""
        self._returns, self._lengths = list(memory["returns"]), list(memory["lengths"])
        self._num_faults = int(memory.get("num_faults", 0))
        self._successes = list(memory.get("successes", ()))
        if self._evaluations is not None and "evaluated" in memory:
            self._evaluations.set_memory(memory["evaluated"])
