"""Answers: what a model says after each tick, the tick at which it is read, and the result as NumPy arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from ctm_rl.config import AnswerConfig
from ctm_rl.machine.recorder import Recording
from ctm_rl.metrics import at_tick, emissions, most_certain_tick
from ctm_rl.metrics.stopping import stopping_ticks


class Thought(NamedTuple):
    """The answers of a model after each tick; B rows, K ticks."""

    predictions: Float[Tensor, "B O K"]
    """Logits after each tick; O = G x C, all classes of the first group first."""
    certainties: Float[Tensor, "B K"]
    """1 minus the normalised entropy of each answer, mean over its groups."""
    recording: Recording | None = None
    """What happened inside each tick, if it was recorded."""


class AnswerRecord(NamedTuple):
    """What happened inside a model while it answered N observations, as NumPy arrays; ``None``: it has no such part.

    K ticks, D neurons, G groups of C classes. Of questions about digits, ``certainty`` and ``probabilities`` are of the
    ticks that answer, and ``attention`` of those that attend.
    """

    certainty: np.ndarray
    """Certainty after each tick, [N, K]."""
    probabilities: np.ndarray
    """Probability of each class after each tick, [N, K, C], or [N, K, G, C] where an answer has G > 1 elements."""
    output_sync: np.ndarray
    """What the head reads, [N, K, P]: the synchronisation of P pairs of neurons, or a baseline's hidden state."""
    post_activations: np.ndarray
    """z of each neuron, [N, K, D]; of a baseline its hidden state."""
    pre_activations: np.ndarray | None
    """What the synapse sent to each neuron, [N, K, D]."""
    action_sync: np.ndarray | None
    """What the input was queried with, before each tick, [N, K, Q]."""
    attention: np.ndarray | None
    """Attention weights, [N, K, heads, H, W] over the places of an image's map, or [N, K, heads, S] along a sequence;
    they add up to 1 over the places."""


class Answer(NamedTuple):
    """A model's answers to N observations, as NumPy arrays; G elements in an answer, C classes."""

    classes: np.ndarray
    """The likeliest classes, which are the environment's actions: [N], or [N, G] where an answer has G > 1 elements. Of
    an order, what was emitted, [N, L], with -1 for places at which nothing was."""
    probabilities: np.ndarray
    """Of each class, [N, C] or [N, G, C]; of an order [N, L, C], the last class being that nothing is emitted."""
    certainty: np.ndarray
    """From 0 (all classes equally likely) to 1 (sure), mean over the elements, [N]; of an order the mean over ticks."""
    ticks: np.ndarray
    """The tick at which each answer was read, counted from 1, [N]: the most certain one, or that at which the row has
    halted; of an order the tick of the last emission."""
    record: AnswerRecord | None = None
    """What happened inside, if it was asked for."""


def group(logits: Float[Tensor, "B O *ticks"], num_groups: int) -> Float[Tensor, "B G C *ticks"]:
    """Splits an answer into its separate distributions.

    Args:
        logits: [B, G x C], all classes of the first group first; of all ticks [B, G x C, K].
        num_groups: G.

    Returns:
        The same logits, [B, G, C] or [B, G, C, K].
    """
    if num_groups < 1 or logits.shape[1] % num_groups:
        raise ValueError(f"num_groups must divide the {logits.shape[1]} logits of an answer, got {num_groups}.")
    return logits.unflatten(1, (num_groups, -1))


def answering_ticks(config: AnswerConfig, thought: Thought) -> Thought:
    """The predictions and certainties of the ticks that answer: the last ``num_answer_ticks``, or all."""
    last = slice(-config.num_answer_ticks if config.num_answer_ticks else None, None)
    return thought._replace(predictions=thought.predictions[..., last], certainties=thought.certainties[:, last])


def most_certain_answer(config: AnswerConfig, thought: Thought) -> Float[Tensor, "B G C"]:
    """Reads each sample at its most certain tick, among those that answer.

    Args:
        config: of the model.
        thought: the model's answers.

    Returns:
        Logits of the G classes of an answer, [B, G, C].
    """
    thought = answering_ticks(config, thought)
    return at_tick(group(thought.predictions, config.num_groups), most_certain_tick(thought.certainties))


