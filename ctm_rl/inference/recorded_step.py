"""Recording: what happens inside a policy at every tick of an environment step, tick by tick, off the fast path."""

from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ctm_rl.inference.batched_actor import certainty_of, check_can_halt, check_can_take, check_masks
from ctm_rl.machine.attention import ConstantReading
from ctm_rl.machine.core import Core, think
from ctm_rl.machine.halting import check_halt_certainty
from ctm_rl.machine.recorder import Recorder, Recording
from ctm_rl.machine.state import AnyState, select_rows
from ctm_rl.metrics.stopping import stopping_ticks
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.feed_forward import MLPCore


class PolicyRecord(NamedTuple):
    """What happened inside a policy in one environment step of B rows, as NumPy arrays; ``None``: it has no such part.

    K is the largest number of ticks that a row took; places after a row's last tick are NaN. D neurons, P pairs. Of one
    observation, and of one row (``row``), arrays have no axis of rows, and K is the number of ticks that it took.
    """

    ticks: np.ndarray
    """Number of ticks that each row took, [B]; a feed-forward policy takes one."""
    logits: np.ndarray
    """Outputs of the policy head after each tick, [B, K, A]: logits of choices, those of illegal options at most -1e8,
    or means and logarithms of standard deviations of numbers before squashing."""
    value: np.ndarray
    """The value after each tick, [B, K], in the units that the critic learned: see ``ppo.reward_scale``."""
    certainty: np.ndarray
    """``1 - H(pi) / log A`` after each tick, [B, K]; NaN where actions are numbers."""
    output_sync: np.ndarray
    """What the heads read, [B, K, P]: the synchronisation of P pairs of neurons, or a baseline's hidden layer."""
    post_activations: np.ndarray
    """z of each neuron, [B, K, D]; of a baseline its hidden layer."""
    pre_activations: np.ndarray | None
    """What the synapse sent to each neuron, [B, K, D]."""
    action_sync: np.ndarray | None
    """What the input was queried with, before each tick, [B, K, Q]; only of a core that attends to its input."""

    def row(self, index: int) -> "PolicyRecord":
        """The record of one row, without the axis of rows, of the ticks that it took."""
        ticks = int(self.ticks[index])
        parts = [None if part is None else part[index, :ticks] for part in self[1:]]
        return PolicyRecord(self.ticks[index], *parts)  # pyright: ignore[reportArgumentType] - None stays None


class RecordedStep(NamedTuple):
    """One environment step of B rows, with all ticks."""

    logits: Float[Tensor, "B A"]
    """Outputs of the policy head after each row's last tick."""
    state: AnyState
    """The state after it."""
    critic_state: AnyState | None
    """The same of a critic's own core; ``None``: it has none, or did not run."""
    record: PolicyRecord
    """What happened inside."""


