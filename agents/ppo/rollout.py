"""Rollout fragments: T steps of B environments as columns, one array for each kind of value."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns

from ctm_rl.agents.rllib.module import ACTION_MASKS, IS_FIRST, TICKS

VALUES = "values"
NEXT_VALUES = "next_values"
REWARDS = Columns.REWARDS
IS_VALID = "is_valid"
IS_LAST = "is_last"
"""Names of columns in a learner's batch, beside RLlib's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutFragment:
    """T steps of B environments; the environments are the first axis, so that learners get rows.

    An episode may begin and end anywhere in it, and go on in the next fragment. Where an environment resets in the step
    after an episode's last one, that step is an autoreset step: it has an observation (the episode's final one) and a
    value, and is not ``is_valid``; its action was ignored.
    """

    observations: np.ndarray
    """Observations before each step, packed, [B, T, *layout.shape]: float32, or uint8 where bytes do."""
    actions: np.ndarray
    """Actions, [B, T, *actions.column_shape]: int64 for choices, float32 for numbers."""
    logp: np.ndarray
    """Their log-probabilities, [B, T], float32."""
    values: np.ndarray
    """Values before the step, [B, T], float32."""
    rewards: np.ndarray
    """The environment's, or normalised ones if configured, [B, T], float32."""
    next_values: np.ndarray
    """Values after the step, in the same episode, [B, T], float32; 0 after termination and in autoreset steps."""
    is_first: np.ndarray
    """Whether the step begins an episode, [B, T], bool."""
    is_valid: np.ndarray
    """Whether it is an environment step and not an autoreset step, [B, T], bool."""
    is_last: np.ndarray
    """Whether the episode ended with it, terminated or truncated, [B, T], bool."""
    ticks: np.ndarray | None = None
    """With ``train_random_ticks``, how many ticks each step took, the same in all environments, [B, T], int64."""
    masks: np.ndarray | None = None
    """With action masks, which options were legal before each step, as bits, [B, T, bytes], uint8; see
    ``spaces.action_masks.pack_masks``."""
    state: dict[str, np.ndarray]
    """The recurrent state before the first step, by field, [B, ...] each."""

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.actions)

    @property
    def num_steps(self) -> int:
        """Number of environment steps, without autoreset steps."""
        return int(self.is_valid.sum())

    def rows(self, start: int, stop: int) -> "RolloutFragment":
        """The environments from ``start`` up to ``stop``, without copying."""
        return _map(lambda parts: parts[0][start:stop], [self])

    def columns(self) -> dict[str, Any]:
        """The fragment as a learner's batch, with RLlib's names where RLlib has one."""
        return {
            Columns.OBS: self.observations,
            Columns.ACTIONS: self.actions,
            Columns.ACTION_LOGP: self.logp,
            VALUES: self.values,
            REWARDS: self.rewards,
            NEXT_VALUES: self.next_values,
            IS_FIRST: self.is_first,
            IS_VALID: self.is_valid,
            IS_LAST: self.is_last,
            Columns.STATE_IN: self.state,
            **({} if self.ticks is None else {TICKS: self.ticks}),
            **({} if self.masks is None else {ACTION_MASKS: self.masks}),
        }


def concatenate(fragments: Sequence[RolloutFragment]) -> RolloutFragment:
    """Concatenates fragments of equal length along the environments."""
    return fragments[0] if len(fragments) == 1 else _map(np.concatenate, fragments)


def _map(function: Any, fragments: Sequence[RolloutFragment]) -> RolloutFragment:
    """Applies a function to the list of each column's arrays."""
    values = {
        field.name: function([getattr(fragment, field.name) for fragment in fragments])
        for field in fields(RolloutFragment)
        if field.name != "state" and getattr(fragments[0], field.name) is not None
    }
    names = fragments[0].state
    return RolloutFragment(
        **values, state={name: function([fragment.state[name] for fragment in fragments]) for name in names}
    )
