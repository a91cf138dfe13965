"""Acting: one environment step at a time for many environments, without gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from ctm_rl.encoders.projection import Projection
from ctm_rl.engine.dispatch import runs_in_buffers
from ctm_rl.engine.episode import FoldedWeights, episode_state, fold
from ctm_rl.engine.episode_forward import EpisodeForward
from ctm_rl.engine.episode_sync import Window
from ctm_rl.machine.attention import ConstantReading
from ctm_rl.machine.certainty import certainty
from ctm_rl.machine.core import Core, CTMCore
from ctm_rl.machine.halting import CoreTicking, tick_until_certain
from ctm_rl.machine.state import AnyState, CoreState, rows_of_state, select_rows, take_rows
from ctm_rl.machine.synchronisation import sync_of
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Actions, Choices, is_masked

_ROOM = 32
"""Environment steps after which histories are moved back to the beginning of their buffers."""


class ActedStep(NamedTuple):
    """One environment step of B rows."""

    logits: Float[Tensor, "B A"]
    """Outputs of the policy head after the row's last tick; those of illegal options have no probability."""
    state: AnyState
    """The state after each row's last tick, B rows."""
    ticks: Int[Tensor, " B"]
    """Number of ticks each row took."""


def check_can_halt(agent: ActorCritic) -> None:
    """Raises for a policy that cannot halt: trained with all ticks only, or with actions that are not choices.

    Raises:
        ValueError: it was trained without ``train_random_ticks``, or its actions are numbers.
    """
    if not agent.config.train_random_ticks:
        raise ValueError(
            "halt_certainty needs a policy trained with train_random_ticks; "
            f"this one was trained with num_ticks {agent.config.num_ticks} at every step."
        )
    if not isinstance(agent.actions, Choices):
        raise ValueError(
            "halt_certainty needs actions that are chosen (Discrete, MultiDiscrete, MultiBinary); "
            f"this policy's are {agent.actions}, whose certainty has no scale."
        )


def check_can_take(agent: ActorCritic, num_ticks: int | None) -> None:
    """Raises for a number of ticks that a policy has not been trained to act with.

    Raises:
        ValueError: it was trained without ``train_random_ticks``, or with fewer ticks.
    """
    if num_ticks is None:
        return
    if not agent.config.train_random_ticks:
        raise ValueError(
            "num_ticks needs a policy trained with train_random_ticks; "
            f"this one was trained with num_ticks {agent.config.num_ticks} at every step."
        )
    if not 1 <= num_ticks <= agent.config.num_ticks:
        raise ValueError(f"num_ticks must be from 1 to {agent.config.num_ticks}, as trained, got {num_ticks}.")


def check_masks(agent: ActorCritic, masks: object | None) -> None:
    """Raises for masks that are missing, or that have no meaning.

    Raises:
        ValueError: the policy was trained with action masks and gets none, or its actions are numbers and it gets some.
    """
    if masks is None and is_masked(agent.actions):
        raise ValueError(
            "this policy was trained with action masks and needs one with every observation: action_mask in a Dict "
            "observation, or Policy.act(..., action_mask=env.get_wrapper_attr('action_masks')())."
        )
    if masks is not None and not isinstance(agent.actions, Choices):
        raise ValueError(f"an action mask needs actions that are chosen; this policy's are {agent.actions}.")


def certainty_of(
    actions: Actions, logits: Float[Tensor, "*batch A"], masks: Bool[Tensor, "*batch A"] | None
) -> Float[Tensor, "*batch"]:
    """The certainty of a policy, ``1 - H(pi) / log A`` over the A legal actions; NaN where actions are numbers.

    Args:
        actions: the action space.
        logits: outputs of the policy head; those of illegal options have no probability.
        masks: which options are legal; ``None``: all.
    """
    if not isinstance(actions, Choices):
        return logits.new_full(logits.shape[:-1], torch.nan)
    sizes = actions.sizes if masks is None else actions.count_legal(masks)
    return certainty(actions.grouped(logits), sizes=sizes)


