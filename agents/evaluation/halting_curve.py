"""What thinking less costs: accuracy, ticks and time of a model whose rows halt, for several certainties."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ctm_rl.errors import UserError
from ctm_rl.metrics import AnswerScores
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, group

HALT_THRESHOLDS = (
    *(None, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
    *(0.9999, 0.99999, 0.999999),  # policies are often surer than answers
)
"""Certainties of a curve; None: all ticks are taken."""


_NUM_JOINED = 4
"""How many batches become one."""
_SMALL = 4096
"""Numbers of an input, at most, for that."""


class Batch(NamedTuple):
    """Inputs with their right answers."""

    inputs: Tensor
    """What a model is shown, [B, ...]."""
    question: Int[Tensor, "B N"] | None
    """Of digits only."""
    targets: Int[Tensor, "B G"]
    """Classes."""


def check_can_halt_answers(model: ContinuousThoughtMachine | FeedForwardModel, loss: str) -> None:
    """Refuses models that have nothing to halt.

    Raises:
        UserError: the model does not tick, or its answer is spread over its ticks.
    """
    if isinstance(model, FeedForwardModel):
        raise UserError("halting is for models that tick, and kind mlp answers once; use kind ctm, lstm or gru.")
    if loss == "order":
        raise UserError("halting is for answers that stand at every tick; a sorting model spreads its answer over all.")


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """Joins batches of small inputs: the part of a tick that does not depend on the rows counts for less then."""
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
    """Lets every row halt at each of several certainties.

    Args:
        model: one that ticks, in evaluation mode.
        batches: what it is asked.
        thresholds: certainties that are enough, from 0 to 1; ``None``: none is.

    Returns:
        For each threshold ``threshold``, ``ticks_mean``, ``accuracy`` (share of right elements), ``accuracy_whole`` (of
        samples right throughout), both read after the row's last tick, and ``seconds_per_sample``, wall time.
    """
    assert isinstance(model, ContinuousThoughtMachine)
    scores = [AnswerScores() for _ in thresholds]
    ticks, seconds = [0] * len(thresholds), [0.0] * len(thresholds)
    num_samples = 0
    for batch in batches:
        if not num_samples:  # what is only slow the first time is nobody's time
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
            "accuracy": summaries[index]["accuracy"],
            "accuracy_whole": summaries[index]["accuracy_whole"],
            "seconds_per_sample": seconds[index] / num_samples,
        }
        for index, threshold in enumerate(thresholds)
    ]


def _now(device: torch.device) -> float:
    """The time when all that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def threshold_name(threshold: float | None) -> str:
    """What a person calls a point of the curve."""
    return "all ticks" if threshold is None else f"halting at {threshold:g}"
