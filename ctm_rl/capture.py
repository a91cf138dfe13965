"""Captured graphs: on a GPU an unroll is thousands of small kernels, launched at once when they have been captured.

A graph is captured for each shape of an unroll: forward and backward pass, by ``torch.cuda.make_graphed_callables``.
Inside, ticks follow one another as in :func:`ctm_rl.unroll.step_through`, whose restarts select by a mask and are the
same kernels whatever the mask says. It remembers everything for the way back, so memory grows with M x T K; where that,
or the capture, fails, the log says so in one line and the unroll goes on as without.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ctm_rl.core import Core
from ctm_rl.state import AnyState
from ctm_rl.unroll import step_through

MakeGraph = Callable[[nn.Module, tuple[Tensor, ...]], Callable[..., tuple[Tensor, ...]]]
"""From a module and arguments like those to come to the same function, captured."""

_WARM_UPS = 3
_LOG = logging.getLogger(__name__)


class CapturedUnrolls:
    """The graphs of one core, captured when a shape is met for the first time.

    Args:
        num_ticks: K.
        make_graph: captures; ``None``: as CUDA does.
    """

    def __init__(self, num_ticks: int, make_graph: MakeGraph | None = None) -> None:
        self._num_ticks = num_ticks
        self._make_graph = make_graph or _capture_on_cuda
        self._graphs: dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]] = {}
        self._has_failed = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "CapturedUnrolls":
        """A copied core has parameters of its own, which no graph knows."""
        return CapturedUnrolls(self._num_ticks, self._make_graph)

    def __getstate__(self) -> dict[str, Any]:
        """Graphs stay in the process that captured them."""
        return {**self.__dict__, "_graphs": {}}

    def run(
        self,
        core: Core[Any],
        features: Float[Tensor, "T B F"],
        is_first: Bool[Tensor, "T B"],
        state: AnyState,
        make_graph_on: str = "cuda",
    ) -> tuple[Float[Tensor, "T B P"], AnyState] | None:
        """Unrolls through a graph; arguments and results as of :func:`ctm_rl.unroll.step_through`.

        Args:
            core: the machine or a baseline, always the same.
            features: of every step, [T, B, F].
            is_first: which rows start an episode with each step, [T, B].
            state: before the first step, B rows.
            make_graph_on: type of the device that graphs can be captured on.

        Returns:
            What the heads read and the state after the last step, or ``None``: it cannot be captured, use another way.
        """
        if self._has_failed:
            return None
        if features.device.type != make_graph_on:
            self._give_up(f"graphs are captured on {make_graph_on}, and this policy computes on {features.device.type}")
            return None
        parts = [part for part in state if part is not None]
        arguments = features, is_first, *parts
        key = tuple((part.shape, part.dtype, part.requires_grad) for part in arguments)
        if key not in self._graphs:
            try:
                module = _Steps(core, type(state), [part is not None for part in state], self._num_ticks)
                self._graphs[key] = self._make_graph(module, arguments)
            except (RuntimeError, ValueError, TypeError) as error:  # out of memory is a RuntimeError too
                self._give_up(" ".join(str(error).split()))
                return None
        sync, *last = self._graphs[key](*arguments)
        remaining = iter(last)
        # a graph writes its results into the same memory every time
        last_state = type(state)._make(None if part is None else next(remaining).clone() for part in state)
        return sync, last_state

    def _give_up(self, reason: str) -> None:
        self._has_failed = True
        _LOG.warning("the unroll is not captured as a graph (%s); it runs as without.", reason)


class _Steps(nn.Module):
    """The steps as a function of tensors alone, which is what can be captured."""

    def __init__(self, core: Any, kind: Any, has_part: list[bool], num_ticks: int) -> None:
        super().__init__()
        self.core = core
        self._kind, self._has_part, self._num_ticks = kind, has_part, num_ticks

    def forward(self, features: Tensor, is_first: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(parts)
        state = self._kind._make(next(remaining) if is_there else None for is_there in self._has_part)
        sync, last = step_through(self.core, features, is_first, state, self._num_ticks)
        return sync, *(part for part in last if part is not None)


def _capture_on_cuda(module: nn.Module, arguments: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    samples = tuple(part.detach().clone().requires_grad_(part.requires_grad) for part in arguments)
    return torch.cuda.make_graphed_callables(module, samples, num_warmup_iters=_WARM_UPS)  # pyright: ignore
