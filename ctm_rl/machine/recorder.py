"""The recorder: stores the inside of every tick, for figures and tests."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.machine.core import Tick
from ctm_rl.machine.state import CoreState


class Recording(NamedTuple):
    """All ticks of one run of the machine, detached; K ticks, B rows. None where the model has none."""

    output_sync: Float[Tensor, "K B P"]
    """What the heads read after each tick; for a recurrent baseline the hidden state of its top layer."""
    post_activations: Float[Tensor, "K B D"]
    """z of each tick; for a recurrent baseline the hidden state of its top layer."""
    pre_activations: Float[Tensor, "K B D"] | None = None
    """What the synapse sent to each neuron."""
    action_sync: Float[Tensor, "K B Q"] | None = None
    """What the input was queried with, before each tick."""
    attention: Float[Tensor, "Ka B h 1 S"] | None = None
    """Attention weights of each head, one query each; only the ticks that attended (Ka = K except for questions)."""


class Recorder:
    """Collects ticks into a ``Recording``."""

    def __init__(self) -> None:
        self._ticks: dict[str, list[Tensor]] = {}

    def add(self, tick: Tick, answer: Float[Tensor, "B P"]) -> None:
        """Adds one tick and what the heads read after it."""
        self._keep("output_sync", answer)
        if isinstance(tick.state, CoreState):
            self._keep("pre_activations", tick.state.pre_history[..., -1])
            self._keep("post_activations", tick.state.post_activation)
            if tick.query.shape[-1]:
                self._keep("action_sync", tick.query)
        else:
            self._keep("post_activations", answer)
        if tick.glimpse.attention is not None:
            self._keep("attention", tick.glimpse.attention.unsqueeze(2))

    def finish(self) -> Recording:
        """Everything so far, stacked along the ticks."""
        return Recording(**{name: torch.stack(values) for name, values in self._ticks.items()})

    def _keep(self, name: str, value: Tensor) -> None:
        self._ticks.setdefault(name, []).append(value.detach())
