"""The machine's ticks over some rows, environment step after environment step, in buffers of its own.

Several machines of one shape can run side by side as one, which takes less time than one after the other: neurons of
all C lie one after the other ([C D, ...]), and each has dense layers of its own ([C, E, D]). With a single one there is
no axis C ([E, D]). P terms and S synchronised neurons are those of all machines. ``engine.side_by_side`` joins and
splits them.

Histories lie in one sliding buffer (``engine.unrolled_neuron_models``). In a row that starts an episode, the learned
start history is written over the last M places; when a backward pass will follow, the overwritten values are stored.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.engine.episode_sync import (
    Accumulators,
    AccumulatorWeights,
    EpisodeSteps,
    JoinedPairs,
    SyncPairs,
    Window,
    WindowWeights,
)
from ctm_rl.engine.unrolled_neuron_models import NeuronModelsForward, NeuronModelTape, NeuronModelWeights
from ctm_rl.engine.unrolled_synapse import BlockSynapseForward, BlockTape


class EpisodeWeights(NamedTuple):
    """The core's parameters in the form that the ticks need, E = 2 D; norms and temperatures are folded in."""

    start_history: Float[Tensor, "CD M"]
    """Pre-activation history at the start of an episode."""
    start_activation: Float[Tensor, " CD"]
    """z at the start of an episode."""
    recurrent: Float[Tensor, "*C E D"]
    """The post-activations' half of the first dense layer."""
    scale: Float[Tensor, "*C D"]
    """Of the last norm."""
    shift: Float[Tensor, "*C D"]
    """Of the last norm."""
    second: Float[Tensor, "*C E D"] | None
    """The second dense layer, with the scale of the norm before it; None with a single block."""
    second_bias: Float[Tensor, "*C E"] | None
    """Its bias, with the shift of the norm before it."""
    neuron_models: NeuronModelWeights
    """The neuron-level models'."""
    sync: AccumulatorWeights | WindowWeights
    """Decay and start values of the output synchronisation."""

    @property
    def cores(self) -> tuple[int, ...]:
        """The axis of machines side by side, ``(C,)``; a single one has none."""
        return tuple(self.recurrent.shape[:-2])


class EpisodeState(NamedTuple):
    """State of some rows between two environment steps, with rows last."""

    history: Float[Tensor, "CD M B"]
    """Pre-activations, newest last."""
    activation: Float[Tensor, "CD B"]
    """z."""
    alpha: Float[Tensor, "P B"]
    """Of the output sync."""
    beta: Float[Tensor, "P B"]
    """Of the output sync; not read by a window."""
    post_history: Float[Tensor, "S M B"] | None
    """Windowed only: z of the synchronised neurons in the last M ticks."""


class EpisodeTape(NamedTuple):
    """What the backward pass needs of L recorded ticks; B rows, D neurons of each machine, N resets."""

    synapse: BlockTape
    """Of the synapse's blocks."""
    neuron_models: NeuronModelTape
    """Of the neuron-level models."""
    overwritten: Float[Tensor, "N CD M"]
    """The window of each row before its reset, in the order of the resets."""


class EpisodeForward:
    """Runs environment steps of any number of ticks over some rows.

    Args:
        weights: the folded parameters.
        pairs: which neurons are synchronised.
        state: before the first step.
        capacity: how many ticks fit into the buffers; at least those of one step.
        num_resets: how many resets of rows there are in recorded steps.
        is_recording: store what the backward pass needs; otherwise every tick overwrites most of the previous one.
    """

    def __init__(
        self,
        weights: EpisodeWeights,
        pairs: SyncPairs | JoinedPairs,
        state: EpisodeState,
        capacity: int,
        num_resets: int = 0,
        is_recording: bool = False,
    ) -> None:
        self._weights, self._neurons = weights, pairs.neurons
        self._is_recording = is_recording
        num_neurons, length, num_rows = state.history.shape
        # weights are laid out as the products read them
        self._recurrent = weights.recurrent.mT.contiguous()
        self._add_product = torch.baddbmm if weights.cores else torch.addmm
        dense = []
        if weights.second is not None and weights.second_bias is not None:
            dense = [(weights.second.mT.contiguous().mT, weights.second_bias)]
        norms = [(None, None)] * (len(dense) + 1)
        width = weights.scale.shape[-1]
        self._by_core = (*weights.cores, width, num_rows) if weights.cores else None
        shape = capacity, *weights.cores, num_rows, 2 * width
        self._synapse = BlockSynapseForward(dense, norms, shape, is_recording, state.history)
        self._shift, self._scale = weights.shift[..., None], weights.scale[..., None]
        self.neuron_models = NeuronModelsForward(
            weights.neuron_models, state.history, state.activation, capacity, is_recording
        )
        if isinstance(weights.sync, WindowWeights):
            assert state.post_history is not None
            self.sync = Window(weights.sync, pairs, state.alpha, state.post_history, capacity)
        else:
            self.sync = Accumulators(weights.sync, pairs, state.alpha, state.beta, capacity)
        self._overwritten = state.history.new_empty(num_resets if is_recording else 0, num_neurons, length)
        self._num_overwritten = 0

    def step(
        self, resets: Sequence[int], inputs: Float[Tensor, "*C B E"], num_ticks: int
    ) -> tuple[Float[Tensor, "P B"], Float[Tensor, "P B"] | None]:
        """Runs the ticks of one environment step, and the synchronisation, where nothing is recorded.

        Args:
            resets: which rows start an episode with this step.
            inputs: what the features send into the first dense layer, bias included.
            num_ticks: K.

        Returns:
            Alpha after the step, and beta unless the synchronisation is windowed (then it never changes).
        """
        if not self.neuron_models.has_room(num_ticks):
            self.neuron_models.slide()
            self.sync.slide()
        self.advance(resets, inputs, num_ticks)
        activations = self.neuron_models.activations[-num_ticks:]
        (sums,) = self.sync.run(EpisodeSteps.of([resets], [num_ticks]), activations.index_select(1, self._neurons))
        return (sums, None) if isinstance(self.sync, Window) else (sums[0], sums[1])

    def advance(self, resets: Sequence[int], inputs: Float[Tensor, "*C B E"], num_ticks: int) -> None:
        """Runs the ticks of one environment step as ``step`` does, without the synchronisation; there must be room."""
        models, synapse, by_core = self.neuron_models, self._synapse, self._by_core
        activation = self._reset(resets) if resets else models.activation
        for tick in range(models.position, models.position + num_ticks):
            newest = models.newest
            if by_core is not None:  # a view of a single machine would take time for nothing
                activation, newest = activation.view(by_core), newest.view(by_core)
            self._add_product(inputs, activation.mT, self._recurrent, out=synapse.first(tick))
            torch.addcmul(self._shift, synapse.run(tick).mT, self._scale, out=newest)
            activation = models.tick()

    def _reset(self, rows: Sequence[int]) -> Float[Tensor, "CD B"]:
        """Writes the learned start into some rows; returns z as the next tick must read it."""
        window = self.neuron_models.window
        # a copy: the z that the previous step ended with stays on the tape
        activation = self.neuron_models.activation.clone()
        for row in rows:
            column = window.select(2, row)
            if self._is_recording:
                self._overwritten[self._num_overwritten] = column
                self._num_overwritten += 1
            column.copy_(self._weights.start_history)
            activation.select(1, row).copy_(self._weights.start_activation)
        return activation

    def tape(self) -> EpisodeTape:
        """What the backward pass needs."""
        return EpisodeTape(self._synapse.tape(), self.neuron_models.tape(), self._overwritten)
