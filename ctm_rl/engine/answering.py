"""All ticks of thought about one input as one autograd node.

Equal to ticking one by one (``machine.core.think``) in value and gradient, several times faster and with a fraction
of the memory, because

- histories lie in one sliding buffer (``engine.unrolled_neuron_models``), which grows with M + K and not with M K;
- projections that follow each other are multiplied once (``engine.answering_attention``), and the output sync,
  which nothing inside the ticks reads, is computed over all ticks at once (``engine.answering_sync``);
- the backward pass is written by hand and sums the weight gradients of each dense layer over all ticks in one product.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctm_rl.engine.answering_attention import AttentionBackward, AttentionForward
from ctm_rl.engine.answering_input import InputBackward, InputForward
from ctm_rl.engine.answering_sync import AccumulateAlpha, tick_counts
from ctm_rl.engine.answering_weights import AnsweringPlan, AnsweringTensors, Readings, fold_answering
from ctm_rl.engine.tensor_trees import flatten, structure_of, unflatten
from ctm_rl.engine.unrolled_neuron_models import NeuronModelsBackward, NeuronModelsForward, NeuronModelTape
from ctm_rl.machine.attention import AttentionReading, ConstantReading
from ctm_rl.machine.core import Core, CTMCore
from ctm_rl.machine.synchronisation import Synchronisation, accumulate, decay_of, multiply_pairs


def can_think_fast(core: Core[Any], readings: Readings) -> bool:
    """Whether ``think_fast`` supports this core and all of these readings.

    It supports any synapse, pairing and depth, dropout of synapse and attention; not a windowed synchronisation, nor
    norms or active dropout in the neuron-level models, nor other cores; and nothing while a compiler is tracing.
    """
    if not isinstance(core, CTMCore) or torch.compiler.is_compiling():
        return False
    config = core.config
    nlm_dropout = config.dropout if config.nlm_dropout is None else config.nlm_dropout
    if config.sync_window or config.use_nlm_norm or (core.training and nlm_dropout > 0):
        return False
    attended = [reading for reading in readings if isinstance(reading, AttentionReading)]
    num_known = len(attended) + sum(isinstance(reading, ConstantReading) for reading in readings)
    if num_known < len(readings) or (attended and core.action_sync is None):
        return False
    shapes = {reading.memory.keys.shape for reading in attended}
    return len({id(reading.reader) for reading in attended}) <= 1 and len(shapes) <= 1


def think_fast(
    core: CTMCore,
    readings: Readings,
    num_rows: int,
    read: Callable[[Float[Tensor, "B k P"]], Float[Tensor, "B k O"]],
) -> Float[Tensor, "B K O"]:
    """Thinks from the learned start state, one tick for each reading.

    Inside autocast the ticks run in the parameters' own precision. Without gradient nothing but the state is kept from
    tick to tick, and answers are read one tick at a time.

    Args:
        core: one that ``can_think_fast`` with these readings.
        readings: what to read at each tick; the same object for ticks that read the same.
        num_rows: B.
        read: maps the output sync of some ticks to their answers.

    Returns:
        The answers after each tick.
    """
    weight = core.start_pre_history
    # autocast knows no meta device, on which the memory of a pass is estimated
    with torch.autocast("cpu" if weight.is_meta else weight.device.type, enabled=False):
        tensors, plan = fold_answering(core, readings, num_rows)
        sync = core.output_sync
        if not plan.is_recording:
            ticking = FastTicking(plan, tensors, sync)
            return torch.cat([read(ticking.tick()[:, None]) for _ in readings], 1)
        decay, roots = _decay_and_roots(sync, len(readings))
        activations = cast(Tensor, _AnsweringFunction.apply(plan, structure_of(tensors), *flatten(tensors)))
        alphas = cast(Tensor, AccumulateAlpha.apply(activations, decay, sync.left, sync.right))
        synced = alphas[1:] * roots[..., None]
        return read(synced.permute(2, 0, 1))


@torch.no_grad()
def fast_ticking(core: CTMCore, readings: Readings, num_rows: int) -> "FastTicking":
    """``think_fast`` one tick at a time, without gradient, for halting; the core must be in evaluation mode.

    Where rows are taken out, the readings are overwritten and must not be used again.

    Args:
        core: one that ``can_think_fast`` with these readings.
        readings: what to read at each tick.
        num_rows: B.
    """
    with torch.autocast(core.start_pre_history.device.type, enabled=False):
        tensors, plan = fold_answering(core, readings, num_rows)
        return FastTicking(plan, tensors, core.output_sync)


class FastTicking:
    """Ticks without a backward pass, of which only the state is kept.

    Args:
        plan: from ``fold_answering``.
        tensors: from ``fold_answering`` too.
        sync: the output sync.
    """

    def __init__(self, plan: AnsweringPlan, tensors: AnsweringTensors, sync: Synchronisation) -> None:
        self._forward = AnsweringForward(plan, tensors)
        decay, roots = _decay_and_roots(sync, len(plan.constants))
        self._sync, self._decay, self._roots = sync, decay[:, None], roots[..., None]
        self._alpha = self._products(self._forward.neurons.activation)
        self._tick = 0

    def tick(self) -> Float[Tensor, "b P"]:
        """Runs one more tick; returns the output sync."""
        z = self._forward.run(self._tick)
        products = self._products(z)
        self._alpha = accumulate(self._alpha, products, self._decay, out=products)
        self._tick += 1
        return (self._alpha * self._roots[self._tick - 1]).T

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone."""
        self._forward.keep(rows)
        self._alpha = self._alpha.index_select(1, rows)

    def _products(self, z: Float[Tensor, "D b"]) -> Float[Tensor, "P b"]:
        return multiply_pairs(z[self._sync.left], z[self._sync.right], 0)


