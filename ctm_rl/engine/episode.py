"""The unroll: T environment steps of K ticks as one autograd node, with episode starts inside.

Equal to ticking one by one (``machine.core.think``) in value and gradient, and several times faster, because

- the features' half of the synapse is multiplied for all steps at once;
- histories lie in one sliding buffer (``engine.episode_forward``), so that memory grows with M + T K and not with their
  product;
- the backward pass is written by hand (``engine.episode_backward``) and sums the weight gradients of the dense layers
  over many ticks in one product each.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctm_rl.engine.episode_backward import EpisodeBackward
from ctm_rl.engine.episode_forward import EpisodeForward, EpisodeState, EpisodeWeights
from ctm_rl.engine.episode_sync import (
    Accumulators,
    AccumulatorWeights,
    EpisodeSteps,
    JoinedPairs,
    SyncPairs,
    Window,
    WindowWeights,
    resets_of,
    sum_window,
)
from ctm_rl.engine.tensor_trees import flatten, structure_of, unflatten
from ctm_rl.engine.unrolled_neuron_models import fold_neuron_models
from ctm_rl.machine.attention import ConstantReading
from ctm_rl.machine.core import Core, CTMCore, think
from ctm_rl.machine.state import AnyState, CoreState, select_rows
from ctm_rl.machine.synapse import BlockSynapse
from ctm_rl.machine.synchronisation import Synchronisation, age_weights, decay_of, multiply_pairs, sync_of


def can_unroll(core: object) -> bool:
    """Whether ``unroll`` supports this core: blocks, neuron-level models without norm, no attention, no dropout."""
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
    ticks: int | Sequence[int],
    is_state_carried: bool = True,
) -> tuple[Float[Tensor, "T B P"], AnyState]:
    """Runs T environment steps, one tick after the other; any core, and what ``unroll`` must equal.

    Args:
        core: the machine or a baseline.
        features: of every step, the same for all its ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        ticks: K, or the number of ticks of each step, [T].
        is_state_carried: False starts every step afresh.

    Returns:
        What the heads read after each step, [T, B, P], and the state after the last one.
    """
    fresh = core.initial_state(is_first.shape[1])
    answers = []
    for step_features, is_fresh, num_ticks in zip(features, is_first.bool(), each_step(ticks, features), strict=True):
        state = select_rows(is_fresh, fresh, state) if is_state_carried else fresh
        for tick in think(core, state, repeat(ConstantReading(step_features), num_ticks)):
            state = tick.state
        answers.append(core.answer(state))
    return torch.stack(answers), state


def each_step(ticks: int | Sequence[int], features: Shaped[Tensor, "T ..."]) -> list[int]:
    """The number of ticks of each of T steps, from a list or from one number for all.

    Raises:
        ValueError: there is not one number of at least 1 for every step.
    """
    num_steps = len(features)
    listed = [ticks] * num_steps if isinstance(ticks, int) else list(ticks)
    if len(listed) != num_steps or min(listed) < 1:
        raise ValueError(f"ticks must be {num_steps} numbers of at least 1, one for each step; got {listed}.")
    return listed


def unroll(
    core: CTMCore,
    features: Float[Tensor, "T B F"],
    is_first: Shaped[Tensor, "T B"],
    state: CoreState,
    ticks: int | Sequence[int] | None = None,
) -> tuple[Float[Tensor, "T B P"], CoreState]:
    """Runs T environment steps.

    Args:
        core: one that ``can_unroll``.
        features: of every step, the same for all its ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        ticks: K, or the number of ticks of each step, [T]; ``None``: as configured.

    Returns:
        The output sync after each step, [T, B, P], and the state after the last one. Equal to ``step_through`` in
        value and gradient as long as the decay rates are inside their limits; outside, the two let pass different
        parts of a gradient, see ``machine.synchronisation.decay_of``.
    """
    folded = fold(core)
    return unroll_inputs(core, folded, folded.inputs(features), is_first, state, ticks)


def unroll_inputs(
    core: CTMCore,
    folded: "FoldedWeights",
    inputs: Float[Tensor, "T B E"],
    is_first: Shaped[Tensor, "T B"],
    state: CoreState,
    ticks: int | Sequence[int] | None = None,
) -> tuple[Float[Tensor, "T B P"], CoreState]:
    """As ``unroll``, from the features' contribution to the first dense layer.

    Args:
        core: one that ``can_unroll``.
        folded: its parameters, from ``fold``.
        inputs: ``folded.features @ features + folded.bias`` of every step, [T, B, E].
        is_first: whether a step starts an episode, [T, B].
        state: the state before the first step, B rows; left as it was.
        ticks: K, or the number of ticks of each step, [T]; ``None``: as configured.

    Returns:
        As ``unroll``.
    """
    resets = resets_of(is_first)
    steps = EpisodeSteps.of(resets, each_step(core.config.num_ticks if ticks is None else ticks, inputs))
    sync, last = run_episode(folded, inputs, steps, episode_state(core, state, resets[0]))
    return sync, state_of(last)


def run_episode(
    folded: "FoldedWeights",
    inputs: Float[Tensor, "T *C B E"],
    steps: EpisodeSteps,
    state: EpisodeState,
) -> tuple[Float[Tensor, "T B P"], EpisodeState]:
    """Runs the ticks of some environment steps as one autograd node; of one machine, or of several side by side.

    Args:
        folded: the parameters.
        inputs: what the features of every step send into the first dense layer, [T, B, E], or [T, C, B, E] for C
            machines.
        steps: which of the B rows start an episode with each of the T steps, and how many ticks it has.
        state: the state before the first step, with rows last.

    Returns:
        The output sync after each step, [T, B, P], that of C machines one after the other, and the state after the last
        step, with rows last.
    """
    weights = folded.weights
    given = state, weights
    plan = _EpisodePlan(steps, folded.pairs, structure_of(given), torch.is_grad_enabled())
    results: Any = _EpisodeFunction.apply(plan, inputs, *flatten(given))
    sums, synced, history, activation = results
    post_history = None
    if isinstance(weights.sync, WindowWeights):
        alpha = sums
        beta = folded.window_beta().to(alpha.dtype)[:, None]
        assert state.post_history is not None
        recent = torch.cat((state.post_history.transpose(0, 1), synced))  # [M + L, S, B]
        post_history = _last_window(recent, weights.sync.fresh, steps)
    else:
        alpha, beta = sums.unbind(1)
    sync = sync_of(alpha, beta).transpose(1, 2)
    return sync, EpisodeState(history, activation, alpha[-1], beta.expand_as(alpha)[-1], post_history)


def state_of(last: EpisodeState) -> CoreState:
    """A state with rows first, as ``machine.core`` has it, from one with rows last."""
    post_history = None if last.post_history is None else last.post_history.permute(2, 0, 1)
    return CoreState(last.history.permute(2, 0, 1), last.activation.T, last.alpha.T, last.beta.T, post_history)


class FoldedWeights(NamedTuple):
    """A core's parameters in the form that the ticks need, or those of C cores side by side."""

    weights: EpisodeWeights
    """Everything but the features' half of the first dense layer."""
    features: Float[Tensor, "CE F"]
    """The features' half of the first dense layer."""
    bias: Float[Tensor, " CE"]
    """Its bias."""
    pairs: SyncPairs | JoinedPairs
    """Which neurons are synchronised."""

    def inputs(self, features: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch CE"]:
        """The features' contribution to the first dense layer."""
        return nn.functional.linear(features, self.features, self.bias)

    def laid_out(self) -> "FoldedWeights":
        """The same, with the dense layers' weights in the memory order of the products, which then need no copies."""
        weights = self.weights
        second = None if weights.second is None else weights.second.mT.contiguous().mT
        return self._replace(weights=weights._replace(recurrent=weights.recurrent.mT.contiguous().mT, second=second))

    def window_beta(self) -> Float[Tensor, " P"]:
        """Windowed only: the decayed count of M ticks, always the same."""
        length = self.weights.start_history.shape[1]
        return age_weights(self.weights.sync.decay, length).sum(-1)


def fold(core: CTMCore) -> FoldedWeights:
    """Brings a core's parameters into the form that the ticks need, with gradient."""
    assert isinstance(core.synapse, BlockSynapse)
    _, *blocks = core.synapse.layers  # dropout is inactive
    first, norm = cast(nn.Linear, blocks[0]), cast(nn.LayerNorm, blocks[2])
    second, second_bias = None, None
    if len(blocks) > 3:
        dense = cast(nn.Linear, blocks[3])
        second, second_bias = dense.weight * norm.weight, dense.bias + dense.weight @ norm.bias
        norm = cast(nn.LayerNorm, blocks[5])
    num_neurons = core.config.num_neurons
    of_features, recurrent = first.weight.split((first.in_features - num_neurons, num_neurons), 1)
    fresh = core.initial_state(1)
    start = fresh.pre_history[0], fresh.post_activation[0]
    dense = recurrent, norm.weight, norm.bias, second, second_bias
    weights = EpisodeWeights(*start, *dense, fold_neuron_models(core.nlm), _fold_sync(core.output_sync, fresh))
    return FoldedWeights(weights, of_features, first.bias, _pairs_of(core.output_sync, recurrent.dtype))


def _fold_sync(sync: Synchronisation, fresh: CoreState) -> AccumulatorWeights | WindowWeights:
    decay = decay_of(sync.decay_rate, sync.max_decay_rate)
    if fresh.post_history is None:
        return AccumulatorWeights(decay, fresh.alpha[0])
    exact, length = decay.double(), fresh.post_history.shape[2]
    alpha = sum_window(_products(sync, fresh.post_history), exact)[:, 0]
    return WindowWeights(exact, exact**length, alpha, fresh.post_history[0])


def _pairs_of(sync: Synchronisation, dtype: torch.dtype) -> SyncPairs:
    neurons, left, right = sync.slots()
    shares = torch.eye(len(neurons), dtype=dtype, device=neurons.device)
    paired, alone = left.split([len(right), len(left) - len(right)])
    places = torch.cat((paired, right, alone))
    return SyncPairs(neurons, left, right, torch.cat((right, paired)), shares[:, places])


def _products(sync: Synchronisation, post_history: Float[Tensor, "B S M"]) -> Float64[Tensor, "P M B"]:
    """The products of a window."""
    exact = post_history.double()
    return multiply_pairs(exact[:, sync.left_slot], exact[:, sync.right_slot], 1).permute(1, 2, 0)


def episode_state(core: CTMCore, state: CoreState, resets: Sequence[int] = ()) -> EpisodeState:
    """A state with rows last; windowed, the values of rows that are reset are not read, even if NaN."""
    alpha, post_history = state.alpha.T, None
    if state.post_history is not None:
        # summed again: the decay may have been learned since
        sync = core.output_sync
        products = _products(sync, state.post_history)
        if resets:
            rows = torch.tensor(resets, device=products.device)
            products = products.index_fill(2, rows, 0.0)
        alpha = sum_window(products, decay_of(sync.decay_rate, sync.max_decay_rate).double())
        post_history = state.post_history.permute(1, 2, 0)
    return EpisodeState(state.pre_history.permute(1, 2, 0), state.post_activation.T, alpha, state.beta.T, post_history)


class _EpisodePlan(NamedTuple):
    """What an unroll needs beside tensors that get a gradient."""

    steps: EpisodeSteps
    """Which rows start an episode with each step, and how many ticks it has."""
    pairs: SyncPairs | JoinedPairs
    """Which neurons are synchronised."""
    given: tuple[EpisodeState, EpisodeWeights]
    """The structure of what is given beside the inputs."""
    is_recording: bool
    """Whether there will be a backward pass."""


class _EpisodeFunction(torch.autograd.Function):
    """All steps; rows are the last axis, except in the inputs."""

    @staticmethod
    def forward(
        ctx: Any, plan: _EpisodePlan, inputs: Float[Tensor, "T *C B E"], *given: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Returns sums [T, P, B], or [T, 2, P, B] with beta; synced z [L, S, B]; history and z after the last tick."""
        state, weights = unflatten(plan.given, given)
        resets, begins = plan.steps
        forward = EpisodeForward(weights, plan.pairs, state, begins[-1], sum(map(len, resets)), plan.is_recording)
        for rows, step_inputs, num_ticks in zip(resets, inputs.unbind(0), plan.steps.ticks, strict=True):
            forward.advance(rows, step_inputs, num_ticks)
        models = forward.neuron_models
        synced = models.activations[1:].index_select(1, plan.pairs.neurons)
        sums = forward.sync.run(plan.steps, synced)
        if plan.is_recording:
            tapes = forward.tape(), forward.sync.tape()
            ctx.save_for_backward(*given, *flatten(tapes))
            ctx.plan, ctx.saved = plan, (plan.given, structure_of(tapes))
            ctx.set_materialize_grads(False)
        return sums, synced, models.window.clone(), models.activation.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """First the synchronisation, then the ticks."""
        plan: _EpisodePlan = ctx.plan
        (state, weights), (tape, sync_tape) = unflatten(ctx.saved, ctx.saved_tensors)
        activations = tape.neuron_models.activations
        d_sums, d_activations, d_history, d_last = grads
        d_sums = _or_zeros(d_sums, activations, (len(plan.steps.resets), *sync_tape[0].shape[1:]))
        sync: Any = Accumulators if state.post_history is None else Window
        synced = activations[1:].index_select(1, plan.pairs.neurons)
        d_synced, d_sync, d_start = sync.backward(weights.sync, plan.pairs, synced, sync_tape, d_sums, plan.steps)
        if d_activations is not None:
            d_synced += d_activations
        d_history = _or_zeros(d_history, activations, state.history.shape)
        d_last = _or_zeros(d_last, activations, state.activation.shape)
        backward = EpisodeBackward(weights, tape, d_history, plan.steps)
        d_before = backward.run(d_synced, plan.pairs.neurons, d_last)
        d_state = EpisodeState(backward.d_history(), d_before, *d_start)
        return None, backward.d_inputs, *flatten((d_state, backward.weight_grads(d_sync)))


def _or_zeros(grad: Tensor | None, like: Tensor, shape: Sequence[int]) -> Tensor:
    return like.new_zeros(shape) if grad is None else grad


def _last_window(
    recent: Float[Tensor, "ML S B"], start: Float[Tensor, "S M"], steps: EpisodeSteps
) -> Float[Tensor, "S M B"]:
    """The window after the last tick, with the start history in place of ticks before the episode."""
    length = start.shape[1]
    ticks = torch.full((recent.shape[2],), length, device=recent.device)  # since the row's last reset
    for begin, rows in zip(steps.begins, steps.resets, strict=False):
        if rows:
            ticks[rows] = steps.begins[-1] - begin
    place = torch.arange(length, device=recent.device)[:, None]
    source = (place + ticks).clamp(max=length - 1)  # where the start history has moved to, [M, B]
    moved = start.T[source].transpose(1, 2)  # [M, S, B]
    return torch.where((place < length - ticks)[:, None], moved, recent[-length:]).transpose(0, 1)
