"""The GRU baseline over many environment steps: its cell for ``engine.episode_recurrent``.

The candidate's recurrent part lies inside the reset gate, so it is stored for the backward pass, and its bias cannot be
added to the features' part.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.engine.episode_recurrent import EpisodeCell, unroll_cell
from ctm_rl.machine.recurrent_baselines import GRUCore
from ctm_rl.machine.state import GRUState


def can_unroll_gru(core: object) -> bool:
    """Whether ``unroll_gru`` supports this core: a GRU of one layer."""
    return isinstance(core, GRUCore) and core.gru.num_layers == 1


def unroll_gru(
    core: GRUCore, features: Float[Tensor, "T B F"], is_first: Shaped[Tensor, "T B"], state: GRUState, num_ticks: int
) -> tuple[Float[Tensor, "T B D"], GRUState]:
    """Runs T environment steps of K ticks each.

    One tick, torch's gates in torch's order: ``r, z = sigmoid(x + W h)``, ``n = tanh(x_n + r (W_n h + b_n))``,
    ``h' = n + z (h - n)``.

    Args:
        core: one that ``can_unroll_gru``.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        num_ticks: K.

    Returns:
        The hidden state after each step, [T, B, D], and the state after the last one. Equal to
        ``engine.episode.step_through`` in value and gradient.
    """
    gru: Any = core.gru
    inputs = nn.functional.linear(features, gru.weight_ih_l0, gru.bias_ih_l0)
    weights = [gru.weight_hh_l0, gru.bias_hh_l0]
    outputs, last = unroll_cell(_GRUCell, inputs, is_first, state, [core.start_hidden], weights, num_ticks)
    return outputs, GRUState(*last)


class _GRUCell(EpisodeCell):
    """Gates: reset, update, candidate. State: h. Inner: what the reset gate is multiplied with."""

    num_states, num_sigmoids = 1, 2

    def forward(self, step: int, tick: int) -> None:
        """See ``EpisodeCell``."""
        before, after = self.states[0][tick : tick + 2]
        gates, sigmoids, reset, update, candidate = self.gates[tick]
        _, sigmoid_inputs, *_, candidate_inputs = self.inputs[step]
        torch.addmm(self.weights[1], before, self.recurrent, out=gates)
        self.inner[tick].copy_(candidate)
        sigmoids.add_(sigmoid_inputs).sigmoid_()
        candidate.mul_(reset).add_(candidate_inputs).tanh_()
        torch.lerp(candidate, before, update, out=after)

    def start_backward(self, gates: Tensor) -> None:
        """See ``EpisodeCell``; there the gates' gradient is that of W h + b."""
        super().start_backward(gates)
        self._d_candidates = torch.empty_like(self.hiddens[:-1])  # of what the candidate is the hyperbolic tangent of
        self._d_candidate_ticks = self._d_candidates.unbind(0)

    def backward(self, tick: int, d_states: Sequence[Tensor]) -> list[Tensor]:
        """See ``EpisodeCell``."""
        d_hidden, d_candidate = d_states[0], self._d_candidate_ticks[tick]
        _, sigmoids, reset, update, candidate = self.gates[tick]
        d_recurrent, d_sigmoids, d_reset, d_update, d_inner = self.d_gate_ticks[tick]
        through = d_hidden * update
        torch.mul(d_hidden, self.states[0][tick] - candidate, out=d_update)
        torch.sub(d_hidden, through, out=d_candidate)
        d_candidate.addcmul_(d_candidate, candidate.square(), value=-1.0)
        torch.mul(d_candidate, self.inner[tick], out=d_reset)
        torch.mul(d_candidate, reset, out=d_inner)
        d_sigmoids.mul_(sigmoids).addcmul_(d_sigmoids, sigmoids, value=-1.0)
        return [through.addmm_(d_recurrent, self.weights[0])]

    def grads(self) -> tuple[Tensor, list[Tensor]]:
        """See ``EpisodeCell``."""
        d_recurrent, d_weights = super().grads()
        d_inputs = torch.cat((d_recurrent[..., : -self._d_candidates.shape[2]], self._d_candidates), -1)
        return d_inputs, [*d_weights, d_recurrent.sum((0, 1))]