def _decay_and_roots(sync: Synchronisation, num_ticks: int) -> tuple[Float[Tensor, " P"], Float[Tensor, "K P"]]:
    """The factor of the past at each tick, and 1 / sqrt(beta) after each of K ticks."""
    decay = decay_of(sync.decay_rate, sync.max_decay_rate)
    return decay, tick_counts(decay, num_ticks + 1)[1:].rsqrt()


class AnsweringForward:
    """The forward pass of all parts of the machine, tick by tick.

    Args:
        plan: from ``fold_answering``.
        parts: the tensors from ``fold_answering``.
    """

    def __init__(self, plan: AnsweringPlan, parts: AnsweringTensors) -> None:
        num_ticks, num_rows, is_recording = len(plan.constants), plan.num_rows, plan.is_recording
        self._input = InputForward(parts.inputs, plan.constants, plan.input_mask, is_recording)
        self._attention = None
        if plan.attention is not None and parts.attention is not None:
            self._attention = AttentionForward(
                parts.attention, plan.attention, parts.memories, plan.attention_mask, num_rows, is_recording
            )
        shape = num_ticks, num_rows, len(parts.inputs.bias)
        self._synapse = plan.synapse.forward(parts.synapse, plan.synapse_masks, shape, is_recording)
        history = parts.start_history[..., None].expand(-1, -1, num_rows)
        activation = parts.start_activation[:, None].expand(-1, num_rows)
        # where nothing is recorded, a window never reaches back further than M
        capacity = num_ticks if is_recording else min(num_ticks, history.shape[1])
        self.neurons = NeuronModelsForward(parts.neurons, history, activation, capacity, is_recording)

    def run(self, tick: int) -> Float[Tensor, "D B"]:
        """Runs one tick; returns its z."""
        neurons = self.neurons
        z = neurons.activation
        attended = None if self._attention is None else self._attention.run(tick, z)
        self._input.run(tick, attended, z, self._synapse.first(tick))
        if not neurons.has_room(1):
            neurons.slide()
        neurons.newest.copy_(self._synapse.run(tick).T)
        return neurons.tick()

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone, where nothing is recorded and nothing dropped."""
        self.neurons.keep(rows)
        self._input.keep(rows)
        self._synapse.keep(len(rows))
        if self._attention is not None:
            self._attention.keep(rows)

    def tapes(self) -> tuple[NeuronModelTape, list[Tensor], Sequence[Sequence[Tensor]], list[Tensor]]:
        """What the backward pass of each part needs."""
        attention = [] if self._attention is None else self._attention.tape()
        return self.neurons.tape(), self._input.tape(), self._synapse.tape(), attention


class _AnsweringFunction(torch.autograd.Function):
    """All ticks; returns z before the first and after each, [K + 1, D, B]."""

    @staticmethod
    def forward(
        ctx: Any, plan: AnsweringPlan, structure: AnsweringTensors, *tensors: Tensor | None
    ) -> Float[Tensor, "K1 D B"]:
        """Runs the ticks."""
        forward = AnsweringForward(plan, unflatten(structure, tensors))
        for tick in range(len(plan.constants)):
            forward.run(tick)
        tapes = forward.tapes()
        ctx.save_for_backward(*tensors, *flatten(tapes))
        ctx.plan, ctx.saved = plan, (structure, structure_of(tapes))
        return forward.neurons.activations

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """All ticks, from the last to the first."""
        parts, tapes = unflatten(ctx.saved, ctx.saved_tensors)
        with torch.autocast(grads[0].device.type, enabled=False):
            return None, None, *_run_backward(ctx.plan, parts, tapes, grads[0])


def _run_backward(
    plan: AnsweringPlan, parts: AnsweringTensors, tapes: Any, d_activations: Float[Tensor, "K1 D B"]
) -> list[Tensor | None]:
    """The gradients of all tensors, flattened."""
    num_neurons, length = parts.start_history.shape
    neuron_tape, input_tape, synapse_tape, attention_tape = tapes
    d_history = d_activations.new_zeros(num_neurons, length, plan.num_rows)
    neurons = NeuronModelsBackward(parts.neurons, neuron_tape, d_history)
    inputs = InputBackward(parts.inputs, plan.constants, plan.input_mask, input_tape)
    synapse = plan.synapse.backward(parts.synapse, plan.synapse_masks, synapse_tape)
    attention = None
    if plan.attention is not None and parts.attention is not None:
        attention = AttentionBackward(
            parts.attention, plan.attention, parts.memories, plan.attention_mask, attention_tape
        )
    d_ticks, z_ticks = d_activations.unbind(0), neuron_tape.activations.unbind(0)
    d_z = torch.zeros_like(z_ticks[0])
    for tick in reversed(range(len(plan.constants))):
        d_z.add_(d_ticks[tick + 1])
        d_pre = d_z.new_empty(plan.num_rows, num_neurons)
        neurons.tick(tick, d_z, d_pre)
        d_first = synapse.run(tick, d_pre)
        if attention is None:
            d_z = inputs.run(tick, d_first, None)
            continue
        read = attention.next_read() if plan.constants[tick] is None else None
        d_z = inputs.run(tick, d_first, None if read is None else attention.d_mixed_reads[read])
        attention.run(tick, read, z_ticks[tick], d_z)
    d_z.add_(d_ticks[0])
    return flatten(
        AnsweringTensors(
            start_history=neurons.d_history().sum(-1),
            start_activation=d_z.sum(-1),
            inputs=inputs.grads(
                synapse.d_first, neuron_tape.activations[:-1], None if attention is None else attention.mixed
            ),
            attention=None if attention is None else attention.grads(),
            neurons=neurons.grads(),
            synapse=synapse.grads(),
            memories=[] if attention is None else attention.memory_grads(),
        )
    )
