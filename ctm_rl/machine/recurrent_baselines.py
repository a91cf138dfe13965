"""Recurrent baselines: an LSTM and a GRU that tick in the machine's place."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.machine.core import Tick
from ctm_rl.machine.reading import Reading
from ctm_rl.machine.state import GRUState, LSTMState


class LSTMCore(nn.Module):
    """An LSTM that ticks like the machine: its top hidden state queries the data and is read by the heads.

    Source: the baselines of arXiv:2505.05522.

    Args:
        num_features: size of what is read at each tick.
        hidden_dim: D, width of every layer.
        num_layers: L.
        dropout: dropout between layers, in training.
    """

    def __init__(self, num_features: int, hidden_dim: int, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        # torch warns about a dropout that a single layer cannot use
        self.lstm = nn.LSTM(
            num_features, hidden_dim, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.start_hidden = _start(num_layers, hidden_dim)
        self.start_cell = _start(num_layers, hidden_dim)
        self.query_dim = hidden_dim
        self.answer_dim = hidden_dim

    def initial_state(self, batch_size: int) -> LSTMState:
        """The learned start state, ``batch_size`` equal rows, with gradient."""
        return LSTMState(self.start_hidden.expand(batch_size, -1, -1), self.start_cell.expand(batch_size, -1, -1))

    def tick(self, state: LSTMState, reading: Reading) -> Tick[LSTMState]:
        """One step of the LSTM, on what its top layer reads.

        Args:
            state: the state after the tick before, B rows; left as it was.
            reading: returns the features of this tick for a query.

        Returns:
            The new state, the query [B, D] and its glimpse.
        """
        query = self.answer(state)
        glimpse = reading(query)
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)  # [L, B, D], as torch takes them
        _, (hidden, cell) = self.lstm(glimpse.features[:, None], (hidden, cell))
        return Tick(LSTMState(hidden.transpose(0, 1), cell.transpose(0, 1)), query, glimpse)

    def answer(self, state: LSTMState) -> Float[Tensor, "B D"]:
        """The hidden state of the top layer, [B, D]."""
        return state.hidden[:, -1]

    def project_(self) -> None:
        """An LSTM has no parameters with limits."""


class GRUCore(nn.Module):
    """A GRU that ticks like the machine: its top hidden state queries the data and is read by the heads.

    Args:
        num_features: size of what is read at each tick.
        hidden_dim: D, width of every layer.
        num_layers: L.
        dropout: dropout between layers, in training.
    """

    def __init__(self, num_features: int, hidden_dim: int, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        # torch warns about a dropout that a single layer cannot use
        self.gru = nn.GRU(
            num_features, hidden_dim, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.start_hidden = _start(num_layers, hidden_dim)
        self.query_dim = hidden_dim
        self.answer_dim = hidden_dim

    def initial_state(self, batch_size: int) -> GRUState:
        """The learned start state, ``batch_size`` equal rows, with gradient."""
        return GRUState(self.start_hidden.expand(batch_size, -1, -1))

    def tick(self, state: GRUState, reading: Reading) -> Tick[GRUState]:
        """One step of the GRU, on what its top layer reads.

        Args:
            state: the state after the tick before, B rows; left as it was.
            reading: returns the features of this tick for a query.

        Returns:
            The new state, the query [B, D] and its glimpse.
        """
        query = self.answer(state)
        glimpse = reading(query)
        _, hidden = self.gru(glimpse.features[:, None], state.hidden.transpose(0, 1).contiguous())
        return Tick(GRUState(hidden.transpose(0, 1)), query, glimpse)

    def answer(self, state: GRUState) -> Float[Tensor, "B D"]:
        """The hidden state of the top layer, [B, D]."""
        return state.hidden[:, -1]

    def project_(self) -> None:
        """A GRU has no parameters with limits."""


def _start(num_layers: int, hidden_dim: int) -> nn.Parameter:
    """Learned start values, [L, D]."""
    bound = math.sqrt(1.0 / hidden_dim)
    return nn.Parameter(torch.empty(num_layers, hidden_dim).uniform_(-bound, bound))
