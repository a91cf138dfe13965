"""Pondering: all ticks of thought about one input as one node of the autograd graph.

Equal to ticking one by one (``machine.core.think``) in value and gradient, several times faster and with a fraction
of the memory, because

- histories lie in one sliding buffer (``engine.unrolled_neuron_models``), which grows with M + K and not with M K;
- projections that follow each other are multiplied once (``engine.answering_attention``), and the output sync,
  which nothing inside reads, is taken over all ticks at once;
- the way back is written by hand and sums the weight gradients of each dense layer over all ticks in one product.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctm_rl.engine.answering_attention import Gaze, GazeBack, GazePlan, GazeWeights, Memories
from ctm_rl.engine.answering_input import Entry, EntryBack, EntryWeights
from ctm_rl.engine.unrolled_neuron_models import (
    NeuronModelsBackward,
    NeuronModelsForward,
    NeuronModelTape,
    NeuronModelWeights,
    fold_neuron_models,
)
from ctm_rl.engine.unrolled_synapse import Masks, SynapsePlan, synapse_weights
from ctm_rl.machine.core import Core, CTMCore
from ctm_rl.machine.reading import AttentionReading, ConstantReading, Reading
from ctm_rl.machine.synchronisation import Synchronisation, accumulate, decay_of

Readings = Sequence[Reading]
"""What is read at each tick."""


def can_ponder(core: Core[Any], readings: Readings) -> bool:
    """Whether ``ponder`` knows this core and all of these readings.

    It knows any synapse, pairing and depth, dropout of synapse and attention; not a windowed synchronisation, nor norms
    or active dropout in the neuron-level models, nor other cores. Inside a compiler's trace nothing is known.
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


def ponder(
    core: CTMCore,
    readings: Readings,
    num_rows: int,
    read: Callable[[Float[Tensor, "B k P"]], Float[Tensor, "B k O"]],
) -> Float[Tensor, "B K O"]:
    """Thinks from the learned start state, one tick for each reading.

    Inside autocast the ticks run in the parameters' own precision. Without gradient nothing is kept from tick to tick
    but the state, and answers are read one tick at a time.

    Args:
        core: one that ``can_ponder`` with these readings.
        readings: what to read at each tick; the same object for ticks that read the same.
        num_rows: B.
        read: from the output sync of some ticks to an answer each.

    Returns:
        The answers after each tick.
    """
    weight = core.start_pre_history
    with torch.autocast(weight.device.type, enabled=False):
        tensors, plan = _fold(core, readings, num_rows)
        sync = core.output_sync
        decay = decay_of(sync.decay_rate, sync.max_decay_rate)
        roots = _beta(decay, len(readings) + 1)[1:].rsqrt()
        if not plan.is_recording:
            pondering = _Pondering(plan, tensors, sync, decay, roots)
            return torch.cat([read(pondering.tick()[:, None]) for _ in readings], 1)
        activations = cast(Tensor, _Ponder.apply(plan, *tensors))
        alphas = cast(Tensor, _Accumulate.apply(activations, decay, sync.left, sync.right))
        synced = alphas[1:] * roots[..., None]
        return read(synced.permute(2, 0, 1))


@torch.no_grad()
def pondering(core: CTMCore, readings: Readings, num_rows: int) -> "_Pondering":
    """The same tick by tick and without gradient, as ``machine.halting.Ticking``; the core must be evaluating.

    Where rows are given up, the readings are used up and must not be read again.

    Args:
        core: one that ``can_ponder`` with these readings.
        readings: what to read at each tick.
        num_rows: B.
    """
    with torch.autocast(core.start_pre_history.device.type, enabled=False):
        tensors, plan = _fold(core, readings, num_rows)
        sync = core.output_sync
        decay = decay_of(sync.decay_rate, sync.max_decay_rate)
        return _Pondering(plan, tensors, sync, decay, _beta(decay, len(readings) + 1)[1:].rsqrt())


