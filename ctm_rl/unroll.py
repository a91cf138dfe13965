"""The unroll: T environment steps of K ticks as one node of the autograd graph, with episode starts inside.

Equal to ticking one by one (:func:`ctm_rl.core.think`) in value and gradient, and several times faster, because

- the features' half of the synapse is multiplied for all steps at once;
- histories lie in one sliding buffer, [D, M + T K, B], of which each tick reads its window without a copy, so that
  memory grows with M + T K and not with their product;
- a hand-written backward pass sums the weight gradients of the dense layers over all ticks in one product each;
- the synchronisation is computed after the loop.

A row that starts an episode gets the learned start history written over its last M places of the buffer; what stood
there is kept aside and put back when the backward pass comes by.
"""

from itertools import repeat
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctm_rl.core import Core, CTMCore, think
from ctm_rl.nlm import NeuronLinear
from ctm_rl.reader import constant_reading
from ctm_rl.scan import Accumulate, Restarts, Window
from ctm_rl.state import AnyState, CoreState, select_rows
from ctm_rl.synapse import BlockSynapse
from ctm_rl.sync import decay_of, sync_of
from ctm_rl.tape import Tape, split

_glu = torch.ops.aten.glu


class _Weights(NamedTuple):
    """The core's parameters as the loop wants them, E = 2 D; norms and temperatures are folded in."""

    features: Float[Tensor, "E F"]
    """The features' half of the first dense layer."""
    bias: Float[Tensor, " E"]
    """Its bias."""
    recurrent: Float[Tensor, "E D"]
    """The post-activations' half of the first dense layer."""
    second: Float[Tensor, "E D"] | None
    """The second dense layer, with the scale of the norm before it; None with a single block."""
    second_bias: Float[Tensor, " E"] | None
    """Its bias, with the shift of the norm before it."""
    scale: Float[Tensor, " D"]
    """Of the last norm."""
    shift: Float[Tensor, " D"]
    """Of the last norm."""
    nlm: tuple[Tensor, ...]
    """Weight [D, O, I] and bias [D, O, 1] of each layer of the neuron-level models, divided by its temperature."""


def can_unroll(core: object) -> bool:
    """Whether :func:`unroll` knows this core: blocks, neuron-level models without norm, no attention, no dropout."""
    if not isinstance(core, CTMCore) or not isinstance(core.synapse, BlockSynapse):
        return False
    config = core.config
    dropout = max(config.dropout, config.nlm_dropout or 0.0)
    return (
        config.num_synapse_blocks <= 2
        and not config.use_nlm_norm
        and core.action_sync is None
        and not (core.training and dropout > 0)
    )


def step_through(
    core: Core[Any],
    features: Float[Tensor, "T B F"],
    is_first: Shaped[Tensor, "T B"],
    state: AnyState,
    num_ticks: int,
    is_state_carried: bool = True,
) -> tuple[Float[Tensor, "T B P"], AnyState]:
    """Runs T environment steps of K ticks each, one tick after the other; any core, and what :func:`unroll` must equal.

    Args:
        core: the machine or a baseline.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        num_ticks: K.
        is_state_carried: False starts every step afresh.

    Returns:
        What the heads read after each step, [T, B, P], and the state after the last one.
    """
    fresh = core.initial_state(is_first.shape[1])
    answers = []
    for step_features, is_fresh in zip(features, is_first.bool(), strict=True):
        state = select_rows(is_fresh, fresh, state) if is_state_carried else fresh
        for tick in think(core, state, repeat(constant_reading(step_features), num_ticks)):
            state = tick.state
        answers.append(core.answer(state))
    return torch.stack(answers), state


