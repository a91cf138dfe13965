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

    num_states = 1

    def start_forward(self) -> None:
        """See ``EpisodeCell``."""
        self._recurrent = self.weights[0].T.contiguous()

    def start_step(self, inputs: Tensor) -> None:
        """See ``EpisodeCell``."""
        self._of_gates, self._of_candidate = inputs.split((2 * self.size, self.size), 1)

    def forward(self, tick: int) -> None:
        """See ``EpisodeCell``."""
        hiddens, gates, size = self.states[0], self.gates[tick], self.size
        torch.addmm(self.weights[1], hiddens[tick], self._recurrent, out=gates)
        sigmoids, candidate = gates.split((2 * size, size), 1)
        self.inner[tick] = candidate
        sigmoids.add_(self._of_gates).sigmoid_()
        reset, update = sigmoids.split(size, 1)
        candidate.mul_(reset).add_(self._of_candidate).tanh_()
        torch.lerp(candidate, hiddens[tick], update, out=hiddens[tick + 1])

    def start_backward(self) -> None:
        """See ``EpisodeCell``."""
        self._d_recurrent = torch.empty_like(self.gates)  # of W h + b
        self._d_candidates = torch.empty_like(self.inner)  # of what the candidate is the hyperbolic tangent of

    def backward(self, tick: int, d_states: Sequence[Tensor]) -> list[Tensor]:
        """See ``EpisodeCell``."""
        d_hidden, gates, size = d_states[0], self.gates[tick], self.size
        d_recurrent, d_candidate = self._d_recurrent[tick], self._d_candidates[tick]
        reset, update, candidate = gates.split(size, 1)
        d_reset, d_update, d_inner = d_recurrent.split(size, 1)
        through = d_hidden * update
        torch.mul(d_hidden, self.states[0][tick] - candidate, out=d_update)
        torch.sub(d_hidden, through, out=d_candidate)
        d_candidate.addcmul_(d_candidate, candidate.square(), value=-1.0)
        torch.mul(d_candidate, self.inner[tick], out=d_reset)
        torch.mul(d_candidate, reset, out=d_inner)
        sigmoids, d_sigmoids = gates[:, : 2 * size], d_recurrent[:, : 2 * size]
        d_sigmoids.mul_(sigmoids).addcmul_(d_sigmoids, sigmoids, value=-1.0)
        return [through.addmm_(d_recurrent, self.weights[0])]

    def grads(self) -> tuple[Tensor, list[Tensor]]:
        """See ``EpisodeCell``."""
        d_weight = self._d_recurrent.flatten(0, 1).T @ self.states[0][:-1].flatten(0, 1)
        d_inputs = torch.cat((self._d_recurrent[..., : 2 * self.size], self._d_candidates), -1)
        return d_inputs, [d_weight, self._d_recurrent.sum((0, 1))]
