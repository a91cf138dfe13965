"""Acting: one environment step from a state to the next, with as little thought as each row takes where rows halt."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ctm_rl.encoders.projection import FixedProjection
from ctm_rl.engine.episode import FoldedWeights, can_unroll, fold
from ctm_rl.inference.stepper import CoreSweep
from ctm_rl.machine.core import Core, CTMCore
from ctm_rl.machine.halting import CoreTicking, tick_until_certain
from ctm_rl.machine.reading import constant_reading
from ctm_rl.machine.state import AnyState, CoreState, rows_of_state, select_rows, take_rows
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices


class ActedStep(NamedTuple):
    """One environment step of B rows."""

    logits: Float[Tensor, "B A"]
    """Of the action distribution, after the row's last tick."""
    state: AnyState
    """The state after each row's last tick, B rows."""
    ticks: Int[Tensor, " B"]
    """How many ticks each row took."""


def check_can_halt(agent: ActorCritic) -> None:
    """Refuses to halt a policy that has only ever seen all of its ticks, or that makes no choices.

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
    """Refuses a number of ticks that a policy has not learned to act with.

    Raises:
        ValueError: it was trained without ``train_random_ticks``, or there are not so many.
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


class Actor:
    """Takes environment steps with an agent, without gradient, by the fastest way there is.

    What only depends on the agent's parameters is kept from step to step, until they change.

    Args:
        agent: who acts.
    """

    def __init__(self, agent: ActorCritic) -> None:
        self.agent = agent
        self._prepared: _Prepared | None = None

    @torch.no_grad()
    def act(
        self,
        observations: Shaped[Tensor, "B ..."],
        is_first: Bool[Tensor, " B"],
        state: AnyState,
        halt_certainty: float | None = None,
        num_ticks: int | None = None,
    ) -> ActedStep:
        """Takes one environment step; a row that is certain enough stops ticking and costs nothing any more.

        The certainty of a policy is ``1 - H(pi) / log A``, 0 where all actions are alike and 1 where one is sure.

        Args:
            observations: as ``agent.unroll`` takes them, without the axis of steps.
            is_first: whether this starts an episode; the row's state is then replaced by the start state.
            state: the state before the step; left as it was.
            halt_certainty: the certainty that is enough, from 0 to 1; ``None``: none is.
            num_ticks: K, at most so many; ``None``: as trained.

        Returns:
            What each row ended with.

        Raises:
            ValueError: the agent cannot halt, or not take so many ticks.
        """
        agent, config = self.agent, self.agent.config
        check_can_take(agent, num_ticks)
        limit = config.num_ticks if num_ticks is None else num_ticks
        if halt_certainty is not None:
            check_can_halt(agent)
        is_plain = can_unroll(agent.core) and not torch.is_autocast_enabled(observations.device.type)
        if halt_certainty is None and not is_plain:
            each = None if num_ticks is None else [num_ticks]
            unrolled = agent.unroll(observations[None], is_first[None], state, each)
            return ActedStep(unrolled.logits[0], unrolled.state, torch.full((len(is_first),), limit))
        if not config.is_state_carried or is_first.any():
            fresh = agent.initial_state(len(is_first))
            state = select_rows(is_first, fresh, state) if config.is_state_carried else fresh
        if is_plain:
            ticking = self._sweeping(observations, state, limit)
            if halt_certainty is None:
                logits = agent.policy(ticking.advance(limit))
                return ActedStep(logits, ticking.state, torch.full((len(is_first),), limit))
        else:
            assert isinstance(agent.core, Core)
            ticking = CoreTicking(agent.core, state, [constant_reading(agent.encoder(observations))] * limit)
        deciding = _Choosing(agent, ticking)
        (logits, *parts), ticks, _ = tick_until_certain(deciding, len(is_first), limit, halt_certainty)
        given = iter(parts)
        last = type(state)._make(None if part is None else next(given) for part in state)
        return ActedStep(logits, last, ticks)

    def _sweeping(self, observations: Tensor, state: AnyState, limit: int) -> "_Sweeping":
        """The machine, about to tick."""
        assert isinstance(self.agent.core, CTMCore)
        assert isinstance(state, CoreState)
        marks = _marks(self.agent)
        if self._prepared is None or marks is None or self._prepared.marks != marks:
            folded = fold(self.agent.core).laid_out()
            project = FixedProjection(self.agent.encoder, folded.features, folded.bias)
            self._prepared = _Prepared(marks, folded, project)
        folded, project = self._prepared[1:]
        return _Sweeping(self.agent.core, folded, project(observations), state, limit)


class _Prepared(NamedTuple):
    """What only depends on the parameters."""

    marks: list[tuple[int, int]] | None
    """Of the parameters that it was made of; None: of some that tell no changes."""
    folded: FoldedWeights
    """The core's."""
    project: FixedProjection
    """The encoder's, with what the folded core does first."""


def _marks(agent: ActorCritic) -> list[tuple[int, int]] | None:
    """Tells whether a parameter has been changed or replaced; None: made in inference mode, they do not tell."""
    parameters = list(agent.parameters())
    if any(one.is_inference() for one in parameters):
        return None
    return [(one.data_ptr(), one._version) for one in parameters]


class _Sweeping:
    """A machine that can be unrolled, tick by tick.

    Args:
        core: the machine.
        folded: its parameters.
        inputs: what the features send into its first dense layer, [B, E].
        state: where to start, B rows; left as it was.
        limit: how many ticks there may be.
    """

    def __init__(self, core: CTMCore, folded: FoldedWeights, inputs: Tensor, state: CoreState, limit: int) -> None:
        self._core, self._folded, self._inputs, self._limit = core, folded, inputs, limit
        self._sweep = CoreSweep(core, folded, state, limit)

    @property
    def state(self) -> CoreState:
        """The state after the last tick, of the rows that are left; written over by the next one."""
        return self._sweep.state

    def advance(self, num_ticks: int) -> Float[Tensor, "b P"]:
        """So many ticks more; gives what the heads read."""
        return self._sweep.step(self._inputs, num_ticks)

    def tick(self) -> Float[Tensor, "b P"]:
        """See ``machine.halting.Ticking``."""
        return self.advance(1)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """See ``machine.halting.Ticking``."""
        self._inputs = self._inputs[rows]
        self._sweep = CoreSweep(self._core, self._folded, rows_of_state(self.state, rows), self._limit)


class _Choosing:
    """Rows that choose an action at every tick.

    Args:
        agent: who chooses.
        ticking: the rows.
    """

    def __init__(self, agent: ActorCritic, ticking: "CoreTicking | _Sweeping") -> None:
        assert isinstance(agent.actions, Choices)
        self._agent, self._actions, self._ticking = agent, agent.actions, ticking

    def tick(self) -> Float[Tensor, " b"]:
        """See ``machine.halting.Deciding``."""
        self._logits = self._agent.policy(self._ticking.tick())
        return self._actions.certainty(self._logits)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """See ``machine.halting.Deciding``."""
        self._ticking.keep(rows)

    def outcome(self, rows: Int[Tensor, " n"]) -> list[Tensor]:
        """See ``machine.halting.Deciding``: logits, then the parts of the state."""
        parts = [self._logits, *(part for part in self._ticking.state if part is not None)]
        if len(rows) == len(self._logits):
            return parts  # nobody ticks any more
        return [take_rows(part, rows) for part in parts]