class Actor:
    """Takes environment steps with an agent, without gradient, by the fastest path there is.

    Either from a state that is handed in to one that is handed back (``act``), or in B rows that the actor holds
    (``reset``, ``state``, ``step``, ``peek``), whose histories are then not copied at each step. What depends on the
    agent's parameters alone is kept from step to step, until a parameter is changed or replaced.

    Held rows have values, too; a critic's own core runs for these alone.

    Args:
        agent: whose parameters are used.
    """

    def __init__(self, agent: ActorCritic) -> None:
        self.agent = agent
        self._rows = _Rows(agent, "core")
        self._critic_rows = None if agent.critic_core is None else _Rows(agent, "critic_core")

    @property
    def device(self) -> torch.device:
        """Where the agent computes."""
        return next(self.agent.parameters()).device

    @torch.no_grad()
    def act(
        self,
        observations: Shaped[Tensor, "B ..."],
        is_first: Bool[Tensor, " B"],
        state: AnyState,
        halt_certainty: float | None = None,
        num_ticks: int | None = None,
        masks: Bool[Tensor, "B O"] | None = None,
    ) -> ActedStep:
        """Takes one environment step; a row that is certain enough stops ticking and costs nothing from then on.

        The certainty of a policy is ``1 - H(pi) / log A`` over the A legal actions: 0 where all are equally likely, 1
        where one is sure, or the only one.

        Args:
            observations: as ``agent.unroll`` takes them, without the axis of steps.
            is_first: whether this starts an episode; the row's state is then replaced by the start state.
            state: the state before the step; left as it was.
            halt_certainty: the certainty at which a row stops, from 0 to 1; ``None``: all ticks are taken.
            num_ticks: K, the most ticks that a row takes; ``None``: as trained.
            masks: which options are legal; ``None``: all, for a policy that was trained without masks.

        Returns:
            Logits, state and number of ticks of each row.

        Raises:
            ValueError: the agent cannot halt, cannot take so many ticks, or lacks its masks.
        """
        agent, config = self.agent, self.agent.config
        check_can_take(agent, num_ticks)
        check_masks(agent, masks)
        limit = config.num_ticks if num_ticks is None else num_ticks
        if halt_certainty is not None:
            check_can_halt(agent)
        is_buffered = runs_in_buffers(agent.core, observations.device.type)
        if halt_certainty is None and not is_buffered:
            each = None if num_ticks is None else [num_ticks]
            unrolled = agent.unroll(observations[None], is_first[None], state, each, _one_step(masks))
            return ActedStep(unrolled.logits[0], unrolled.state, torch.full((len(is_first),), limit))
        if not config.is_state_carried or is_first.any():
            fresh = agent.initial_state(len(is_first))
            state = select_rows(is_first, fresh, state) if config.is_state_carried else fresh
        if is_buffered:
            assert isinstance(state, CoreState)
            ticking = _BufferedTicking(self._rows.prepare(), state, limit)
            ticking.inputs = ticking.prepared.project(observations)
            if halt_certainty is None:
                logits = agent.choose(ticking.advance(limit), masks)
                return ActedStep(logits, ticking.state, torch.full((len(is_first),), limit))
        else:
            assert isinstance(agent.core, Core)
            ticking = CoreTicking(agent.core, state, [ConstantReading(agent.encoder(observations))] * limit)
        choosing = _Choosing(agent, ticking, masks)
        (logits, *parts), ticks, _ = tick_until_certain(choosing, len(is_first), limit, halt_certainty)
        remaining = iter(parts)
        last = type(state)._make(None if part is None else next(remaining) for part in state)
        return ActedStep(logits, last, ticks)

    @torch.no_grad()
    def reset(self, num_rows: int) -> None:
        """Holds ``num_rows`` rows from now on, each with the start state."""
        self.state = self.agent.initial_state(num_rows)
        if self._critic_rows is not None:
            critic_state = self.agent.initial_critic_state(num_rows)
            assert critic_state is not None
            self._critic_rows.state = critic_state

    @property
    def state(self) -> AnyState:
        """The state before the next ``step``, B rows, without gradient; no step writes over it."""
        return self._rows.state

    @state.setter
    def state(self, state: AnyState) -> None:
        """Holds the rows of another state from now on."""
        self._rows.state = state

    @property
    def critic_state(self) -> AnyState | None:
        """The same of a critic's own core; ``None``: there is none."""
        return None if self._critic_rows is None else self._critic_rows.state

    @torch.no_grad()
    def step(
        self,
        observations: Shaped[Tensor, "B ..."],
        is_first: Bool[Tensor, " B"],
        num_ticks: int | None = None,
        masks: Bool[Tensor, "B O"] | None = None,
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """Takes one environment step in every row that the actor holds.

        Args:
            observations: packed, [B, *layout.shape].
            is_first: whether this starts an episode, [B]; the row's state is then replaced by the start state.
            num_ticks: how many ticks the step takes, from 1 to K; ``None``: K.
            masks: which options are legal; ``None``: all, for a policy that was trained without masks.

        Returns:
            Outputs of the policy head, [B, O], and values, [B].
        """
        check_masks(self.agent, masks)
        most = self.agent.config.num_ticks
        if num_ticks is not None and not 1 <= num_ticks <= most:
            raise ValueError(f"ticks must be from 1 to num_ticks = {most}, got {num_ticks}.")
        ticking, critic_rows = self._rows.ticking(), self._critic_rows
        if ticking is None:
            each, step_masks = None if num_ticks is None else [num_ticks], _one_step(masks)
            step = observations[None], is_first[None]
            unrolled = self.agent.unroll(*step, self.state, each, step_masks, self.critic_state)
            self._rows.keep(unrolled.state)
            if critic_rows is not None and unrolled.critic_state is not None:
                critic_rows.keep(unrolled.critic_state)
            return unrolled.logits[0], unrolled.values[0]
        restarts = [row for row, starts in enumerate(is_first.tolist()) if starts]
        ticks = most if num_ticks is None else num_ticks
        sync = valued = ticking.take_step(observations, ticks, restarts)
        if critic_rows is not None:
            critic = critic_rows.ticking()
            assert critic is not None
            valued = critic.take_step(observations, ticks, restarts)
        return self.agent.choose(sync, masks), self.agent.value(valued).squeeze(-1)

    @torch.no_grad()
    def peek(self, observations: Shaped[Tensor, "R ..."], rows: Int[Tensor, " R"] | None = None) -> Float[Tensor, " R"]:
        """Values of what would be observed next if the episodes went on; the state is not changed.

        Args:
            observations: of the rows, [R, ...].
            rows: which rows these are, [R]; ``None``: all of them.

        Returns:
            Values, [R].
        """
        state, critic_state = self.state, self.critic_state
        if rows is not None:
            state = _select(state, rows)
            critic_state = None if critic_state is None else _select(critic_state, rows)
        is_first = torch.zeros(1, len(observations), dtype=torch.bool, device=observations.device)
        return self.agent.unroll(observations[None], is_first, state, critic_state=critic_state).values[0]


class _Rows:
    """The rows of one core that an actor holds from step to step, in buffers if the core runs in buffers.

    Args:
        agent: whose parameters are used.
        name: of the core in the agent.
    """

    def __init__(self, agent: ActorCritic, name: str) -> None:
        self._agent, self._name = agent, name
        self._prepared: _Prepared | None = None
        self._state: AnyState | None = None
        self._ticking: _BufferedTicking | None = None

    @property
    def state(self) -> AnyState:
        """The state before the next step, without gradient; no step writes over it."""
        ticking = self.ticking()
        if ticking is not None:
            return CoreState._make(None if part is None else part.clone() for part in ticking.state)
        assert self._state is not None, "reset first, or set the state"
        return self._state

    @state.setter
    def state(self, state: AnyState) -> None:
        """Holds the rows of another state from now on."""
        self._state, self._ticking = state, None
        if self._agent.config.is_state_carried and runs_in_buffers(self._core, state[0].device.type):
            self._ticking = self._hold(state, self.prepare())

    def keep(self, state: AnyState) -> None:
        """Holds the state after a step outside of the buffers."""
        self._state = state

    def ticking(self) -> "_BufferedTicking | None":
        """The rows that are held, in buffers of the parameters as they are now; ``None``: they are not in buffers."""
        if self._ticking is not None:
            prepared = self.prepare()
            if prepared is not self._ticking.prepared:
                self._ticking = self._hold(self._ticking.state, prepared)
        return self._ticking

    @property
    def _core(self) -> nn.Module:
        """The core as it is now."""
        return getattr(self._agent, self._name)

    def _hold(self, state: AnyState, prepared: "_Prepared") -> "_BufferedTicking":
        """Buffers for many environment steps."""
        assert isinstance(state, CoreState)
        return _BufferedTicking(prepared, state, _ROOM * self._agent.config.num_ticks)

    def prepare(self) -> "_Prepared":
        """What depends on the parameters alone, made again if one of them was changed or replaced."""
        if self._prepared is None or self._prepared.parameters.have_changed():
            with torch.no_grad():
                core, encoder = self._core, self._agent.encoder
                assert isinstance(core, CTMCore)
                folded = fold(core).laid_out()
                project = Projection(encoder, folded.features, folded.bias)
                self._prepared = _Prepared(_Parameters(self._agent, core, encoder), core, folded, project)
        return self._prepared


def _select(state: AnyState, rows: Int[Tensor, " R"]) -> AnyState:
    """Some rows of a state."""
    return type(state)._make(None if part is None else part[rows] for part in state)


def _one_step(masks: Bool[Tensor, "B O"] | None) -> Bool[Tensor, "1 B O"] | None:
    """The masks of a step, with the axis of steps."""
    return None if masks is None else masks[None]


class _Prepared(NamedTuple):
    """What depends on the parameters of core and encoder alone; the heads' are read at each step."""

    parameters: "_Parameters"
    """The parameters that it was made of."""
    core: CTMCore
    """The machine."""
    folded: FoldedWeights
    """Its parameters as the buffers take them."""
    project: Projection
    """The encoder's, with the features' half of the core's first dense layer."""


class _Parameters:
    """Detects that parameters of an agent were changed or replaced, in a few microseconds.

    Args:
        agent: the agent.
        parts: its modules whose parameters matter.
    """

    def __init__(self, agent: nn.Module, *parts: nn.Module) -> None:
        modules = [module for part in parts for module in part.modules()]
        self._parameters = [module._parameters for module in modules if module._parameters]
        self._children = [agent._modules, *(module._modules for module in modules if module._modules)]
        self._known = self._read()

    def have_changed(self) -> bool:
        """Whether a parameter has been changed, or it or a module replaced, since this object was made."""
        return self._known is None or self._read() != self._known

    def _read(self) -> tuple[list[nn.Module | None], list[int]] | None:
        """Differs after a change; ``None``: parameters made in inference mode count no versions."""
        parameters = [one for group in self._parameters for one in group.values() if one is not None]
        try:
            numbers = [one._version for one in parameters]
        except RuntimeError:
            return None
        numbers += [one.data_ptr() for one in parameters]
        return [child for group in self._children for child in group.values()], numbers


class _BufferedTicking:
    """A machine ticking in sliding buffers, without gradient; see ``machine.halting.Ticking``.

    Args:
        prepared: the machine and its parameters as they are now.
        state: where to start, B rows; left as it was.
        room: after how many ticks histories are moved back to the beginning of their buffers.
    """

    inputs: Float[Tensor, "b E"]
    """What the features send into the first dense layer, ``folded.features @ features + folded.bias``."""

    def __init__(self, prepared: _Prepared, state: CoreState, room: int) -> None:
        self.prepared = prepared
        self._room = room
        self._start(state)

    @torch.no_grad()
    def _start(self, state: CoreState) -> None:
        core, folded = self.prepared.core, self.prepared.folded
        self._episode = EpisodeForward(folded.weights, folded.pairs, episode_state(core, state), self._room)
        self._alpha, self._beta = state.alpha.T, state.beta.T
        if core.config.sync_window:
            beta = folded.window_beta()
            self._beta = beta.to(state.beta.dtype)[:, None].expand_as(self._beta)

    @property
    def state(self) -> CoreState:
        """The state after the last tick, of the rows that are left; views of the buffers, which ticks write over."""
        models, sync = self._episode.neuron_models, self._episode.sync
        return CoreState(
            models.window.permute(2, 0, 1),
            models.activation.T,
            self._alpha.T,
            self._beta.T,
            sync.window.permute(2, 1, 0) if isinstance(sync, Window) else None,
        )

    def take_step(
        self, observations: Shaped[Tensor, "B ..."], num_ticks: int, resets: Sequence[int]
    ) -> Float[Tensor, "B P"]:
        """Reads observations for some ticks, as ``advance``."""
        self.inputs = self.prepared.project(observations)
        return self.advance(num_ticks, resets)

    def advance(self, num_ticks: int, resets: Sequence[int] = ()) -> Float[Tensor, "b P"]:
        """Runs some ticks with the same inputs, at most ``room``; rows ``resets`` start an episode before them.

        Returns:
            What the heads read: the output sync after the last of them.
        """
        alpha, beta = self._episode.step(resets, self.inputs, num_ticks)
        self._alpha = alpha.to(self.inputs.dtype)
        self._beta = self._beta if beta is None else beta
        return sync_of(self._alpha, self._beta).T

    def tick(self) -> Float[Tensor, "b P"]:
        """See ``machine.halting.Ticking``."""
        return self.advance(1)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """See ``machine.halting.Ticking``."""
        self.inputs = self.inputs[rows]
        self._start(rows_of_state(self.state, rows))


class _Choosing:
    """Ticking rows with the action logits and the certainty of each, see ``machine.halting.Deciding``.

    Args:
        agent: the agent whose policy head chooses.
        ticking: the rows.
        masks: which options are legal, of which alone the certainty is; ``None``: all.
    """

    def __init__(
        self, agent: ActorCritic, ticking: CoreTicking | _BufferedTicking, masks: Bool[Tensor, "B O"] | None
    ) -> None:
        assert isinstance(agent.actions, Choices)
        self._agent, self._actions, self._ticking, self._masks = agent, agent.actions, ticking, masks

    def tick(self) -> Float[Tensor, " b"]:
        """See ``machine.halting.Deciding``."""
        self._logits = self._agent.choose(self._ticking.tick(), self._masks)
        return certainty_of(self._actions, self._logits, self._masks)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """See ``machine.halting.Deciding``."""
        self._ticking.keep(rows)
        self._masks = None if self._masks is None else self._masks[rows]

    def outcome(self, rows: Int[Tensor, " n"]) -> list[Tensor]:
        """See ``machine.halting.Deciding``: logits, then the parts of the state."""
        parts = [self._logits, *(part for part in self._ticking.state if part is not None)]
        if len(rows) == len(self._logits):
            return parts  # all rows have halted
        return [take_rows(part, rows) for part in parts]
