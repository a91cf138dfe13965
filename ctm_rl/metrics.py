"""How right the answers of a model are, tick by tick."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Accuracy(NamedTuple):
    """Shares of right answers; K ticks."""

    by_tick: Float[Tensor, " K"]
    """Share of right elements after each tick."""
    most_certain: float
    """Share of right elements, each sample read at its most certain tick."""
    whole: float
    """Share of samples right in every element, read at their most certain tick."""


def accuracy(
    predictions: Float[Tensor, "B G C K"], certainties: Float[Tensor, "B K"], targets: Int[Tensor, "B G"]
) -> Accuracy:
    """Compares answers with the truth.

    Args:
        predictions: logits, [B, G, C, K].
        certainties: [B, K].
        targets: classes, [B, G].

    Returns:
        Accuracies over the batch.
    """
    is_right: Bool[Tensor, "B G K"] = predictions.argmax(2) == targets[..., None]
    chosen = certainties.argmax(1)[:, None, None].expand(-1, is_right.shape[1], 1)
    is_chosen_right = is_right.gather(2, chosen).squeeze(2)  # [B, G]
    return Accuracy(
        is_right.float().mean((0, 1)),
        float(is_chosen_right.float().mean()),
        float(is_chosen_right.all(1).float().mean()),
    )


def decode_sorting(predictions: Float[Tensor, "B C K"]) -> list[list[int]]:
    """Reads what was emitted over the ticks: the likeliest class of each, repetitions merged, blanks left out.

    Args:
        predictions: logits of N indices and, last, the blank, [B, N + 1, K].

    Returns:
        The indices of each sample, in the order they were emitted; their number varies.
    """
    blank = predictions.shape[1] - 1
    emitted = []
    for row in predictions.argmax(1):
        merged = torch.unique_consecutive(row)
        emitted.append([int(index) for index in merged if index != blank])
    return emitted
