"""Losses of the supervised tasks, from two ticks of each sample: the best one and the most certain one."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ctm_rl.config import AnswerConfig, check_at_least
from ctm_rl.models.answering import Thought, group

LOOKAHEAD = 5
"""How many steps beyond those already right count in the loss of a route, as published."""


def tick_losses(
    predictions: Float[Tensor, "B G C K"], targets: Int[Tensor, "B G"], mask: Bool[Tensor, "B G"] | None = None
) -> Float[Tensor, "B K"]:
    """Cross-entropy of every sample at every tick, mean over the groups of an answer.

    Args:
        predictions: logits, [B, G, C, K].
        targets: classes, [B, G].
        mask: which groups count, [B, G], at least one for each sample; None: all.

    Returns:
        l_k of each sample, [B, K].
    """
    expanded = targets.long()[..., None].expand(-1, -1, predictions.shape[-1])  # [B, G, K]
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
    tick carries gradient. With a single tick this is the plain loss. Source: arXiv:2505.05522, section 3.6.

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

    With n the length of the longest correct beginning of the route over all ticks, the first
    ``max(n - 1, 0) + lookahead`` steps. Source: arXiv:2505.05522, maze experiments; the -1 is in the published code.

    Args:
        predictions: logits, [B, G, C, K].
        targets: moves, [B, G].
        lookahead: steps beyond what is already right, at least 1.

    Returns:
        One flag for each step, [B, G].
    """
    check_at_least("lookahead", lookahead, 1)
    is_right = predictions.argmax(2) == targets[..., None]  # [B, G, K]
    num_right = is_right.long().cumprod(1).sum(1).max(-1).values  # [B]
    limit = (num_right - 1).clamp(min=0) + lookahead
    return torch.arange(targets.shape[1], device=targets.device) < limit[:, None]


def sorting_loss(predictions: Float[Tensor, "B C K"], targets: Int[Tensor, "B N"]) -> Float[Tensor, ""]:
    """Connectionist temporal classification over the ticks: the order, emitted one index at a time.

    Infinite with fewer ticks than numbers, which cannot all be emitted.

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
    config: AnswerConfig,
    thought: Thought,
    targets: Int[Tensor, "B ..."],
    *,
    use_curriculum: bool = False,
    lookahead: int = LOOKAHEAD,
    use_most_certain: bool = True,
) -> Float[Tensor, ""]:
    """The loss of answers that are classes at every tick: images, parity, mazes, questions.

    Args:
        config: of the model; its groups, and for questions which ticks answer.
        thought: the answers of the model.
        targets: classes, [B] or [B, G].
        use_curriculum: count only the beginning of a route (mazes), see ``route_mask``.
        lookahead: see ``route_mask``; only with ``use_curriculum``.
        use_most_certain: see ``two_tick_loss``.

    Returns:
        A scalar.
    """
    predictions = group(thought.predictions, config.num_groups)
    certainties = thought.certainties
    if config.num_answer_ticks and config.kind != "mlp":  # a feed-forward network answers once
        num_ticks, num_counted = predictions.shape[-1], config.num_answer_ticks
        if num_counted > num_ticks:
            raise ValueError(f"num_answer_ticks must be from 1 to {num_ticks}, all ticks, got {num_counted}.")
        predictions, certainties = predictions[..., -num_counted:], certainties[:, -num_counted:]
    targets = targets.reshape(len(targets), -1)
    mask = route_mask(predictions, targets, lookahead) if use_curriculum else None
    return two_tick_loss(tick_losses(predictions, targets, mask), certainties, use_most_certain)
