"""Baselines: an LSTM in the machine's place in the loop, and a feed-forward network on the same encoder."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.core import Tick
from ctm_rl.reader import Reading
from ctm_rl.state import LSTMState


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
        bound = math.sqrt(1.0 / hidden_dim)
        self.start_hidden = nn.Parameter(torch.empty(num_layers, hidden_dim).uniform_(-bound, bound))
        self.start_cell = nn.Parameter(torch.empty(num_layers, hidden_dim).uniform_(-bound, bound))
        self.query_dim = hidden_dim
        self.answer_dim = hidden_dim

    def initial_state(self, batch_size: int) -> LSTMState:
        """The learned start state, ``batch_size`` equal rows, with gradient."""
        return LSTMState(self.start_hidden.expand(batch_size, -1, -1), self.start_cell.expand(batch_size, -1, -1))

    def tick(self, state: LSTMState, reading: Reading) -> Tick[LSTMState]:
        """One step of the LSTM on what its top layer asked to read.

        Args:
            state: the state after the tick before, B rows; left as it was.
            reading: gives the features of this tick for a query.

        Returns:
            The new state, the query [B, D] and the glimpse it got.
        """
        query = self.answer(state)
        glimpse = reading(query)
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)  # [L, B, D], as torch wants them
        _, (hidden, cell) = self.lstm(glimpse.features[:, None], (hidden, cell))
        return Tick(LSTMState(hidden.transpose(0, 1), cell.transpose(0, 1)), query, glimpse)

    def answer(self, state: LSTMState) -> Float[Tensor, "B D"]:
        """The hidden state of the top layer, [B, D]."""
        return state.hidden[:, -1]

    def project_(self) -> None:
        """An LSTM has no parameters with limits."""


class FeedForward(nn.Module):
    """The encoder's map averaged over its places, then one hidden layer.

    Source: the baselines of arXiv:2505.05522.

    Args:
        encoder: picture in, [B, C, H, W] out.
        encoder_dim: C.
        hidden_dim: width of the hidden layer.
        output_dim: size of the answer.
        dropout: before the last layer, in training.
    """

    def __init__(self, encoder: nn.Module, encoder_dim: int, hidden_dim: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Linear(encoder_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_dim, output_dim)

    def forward(self, inputs: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O"]:
        """Maps pictures to logits, [B, O]."""
        pooled = self.encoder(inputs).flatten(2).mean(-1)
        return self.head(self.dropout(self.hidden(pooled).relu()))
