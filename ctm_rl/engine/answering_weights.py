"""Parameters and readings of an answering model in the form that its ticks need, folded with gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ctm_rl.engine.answering_attention import AttentionPlan, AttentionWeights, fold_attention
from ctm_rl.engine.answering_input import InputWeights, fold_input
from ctm_rl.engine.tensor_trees import flatten
from ctm_rl.engine.unrolled_neuron_models import NeuronModelWeights, fold_neuron_models
from ctm_rl.engine.unrolled_synapse import Masks, SynapsePlan, synapse_weights
from ctm_rl.machine.attention import Reading
from ctm_rl.machine.core import CTMCore

Readings = Sequence[Reading]
"""What is read at each tick."""


class AnsweringPlan(NamedTuple):
    """What the ticks need beside tensors that get a gradient."""

    attention: AttentionPlan | None
    """Which ticks attend to what; None where none does."""
    constants: Sequence[int | None]
    """Which constant each tick reads; None: it attends."""
    synapse: SynapsePlan
    """Structure of the synapse model."""
    num_rows: int
    """B."""
    input_mask: Tensor | None
    """Dropout before the first dense layer."""
    attention_mask: Tensor | None
    """Dropout of attention."""
    synapse_masks: Masks
    """Dropout before the other dense layers."""
    is_recording: bool
    """Whether there will be a backward pass."""


class AnsweringTensors(NamedTuple):
    """All tensors that the ticks need."""

    start_history: Tensor
    start_activation: Tensor
    inputs: InputWeights
    attention: AttentionWeights | None
    neurons: NeuronModelWeights
    synapse: Sequence[Tensor]
    memories: Sequence[Tensor]


def fold_answering(core: CTMCore, readings: Readings, num_rows: int) -> tuple[AnsweringTensors, AnsweringPlan]:
    """Brings parameters and readings into the form that the ticks need, with gradient."""
    first, synapse_plan, synapse = synapse_weights(core.synapse)
    num_neurons = core.config.num_neurons
    of_features, recurrent = first.weight.split((first.in_features - num_neurons, num_neurons), 1)
    dropout = core.config.dropout if core.training else 0.0
    # a U-Net has dropout before its later layers, blocks before the first one
    is_dropping = dropout > 0 and not synapse_plan.is_unet
    shape = len(readings), num_rows
    input_mask = dropout_mask((*shape, first.in_features), dropout, recurrent) if is_dropping else None
    widths = [weight.shape[1] for weight in synapse[: 2 * synapse_plan.num_dense : 2]]
    is_unet_dropping = dropout > 0 and synapse_plan.is_unet
    synapse_masks = [
        dropout_mask((*shape, width), dropout, recurrent) if is_unet_dropping else None for width in widths
    ]
    inputs, constants = fold_input(readings, of_features, recurrent, first.bias, input_mask is not None)
    attention_plan, attention, memories = fold_attention(core, readings)
    attention_mask = None
    if attention_plan is not None and dropout > 0:
        batch, num_heads, num_tokens, _ = memories[0].shape
        attention_mask = dropout_mask((len(attention_plan.reads), batch * num_heads, 1, num_tokens), dropout, recurrent)
    neurons = fold_neuron_models(core.nlm)
    start = core.start_pre_history, core.start_post_activation
    tensors = AnsweringTensors(*start, inputs, attention, neurons, synapse, memories)
    is_recording = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in flatten(tensors))
    masks = input_mask, attention_mask, synapse_masks
    return tensors, AnsweringPlan(attention_plan, constants, synapse_plan, num_rows, *masks, is_recording)


def dropout_mask(shape: tuple[int, ...], dropout: float, like: Tensor) -> Tensor:
    """Dropout factors: 0, or the inverse of the share that is kept."""
    return like.new_empty(shape).bernoulli_(1.0 - dropout).div_(1.0 - dropout)
