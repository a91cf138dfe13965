"""Acting: one environment step at a time for many environments, without gradient, the state kept in between."""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ctm_rl.agent import ActorCritic
from ctm_rl.state import AnyState


class Stepper:
    """Steps an agent through B episodes at once.

    Args:
        agent: whose parameters are used; after they have been changed, :meth:`refresh` must be called.
        num_rows: B, how many environments.
    """

    def __init__(self, agent: ActorCritic, num_rows: int) -> None:
        self._agent = agent
        self._num_rows = num_rows
        self._parameter = next(agent.parameters())  # where the agent computes, and in which type
        self.reset()

    @property
    def state(self) -> AnyState:
        """The state before the next step, B rows, without gradient."""
        return self._state

    @state.setter
    def state(self, state: AnyState) -> None:
        """Goes on from another state."""
        self._state = state

    @property
    def device(self) -> torch.device:
        """Where the agent computes."""
        return self._parameter.device

    @torch.no_grad()
    def reset(self) -> None:
        """Puts the start state into every row."""
        self._state = self._agent.initial_state(self._num_rows)

    def refresh(self) -> None:
        """Takes notice of changed parameters."""

    @torch.no_grad()
    def step(
        self, observations: Shaped[Tensor, "B ..."], is_first: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """Takes one environment step in every row.

        Args:
            observations: what is seen now, [B, ...].
            is_first: whether this starts an episode, [B]; the row's state is then replaced by the start state.

        Returns:
            Logits of the action distribution, [B, A], and values, [B].
        """
        unrolled = self._agent.unroll(self._cast(observations)[None], is_first[None], self._state)
        self._state = unrolled.state
        return unrolled.logits[0], unrolled.values[0]

    @torch.no_grad()
    def peek(self, observations: Shaped[Tensor, "R ..."], rows: Int[Tensor, " R"] | None = None) -> Float[Tensor, " R"]:
        """Values of what would be seen next, should the episodes go on; the state stays as it is.

        Args:
            observations: of the rows, [R, ...].
            rows: which rows these are, [R]; ``None``: all of them.

        Returns:
            Values, [R].
        """
        state = self._state
        if rows is not None:
            state = type(state)._make(None if part is None else part[rows] for part in state)
        is_first = torch.zeros(1, len(observations), dtype=torch.bool, device=observations.device)
        return self._agent.unroll(self._cast(observations)[None], is_first, state).values[0]

    def _cast(self, observations: Tensor) -> Tensor:
        """The grid encoder reads whole numbers as they are; vectors take the parameters' type."""
        if self._agent.config.encoder == "grid":
            return observations
        return observations.to(self._parameter.dtype)
