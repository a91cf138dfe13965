"""Recurrent baselines: an LSTM and a GRU that tick in the machine's place."""

from abc import abstractmethod
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.machine.attention import Reading
from ctm_rl.machine.core import Tick, uniform_start
from ctm_rl.machine.state import GRUState, LSTMState

_Layers = TypeVar("_Layers", nn.LSTM, nn.GRU)
_State = TypeVar("_State", LSTMState, GRUState)


class _RecurrentCore(nn.Module, Generic[_State]):
    """Recurrent layers that tick like the machine: the top hidden state queries the data and is read by the heads.

    Args:
        hidden_dim: D, width of every layer.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.query_dim = self.answer_dim = hidden_dim

    @abstractmethod
    def initial_state(self, batch_size: int) -> _State:
        """The learned start state, ``batch_size`` equal rows, with gradient."""

    @abstractmethod
    def _advance(self, inputs: Float[Tensor, "B 1 F"], state: _State) -> _State:
        """The state one step later."""

    def tick(self, state: _State, reading: Reading) -> Tick[_State]:
        """One step of the layers, on what the top layer reads.

        Args:
            state: the state after the tick before, B rows; left as it was.
            reading: returns the features of this tick for a query.

        Returns:
            The new state, the query [B, D] and its glimpse.
        """
        query = self.answer(state)
        glimpse = reading(query)
        return Tick(self._advance(glimpse.features[:, None], state), query, glimpse)

    def answer(self, state: _State) -> Float[Tensor, "B D"]:
        """The hidden state of the top layer, [B, D]."""
        return state.hidden[:, -1]


class LSTMCore(_RecurrentCore[LSTMState]):
    """An LSTM. Source: the baselines of arXiv:2505.05522.

    Args:
        num_features: size of what is read at each tick.
        hidden_dim: D, width of every layer.
        num_layers: L.
        dropout: dropout between layers, in training.
    """

    def __init__(self, num_features: int, hidden_dim: int, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__(hidden_dim)
        self.lstm = _layers(nn.LSTM, num_features, hidden_dim, num_layers, dropout)
        self.start_hidden = _start(num_layers, hidden_dim)
        self.start_cell = _start(num_layers, hidden_dim)

    def initial_state(self, batch_size: int) -> LSTMState:
        """See ``_RecurrentCore``."""
        return LSTMState(self.start_hidden.expand(batch_size, -1, -1), self.start_cell.expand(batch_size, -1, -1))

    def _advance(self, inputs: Tensor, state: LSTMState) -> LSTMState:
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)  # [L, B, D], as torch takes them
        _, (hidden, cell) = self.lstm(inputs, (hidden, cell))
        return LSTMState(hidden.transpose(0, 1), cell.transpose(0, 1))


class GRUCore(_RecurrentCore[GRUState]):
    """A GRU; arguments as of ``LSTMCore``."""

    def __init__(self, num_features: int, hidden_dim: int, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__(hidden_dim)
        self.gru = _layers(nn.GRU, num_features, hidden_dim, num_layers, dropout)
        self.start_hidden = _start(num_layers, hidden_dim)

    def initial_state(self, batch_size: int) -> GRUState:
        """See ``_RecurrentCore``."""
        return GRUState(self.start_hidden.expand(batch_size, -1, -1))

    def _advance(self, inputs: Tensor, state: GRUState) -> GRUState:
        _, hidden = self.gru(inputs, state.hidden.transpose(0, 1).contiguous())
        return GRUState(hidden.transpose(0, 1))


def _layers(kind: type[_Layers], num_features: int, hidden_dim: int, num_layers: int, dropout: float) -> _Layers:
    # torch warns about a dropout that a single layer cannot use
    dropout = dropout if num_layers > 1 else 0.0
    return kind(num_features, hidden_dim, num_layers, batch_first=True, dropout=dropout)


def _start(num_layers: int, hidden_dim: int) -> nn.Parameter:
    """Learned start values, [L, D]."""
    return nn.Parameter(uniform_start((num_layers, hidden_dim), hidden_dim))
