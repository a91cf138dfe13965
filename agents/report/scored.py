"""One pass over held-out samples: the numbers of ``evaluate``, those by tick, halting, and samples to be shown."""

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctm_rl.agents.evaluation.answers import BATCH_SIZE, EvaluationTask, evaluate_answers
from ctm_rl.agents.evaluation.halting_curve import HALT_THRESHOLDS, Batch, halting_curve, joined
from ctm_rl.agents.report.samples import Candidate
from ctm_rl.agents.rllib.columns import map_arrays
from ctm_rl.agents.supervised.sampler import OBSERVATIONS, TARGETS
from ctm_rl.metrics import (
    CalibrationScores,
    TickCalibration,
    TickScores,
    at_tick,
    emissions,
    most_certain_tick,
    right_by_tick,
)
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, Thought, group
from ctm_rl.models.preprocessing import model_inputs

NUM_SAMPLES = 2000
"""Held-out samples unless another number is given, as ``evaluate`` has it, if there is the time."""
SECONDS = 12.0
"""Time of a core for the pass, and for that of halting, as far as it can be estimated."""
MIN_COUNT = 10
"""Answers that a bin of the confidence has, at least."""
_NUM_CALIBRATED = 6
"""Numbers of ticks whose calibration is computed."""
_MIN_SAMPLES = 10
"""Samples that are answered, however long that takes."""
_PER_BATCH = 8
"""Candidates of either kind that are kept of each batch."""

AnsweringModel = ContinuousThoughtMachine | FeedForwardModel


class Scored(NamedTuple):
    """What one pass has found."""

    result: dict[str, Any]
    """As ``evaluate`` returns it."""
    by_tick: dict[str, Any] | None
    """Of ``metrics.TickScores``; ``None``: an order is spread over the ticks, or there is one tick alone."""
    calibration: list[dict[str, Any]]
    """Of ``metrics.TickCalibration``."""
    human: dict[str, Any] | None
    """Calibration of people, as ``metrics.CalibrationScores`` has it; ``None``: their answers are not known."""
    halting: list[dict[str, Any]]
    """Points of ``halting_curve``; empty: the model cannot halt."""
    num_halting: int
    """Samples that they are of."""
    emitted: list[float]
    """Of an order: share of places emitted up to each tick."""
    candidates: list[Candidate]
    """Samples that may be shown."""
    has_answer_ticks: bool
    """Whether ticks by number are those that answer, after others that do not, as of questions."""

    @property
    def tick_label(self) -> str:
        """What a tick is called on an axis."""
        return "tick that answers" if self.has_answer_ticks else "tick"