def unroll(
    core: CTMCore, features: Float[Tensor, "T B F"], is_first: Shaped[Tensor, "T B"], state: CoreState
) -> tuple[Float[Tensor, "T B P"], CoreState]:
    """Runs T environment steps of K ticks each.

    Args:
        core: one that :func:`can_unroll`.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.

    Returns:
        The output sync after each step, [T, B, P], and the state after the last one. Equal to :func:`step_through` in
        value and gradient as long as the decay rates are inside their limits; outside, the two let pass different
        parts of a gradient, see :func:`ctm_rl.sync.decay_of`.
    """
    weights = _fold(core)
    restarts = _restarts(is_first)
    fresh = core.initial_state(1)
    activations, pre_history, post_activation = _Ticks.apply(
        nn.functional.linear(features, weights.features, weights.bias),
        state.pre_history.permute(1, 2, 0),
        state.post_activation.T,
        fresh.pre_history[0],
        fresh.post_activation[0],
        *weights[2:7],
        *weights.nlm,
        restarts,
        core.config.num_ticks,
    )  # pyright: ignore[reportGeneralTypeIssues]
    alpha, beta, post_history = _synchronise(core, activations, restarts, state, fresh)
    sync = sync_of(alpha, beta).transpose(1, 2)
    last = CoreState(pre_history.permute(2, 0, 1), post_activation.T, alpha[-1].T, beta[-1].T, post_history)
    return sync, last


def _restarts(is_first: Tensor) -> Restarts:
    """The rows that start an episode before each step."""
    rows = [step.nonzero().squeeze(1) for step in is_first.bool().cpu()]  # one transfer, not one a step
    return [index.to(is_first.device) if len(index) else None for index in rows]


def _fold(core: CTMCore) -> _Weights:
    assert isinstance(core.synapse, BlockSynapse)
    _, *blocks = core.synapse.layers  # dropout is not at work
    first, norm = cast(nn.Linear, blocks[0]), cast(nn.LayerNorm, blocks[2])
    second, second_bias = None, None
    if len(blocks) > 3:
        dense = cast(nn.Linear, blocks[3])
        second, second_bias = dense.weight * norm.weight, dense.bias + dense.weight @ norm.bias
        norm = cast(nn.LayerNorm, blocks[5])
    nlm: list[Tensor] = []
    for layer in core.nlm.layers:
        assert isinstance(layer, NeuronLinear)
        nlm += [(layer.weight / layer.temperature).transpose(1, 2), (layer.bias / layer.temperature)[..., None]]
    num_neurons = core.config.num_neurons
    features, recurrent = first.weight.split((first.in_features - num_neurons, num_neurons), 1)
    return _Weights(features, first.bias, recurrent, second, second_bias, norm.weight, norm.bias, tuple(nlm))


class _Ticks(torch.autograd.Function):
    """All ticks of all steps; rows are the last axis wherever neurons are the first."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Float[Tensor, "T B E"],
        history: Float[Tensor, "D M B"],
        post_activation: Float[Tensor, "D B"],
        start_history: Float[Tensor, "D M"],
        start_activation: Float[Tensor, " D"],
        recurrent: Float[Tensor, "E D"],
        second: Float[Tensor, "E D"] | None,
        second_bias: Float[Tensor, " E"] | None,
        scale: Float[Tensor, " D"],
        shift: Float[Tensor, " D"],
        *rest: Any,
    ) -> tuple[Float[Tensor, "L D B"], Float[Tensor, "D M B"], Float[Tensor, "D B"]]:
        """Gives z after every tick, and history and z after the last."""
        *nlm, restarts, num_ticks = rest
        tape = Tape.blank(inputs, history, post_activation, num_ticks, second is not None, nlm)
        length = history.shape[1]
        biases = [bias.expand(-1, -1, inputs.shape[1]) for bias in nlm[1::2]]
        tick = 0
        for step, rows in enumerate(restarts):
            activation = tape.activations[tick]
            if rows is not None:
                tape.overwritten.append(tape.places[:, tick : tick + length, rows])
                tape.places[:, tick : tick + length, rows] = start_history[..., None]
                # a copy: what the step before ended with stays on the tape
                activation = activation.index_copy(1, rows, start_activation[:, None].expand(-1, len(rows)))
            for _ in range(num_ticks):
                torch.addmm(inputs[step], activation.T, recurrent.T, out=tape.dense[0][tick])
                tape.norm(0, tick)
                if second is not None and second_bias is not None:
                    torch.addmm(second_bias, tape.normed[0][tick], second.T, out=tape.dense[1][tick])
                    tape.norm(1, tick)
                normed = tape.normed[-1][tick].T
                torch.addcmul(shift[:, None], normed, scale[:, None], out=tape.places[:, length + tick])
                window = tape.places[:, tick + 1 : tick + 1 + length]
                last = torch.baddbmm(biases[0], nlm[0], window, out=tape.neural[0][tick])
                if len(nlm) > 2:
                    hidden = _glu.out(last, 1, out=tape.hidden[:, :, tick])
                    last = torch.baddbmm(biases[1], nlm[2], hidden, out=tape.neural[1][tick])
                tick += 1
                activation = tape.activations[tick]
                _glu.out(last, 1, out=activation.unsqueeze(1))
        weights = start_history, start_activation, recurrent, second, scale, *nlm
        ctx.save_for_backward(*weights, *tape.tensors())
        ctx.plan = restarts, num_ticks, len(weights), len(nlm) // 2
        return tape.activations[1:], tape.places[:, tick:].clone(), tape.activations[tick].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Runs back through all ticks, then forms the weight gradients."""
        restarts, num_ticks, num_weights, num_layers = ctx.plan
        start_history, start_activation, recurrent, second, scale, *nlm = ctx.saved_tensors[:num_weights]
        tape = Tape(*split(ctx.saved_tensors[num_weights:], 1 if second is None else 2, num_layers))
        weights = start_history, start_activation, recurrent, second, scale, nlm
        return tape.rewind(grads, *weights, restarts, num_ticks)