class _Pondering:
    """Ticks without a way back, of which nothing is kept but the state.

    Args:
        plan: what there is to know.
        tensors: in a row, as ``_Tensors.flat`` gives them.
        sync: the output sync.
        decay: its factor of the past at each tick.
        roots: 1 / sqrt(beta) after each tick.
    """

    def __init__(
        self,
        plan: "_Plan",
        tensors: Sequence[Tensor | None],
        sync: Synchronisation,
        decay: Float[Tensor, " P"],
        roots: Float[Tensor, "K P"],
    ) -> None:
        self._forward = _Forward(plan, tensors)
        self._sync, self._decay, self._roots = sync, decay[:, None], roots[..., None]
        self._alpha = self._products(self._forward.neurons.activation)
        self._tick = 0

    def tick(self) -> Float[Tensor, "b P"]:
        """One more tick; gives the output sync."""
        z = self._forward.run(self._tick)
        products = self._products(z)
        self._alpha = accumulate(self._alpha, products, self._decay, out=products)
        self._tick += 1
        return (self._alpha * self._roots[self._tick - 1]).T

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Goes on with these rows alone."""
        self._forward.keep(rows)
        self._alpha = self._alpha.index_select(1, rows)

    def _products(self, z: Float[Tensor, "D b"]) -> Float[Tensor, "P b"]:
        return z[self._sync.left] * z[self._sync.right]


class _Plan(NamedTuple):
    """What pondering has to know beside tensors that get gradient."""

    gaze: GazePlan | None
    """How looks go; None where nothing is looked at."""
    constants: Sequence[int | None]
    """Which constant comes in at each tick; None: a look."""
    mixing: SynapsePlan
    """What the synapse looks like."""
    num_mixing: int
    """How many weights it has beside the first layer."""
    num_rows: int
    """B."""
    entry_mask: Tensor | None
    """Dropout before the first dense layer."""
    gaze_mask: Tensor | None
    """Dropout of attention."""
    mixing_masks: Masks
    """Dropout before the other dense layers."""
    is_recording: bool
    """Whether there is to be a way back."""


class _Tensors(NamedTuple):
    """The tensors of a node, sorted."""

    start_history: Tensor
    start_activation: Tensor
    entry: EntryWeights
    gaze: GazeWeights | None
    neurons: NeuronModelWeights
    mixing: Sequence[Tensor]
    memories: Sequence[Tensor]

    @staticmethod
    def sort(plan: _Plan, tensors: Sequence[Any]) -> "_Tensors":
        """From a row of tensors; ``flat`` undoes it."""
        rest = list(tensors)

        def take(count: int) -> list[Any]:
            taken = rest[:count]
            del rest[:count]
            return taken

        start_history, start_activation = take(2)
        entry = EntryWeights(*take(len(EntryWeights._fields)))
        gaze = None if plan.gaze is None else GazeWeights(*take(len(GazeWeights._fields)))
        neurons = NeuronModelWeights(*take(len(NeuronModelWeights._fields)))
        mixing = take(plan.num_mixing)
        return _Tensors(start_history, start_activation, entry, gaze, neurons, mixing, rest)

    def flat(self) -> list[Tensor | None]:
        """All in a row."""
        return [*self[:2], *self.entry, *(self.gaze or ()), *self.neurons, *self.mixing, *self.memories]


def _fold(core: CTMCore, readings: Readings, num_rows: int) -> tuple[list[Tensor | None], _Plan]:
    """Brings parameters and readings into the form that the ticks want, with gradient."""
    first, mixing_plan, mixing = synapse_weights(core.synapse)
    num_neurons = core.config.num_neurons
    of_features, recurrent = first.weight.split((first.in_features - num_neurons, num_neurons), 1)
    dropout = core.config.dropout if core.training else 0.0
    # a U-Net drops before its later layers, a row of blocks before the first one
    is_dropping = dropout > 0 and not mixing_plan.is_unet
    shape = len(readings), num_rows
    entry_mask = _mask((*shape, first.in_features), dropout, recurrent) if is_dropping else None
    widths = [weight.shape[1] for weight in mixing[: 2 * mixing_plan.num_dense : 2]]
    is_unet_dropping = dropout > 0 and mixing_plan.is_unet
    mixing_masks = [_mask((*shape, width), dropout, recurrent) if is_unet_dropping else None for width in widths]
    entry, constants = _fold_entry(readings, of_features, recurrent, first.bias, entry_mask is not None)
    gaze_plan, gaze, memories = _fold_gaze(core, readings)
    gaze_mask = None
    if gaze_plan is not None and dropout > 0:
        batch, num_heads, num_tokens, _ = memories[0].shape
        gaze_mask = _mask((len(gaze_plan.looks), batch * num_heads, 1, num_tokens), dropout, recurrent)
    neurons = fold_neuron_models(core.nlm)
    start = core.start_pre_history, core.start_post_activation
    tensors = _Tensors(*start, entry, gaze, neurons, mixing, memories).flat()
    is_recording = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in tensors)
    masks = entry_mask, gaze_mask, mixing_masks
    return tensors, _Plan(gaze_plan, constants, mixing_plan, len(mixing), num_rows, *masks, is_recording)


def _mask(shape: tuple[int, ...], dropout: float, like: Tensor) -> Tensor:
    """Factors of dropout: 0, or what keeps the mean."""
    return like.new_empty(shape).bernoulli_(1.0 - dropout).div_(1.0 - dropout)


def _fold_entry(
    readings: Readings, of_features: Tensor, recurrent: Tensor, bias: Tensor, is_dropping: bool
) -> tuple[EntryWeights, list[int | None]]:
    """The first dense layer, and which constant comes in at each tick."""
    places: dict[int, int] = {}
    constants: list[Tensor] = []
    indices: list[int | None] = []
    previous: Reading | None = None
    reader = None
    for reading in readings:
        if isinstance(reading, AttentionReading):
            reader = reading.reader
            indices.append(None)
        elif isinstance(reading, ConstantReading):
            if reading is not previous:
                places[id(reading)] = len(constants)
                constants.append(reading.features.to(bias.dtype))
            indices.append(places[id(reading)])
        previous = reading
    stacked = torch.stack(constants) if constants else None
    if is_dropping:
        out = (None, None) if reader is None else (reader.out.weight, reader.out.bias)
        return EntryWeights(recurrent, bias, of_features, *out, stacked), indices
    if stacked is not None:
        stacked = nn.functional.linear(stacked, of_features, bias)
    if reader is None:
        return EntryWeights(recurrent, bias, None, None, None, stacked), indices
    mix, mixed_bias = of_features @ reader.out.weight, torch.addmv(bias, of_features, reader.out.bias)
    return EntryWeights(recurrent, mixed_bias, mix, None, None, stacked), indices


def _fold_gaze(core: CTMCore, readings: Readings) -> tuple[GazePlan | None, GazeWeights | None, list[Tensor]]:
    """How looks go, what queries are made with, keys and values of all memories."""
    places: dict[int, int] = {}
    memories: list[Tensor] = []
    sources: list[int | None] = []
    reader = None
    for reading in readings:
        if not isinstance(reading, AttentionReading):
            sources.append(None)
            continue
        reader = reading.reader
        if id(reading) not in places:
            places[id(reading)] = len(memories) // 2
            memories += reading.memory
        sources.append(places[id(reading)])
    if reader is None:
        return None, None, []
    sync = core.action_sync
    assert sync is not None
    plan = GazePlan(sources, sync.left, sync.right)
    decay = decay_of(sync.decay_rate, sync.max_decay_rate)
    num_features = len(reader.query.bias)
    scale = (num_features // reader.num_heads) ** -0.5
    project = reader.in_proj_weight[:num_features] * scale
    bias = torch.addmv(reader.in_proj_bias[:num_features] * scale, project, reader.query.bias)
    root = _beta(decay, plan.num_ticks).rsqrt()
    weights = GazeWeights(decay, root, project @ reader.query.weight, bias)
    return plan, weights, [memory.to(decay.dtype) for memory in memories]


def _beta(decay: Float[Tensor, " P"], num_ticks: int) -> Float[Tensor, "K P"]:
    """The decayed count of ticks: 1 at first, the same for all rows from a fresh start."""
    beta = torch.ones_like(decay)
    ticks = [beta]
    for _ in range(num_ticks - 1):
        beta = torch.addcmul(ticks[0], beta, decay)  # as ``accumulate`` with ``out``, which has no gradient
        ticks.append(beta)
    return torch.stack(ticks)


class _Forward:
    """All parts on their way there.

    Args:
        plan: what there is to know.
        tensors: in a row, as ``_Tensors.flat`` gives them.
    """

    def __init__(self, plan: _Plan, tensors: Sequence[Tensor | None]) -> None:
        parts = _Tensors.sort(plan, tensors)
        num_ticks, num_rows, is_recording = len(plan.constants), plan.num_rows, plan.is_recording
        self._entry = Entry(parts.entry, plan.constants, plan.entry_mask, (num_ticks, num_rows), is_recording)
        self._gaze = None
        if plan.gaze is not None and parts.gaze is not None:
            memories = Memories(parts.memories)
            self._gaze = Gaze(parts.gaze, plan.gaze, memories, plan.gaze_mask, num_rows, is_recording)
        shape = num_ticks, num_rows, len(parts.entry.bias)
        self._mixing = plan.mixing.forward(parts.mixing, plan.mixing_masks, shape, is_recording)
        history = parts.start_history[..., None].expand(-1, -1, num_rows)
        activation = parts.start_activation[:, None].expand(-1, num_rows)
        # where nothing is recorded, a window never reaches back further than M
        capacity = num_ticks if is_recording else min(num_ticks, history.shape[1])
        self.neurons = NeuronModelsForward(parts.neurons, history, activation, capacity, is_recording)

    def run(self, tick: int) -> Float[Tensor, "D B"]:
        """One tick; gives its z."""
        neurons = self.neurons
        z = neurons.activation
        seen = None if self._gaze is None else self._gaze.run(tick, z)
        self._entry.run(tick, seen, z, self._mixing.first(tick))
        if not neurons.has_room(1):
            neurons.slide()
        neurons.newest.copy_(self._mixing.run(tick).T)
        return neurons.tick()

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Goes on with these rows alone, where nothing is recorded nor dropped."""
        self.neurons.keep(rows)
        self._entry.keep(rows)
        self._mixing.keep(len(rows))
        if self._gaze is not None:
            self._gaze.keep(rows)

    def tape(self) -> list[list[Tensor]]:
        """What each part leaves for the way back."""
        gaze = [] if self._gaze is None else self._gaze.tape()
        return [[*self.neurons.tape()], self._entry.tape(), self._mixing.tape(), gaze]


