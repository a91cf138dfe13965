"""The Continuous Thought Machine: one tick, and one loop over ticks for every task."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.config import CoreConfig
from ctm_rl.machine.attention import Glimpse, Reading
from ctm_rl.machine.neuron_models import NeuronLevelModels
from ctm_rl.machine.pairing import Role, add_first_order, make_pairing
from ctm_rl.machine.state import CoreState, State
from ctm_rl.machine.synapse import make_synapse
from ctm_rl.machine.synchronisation import Synchronisation, SyncState, sync_of


@dataclass(frozen=True, slots=True)
class Tick(Generic[State]):
    """The results of one tick."""

    state: State
    """The state after it."""
    query: Tensor
    """The query of the input, [B, Q]: the action sync, or the top layer of a recurrent baseline."""
    glimpse: Glimpse
    """What was read."""


@runtime_checkable
class Core(Protocol[State]):
    """A recurrent core: what the machine and its recurrent baselines have in common."""

    query_dim: int
    """Q, size of the query; 0 if the core computes none."""
    answer_dim: int
    """P, size of what the heads read."""

    def initial_state(self, batch_size: int) -> State:
        """The learned start state, [batch_size, ...], with gradient."""
        ...

    def tick(self, state: State, reading: Reading) -> Tick[State]:
        """One tick of thought."""
        ...

    def answer(self, state: State) -> Tensor:
        """What the heads read from a state, [B, P]."""
        ...


def think(core: Core[State], state: State, readings: Iterable[Reading]) -> Iterator[Tick[State]]:
    """Lets the core tick once per reading.

    Args:
        core: the machine or a baseline.
        state: where to start, B rows.
        readings: what to read at each tick; their number is the number of ticks.

    Yields:
        Each tick, in order.
    """
    for reading in readings:
        tick = core.tick(state, reading)
        state = tick.state
        yield tick


class CTMCore(nn.Module):
    """The recurrent machine: synapse, histories, neuron-level models, synchronisation.

    One tick, with z the post-activations after the tick before (arXiv:2505.05522, section 3; listing in REFERENCE):
    read features with the action sync; ``a = synapse(features, z)``; push a into the pre-activation histories;
    ``z_d = g_d(history_d)``; both synchronisations add the new z. The action sync read at a tick therefore ends
    with the z before it, and both start with the product of the start z and a count of 1.

    Args:
        config: sizes and choices.
        num_features: size of what is read at each tick.
    """

    def __init__(self, config: CoreConfig, num_features: int) -> None:
        super().__init__()
        self.config = config
        self.synapse = make_synapse(config, num_features)
        self.nlm = NeuronLevelModels(config)
        shape = (config.num_neurons, config.history_length)
        self.start_pre_history = nn.Parameter(uniform_start(shape, sum(shape)))
        if config.sync_window:
            self.start_post_history = nn.Parameter(uniform_start(shape, sum(shape)))
        else:
            self.start_post_activation = nn.Parameter(uniform_start(shape[:1], shape[0]))
        self.output_sync = _make_sync(config, "output", config.num_output_sync_neurons)
        self.action_sync = (
            _make_sync(config, "action", config.num_action_sync_neurons) if config.num_action_sync_neurons else None
        )
        self.query_dim = 0 if self.action_sync is None else self.action_sync.num_terms
        self.answer_dim = self.output_sync.num_terms

    def initial_state(self, batch_size: int) -> CoreState:
        """The learned start state.

        Args:
            batch_size: B.

        Returns:
            A state of B equal rows, with gradient to the start values.
        """
        pre_history = self.start_pre_history.expand(batch_size, -1, -1)
        if self.config.sync_window:
            post_history = self.start_post_history.expand(batch_size, -1, -1)
            post_activation = post_history[..., -1]
        else:
            post_history = None
            post_activation = self.start_post_activation.expand(batch_size, -1)
        output = self.output_sync.start(post_activation, post_history)
        action = None if self.action_sync is None else self.action_sync.start(post_activation, post_history)
        return _state_of(pre_history, post_activation, output, action)

    def tick(self, state: CoreState, reading: Reading) -> Tick[CoreState]:
        """One tick of thought.

        Args:
            state: the state after the tick before, B rows; left as it was.
            reading: returns the features of this tick for a query.

        Returns:
            The new state, the query [B, Q] (Q = 0 without attention) and its glimpse.
        """
        query = self.query(state)
        glimpse = reading(query)
        pre_activation = self.synapse(torch.cat((glimpse.features, state.post_activation), -1))
        pre_history = torch.cat((state.pre_history[..., 1:], pre_activation[..., None]), -1)
        post_activation = self.nlm(pre_history)
        output = self.output_sync.advance(SyncState(state.alpha, state.beta, state.post_history), post_activation)
        action = None
        if self.action_sync is not None:
            action = self.action_sync.advance(_action_of(state), post_activation)
        return Tick(_state_of(pre_history, post_activation, output, action), query, glimpse)

    def query(self, state: CoreState) -> Float[Tensor, "B Q"]:
        """The action sync that ends with the last tick, [B, Q]; empty without attention."""
        if self.action_sync is None:
            return state.post_activation[:, :0]
        action = _action_of(state)
        return sync_of(action.alpha, action.beta)

    def answer(self, state: CoreState) -> Float[Tensor, "B P"]:
        """The output sync that ends with the last tick, [B, P]."""
        return sync_of(state.alpha, state.beta)


def project_(module: nn.Module) -> None:
    """Brings every parameter with limits inside ``module`` back into them, in place; call it after optimiser steps."""
    for part in module.modules():
        if isinstance(part, Synchronisation):
            part.project_()


def _make_sync(config: CoreConfig, role: Role, num_sync_neurons: int) -> Synchronisation:
    pairing = make_pairing(config.pairing, role, config.num_neurons, num_sync_neurons, config.num_self_pairs)
    if role == "output" and config.use_first_order:
        pairing = add_first_order(pairing, config.num_neurons)
    return Synchronisation(pairing, config.max_decay_rate, config.sync_window, config.start_decay_rates)


def uniform_start(shape: tuple[int, ...], fan: int) -> Tensor:
    """Start values, uniform within 1 / sqrt(fan)."""
    bound = math.sqrt(1.0 / fan)
    return torch.empty(shape).uniform_(-bound, bound)


def _action_of(state: CoreState) -> SyncState:
    assert state.action_alpha is not None
    assert state.action_beta is not None
    return SyncState(state.action_alpha, state.action_beta, state.action_post_history)


def _state_of(pre_history: Tensor, post_activation: Tensor, output: SyncState, action: SyncState | None) -> CoreState:
    action_fields: tuple[Any, ...] = (None, None, None) if action is None else tuple(action)
    return CoreState(pre_history, post_activation, output.alpha, output.beta, output.history, *action_fields)
