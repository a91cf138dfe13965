"""The state that a machine carries from tick to tick, as typed values."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


class CoreState(NamedTuple):
    """State of the Continuous Thought Machine between two ticks; B rows, D neurons, M ticks of history, P pairs.

    The S neurons of a history are those that the synchronisation uses. The output sync is ``alpha / sqrt(beta)``,
    the action sync ``action_alpha / sqrt(action_beta)``, at every moment and in both kinds of synchronisation.
    """

    pre_history: Float[Tensor, "B D M"]
    """The last M pre-activations of every neuron, newest last."""
    post_activation: Float[Tensor, "B D"]
    """z, the output of the neurons in the last tick."""
    alpha: Float[Tensor, "B P"]
    """Decayed sum of the products of the output pairs."""
    beta: Float[Tensor, "B P"]
    """Decayed count of the ticks in ``alpha``."""
    post_history: Float[Tensor, "B S M"] | None = None
    """Windowed synchronisation only: the last M post-activations of the output neurons, newest last."""
    action_alpha: Float[Tensor, "B Pa"] | None = None
    """With attention only: as ``alpha``, for the pairs that make the query."""
    action_beta: Float[Tensor, "B Pa"] | None = None
    """With attention only: as ``beta``, for the pairs that make the query."""
    action_post_history: Float[Tensor, "B Sa M"] | None = None
    """With attention and windowed synchronisation only: as ``post_history``, for the action neurons."""


class LSTMState(NamedTuple):
    """State of the LSTM baseline; B rows, L layers, D hidden units."""

    hidden: Float[Tensor, "B L D"]
    """h of every layer, top layer last."""
    cell: Float[Tensor, "B L D"]
    """c of every layer, top layer last."""


class GRUState(NamedTuple):
    """State of the GRU baseline; B rows, L layers, D hidden units."""

    hidden: Float[Tensor, "B L D"]
    """h of every layer, top layer last."""


class NoState(NamedTuple):
    """State of a feed-forward network: B empty rows."""

    nothing: Float[Tensor, "B 0"]
    """Its length is the number of rows."""


AnyState = CoreState | LSTMState | GRUState | NoState
State = TypeVar("State", bound=AnyState)


def select_rows(is_chosen: Bool[Tensor, " B"], chosen: State, other: State) -> State:
    """Takes the rows of ``chosen`` where ``is_chosen``, and those of ``other`` elsewhere.

    Selects, does not multiply: whatever the rejected rows hold, NaN too, leaves no trace in the result.

    Args:
        is_chosen: one flag a row, [B].
        chosen: state with B rows.
        other: state of the same kind and shapes.

    Returns:
        A new state; both arguments are left as they were.
    """

    def pick(one: Tensor | None, two: Tensor | None) -> Tensor | None:
        if one is None or two is None:
            return None
        return torch.where(is_chosen.view(-1, *[1] * (one.dim() - 1)), one, two)

    return type(chosen)._make(pick(one, two) for one, two in zip(chosen, other, strict=True))


def rows_of_state(state: State, rows: Int[Tensor, " n"]) -> State:
    """Takes some rows of a state, in their order; a new state of n rows."""
    return type(state)._make(None if part is None else take_rows(part, rows) for part in state)


def take_rows(part: Shaped[Tensor, "B ..."], rows: Int[Tensor, " n"]) -> Shaped[Tensor, "n ..."]:
    """Takes some rows, in their order, into new memory that is laid out like the old one."""
    if _is_rows_last(part):
        return part.movedim(0, -1).index_select(-1, rows).movedim(-1, 0)
    return part[rows]


def join_rows(parts: Sequence[Shaped[Tensor, "_ ..."]], places: Int[Tensor, " B"]) -> Shaped[Tensor, "B ..."]:
    """Puts rows together, laid out as they were: row i of the result is row ``places[i]`` of the joined parts."""
    if _is_rows_last(parts[0]):
        return torch.cat([part.movedim(0, -1) for part in parts], -1).index_select(-1, places).movedim(-1, 0)
    return torch.cat(list(parts))[places]


def _is_rows_last(part: Tensor) -> bool:
    """Whether rows lie next to each other in memory, as where a machine ticks in buffers."""
    return part.dim() > 1 and part.stride(0) == 1
