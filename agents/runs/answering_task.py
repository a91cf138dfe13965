"""A run on a single-step task: its metrics are accuracies on held-out samples, and the losses of its learner."""

from collections.abc import Mapping
from typing import Any

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.best_checkpoint import Candidate
from ctm_rl.agents.runs.snapshot import copy_values
from ctm_rl.agents.runs.task import COMMON_METRICS, MODULE, peak_memory_mb, read_losses

TESTED = ("accuracy", "accuracy_whole", "held_out_loss")
EVAL_ITERATION = "eval_iteration"
"""One more key of a run with ``eval.every``: the iteration whose weights were tested last."""
_LOSSES = ("total_loss", "gradient_norm", "lr")
_BANDIT_LOSSES = ("total_loss", "policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "gradient_norm", "lr")
_RLLIB_NAMES = {"value_loss": "vf_loss"}

ANSWERING_METRICS = (*COMMON_METRICS, *TESTED, *_LOSSES, "memory_mb")
"""Keys of a line of metrics, in their order. ``accuracy`` is the share of right elements among held-out samples, read
at their most certain tick, ``accuracy_whole`` the share of samples with all elements right; both are repeated until the
next test."""

BANDIT_METRICS = (*COMMON_METRICS, "reward_mean", *TESTED, *_BANDIT_LOSSES, "memory_mb")
"""Keys for learning from the reward alone. ``reward_mean`` is the mean reward of the answers drawn in the
iteration; ``held_out_loss`` is always ``null``, since no loss is computed from right answers."""


class AnsweringTask:
    """Reads the metrics of a run that learns to answer, tests it, and describes its model for a checkpoint.

    Args:
        experiment: what is trained; learns from right answers (signal label), or from rewards (signal reward).
    """

    def __init__(self, experiment: AnsweringExperiment) -> None:
        self._experiment = experiment
        self._is_bandit = experiment.signal == "reward"
        self._tested: Row = dict.fromkeys(TESTED)
        self._num_iterations = 0
        self._tested_iteration: int | None = None
        self._candidates: list[Candidate] = []

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of a line of metrics, in their order; ``EVAL_ITERATION`` with ``eval.every`` only."""
        metrics = BANDIT_METRICS if self._is_bandit else ANSWERING_METRICS
        return (*metrics, EVAL_ITERATION) if self._has_eval else metrics

    def describe(self, algorithm: Any) -> dict[str, Any]:
        """Returns the part of a checkpoint that rebuilds the model, weights included."""
        from ctm_rl.inference.load_model import MODEL_ENTRY, describe

        return {MODEL_ENTRY: describe(_first_module(algorithm).model)}

    def read(self, algorithm: Any, result: dict[str, Any], *, is_last: bool) -> Row:
        """Returns the losses; every few iterations tests the model on held-out samples."""
        self._num_iterations += 1
        every = self._experiment.eval.every or self._experiment.held_out.num_iterations
        if is_last or self._num_iterations % every == 0:
            scores = algorithm.test()
            self._tested = dict(scores.means())
            if self._is_bandit:
                self._tested["held_out_loss"] = None
            self._tested_iteration = self._num_iterations
            accuracy = scores.elements / scores.num_samples
            model = copy_values(self.describe(algorithm))
            self._candidates.append(Candidate(self._num_iterations, "accuracy", accuracy, model))
        names = ("reward_mean", *_BANDIT_LOSSES) if self._is_bandit else _LOSSES
        return {
            **self._tested,
            **read_losses(result["learners"][MODULE], names, _RLLIB_NAMES),
            "memory_mb": peak_memory_mb(),
            **({EVAL_ITERATION: self._tested_iteration} if self._has_eval else {}),
        }

    def pop_candidates(self) -> list[Candidate]:
        """Returns the weights that have been tested since the last call, with their accuracy."""
        candidates, self._candidates = self._candidates, []
        return candidates

    def candidate_of(self, content: Mapping[str, Any]) -> None:
        """Returns nothing: the best weights are chosen among those that have been tested, not among checkpoints."""

    def close(self) -> None:
        """Does nothing: no test is under way between iterations."""

    @property
    def _has_eval(self) -> bool:
        """Whether ``eval.every`` says how often the model is tested."""
        return self._experiment.eval.every is not None

    def get_memory(self) -> dict[str, Any]:
        """Returns the results of the last test with its iteration, and the number of iterations so far."""
        tested = {"tested_iteration": self._tested_iteration} if self._has_eval else {}
        return {"tested": self._tested, "num_iterations": self._num_iterations, **tested}

    def set_memory(self, memory: dict[str, Any]) -> None:
        """Restores what ``get_memory`` returned."""
        self._tested, self._num_iterations = dict(memory["tested"]), int(memory["num_iterations"])
        self._tested_iteration = memory.get("tested_iteration")


def _first_module(algorithm: Any) -> Any:
    """The first learner's module with its current weights, in this process."""
    from ctm_rl.agents.rllib import private

    group = algorithm.learner_group
    if group.is_local:
        return private.local_learner(group).module[MODULE].unwrapped()
    module = algorithm.config.get_multi_rl_module_spec(
        spaces=algorithm.env_runner_group.get_spaces(), inference_only=False
    ).build()[MODULE]
    module.set_state(group.get_weights()[MODULE])
    return module