class _Observer:
    """Collects what ``evaluate`` does not compute, batch by batch.

    Args:
        model: the model.
        loss: says what an answer is.
        num_halting: samples that are kept for the halting curve.
        human: the share of people who chose each class, [N, C].
    """

    def __init__(self, model: AnsweringModel, loss: str, num_halting: int, human: Tensor | None) -> None:
        self.config, self.is_order, self.num_halting, self.human = model.config, loss == "order", num_halting, human
        self.people = CalibrationScores()
        self.scores = TickScores()
        self.calibration: TickCalibration | None = None
        self.batches: list[Batch] = []
        self.candidates: list[Candidate] = []
        self.num_ticks = self.num_batches = self.num_samples = 0
        self.emitted: Tensor | None = None

    def __call__(self, thought: Thought, samples: dict[str, Any]) -> None:
        """Adds one batch."""
        self.num_ticks = thought.certainties.shape[1]
        targets = samples[TARGETS].reshape(len(samples[TARGETS]), -1)
        if self.is_order:
            is_right = self._add_order(thought.predictions, targets)
        else:
            predictions = group(thought.predictions, self.config.num_groups)
            is_right = self._add_classes(predictions, thought.certainties, targets)
            if self.num_samples < self.num_halting:
                self.batches.append(Batch(*model_inputs(self.config, samples[OBSERVATIONS]), targets))
        self._keep(samples[OBSERVATIONS], targets.cpu().numpy(), is_right.cpu().numpy())
        self.num_batches += 1
        self.num_samples += len(targets)

    def _add_classes(self, predictions: Tensor, certainties: Tensor, targets: Tensor) -> Tensor:
        """Adds answers of classes; returns which are right in every element at their most certain tick."""
        if self.calibration is None:
            self.calibration = TickCalibration(calibrated_ticks(self.num_ticks))
        if self.num_ticks > 1:
            self.scores.add(predictions, certainties, targets)
            self.calibration.add(predictions, certainties, targets)
        if self.human is not None:
            rows = self.human[self.num_samples : self.num_samples + len(targets)]
            self.people.add(rows.log()[:, None, :, None], rows.new_ones(len(rows), 1), targets)
        return at_tick(right_by_tick(predictions, targets), most_certain_tick(certainties)).all(1)

    def _add_order(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Adds orders; returns which are right as a whole."""
        length = targets.shape[1]
        found = emissions(predictions)
        # how many places have been emitted by the end of each tick, [K]
        ticks = torch.arange(self.num_ticks, device=found.ticks.device)
        is_emitted = (found.ticks >= 0)[..., None] & (found.ticks[..., None] <= ticks)
        total = is_emitted.sum(1).clamp(max=length).sum(0).double() / length
        self.emitted = total if self.emitted is None else self.emitted + total
        indices = torch.nn.functional.pad(found.indices, (0, length), value=-1)[:, :length]
        return (indices == targets).all(1) & (found.counts == length)

    def _keep(self, observations: Any, targets: np.ndarray, is_right: np.ndarray) -> None:
        """Keeps the first samples of the batch that are right, and the first that are wrong."""
        for verdict in (True, False):
            for row in np.flatnonzero(is_right == verdict)[:_PER_BATCH].tolist():
                shown = map_arrays(observations, lambda part, row=row: part[row].cpu().numpy())
                self.candidates.append(
                    Candidate(self.num_samples + row, self.num_batches, shown, targets[row], bool(verdict))
                )


def score(
    model: AnsweringModel,
    task: EvaluationTask,
    *,
    episodes: int | None,
    seed: int,
    human: Tensor | None = None,
    seconds: float = SECONDS,
) -> Scored:
    """Evaluates a model for its report.

    Args:
        model: the model, on the CPU.
        task: what it is evaluated on.
        episodes: how many samples; ``None``: see ``affordable_samples``.
        seed: of the samples.
        human: the share of people who chose each class, [N, C].
        seconds: time for the pass, and for that of halting, as far as it can be estimated.

    Returns:
        Everything that the figures need.

    Raises:
        UserError: the environment cannot be made, or does not fit.
    """
    evaluate = functools.partial(evaluate_answers, model, task, seed=seed, device=torch.device("cpu"), human=human)
    if episodes is None:
        episodes = affordable_samples(model, task, seed=seed, human=human, seconds=seconds)
    can_halt = isinstance(model, ContinuousThoughtMachine) and task.loss != "order"
    observer = _Observer(model, task.loss, episodes if can_halt else 0, human)
    started = time.process_time()
    result = evaluate(episodes=episodes, observe=observer)
    taken = max(time.process_time() - started, 1e-3)
    has_ticks = observer.num_ticks > 1 and task.loss != "order"
    batches = _first_samples(observer.batches, int(seconds / (len(HALT_THRESHOLDS) * taken) * observer.num_samples))
    halting = halting_curve(model, joined(batches)) if can_halt and has_ticks else []
    return Scored(
        result=result,
        by_tick=observer.scores.summary() if has_ticks else None,
        calibration=observer.calibration.summary() if has_ticks and observer.calibration is not None else [],
        human=None if human is None else observer.people.summary()["last"],
        halting=halting,
        num_halting=sum(len(batch.targets) for batch in batches) if halting else 0,
        emitted=[] if observer.emitted is None else (observer.emitted / observer.num_samples).tolist(),
        candidates=observer.candidates,
        has_answer_ticks=bool(model.config.num_answer_ticks),
    )


def affordable_samples(
    model: AnsweringModel, task: EvaluationTask, *, seed: int, human: Tensor | None = None, seconds: float = SECONDS
) -> int:
    """How many samples are answered: as many as ``evaluate`` has, or a few, or hundreds, that take a time.

    Args:
        model: the model, on the CPU.
        task: what it is evaluated on.
        seed: of the samples.
        human: the share of people who chose each class, [N, C].
        seconds: the time.

    Raises:
        UserError: the environment cannot be made, or does not fit.
    """
    count = 0
    for tried in (_MIN_SAMPLES, BATCH_SIZE):
        started = time.process_time()
        evaluate_answers(model, task, episodes=tried, seed=seed, device=torch.device("cpu"), human=human)
        count = int(seconds * tried / max(time.process_time() - started, 1e-3))
        if count < 2 * BATCH_SIZE:
            break
    count = count // BATCH_SIZE * BATCH_SIZE if count >= BATCH_SIZE else max(count, _MIN_SAMPLES)
    return min(NUM_SAMPLES if human is None else len(human), count)


def _first_samples(batches: Sequence[Batch], count: int) -> list[Batch]:
    """Whole batches of at most so many samples; if there is none, some samples of the first batch."""
    kept: list[Batch] = []
    for batch in batches:
        count -= len(batch.targets)
        if count < 0:
            break
        kept.append(batch)
    if kept or not batches:
        return kept
    first, rows = batches[0], slice(0, max(count + len(batches[0].targets), _MIN_SAMPLES))
    question = None if first.question is None else first.question[rows]
    return [Batch(first.inputs[rows], question, first.targets[rows])]


def calibrated_ticks(num_ticks: int) -> list[int]:
    """The numbers of ticks whose calibration is computed, from 1 to all."""
    return np.unique(np.linspace(1, num_ticks, min(num_ticks, _NUM_CALIBRATED)).round().astype(int)).tolist()


def accuracy_by_confidence(found: dict[str, Any]) -> list[float]:
    """The accuracy in each bin of the confidence; NaN where there are few answers.

    Args:
        found: of ``metrics.CalibrationScores``, one reading.
    """
    return [one["accuracy"] if one["count"] >= MIN_COUNT else np.nan for one in found["reliability"]]


def describe_score(values: dict[str, Any], name: str) -> str:
    """A score with its interval."""
    low, high = values[f"{name}_interval"]
    return f"{values[name]:.4f} ({low:.4f} to {high:.4f})"