class _Ponder(torch.autograd.Function):
    """All ticks; gives z before the first and after each, [K + 1, D, B]."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor | None) -> Float[Tensor, "K1 D B"]:
        """Runs the ticks."""
        forward = _Forward(plan, tensors)
        for tick in range(len(plan.constants)):
            forward.run(tick)
        tapes = forward.tape()
        ctx.save_for_backward(*tensors, *(part for tape in tapes for part in tape))
        ctx.plan, ctx.sizes = plan, [len(tensors), *map(len, tapes)]
        return forward.neurons.activations

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Runs back over the ticks."""
        plan: _Plan = ctx.plan
        saved = iter(ctx.saved_tensors)
        tensors, *tapes = ([next(saved) for _ in range(size)] for size in ctx.sizes)
        with torch.autocast(grads[0].device.type, enabled=False):
            return None, *_run_back(plan, _Tensors.sort(plan, tensors), tapes, grads[0])


def _run_back(
    plan: _Plan, parts: _Tensors, tapes: Sequence[Sequence[Tensor]], d_activations: Float[Tensor, "K1 D B"]
) -> list[Tensor | None]:
    """The gradients of all tensors, in a row."""
    num_neurons, length = parts.start_history.shape
    neuron_tape, d_history = NeuronModelTape(*tapes[0]), tapes[0][0].new_zeros(num_neurons, length, plan.num_rows)
    neurons = NeuronModelsBackward(parts.neurons, neuron_tape, d_history)
    entry = EntryBack(parts.entry, plan.constants, plan.entry_mask, tapes[1])
    mixing = plan.mixing.backward(parts.mixing, plan.mixing_masks, tapes[2])
    gaze = None
    if plan.gaze is not None and parts.gaze is not None:
        gaze = GazeBack(parts.gaze, plan.gaze, Memories(parts.memories), plan.gaze_mask, tapes[3])
    d_ticks, z_ticks = d_activations.unbind(0), neuron_tape.activations.unbind(0)
    d_z = torch.zeros_like(z_ticks[0])
    for tick in reversed(range(len(plan.constants))):
        d_z.add_(d_ticks[tick + 1])
        d_pre = d_z.new_empty(plan.num_rows, num_neurons)
        neurons.tick(tick, d_z, d_pre)
        d_first = mixing.run(tick, d_pre)
        if gaze is None:
            d_z = entry.run(tick, d_first, None)
            continue
        look = gaze.next_look() if plan.constants[tick] is None else None
        d_z = entry.run(tick, d_first, None if look is None else gaze.d_mixed_looks[look])
        gaze.run(tick, look, z_ticks[tick], d_z)
    d_z.add_(d_ticks[0])
    seen = None if gaze is None else gaze.mixed
    grads: list[Tensor | None] = [neurons.d_history().sum(-1), d_z.sum(-1)]
    grads += entry.grads(mixing.d_first, neuron_tape.activations[:-1], seen)
    if gaze is not None:
        grads += gaze.grads()
    grads += neurons.grads()
    grads += mixing.grads()
    if gaze is not None:
        grads += gaze.memory_grads([memory.shape for memory in parts.memories])
    return grads


