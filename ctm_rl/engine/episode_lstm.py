"""The LSTM baseline over many environment steps: its cell for ``engine.episode_recurrent``."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.engine.episode_recurrent import EpisodeCell, unroll_cell
from ctm_rl.machine.recurrent_baselines import LSTMCore
from ctm_rl.machine.state import LSTMState

_PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def can_unroll_lstm(core: object) -> bool:
    """Whether ``unroll_lstm`` supports this core: an LSTM of one layer."""
    return isinstance(core, LSTMCore) and core.lstm.num_layers == 1


def unroll_lstm(
    core: LSTMCore, features: Float[Tensor, "T B F"], is_first: Shaped[Tensor, "T B"], state: LSTMState, num_ticks: int
) -> tuple[Float[Tensor, "T B D"], LSTMState]:
    """Runs T environment steps of K ticks each.

    Args:
        core: one that ``can_unroll_lstm``.
        features: of every step, the same for its K ticks, [T, B, F].
        is_first: whether a step starts an episode, [T, B]; its row then begins with the learned start state.
        state: the state before the first step, B rows; left as it was.
        num_ticks: K.

    Returns:
        The hidden state after each step, [T, B, D], and the state after the last one. Equal to
        ``engine.episode.step_through`` in value and gradient.
    """
    lstm = core.lstm
    # torch orders the gates input, forget, cell, output; with the cell's last, the sigmoids are side by side
    size = lstm.hidden_size
    order = torch.arange(4 * size, device=features.device).view(4, size)[[0, 1, 3, 2]].flatten()
    of_features, recurrent, *biases = (cast(Tensor, getattr(lstm, name))[order] for name in _PARAMETERS)
    inputs = nn.functional.linear(features, of_features, biases[0] + biases[1])
    start = core.start_hidden, core.start_cell
    outputs, last = unroll_cell(_LSTMCell, inputs, is_first, state, start, [recurrent], num_ticks)
    return outputs, LSTMState(*last)


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
