"""The evaluations of a run that learns to act: when they begin, where they run, and which line has their results."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.rllib.iteration import IterationStopped
from ctm_rl.agents.run_directory.progress import Row
from ctm_rl.agents.runs.best_checkpoint import Candidate
from ctm_rl.agents.runs.snapshot import copy_values

EVAL_METRICS = ("eval_return_mean", "eval_return_std", "eval_length_mean", "eval_success_rate", "eval_iteration")
"""Keys of a line of metrics of a run with evaluations: those of the last evaluation that is over, of the weights of
``eval_iteration``; all are ``null`` until there is one. ``eval_success_rate`` is ``null`` where the environment says
nothing about successes."""
BEST_METRIC = "eval_return_mean"
"""What the best weights are chosen by."""
_RESULTS = {
    "eval_return_mean": "episode_return_mean",
    "eval_return_std": "episode_return_std",
    "eval_length_mean": "episode_length_mean",
    "eval_success_rate": "success_rate",
}
"""Names in the result of an evaluation."""
_LOG = logging.getLogger(__name__)


class Evaluations:
    """Begins an evaluation every few iterations, and collects its result when it is over.

    With a CPU core to spare, training goes on meanwhile; the next evaluation waits for the one before, so that the same
    iterations are evaluated however fast evaluations are.

    Args:
        experiment: with ``eval.every``.
    """

    def __init__(self, experiment: ActingExperiment) -> None:
        assert experiment.eval.every is not None
        self._experiment, self._every = experiment, experiment.eval.every
        self._row: Row = dict.fromkeys(EVAL_METRICS)
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._candidates: list[Candidate] = []
        self._evaluator: Any = None
        self._is_beside = False

    def update(self, iteration: int, describe: Callable[[], dict[str, Any]], *, is_last: bool) -> Row:
        """Collects what is over, and begins what is due.

        Args:
            iteration: number of finished iterations.
            describe: returns the part of a checkpoint that rebuilds the policy, as it is now.
            is_last: whether the run ends with this iteration, whose weights are then evaluated before it does.

        Returns:
            The values of ``EVAL_METRICS``.

        Raises:
            UserError: the environment of evaluations fails.
        """
        is_due = is_last or iteration % self._every == 0
        try:
            if self._pending is not None and (is_due or self._evaluator.is_done):
                self._collect()
            if is_due:
                self._begin(iteration, copy_values(describe()))
            if self._pending is not None and (is_last or not self._is_beside):
                self._collect()
        except IterationStopped:
            self._pending = None  # the iteration itself is whole
        return dict(self._row)

    def pop_candidates(self) -> list[Candidate]:
        """Returns the weights that have been evaluated since the last call, with their returns."""
        candidates, self._candidates = self._candidates, []
        return candidates

    def close(self) -> None:
        """Ends the evaluation under way."""
        self._pending = None
        if self._evaluator is not None:
            self._evaluator.close()
            self._evaluator = None

    def get_memory(self) -> Row:
        """Returns the results that lines repeat until the next evaluation is over."""
        return dict(self._row)

    def set_memory(self, memory: Mapping[str, Any]) -> None:
        """Restores what ``get_memory`` returned; an evaluation under way is dropped."""
        self._row, self._pending = dict(memory), None

    def _begin(self, iteration: int, content: dict[str, Any]) -> None:
        """Begins an evaluation; without a spare CPU core, plays it."""
        from ctm_rl.agents.evaluation import evaluator

        if self._evaluator is None:
            self._is_beside = evaluator.has_spare_cpu(self._experiment)
            self._evaluator = evaluator.Evaluator(self._experiment, is_beside=self._is_beside)
        self._evaluator.start(iteration, content)
        self._pending = iteration, content

    def _collect(self) -> None:
        """Waits for the evaluation under way, and takes its result."""
        from ctm_rl.agents.evaluation.evaluator import EvaluationLost

        assert self._pending is not None
        iteration, content = self._pending
        try:
            result = self._evaluator.wait()
        except EvaluationLost as error:
            _LOG.warning("the evaluation of iteration %d was lost (%s); training continues.", iteration, error)
            return
        finally:
            self._pending = None
        self._row = {**{name: result.get(key) for name, key in _RESULTS.items()}, "eval_iteration": iteration}
        self._candidates.append(Candidate(iteration, BEST_METRIC, result["episode_return_mean"], content))
