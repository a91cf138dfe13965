"""CUDA graphs: the ticks are thousands of small kernels, which a captured graph launches at once.

A graph of the forward and backward pass is captured for each shape of the inputs, with
``torch.cuda.make_graphed_callables``. For a policy it is the unroll, tick by tick as in
``engine.episode.step_through``, where a reset selects by a mask and so runs the same kernels for every mask; everything
is stored for the backward pass, so memory grows with M x T K. For a model that answers it is the whole model.
Where memory does not suffice or the capture fails, a warning is logged and learning continues without a graph.
"""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ctm_rl.engine.episode import step_through
from ctm_rl.machine.core import Core
from ctm_rl.machine.state import AnyState

MakeGraph = Callable[[nn.Module, tuple[Tensor, ...]], Callable[..., tuple[Tensor, ...]]]
"""Captures a module's computation on sample arguments; returns a function that replays it."""

_WARM_UPS = 3
_LOG = logging.getLogger(__name__)


class _GraphCache:
    """The graphs of one function, captured when a shape occurs for the first time.

    Args:
        what: name of the function in the log.
        make_graph: captures a function; ``None``: with CUDA.
    """

    def __init__(self, what: str, make_graph: MakeGraph | None = None) -> None:
        self._what = what
        self._make_graph = make_graph or _capture_on_cuda
        self._graphs: dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]] = {}
        self._has_failed = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "_GraphCache":
        """Without graphs, since a copied module has parameters of its own."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__getstate__())
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Without graphs, which stay in the process that captured them."""
        return {**self.__dict__, "_graphs": {}}

    def _replay(self, make_module: Callable[[], nn.Module], arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Runs the captured function; ``None``: it cannot be captured, run it without a graph.

        A graph writes its results into the same memory every time.
        """
        if self._has_failed:
            return None
        key = tuple((part.shape, part.dtype, part.requires_grad) for part in arguments)
        if key not in self._graphs:
            try:
                self._graphs[key] = self._make_graph(make_module(), arguments)
            except (RuntimeError, ValueError, TypeError) as error:  # out of memory is a RuntimeError too
                self._give_up(" ".join(str(error).split()))
                return None
        return self._graphs[key](*arguments)

    def _give_up(self, reason: str) -> None:
        self._has_failed = True
        _LOG.warning("the %s is not captured as a graph (%s); it runs without one.", self._what, reason)


class CapturedUnrolls(_GraphCache):
    """The captured unrolls of one core.

    Args:
        num_ticks: K.
        make_graph: captures a function; ``None``: with CUDA.
    """

    def __init__(self, num_ticks: int, make_graph: MakeGraph | None = None) -> None:
        super().__init__("unroll", make_graph)
        self._num_ticks = num_ticks

    def run(
        self,
        core: Core[Any],
        features: Float[Tensor, "T B F"],
        is_first: Bool[Tensor, "T B"],
        state: AnyState,
        make_graph_on: str = "cuda",
    ) -> tuple[Float[Tensor, "T B P"], AnyState] | None:
        """Unrolls with a graph; arguments and results as of ``engine.episode.step_through``.

        Args:
            core: the machine or a baseline, always the same.
            features: of every step, [T, B, F].
            is_first: which rows start an episode with each step, [T, B].
            state: before the first step, B rows.
            make_graph_on: device type that graphs can be captured on.

        Returns:
            What the heads read and the state after the last step, or ``None``: it cannot be captured.
        """
        if self._has_failed:
            return None
        if features.device.type != make_graph_on:
            self._give_up(f"graphs are captured on {make_graph_on}, and this policy computes on {features.device.type}")
            return None
        has_part = [part is not None for part in state]
        arguments = features, is_first, *(part for part in state if part is not None)
        found = self._replay(lambda: _UnrollFunction(core, type(state), has_part, self._num_ticks), arguments)
        if found is None:
            return None
        sync, *last = found
        remaining = iter(last)
        last_state = type(state)._make(None if part is None else next(remaining).clone() for part in state)
        return sync, last_state


class CapturedAnswers(_GraphCache):
    """The captured graphs of a model that answers.

    Args:
        make_graph: captures a function; ``None``: with CUDA.
    """

    def __init__(self, make_graph: MakeGraph | None = None) -> None:
        super().__init__("model", make_graph)

    def run(self, model: nn.Module, *inputs: Tensor, make_graph_on: str = "cuda") -> tuple[Tensor, ...] | None:
        """Answers with a graph.

        Args:
            model: always the same; returns a tuple of tensors and ``None``.
            inputs: what it takes.
            make_graph_on: device type that graphs can be captured on.

        Returns:
            The tensors that it returns, valid until the next call; or ``None``: the device is of another type, the
            model is not learning, or it cannot be captured.
        """
        is_learning = model.training and torch.is_grad_enabled()
        if not is_learning or inputs[0].device.type != make_graph_on:
            return None
        return self._replay(lambda: _AnswersFunction(model), inputs)


class _UnrollFunction(nn.Module):
    """The unroll as a function of tensors alone, as a capture needs it."""

    def __init__(self, core: Any, kind: Any, has_part: list[bool], num_ticks: int) -> None:
        super().__init__()
        self.core = core
        self._kind, self._has_part, self._num_ticks = kind, has_part, num_ticks

    def forward(self, features: Tensor, is_first: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(parts)
        state = self._kind._make(next(remaining) if is_there else None for is_there in self._has_part)
        sync, last = step_through(self.core, features, is_first, state, self._num_ticks)
        return sync, *(part for part in last if part is not None)


class _AnswersFunction(nn.Module):
    """A model without the ``None`` in its results."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(part for part in self.model(*inputs) if part is not None)


def _capture_on_cuda(module: nn.Module, arguments: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    samples = tuple(part.detach().clone().requires_grad_(part.requires_grad) for part in arguments)
    gc.collect()  # an old graph that is freed during a capture would break the capture
    with _restored(module, arguments[0].device), _uncached_autocast(arguments[0].device.type):
        return torch.cuda.make_graphed_callables(  # pyright: ignore
            module, samples, num_warmup_iters=_WARM_UPS, allow_unused_input=True
        )


@contextlib.contextmanager
def _restored(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Restores running statistics and random generators, which the warm-up changes."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    generator = torch.cuda.default_generators[device.index or 0]
    try:
        with torch.random.fork_rng([device]):
            yield
    except RuntimeError:
        # a failed capture leaves its generator waiting for the end of the capture
        generator.graphsafe_set_state(generator.clone_state())
        raise
    finally:
        for buffer, before in kept:
            buffer.copy_(before)


def _uncached_autocast(device_type: str) -> torch.autocast:
    """Autocast with its current settings, without its cache, which would keep tensors that belong to the graph."""
    is_on = torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, torch.get_autocast_dtype(device_type), enabled=is_on, cache_enabled=False)
