"""Accuracy, ticks and time of a model whose rows halt at a certainty, for several certainties."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ctm_rl.errors import UserError
from ctm_rl.metrics import AnswerScores
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, group

HALT_THRESHOLDS = (
    *(None, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
    *(0.9999, 0.99999, 0.999999),  # policies are often more certain than answers
)
"""Certainties of a curve; ``None``: all ticks are taken."""


_ACCURACIES = ("accuracy", "accuracy_interval", "accuracy_whole", "accuracy_whole_interval")
_NUM_JOINED = 4
"""Number of batches that are joined."""
_SMALL = 4096
"""Only inputs of at most this many numbers are joined."""


class Batch(NamedTuple):
    """Inputs with their targets."""

    inputs: Tensor
    """Inputs, [B, ...]."""
    question: Int[Tensor, "B N"] | None
    """Questions, of digits only."""
    targets: Int[Tensor, "B G"]
    """Target classes."""


def check_can_halt_answers(model: ContinuousThoughtMachine | FeedForwardModel, loss: str) -> None:
    """Refuses models that cannot halt.

    Raises:
        UserError: the model has no ticks, or its answer is spread over them.
    """
    if isinstance(model, FeedForwardModel):
        raise UserError("halting needs a model with ticks, which kind mlp does not have; use kind ctm, lstm or gru.")
    if loss == "order":
        raise UserError("halting needs an answer at every tick; a sorting model spreads its answer over all ticks.")


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """Joins batches of small inputs, so that the cost of a tick that does not depend on the rows matters less."""
    if not batches or batches[0].question is not None or batches[0].inputs[0].numel() > _SMALL:
        return list(batches)
    parts = [batches[first : first + _NUM_JOINED] for first in range(0, len(batches), _NUM_JOINED)]
    return [
        Batch(torch.cat([batch.inputs for batch in part]), None, torch.cat([batch.targets for batch in part]))
        for part in parts
    ]


def halting_curve(
    model: ContinuousThoughtMachine | FeedForwardModel,
    batches: Iterable[Batch],
    thresholds: Sequence[float | None] = HALT_THRESHOLDS,
) -> list[dict[str, Any]]:
    """Measures a model whose rows halt at each of several certainties.

    Args:
        model: with ticks, in evaluation mode.
        batches: held-out samples.
        thresholds: certainties to halt at, from 0 to 1; ``None``: no halting.

    Returns:
        For each threshold ``threshold``, ``ticks_mean``, ``accuracy`` (share of correct elements), ``accuracy_whole``
        (share of samples with all elements correct), both after the row's last tick and with their intervals, and
        ``seconds_per_sample``.
    """
    assert isinstance(model, ContinuousThoughtMachine)
    scores = [AnswerScores() for _ in thresholds]
    ticks, seconds = [0] * len(thresholds), [0.0] * len(thresholds)
    num_samples = 0
    for batch in batches:
        if not num_samples:  # the first call is slower, and is not measured
            model.think(batch.inputs, batch.question, halt_certainty=None)
        num_samples += len(batch.targets)
        for index, threshold in enumerate(thresholds):
            started = _now(batch.targets.device)
            halted = model.think(batch.inputs, batch.question, halt_certainty=threshold)
            seconds[index] += _now(batch.targets.device) - started
            ticks[index] += int(halted.ticks.sum())
            predictions = group(halted.predictions[..., None], model.config.num_groups)
            scores[index].add(predictions, halted.certainty[:, None], batch.targets)
    summaries = [score.summary() for score in scores]
    return [
        {
            "threshold": threshold,
            "ticks_mean": ticks[index] / num_samples,
            **{name: summaries[index][name] for name in _ACCURACIES},
            "seconds_per_sample": seconds[index] / num_samples,
        }
        for index, threshold in enumerate(thresholds)
    ]


def _now(device: torch.device) -> float:
    """The time after a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def describe_points(result: dict[str, Any], describe: Callable[[dict[str, Any]], str]) -> str:
    """A line of text for each point of a result's halting curve.

    Args:
        result: of an evaluation; without ``halting`` there are no lines.
        describe: returns what follows the number of ticks.

    Returns:
        The lines, each after a line break.
    """
    lines = []
    for point in result.get("halting", ()):
        threshold = point["threshold"]
        name = "all ticks" if threshold is None else f"halting at {threshold:g}"
        lines.append(f"\n  {name}: {point['ticks_mean']:.2f} ticks{describe(point)}")
    return "".join(lines)
