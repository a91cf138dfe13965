"""Acting: one environment step at a time for many environments, without gradient, the state kept in between."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ctm_rl.encoders.projection import FixedProjection
from ctm_rl.engine.episode import FoldedWeights, can_unroll, episode_state, fold
from ctm_rl.engine.episode_forward import EpisodeForward
from ctm_rl.engine.episode_sync import Window
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.state import AnyState, CoreState
from ctm_rl.machine.synchronisation import sync_of
from ctm_rl.models.actor_critic import ActorCritic

_ROOM = 32
"""Steps after which histories are moved back to the beginning of their buffers."""


class Stepper:
    """Steps an agent through B episodes at once.

    A machine that can be unrolled fast ticks in sliding buffers (``engine.episode_forward``), so that no history is
    copied at a tick; anything else goes through ``models.actor_critic.ActorCritic.unroll``.

    Args:
        agent: whose parameters are used; after they have been changed, ``refresh`` must be called.
        num_rows: B, how many environments.
    """

    def __init__(self, agent: ActorCritic, num_rows: int) -> None:
        self._agent = agent
        self._num_rows = num_rows
        self._parameter = next(agent.parameters())  # where the agent computes, and in which type
        self.reset()

    @property
    def agent(self) -> ActorCritic:
        """Who acts."""
        return self._agent

    @property
    def device(self) -> torch.device:
        """Where the agent computes."""
        return self._parameter.device

    @property
    def state(self) -> AnyState:
        """The state before the next step, B rows, without gradient."""
        return self._state if self._sweep is None else self._sweep.state()

    @state.setter
    def state(self, state: AnyState) -> None:
        """Goes on from another state."""
        self._state = state
        self._sweep = None
        if self._agent.config.is_state_carried and can_unroll(self._agent.core):
            assert isinstance(self._agent.core, CTMCore)
            assert isinstance(state, CoreState)
            self._sweep = _AgentSweep(self._agent, self._agent.core, state)

    @torch.no_grad()
    def reset(self) -> None:
        """Puts the start state into every row."""
        self.state = self._agent.initial_state(self._num_rows)

    def refresh(self) -> None:
        """Takes notice of changed parameters."""
        self.state = self.state

    @torch.no_grad()
    def step(
        self, observations: Shaped[Tensor, "B ..."], is_first: Bool[Tensor, " B"], ticks: int | None = None
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """Takes one environment step in every row.

        Args:
            observations: what is seen now, packed, [B, *layout.shape].
            is_first: whether this starts an episode, [B]; the row's state is then replaced by the start state.
            ticks: how many ticks the step takes, from 1 to K; ``None``: K.

        Returns:
            Outputs of the policy head, [B, O], and values, [B].
        """
        num_ticks = self._agent.config.num_ticks
        if ticks is not None and not 1 <= ticks <= num_ticks:
            raise ValueError(f"ticks must be from 1 to num_ticks = {num_ticks}, got {ticks}.")
        if self._sweep is not None:
            rows = is_first.nonzero().squeeze(1).tolist()
            return self._sweep.step(observations, rows, num_ticks if ticks is None else ticks)
        each = None if ticks is None else [ticks]
        unrolled = self._agent.unroll(observations[None], is_first[None], self._state, each)
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
        state = self.state
        if rows is not None:
            state = type(state)._make(None if part is None else part[rows] for part in state)
        is_first = torch.zeros(1, len(observations), dtype=torch.bool, device=observations.device)
        return self._agent.unroll(observations[None], is_first, state).values[0]


class CoreSweep:
    """A machine ticking in sliding buffers, without gradient.

    Args:
        core: one that ``engine.episode.can_unroll``.
        folded: its parameters as they are now.
        state: where to go on from, B rows.
        room: after how many ticks histories are moved back to the beginning of their buffers.
    """

    @torch.no_grad()
    def __init__(self, core: CTMCore, folded: FoldedWeights, state: CoreState, room: int) -> None:
        self._sweep = EpisodeForward(folded.weights, folded.pairs, episode_state(core, state), room)
        self._alpha, self._beta = state.alpha.T, state.beta.T
        if core.config.sync_window:
            beta = folded.window_beta(core.config.history_length)
            self._beta = beta.to(state.beta.dtype)[:, None].expand_as(self._beta)

    @torch.no_grad()
    def step(self, inputs: Float[Tensor, "B E"], num_ticks: int, resets: Sequence[int] = ()) -> Float[Tensor, "B P"]:
        """Some ticks about the same inputs, before which the rows ``resets`` start afresh; gives the output sync.

        Args:
            inputs: ``folded.features @ features + folded.bias``, [B, E].
            num_ticks: how many ticks, at most the room.
            resets: which rows.
        """
        alpha, beta = self._sweep.step(resets, inputs, num_ticks)
        self._alpha = alpha.to(inputs.dtype)
        self._beta = self._beta if beta is None else beta
        return sync_of(self._alpha, self._beta).T

    @property
    def state(self) -> CoreState:
        """The state after the last tick; views of the buffers, which further ticks write over."""
        models, sync = self._sweep.neuron_models, self._sweep.sync
        return CoreState(
            models.window.permute(2, 0, 1),
            models.activation.T,
            self._alpha.T,
            self._beta.T,
            sync.window.permute(2, 1, 0) if isinstance(sync, Window) else None,
        )


class _AgentSweep:
    """An agent stepping in sliding buffers.

    Args:
        agent: with its parameters as they are now.
        core: its core.
        state: where to go on from, B rows.
    """

    @torch.no_grad()
    def __init__(self, agent: ActorCritic, core: CTMCore, state: CoreState) -> None:
        self._agent = agent
        folded = fold(core)
        self._project = FixedProjection(agent.encoder, folded.features, folded.bias)
        self._sweep = CoreSweep(core, folded, state, _ROOM * core.config.num_ticks)

    def step(
        self, observations: Tensor, rows: list[int], num_ticks: int
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """One environment step, with which ``rows`` start an episode; logits and values."""
        sync = self._sweep.step(self._project(observations), num_ticks, rows)
        return self._agent.policy(sync), self._agent.value(sync).squeeze(-1)

    def state(self) -> CoreState:
        """The state after the last step; a copy."""
        return CoreState._make(None if part is None else part.clone() for part in self._sweep.state)
