"""Accuracy of the answers of a model, tick by tick."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ctm_rl.metrics.intervals import share_interval
from ctm_rl.metrics.sums import Sums, shares


def right_by_tick(predictions: Float[Tensor, "B G C K"], targets: Int[Tensor, "B G"]) -> Bool[Tensor, "B G K"]:
    """Whether the likeliest class of each element, the first of equally likely ones, is right after each tick.

    Args:
        predictions: logits, [B, G, C, K].
        targets: classes, [B, G].

    Returns:
        One flag for each element and tick, [B, G, K].
    """
    # max rather than argmax, which on a CPU takes up to twelve times as long along an inner axis.
    return predictions.max(2).indices == targets[..., None]


def most_certain_tick(certainties: Float[Tensor, "B K"]) -> Int[Tensor, " B"]:
    """The tick at which each sample is read: ``argmax_k certainty_k``, the earliest of equally certain ones.

    Source: arXiv:2505.05522, section 3.6, whose loss uses the same tick.

    Args:
        certainties: [B, K].

    Returns:
        Ticks from 0 to K - 1, [B].
    """
    return certainties.argmax(1)


def at_tick(values: Shaped[Tensor, "B ... K"], tick: Int[Tensor, " B"]) -> Shaped[Tensor, "B ..."]:
    """Selects one tick for each sample.

    Args:
        values: anything with samples first and ticks last, [B, ..., K].
        tick: of each sample, from 0 to K - 1, [B].

    Returns:
        The values of that tick, [B, ...].
    """
    return values.movedim(-1, 1)[torch.arange(len(tick), device=tick.device), tick]


class AnswerScores:
    """Accuracy by tick, at the last and at the most certain tick, over all samples added, which weigh equally.

    An element is one of the G classes of an answer; an answer is whole if all of them are right. For questions, pass
    the ticks that answer. Source of both readings: arXiv:2505.05522, section 3.6.
    """

    def __init__(self) -> None:
        self._sums = Sums()

    def add(
        self, predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
    ) -> None:
        """Adds one batch; G and K must be the same in all batches, B may differ.

        Args:
            predictions: logits, [B, G, C, K].
            certainties: [B, K].
            targets: classes, [B, G].
        """
        is_right = right_by_tick(predictions, targets)
        is_chosen_right = at_tick(is_right, most_certain_tick(certainties))  # [B, G]
        self._sums.add(
            num_samples=torch.tensor(len(targets)),
            num_elements=torch.tensor(targets.numel()),
            elements=is_right.sum((0, 1)),
            whole=is_right.all(1).sum(0),
            chosen_elements=is_chosen_right.sum(),
            chosen_whole=is_chosen_right.all(1).sum(),
            chosen_squares=is_chosen_right.sum(1).square().sum(),
            certainty=certainties.double().sum(0),
        )

    def summary(self) -> dict[str, Any]:
        """All shares so far.

        Returns:
            ``num_samples``; at the most certain tick ``accuracy`` (share of right elements) and ``accuracy_whole``
            (share of samples right in every element), each with its interval, ``accuracy_interval`` and
            ``accuracy_whole_interval``, [low, high]; the same shares at the last tick, ``accuracy_last`` and
            ``accuracy_whole_last``; after each tick, K numbers each, ``accuracy_by_tick``, ``accuracy_whole_by_tick``
            and ``certainty_by_tick`` (mean).

        Raises:
            ValueError: no sample was added.
        """
        num_samples, num_elements = self._sums.count(), self._sums.count("num_elements")
        by_tick = shares(self._sums["elements"], num_elements)
        whole_by_tick = shares(self._sums["whole"], num_samples)
        elements, whole = int(self._sums["chosen_elements"]), int(self._sums["chosen_whole"])
        squares, size = int(self._sums["chosen_squares"]), num_elements // num_samples
        return {
            "num_samples": num_samples,
            "accuracy": elements / num_elements,
            "accuracy_interval": share_interval(elements, squares, num_samples, size),
            "accuracy_whole": whole / num_samples,
            "accuracy_whole_interval": share_interval(whole, whole, num_samples, 1),
            "accuracy_last": by_tick[-1],
            "accuracy_whole_last": whole_by_tick[-1],
            "accuracy_by_tick": by_tick,
            "accuracy_whole_by_tick": whole_by_tick,
            "certainty_by_tick": shares(self._sums["certainty"], num_samples),
        }
