"""Losses of the supervised tasks: over all ticks, the best one and the most certain one count."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ctm_rl.config import ThinkerConfig
from ctm_rl.models import Thought

LOOKAHEAD = 5


def tick_losses(
    predictions: Float[Tensor, "B G C K"], targets: Int[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, "B K"]:
    """Cross-entropy of every sample at every tick, mean over the groups of an answer.

    Args:
        predictions: logits, [B, G, C, K].
        targets: classes, [B, G].
        mask: which groups count, [B, G]; None: all.

    Returns:
        l_k of each sample, [B, K].
    """
    expanded = targets[..., None].expand(-1, -1, predictions.shape[-1])  # [B, G, K]
    losses = nn.functional.cross_entropy(predictions.transpose(1, 2), expanded, reduction="none")  # [B, G, K]
    if mask is None:
        return losses.mean(1)
    weights = mask[..., None].to(losses.dtype)
    return (losses * weights).sum(1) / weights.sum(1)


def two_tick_loss(
    losses: Float[Tensor, "B K"], certainties: Float[Tensor, "B K"], use_most_certain: bool = True
) -> Float[Tensor, ""]:
    """Mean of the loss at the best tick and at the most certain one.

    ``k1 = argmin l_k``, ``k2 = argmax certainty_k``, mean over the batch of ``(l_k1 + l_k2) / 2``. Neither choice of
    tick carries gradient. Source: arXiv:2505.05522, section 3.6.

    Args:
        losses: l_k of each sample, [B, K].
        certainties: [B, K].
        use_most_certain: False takes the last tick for k2, as the published baselines do.

    Returns:
        A scalar.
    """
    best = losses.min(1).values
    if not use_most_certain:
        return ((best + losses[:, -1]) / 2).mean()
    chosen = losses.gather(1, certainties.argmax(1, keepdim=True)).squeeze(1)
    return ((best + chosen) / 2).mean()


def route_mask(
    predictions: Float[Tensor, "B G C K"], targets: Int[Tensor, "B G"], lookahead: int = LOOKAHEAD
) -> Bool[Tensor, "B G"]:
    """Which steps of a route count: the curriculum of the mazes.

    With n the longest all-correct beginning of the route over all ticks, the first ``max(n - 1, 0) + lookahead``
    steps. Source: arXiv:2505.05522, maze experiments; the -1 is in the published code.

    Args:
        predictions: logits, [B, G, C, K].
        targets: moves, [B, G].
        lookahead: steps beyond what is already right.

    Returns:
        One flag a step, [B, G].
    """
    is_right = predictions.argmax(2) == targets[..., None]  # [B, G, K]
    num_right = is_right.long().cumprod(1).sum(1).max(-1).values  # [B]
    limit = (num_right - 1).clamp(min=0) + lookahead
    return torch.arange(targets.shape[1], device=targets.device) < limit[:, None]


def sorting_loss(predictions: Float[Tensor, "B C K"], targets: Int[Tensor, "B N"]) -> Float[Tensor, ""]:
    """Connectionist temporal classification over the ticks: the order, emitted one index at a time.

    Args:
        predictions: logits of N indices and, last, the blank, [B, N + 1, K].
        targets: argsort of the numbers, [B, N].

    Returns:
        A scalar: mean over the batch of the loss over N.
    """
    batch_size, num_classes, num_ticks = predictions.shape
    log_probabilities = predictions.log_softmax(1).permute(2, 0, 1)  # [K, B, C]
    num_inputs = torch.full((batch_size,), num_ticks, dtype=torch.long)
    num_targets = torch.full((batch_size,), targets.shape[1], dtype=torch.long)
    return nn.functional.ctc_loss(log_probabilities, targets, num_inputs, num_targets, blank=num_classes - 1)


def answer_loss(
    config: ThinkerConfig,
    thought: Thought,
    targets: Int[Tensor, "B ..."],
    *,
    use_curriculum: bool = False,
    use_most_certain: bool = True,
) -> Float[Tensor, ""]:
    """The loss of everything that answers with classes at every tick: images, parity, mazes, questions.

    Args:
        config: of the model; its groups and classes, and for questions which ticks answer.
        thought: what the model answered.
        targets: classes, [B] or [B, G].
        use_curriculum: count only the beginning of a route (mazes), see :func:`route_mask`.
        use_most_certain: see :func:`two_tick_loss`.

    Returns:
        A scalar.
    """
    predictions = thought.predictions.unflatten(1, (config.num_groups, config.num_classes))
    certainties = thought.certainties
    if config.num_answer_ticks:
        predictions = predictions[..., -config.num_answer_ticks :]
        certainties = certainties[..., -config.num_answer_ticks :]
    targets = targets.view(len(targets), -1).long()
    mask = route_mask(predictions, targets) if use_curriculum else None
    return two_tick_loss(tick_losses(predictions, targets, mask), certainties, use_most_certain)
