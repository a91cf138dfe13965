"""Machines of one configuration, run side by side as one: an actor's core and its critic's.

Most of a small machine's time is the fixed cost of each operation, not arithmetic. Side by side, all neurons lie one
after the other, so that an operation on neurons is one for all machines; dense layers are batched products
(``engine.episode_forward``). Values and gradients are those of one machine after the other. Since all are one node of
the autograd graph, a backward pass from the results of one of them computes the gradients of all, which are then 0.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, TypeVar, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ctm_rl.engine.episode import FoldedWeights, can_unroll, each_step, episode_state, fold, run_episode, state_of
from ctm_rl.engine.episode_forward import EpisodeState, EpisodeWeights
from ctm_rl.engine.episode_sync import EpisodeSteps, JoinedPairs, SyncPairs, resets_of
from ctm_rl.engine.tensor_trees import flatten, structure_of, unflatten
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.state import CoreState

Tree = TypeVar("Tree")

_STACKED = {"recurrent", "scale", "shift", "second", "second_bias"}
"""Fields of ``EpisodeWeights`` with a first axis of machines; all others are concatenated along neurons or terms."""


def can_run_side_by_side(cores: Sequence[object]) -> TypeGuard[Sequence[CTMCore]]:
    """Whether these are machines of one configuration that ``engine.episode`` can unroll."""
    machines = [core for core in cores if isinstance(core, CTMCore) and can_unroll(core)]
    return len(machines) == len(cores) and all(core.config == machines[0].config for core in machines)


def unroll_side_by_side(
    cores: Sequence[CTMCore],
    project: Callable[[Float[Tensor, "CE F"], Float[Tensor, " CE"]], Float[Tensor, "T B CE"]],
    is_first: Shaped[Tensor, "T B"],
    states: Sequence[CoreState],
    ticks: int | Sequence[int] | None = None,
) -> list[tuple[Float[Tensor, "T B P"], CoreState]]:
    """Runs T environment steps of C machines that read the same features.

    Args:
        cores: the machines, for which ``can_run_side_by_side``.
        project: returns ``weight @ features + bias`` of every step.
        is_first: whether a step starts an episode, [T, B]; its row then begins with each machine's learned start state.
        states: each machine's state before the first step, B rows; left as they were.
        ticks: K, or the number of ticks of each step, [T]; ``None``: as configured.

    Returns:
        For each machine what ``engine.episode.unroll`` returns.
    """
    folded = _fold(cores)
    inputs = project(folded.features, folded.bias).unflatten(-1, (len(cores), -1)).transpose(1, 2)  # [T, C, B, E]
    resets = resets_of(is_first)
    steps = EpisodeSteps.of(resets, each_step(cores[0].config.num_ticks if ticks is None else ticks, inputs))
    before = [episode_state(core, state, resets[0]) for core, state in zip(cores, states, strict=True)]
    sync, last = run_episode(folded, inputs, steps, _join(before))
    return list(zip(sync.chunk(len(cores), -1), map(state_of, _split(last, before)), strict=True))


def _fold(cores: Sequence[CTMCore]) -> FoldedWeights:
    """Brings the parameters of all machines into the form that the ticks need, with gradient."""
    each = [fold(core) for core in cores]
    weights = {
        name: _join([getattr(folded.weights, name) for folded in each], torch.stack if name in _STACKED else torch.cat)
        for name in EpisodeWeights._fields
    }
    features, bias = (_join([getattr(folded, name) for folded in each]) for name in ("features", "bias"))
    pairs = [cast(SyncPairs, folded.pairs) for folded in each]
    return FoldedWeights(EpisodeWeights(**weights), features, bias, JoinedPairs.of(pairs, cores[0].config.num_neurons))


def _join(trees: Sequence[Tree], join: Callable[[Any], Tensor] = torch.cat) -> Tree:
    """Joins the tensors of trees of one structure; by default along their first axis, that of neurons or terms."""
    leaves = zip(*map(flatten, trees), strict=True)
    return unflatten(structure_of(trees[0]), [None if parts[0] is None else join(parts) for parts in leaves])


def _split(joined: EpisodeState, like: Sequence[EpisodeState]) -> list[EpisodeState]:
    """Reverses ``_join``; ``like`` has the sizes."""
    sizes = zip(*map(flatten, like), strict=True)
    parts = [
        [None] * len(like) if whole is None else whole.split([0 if one is None else len(one) for one in each])
        for whole, each in zip(flatten(joined), sizes, strict=True)
    ]
    return [EpisodeState._make(leaves) for leaves in zip(*parts, strict=True)]