def read_answer(
    config: AnswerConfig, thought: Thought, halt_certainty: float | None, places: tuple[int, ...]
) -> Answer:
    """Reads the answers of a model at their ticks.

    Args:
        config: of the model.
        thought: its answers after every tick.
        halt_certainty: read each row at the first tick that is as certain, or its last one; ``None``: at its most
            certain one.
        places: shape of the map that was attended to.

    Returns:
        The answers.
    """
    first = thought.certainties.shape[1]
    thought = answering_ticks(config, thought)
    first -= thought.certainties.shape[1]  # ticks before those that answer
    record = None if thought.recording is None else _record_of(config, thought, thought.recording, places)
    if config.is_emitted:
        return _read_order(config, thought, record)
    if halt_certainty is None:
        tick = most_certain_tick(thought.certainties)
    else:
        tick = stopping_ticks(thought.certainties, torch.tensor([halt_certainty], dtype=torch.float64))[:, 0]
    logits = at_tick(group(thought.predictions, config.num_groups), tick)
    return answer_of(logits, at_tick(thought.certainties, tick), first + tick + 1, record)


def answer_of(
    logits: Float[Tensor, "B G C"],
    certainty: Float[Tensor, " B"],
    ticks: Int[Tensor, " B"],
    record: AnswerRecord | None = None,
) -> Answer:
    """The answers whose logits were read at these ticks.

    Args:
        logits: [B, G, C].
        certainty: of each row.
        ticks: of each row, counted from 1.
        record: what happened inside.

    Returns:
        The answers.
    """
    # the first of equally likely classes, as the scores of ``metrics`` have it
    classes = logits.max(2).indices
    probabilities = logits.softmax(2)
    if logits.shape[1] == 1:
        classes, probabilities = classes[:, 0], probabilities[:, 0]
    return Answer(*map(_to_numpy, (classes, probabilities, certainty, ticks)), record=record)


def joined(parts: Sequence[Answer], rows: Sequence[Tensor]) -> Answer:
    """The answers to parts of a batch as those to all of it.

    Args:
        parts: the answers to each part; only a single one may have a record.
        rows: which rows of the batch each part has, [n] each.

    Returns:
        The answers in the order of the batch.
    """
    if len(parts) == 1:
        return parts[0]
    order = torch.cat(list(rows)).argsort().cpu().numpy()
    classes, probabilities, certainty, ticks = (
        np.concatenate(column)[order] for column in zip(*(part[:4] for part in parts), strict=True)
    )
    return Answer(classes, probabilities, certainty, ticks)


def _read_order(config: AnswerConfig, thought: Thought, record: AnswerRecord | None) -> Answer:
    """An order that was emitted over the ticks, see ``metrics.emissions``."""
    length = config.num_classes - 1
    indices, ticks, _ = emissions(thought.predictions)
    indices, ticks = (pad(part, (0, length), value=-1)[:, :length] for part in (indices, ticks))
    chosen = thought.predictions.softmax(1).transpose(1, 2)  # [B, K, C]
    probabilities = chosen.gather(1, ticks.clamp(min=0)[..., None].expand(-1, -1, chosen.shape[2]))
    probabilities = probabilities * (ticks >= 0)[..., None]
    last = ticks.max(1).values + 1
    certainty = thought.certainties.mean(1)
    return Answer(*map(_to_numpy, (indices, probabilities, certainty, last)), record=record)


def _record_of(config: AnswerConfig, thought: Thought, recording: Recording, places: tuple[int, ...]) -> AnswerRecord:
    """A recording as NumPy arrays, rows first."""
    probabilities = group(thought.predictions, config.num_groups).softmax(2).movedim(-1, 1)  # [B, K, G, C]
    attention = recording.attention
    if attention is not None:
        attention = attention.squeeze(3).unflatten(-1, places)  # [K, B, heads, *places]

    def by_row(part: Shaped[Tensor, "K B ..."] | None) -> np.ndarray | None:
        return None if part is None else _to_numpy(part.transpose(0, 1))

    output_sync, post_activations = by_row(recording.output_sync), by_row(recording.post_activations)
    assert output_sync is not None
    assert post_activations is not None
    return AnswerRecord(
        certainty=_to_numpy(thought.certainties),
        probabilities=_to_numpy(probabilities if config.num_groups > 1 else probabilities[:, :, 0]),
        output_sync=output_sync,
        post_activations=post_activations,
        pre_activations=by_row(recording.pre_activations),
        action_sync=by_row(recording.action_sync),
        attention=by_row(attention),
    )


def _to_numpy(part: Tensor) -> np.ndarray:
    """A tensor as an array of its own."""
    return part.detach().cpu().contiguous().numpy()
