"""The LSTM and GRU baselines over many environment steps: their cells for ``engine.episode_recurrent``."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.engine.episode_recurrent import EpisodeCell, unroll_cell
from ctm_rl.machine.recurrent_baselines import GRUCore, LSTMCore
from ctm_rl.machine.state import GRUState, LSTMState

_PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def can_unroll_baseline(core: object) -> TypeGuard[LSTMCore | GRUCore]:
    """Whether ``unroll_baseline`` supports this core: an LSTM or a GRU of one layer."""
    if isinstance(core, LSTMCore):
        return core.lstm.num_layers == 1
    return isinstance(core, GRUCore) and core.gru.num_layers == 1


def unroll_baseline(
    core: LSTMCore | GRUCore,
    features: Float[Tensor, "T B F"],
    is_first: Shaped[Tensor, "T B"],
    state: LSTMState | GRUState,
    num_ticks: int,
) -> tuple[Float[Tensor, "T B D"], LSTMState | GRUState]:
    """Runs T environment steps of K ticks each.

    Args:
        core: one that ``can_unroll_baseline``.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        num_ticks: K.

    Returns:
        The hidden state after each step, [T, B, D], and the state after the last one. Equal to
        ``engine.episode.step_through`` in value and gradient.
    """
    layers: Any = core.lstm if isinstance(core, LSTMCore) else core.gru
    of_features, recurrent, bias, recurrent_bias = (getattr(layers, name) for name in _PARAMETERS)
    if isinstance(core, LSTMCore):
        # torch orders the gates input, forget, cell, output; with the cell's last, the sigmoids are side by side
        order = torch.arange(len(bias), device=features.device).view(4, -1)[[0, 1, 3, 2]].flatten()
        of_features, bias = of_features[order], bias[order] + recurrent_bias[order]
        cell, weights = _LSTMCell, [recurrent[order]]
    else:
        cell, weights = _GRUCell, [recurrent, recurrent_bias]
    inputs = nn.functional.linear(features, of_features, bias)
    start = [part[0] for part in core.initial_state(1)]
    outputs, last = unroll_cell(cell, inputs, is_first, state, start, weights, num_ticks)
    return outputs, type(state)._make(last)


class _LSTMCell(EpisodeCell):
    """Gates: input, forget, output, cell. States: h and c. Inner: the hyperbolic tangent of c after the tick."""

    num_states, num_sigmoids = 2, 3

    def forward(self, step: int, tick: int) -> None:
        """See ``EpisodeCell``."""
        (hidden, next_hidden), (cell, next_cell) = (ticks[tick : tick + 2] for ticks in self.states)
        gates, sigmoids, enter, keep, leave, candidate = self.gates[tick]
        torch.addmm(self.inputs[step][0], hidden, self.recurrent, out=gates)
        sigmoids.sigmoid_()
        candidate.tanh_()
        torch.mul(keep, cell, out=next_cell).addcmul_(enter, candidate)
        torch.mul(leave, torch.tanh(next_cell, out=self.inner[tick]), out=next_hidden)

    def backward(self, tick: int, d_states: Sequence[Tensor]) -> list[Tensor]:
        """See ``EpisodeCell``."""
        d_hidden, d_cell = d_states
        squashed = self.inner[tick]
        _, sigmoids, enter, keep, leave, candidate = self.gates[tick]
        d_gates, d_sigmoids, d_enter, d_keep, d_leave, d_candidate = self.d_gate_ticks[tick]
        torch.mul(d_hidden, squashed, out=d_leave)
        through = d_hidden * leave
        d_cell = (d_cell + through).addcmul_(through, squashed.square(), value=-1.0)
        torch.mul(d_cell, candidate, out=d_enter)
        torch.mul(d_cell, self.states[1][tick], out=d_keep)
        torch.mul(d_cell, enter, out=d_candidate)
        d_sigmoids.mul_(sigmoids).addcmul_(d_sigmoids, sigmoids, value=-1.0)
        d_candidate.addcmul_(d_candidate, candidate.square(), value=-1.0)
        return [d_gates @ self.weights[0], d_cell.mul_(keep)]


class _GRUCell(EpisodeCell):
    """Gates: reset, update, candidate. State: h. Inner: what the reset gate is multiplied with.

    One tick, torch's gates in torch's order: ``r, z = sigmoid(x + W h)``, ``n = tanh(x_n + r (W_n h + b_n))``,
    ``h' = n + z (h - n)``. The candidate's recurrent part lies inside the reset gate, so it is stored for the backward
    pass, and its bias cannot be added to the features' part.
    """

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
