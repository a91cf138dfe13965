"""Which neurons synchronise with which: index pairs, drawn once and kept with the weights."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ctm_rl.config import PairingKind

Role = Literal["output", "action"]


class Pairing(NamedTuple):
    """P terms: p pairs of neurons, then neurons that are read alone."""

    left: Int[Tensor, " P"]
    """First neuron of each pair, then the neurons without a partner."""
    right: Int[Tensor, " p"]
    """Second neuron of each pair."""


def all_pairs(left: Int[Tensor, " n"], right: Int[Tensor, " n"]) -> Pairing:
    """Pairs (left_i, right_j) for all i <= j, row by row: P = n (n + 1) / 2."""
    row, column = torch.triu_indices(len(left), len(right))
    return Pairing(left[row], right[column])


def diagonal(num_pairs: int) -> Int[Tensor, " n"]:
    """Where the pairs (i, i) stand among ``num_pairs`` pairs made by ``all_pairs``, [n]."""
    n = num_neurons_of(num_pairs)
    lengths = torch.arange(n, 0, -1)
    return torch.cumsum(lengths, 0) - lengths


def num_neurons_of(num_pairs: int) -> int:
    """The n for which n (n + 1) / 2 is ``num_pairs``."""
    n = int((2 * num_pairs) ** 0.5)
    if n * (n + 1) // 2 != num_pairs:
        raise ValueError(f"{num_pairs} is not a number of all pairs, n (n + 1) / 2.")
    return n


def num_pairs(kind: PairingKind, num_sync_neurons: int) -> int:
    """How many pairs ``kind`` makes of ``num_sync_neurons``."""
    return num_sync_neurons if kind == "random-pairing" else num_sync_neurons * (num_sync_neurons + 1) // 2


def add_first_order(pairing: Pairing, num_neurons: int) -> Pairing:
    """Adds all ``num_neurons`` neurons, each read alone."""
    return Pairing(torch.cat((pairing.left, torch.arange(num_neurons))), pairing.right)


def make_pairing(
    kind: PairingKind, role: Role, num_neurons: int, num_sync_neurons: int, num_self_pairs: int = 0
) -> Pairing:
    """Draws the pairs of one synchronisation. Source: arXiv:2505.05522, section 3.4 and appendix.

    ``first-last`` and ``last-first`` take neighbouring neurons from one end, ``random`` draws n left and n right
    neurons independently and with replacement; these make all pairs i <= j. ``random-pairing`` joins the k-th left
    neuron with the k-th right one, the first ``num_self_pairs`` of them with themselves. Random pairs come from
    torch's global generator, like the weights.

    Args:
        kind: how to pair.
        role: ``output`` or ``action``; decides the end in ``first-last`` and ``last-first``.
        num_neurons: D.
        num_sync_neurons: n; for ``random-pairing`` the number of pairs.
        num_self_pairs: ``random-pairing`` only.

    Returns:
        The pairs: n (n + 1) / 2 of them, or n for ``random-pairing``.
    """
    if kind in ("first-last", "last-first"):
        is_first = (kind == "first-last") == (role == "output")
        start = 0 if is_first else num_neurons - num_sync_neurons
        neurons = torch.arange(start, start + num_sync_neurons)
        return all_pairs(neurons, neurons)
    left = torch.randint(num_neurons, (num_sync_neurons,))
    right = torch.randint(num_neurons, (num_sync_neurons,))
    if kind == "random":
        return all_pairs(left, right)
    right[:num_self_pairs] = left[:num_self_pairs]
    return Pairing(left, right)