class _Accumulate(torch.autograd.Function):
    """``alpha' = d alpha + z_left z_right`` at every tick, from the start z on, [K + 1, P, B]."""

    @staticmethod
    def forward(
        ctx: Any, activations: Float[Tensor, "K1 D B"], decay: Float[Tensor, " P"], left: Tensor, right: Tensor
    ) -> Float[Tensor, "K1 P B"]:
        """Carries alpha on."""
        alphas = activations.index_select(1, left).mul_(activations.index_select(1, right))
        ticks, factor = alphas.unbind(0), decay[:, None]
        for tick in range(1, len(ticks)):
            accumulate(ticks[tick - 1], ticks[tick], factor, out=ticks[tick])
        ctx.save_for_backward(activations, decay, left, right, alphas)
        return alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Carries the gradient back."""
        activations, decay, left, right, alphas = ctx.saved_tensors
        d_alphas = grads[0].clone(memory_format=torch.contiguous_format)
        ticks, factor = d_alphas.unbind(0), decay[:, None]
        for tick in range(len(ticks) - 2, -1, -1):
            accumulate(ticks[tick + 1], ticks[tick], factor, out=ticks[tick])
        d_decay = (d_alphas[1:] * alphas[:-1]).sum((0, 2))
        d_activations = torch.zeros_like(activations)
        for one, other in ((left, right), (right, left)):
            d_activations.index_add_(1, one, activations.index_select(1, other).mul_(d_alphas))
        return d_activations, d_decay, None, None
