"""Features of observations multiplied by a dense layer, without forming the features of grids.

A dense layer's output on the features of a grid is a sum over cells, and the contribution of a cell depends only on its
place and its kind: object, colour and state. So it is computed once for each place and each kind that occurs, and every
observation sums the contributions of its cells. Equal in value and gradient to forming the features, with tens of times
less work. If an observation has several parts, their contributions are summed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ctm_rl.encoders import PartsEncoder
from ctm_rl.encoders.grid import GridEncoder

_FEW_KINDS = 12
"""Up to this many kinds, a product with ones and zeros is faster, forward and backward, than gathering rows."""


def reads_grid(encoder: nn.Module) -> bool:
    """Whether an encoder reads a grid, alone or among other parts, so that projecting saves work."""
    return any(isinstance(part, GridEncoder) for part in _parts(encoder))


def _parts(encoder: nn.Module) -> list[nn.Module]:
    """The encoders of the parts of an observation."""
    return list(encoder.parts) if isinstance(encoder, PartsEncoder) else [encoder]


def _pieces(encoder: nn.Module, observations: Shaped[Tensor, "N ..."]) -> list[Tensor]:
    """The part of the observations that each of them reads."""
    if isinstance(encoder, PartsEncoder):
        return [piece for _, piece in encoder.pieces(observations)]
    return [observations]


class Projection:
    """``weight @ features + bias`` of observations, with gradient.

    Without gradient and with encoder and layer fixed, it can be called again: the contributions of cells are kept, and
    computed again when a new kind of cell occurs.

    Args:
        encoder: of the observations, with F features.
        weight: of the dense layer, [E, F].
        bias: of the dense layer, [E].
    """

    def __init__(self, encoder: nn.Module, weight: Float[Tensor, "E F"], bias: Float[Tensor, " E"]) -> None:
        self._encoder, self._weight, self._bias = encoder, weight, bias
        self._contributions: list[Callable[[Tensor], Tensor]] = []
        if reads_grid(encoder):
            parts = _parts(encoder)
            columns: Any = weight.split([part.out_dim for part in parts], -1)  # that meet the features of each part
            self._contributions = [_contribution(*pair) for pair in zip(parts, columns, strict=True)]

    def __call__(self, observations: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N E"]:
        """The layer's output, [N, E], for observations [N, ...].

        Raises:
            IndexError: a grid holds an object, colour or state beyond those of the encoder.
        """
        if not self._contributions:
            return nn.functional.linear(self._encoder(observations), self._weight, self._bias)
        pieces = zip(self._contributions, _pieces(self._encoder, observations), strict=True)
        return sum((contribution(piece) for contribution, piece in pieces), self._bias)


def _contribution(part: nn.Module, weight: Float[Tensor, "E F"]) -> Callable[[Tensor], Tensor]:
    """The contribution of one part to the layer's output, as a function of what the part reads."""
    if isinstance(part, GridEncoder):
        return _GridContribution(part, weight)
    return lambda piece: nn.functional.linear(part(piece), weight)


class _GridContribution:
    """The contribution of a grid; those of the kinds of cells that have occurred are kept."""

    def __init__(self, grid: GridEncoder, weight: Float[Tensor, "E F"]) -> None:
        self._grid, self._weight = grid, weight
        self._shares: CellShares | None = None

    def __call__(self, piece: Shaped[Tensor, "N H W 3"]) -> Float[Tensor, "N E"]:
        kinds = kinds_of(piece, self._grid.sizes)
        if self._shares is None:
            self._shares = share_out(self._grid, kinds, self._weight)
        elif (self._shares.slots[kinds] < 0).any():
            known = (self._shares.slots >= 0).nonzero().squeeze(1)
            self._shares = share_out(self._grid, torch.cat((known, kinds.flatten())), self._weight)
        return self._shares.add_up(kinds)


class CellShares(NamedTuple):
    """Contributions of cells to a dense layer's output, for Q of all possible kinds of cells."""

    slots: Int[Tensor, " kinds"]
    """The index of each kind in ``rows``; -1: it has none."""
    rows: Float[Tensor, "cells Q E"]
    """The contribution of a cell, by place and index."""

    def add_up(self, kinds: Int[Tensor, "N cells"]) -> Float[Tensor, "N E"]:
        """Sums the contributions of the cells of each observation; all their kinds must be among the Q."""
        num_cells, num_kinds, _ = self.rows.shape
        places = torch.arange(0, num_cells * num_kinds, num_kinds, device=kinds.device)
        index, rows = self.slots[kinds] + places, self.rows.flatten(0, 1)
        if num_kinds > _FEW_KINDS:
            return nn.functional.embedding_bag(index, rows, mode="sum")
        return rows.new_zeros(len(index), len(rows)).scatter_(1, index, 1.0) @ rows


def share_out(encoder: GridEncoder, kinds: Int[Tensor, "..."], weight: Float[Tensor, "E cells_F"]) -> CellShares:
    """Computes the contribution of each kind of cell to a dense layer's output at every place.

    Args:
        encoder: of the grid.
        kinds: those that are needed, with or without repetitions, as ``kinds_of`` returns them.
        weight: of the dense layer, [E, H x W x F].

    Returns:
        The contributions of these kinds.
    """
    num_objects, num_colors, num_states = encoder.sizes
    num_kinds = num_objects * num_colors * num_states
    known = kinds.flatten().bincount(minlength=num_kinds).nonzero().squeeze(1)
    slots = known.new_full((num_kinds,), -1)
    slots[known] = torch.arange(len(known), device=known.device)
    parts = known // (num_colors * num_states), known // num_states % num_colors, known % num_states
    codes = encoder.code(torch.stack(parts, -1))  # [cells, Q, F]
    return CellShares(slots, torch.bmm(codes, weight.unflatten(1, (len(codes), -1)).permute(1, 2, 0)))


def kinds_of(observations: Shaped[Tensor, "N H W 3"], sizes: tuple[int, ...]) -> Int[Tensor, "N cells"]:
    """One number for object, colour and state of every cell.

    Args:
        observations: integers from 0, [N, H, W, 3].
        sizes: number of objects, colours and states.

    Returns:
        Kinds, [N, H x W].

    Raises:
        IndexError: an object, colour or state is not below its number.
    """
    parts = observations.flatten(1, 2).long().unbind(-1)
    highest = tuple(int(part.max()) for part in parts)
    if any(value >= size for value, size in zip(highest, sizes, strict=True)):
        raise IndexError(f"objects, colours and states must be below {sizes}, got up to {highest}.")
    objects, colors, states = parts
    return (objects * sizes[1] + colors) * sizes[2] + states