def _synchronise(
    core: CTMCore, activations: Float[Tensor, "L D B"], restarts: Restarts, state: CoreState, fresh: CoreState
) -> tuple[Float[Tensor, "T P B"], Float[Tensor, "T P B"], Float[Tensor, "B S M"] | None]:
    """Alpha and beta after each step, and the window after the last."""
    sync, num_ticks = core.output_sync, core.config.num_ticks
    decay = decay_of(sync.decay_rate, sync.max_decay_rate)
    if not sync.is_windowed:
        products = activations[:, sync.left] * activations[:, sync.right]
        alpha, beta = Accumulate.apply(
            products, decay, state.alpha.T, state.beta.T, fresh.alpha[0], restarts, num_ticks
        )  # pyright: ignore[reportGeneralTypeIssues]
        return alpha, beta, None
    assert state.post_history is not None
    assert fresh.post_history is not None
    start = fresh.post_history[0]  # [S, M]
    length = start.shape[1]
    seen = torch.cat((state.post_history.permute(2, 1, 0), activations[:, sync.neurons]))  # [M + L, S, B]
    products = seen[:, sync.left_slot] * seen[:, sync.right_slot]
    fresh_products = start[sync.left_slot] * start[sync.right_slot]
    age = torch.arange(length - 1, -1, -1, device=decay.device, dtype=decay.dtype)
    weight = decay[:, None] ** age  # [P, M]
    alpha: Tensor = Window.apply(products.transpose(0, 1), fresh_products, weight, restarts, num_ticks)  # pyright: ignore
    beta = weight.sum(-1)[:, None].expand_as(alpha)
    return alpha, beta, _last_window(seen[-length:], start, restarts, num_ticks)


def _last_window(
    seen: Float[Tensor, "M S B"], start: Float[Tensor, "S M"], restarts: Restarts, num_ticks: int
) -> Float[Tensor, "B S M"]:
    """The window after the last tick: what was seen, and the start history where an episode is younger than that."""
    length, _, batch_size = seen.shape
    ticks = torch.full((batch_size,), length, device=seen.device)  # since the row's last restart
    for step, rows in enumerate(restarts):
        if rows is not None:
            ticks[rows] = (len(restarts) - step) * num_ticks
    place = torch.arange(length, device=seen.device)[:, None]
    source = (place + ticks).clamp(max=length - 1)  # where the start history has come to, [M, B]
    moved = start.T[source].transpose(1, 2)  # [M, S, B]
    return torch.where((place < length - ticks)[:, None], moved, seen).permute(2, 1, 0)