@torch.no_grad()
def record_step(
    agent: ActorCritic,
    observations: Shaped[Tensor, "B ..."],
    is_first: Bool[Tensor, " B"],
    state: AnyState,
    critic_state: AnyState | None,
    halt_certainty: float | None = None,
    num_ticks: int | None = None,
    masks: Bool[Tensor, "B O"] | None = None,
) -> RecordedStep:
    """Takes one environment step as ``Actor.act`` does, one tick after the other, and records every tick.

    Args:
        agent: in evaluation mode.
        observations: packed, [B, *layout.shape].
        is_first: whether this starts an episode; the row's states are then replaced by the start states.
        state: the state before the step; left as it was.
        critic_state: the same of a critic's own core; ``None``: there is none, or the values do not matter, and are
            NaN.
        halt_certainty: the certainty at which a row stops, from 0 to 1; ``None``: all ticks are taken.
        num_ticks: the most ticks that a row takes; ``None``: as trained.
        masks: which options are legal; ``None``: all, for a policy that was trained without masks.

    Raises:
        ValueError: the agent cannot halt, cannot take so many ticks, or lacks its masks.
    """
    check_can_take(agent, num_ticks)
    check_masks(agent, masks)
    check_halt_certainty(halt_certainty)
    if halt_certainty is not None:
        check_can_halt(agent)
    limit = agent.config.num_ticks if num_ticks is None else num_ticks
    features = agent.encoder(observations)
    is_fresh = is_first if agent.config.is_state_carried else torch.ones_like(is_first)
    state = select_rows(is_fresh, agent.initial_state(len(is_first)), state)
    recording, states = _tick_all(agent.core, features, state, limit)
    every_masks = None if masks is None else masks.expand(len(recording.output_sync), -1, -1)
    logits = agent.choose(recording.output_sync, every_masks)
    certainties = certainty_of(agent.actions, logits, every_masks)
    ticks = _ticks_taken(certainties, halt_certainty)
    last_critic = None
    if agent.critic_core is None:
        values = agent.value(recording.output_sync).squeeze(-1)
    elif critic_state is None:
        values = torch.full_like(certainties, torch.nan)
    else:
        fresh = agent.initial_critic_state(len(is_first))
        assert fresh is not None
        valued, critic_states = _tick_all(
            agent.critic_core, features, select_rows(is_fresh, fresh, critic_state), limit
        )
        values = agent.value(valued.output_sync).squeeze(-1)
        last_critic = _last_of(critic_states, ticks)
    by_row = _reader(ticks)
    record = PolicyRecord(
        ticks=ticks.cpu().numpy(),
        logits=by_row(logits),
        value=by_row(values),
        certainty=by_row(certainties),
        output_sync=by_row(recording.output_sync),
        post_activations=by_row(recording.post_activations),
        pre_activations=None if recording.pre_activations is None else by_row(recording.pre_activations),
        action_sync=None if recording.action_sync is None else by_row(recording.action_sync),
    )
    rows = torch.arange(len(ticks), device=ticks.device)
    return RecordedStep(logits[ticks - 1, rows], _last_of(states, ticks), last_critic, record)


def _tick_all(
    core: Core[Any] | MLPCore, features: Float[Tensor, "B F"], state: AnyState, num_ticks: int
) -> tuple[Recording, list[AnyState]]:
    """All ticks of all rows, and the state after each of them; a feed-forward core has one, which changes nothing."""
    if isinstance(core, MLPCore):
        hidden = core(features)[None]
        return Recording(output_sync=hidden, post_activations=hidden), [state]
    recorder, states = Recorder(), []
    for tick in think(core, state, repeat(ConstantReading(features), num_ticks)):
        recorder.add(tick, core.answer(tick.state))
        states.append(tick.state)
    return recorder.finish(), states


def _ticks_taken(certainties: Float[Tensor, "K B"], halt_certainty: float | None) -> Int[Tensor, " B"]:
    """The number of ticks that each row takes: until it is certain enough, or all."""
    num_ticks, num_rows = certainties.shape
    if halt_certainty is None:
        return torch.full((num_rows,), num_ticks, device=certainties.device)
    # rounding may make a certainty of 0 slightly negative
    reached = stopping_ticks(certainties.T.clamp(min=0), torch.tensor([halt_certainty], dtype=torch.float64))
    return reached[:, 0] + 1


def _last_of(states: list[AnyState], ticks: Int[Tensor, " B"]) -> AnyState:
    """The state of each row after its last tick."""
    last = states[-1]
    for number, state in enumerate(states[:-1], 1):
        last = select_rows(ticks == number, state, last)
    return last


def _reader(ticks: Int[Tensor, " B"]) -> Callable[[Float[Tensor, "K B *rest"]], np.ndarray]:
    """Reads parts of a recording as arrays, rows first, up to the last tick that a row took."""
    most = int(ticks.max())
    is_taken = torch.arange(most, device=ticks.device) < ticks[:, None]  # [B, K]

    def read(part: Float[Tensor, "K B *rest"]) -> np.ndarray:
        rows = part[:most].transpose(0, 1)
        taken = is_taken.view(*is_taken.shape, *[1] * (rows.dim() - 2))
        return torch.where(taken, rows, torch.nan).float().cpu().numpy()

    return read
