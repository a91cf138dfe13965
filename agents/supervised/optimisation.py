"""Learning rate schedules, weight decay groups, and gradient clipping by quantiles of past norms."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ctm_rl.agents.experiments.answering import LearningSettings

NUM_STORED = 1000
"""How many of its last gradient norms are stored for each parameter."""


def learning_rate(settings: LearningSettings, step: int, num_steps: int) -> float:
    """The learning rate of one optimiser step.

    A linear warm-up from 0 over ``num_warmup_steps``; then constant, or half a cosine down to 0 at ``num_steps``, or
    multiplied by ``lr_decay`` at each milestone.

    Args:
        settings: the schedule.
        step: number of steps taken before.
        num_steps: of the whole run.

    Returns:
        The rate.
    """
    warmup = settings.num_warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.schedule == "cosine":
        share = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        return settings.lr * (1 + math.cos(math.pi * share)) / 2
    if settings.schedule == "multistep":
        return settings.lr * settings.lr_decay ** sum(step >= milestone for milestone in settings.milestones)
    return settings.lr


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: LearningSettings) -> list[dict[str, Any]]:
    """Splits parameters into those with and without weight decay; an empty group is left out."""
    decayed, undecayed = [], []
    for name, parameter in named:
        is_kept = parameter.ndim < 2 or any(part in name for part in settings.undecayed)
        (undecayed if is_kept else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class QuantileClipper:
    """Scales each parameter's gradient down to a quantile of its own last 1,000 norms before clipping.

    The first gradient is not clipped. Steps in which a parameter has no gradient, or one that is not finite (half
    precision overflows now and then), are not stored for it. Source: the parity experiments of arXiv:2505.05522.

    Args:
        num_parameters: number of parameters.
        quantile: in (0, 1].
    """

    def __init__(self, num_parameters: int, quantile: float) -> None:
        self._quantile = quantile
        self._norms = torch.full((num_parameters, NUM_STORED), float("nan"))  # NaN: nothing is stored
        self._count = 0

    def clip_(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clips in place.

        Args:
            parameters: the same in every call, in the same order; those without a gradient are skipped.

        Returns:
            The norm of all gradients together, before clipping.
        """
        present = [(index, parameter.grad) for index, parameter in enumerate(parameters) if parameter.grad is not None]
        indices, grads = [index for index, _ in present], [grad for _, grad in present]
        if not grads:
            return torch.zeros(())
        norms = torch.stack([torch.linalg.vector_norm(grad) for grad in grads])
        self._norms = self._norms.to(norms.device)
        known = min(self._count, NUM_STORED)
        if known:
            limits = torch.nanquantile(self._norms[indices, :known], self._quantile, dim=1)
            scales = (limits / norms.clamp(min=1e-12)).clamp(max=1.0).nan_to_num(nan=1.0)
            for grad, scale in zip(grads, scales, strict=True):
                grad.mul_(scale)
        stored = torch.where(norms.isfinite(), norms.float(), float("nan"))
        self._norms[:, self._count % NUM_STORED] = float("nan")
        self._norms[indices, self._count % NUM_STORED] = stored
        self._count += 1
        return torch.linalg.vector_norm(norms)

    def get_state(self) -> dict[str, Any]:
        """Returns the stored norms."""
        return {"norms": self._norms.cpu().clone(), "count": self._count}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state from ``get_state``."""
        self._norms, self._count = torch.as_tensor(state["norms"]).clone(), int(state["count"])
