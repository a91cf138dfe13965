"""What environment runners hand to learners: T steps of B environments as columns, one array for each kind of value."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns

from ctm_rl.agents.rllib.module import IS_FIRST, TICKS

VALUES = "values"
NEXT_VALUES = "next_values"
REWARDS = Columns.REWARDS
IS_VALID = "is_valid"
IS_LAST = "is_last"
"""Names of columns in a learner's batch, beside RLlib's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutFragment:
    """T steps of B environments; environments first, so that learners share fragments out by rows.

    An episode may begin and end anywhere in it, and go on in the next fragment. Where an environment resets in the step
    after an episode's last one, that step is a hole: it has an observation (the episode's final one) and a value, and
    is not ``is_valid``; its action was ignored.
    """

    observations: np.ndarray
    """What was seen before each step, packed, [B, T, *layout.shape]: float32, or uint8 where bytes do."""
    actions: np.ndarray
    """What was done, [B, T, *actions.column_shape]: int64 for choices, float32 for numbers."""
    logp: np.ndarray
    """Log-probability of that, [B, T], float32."""
    values: np.ndarray
    """Estimated before the step, [B, T], float32."""
    rewards: np.ndarray
    """As the environment gave them, or normalised where that was asked for, [B, T], float32."""
    next_values: np.ndarray
    """Estimated after the step, in the same episode, [B, T], float32; 0 where the episode terminated, and in holes."""
    is_first: np.ndarray
    """Whether the step begins an episode, [B, T], bool."""
    is_valid: np.ndarray
    """Whether it is a step at all, and no hole, [B, T], bool."""
    is_last: np.ndarray
    """Whether the episode ended with it, terminated or cut off, [B, T], bool."""
    ticks: np.ndarray | None = None
    """Where they were drawn, how many ticks each step took, the same in all environments, [B, T], int64."""
    state: dict[str, np.ndarray]
    """The recurrent state before the first step by the names of its parts, [B, ...] each; nothing of later steps."""

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.actions)

    @property
    def num_steps(self) -> int:
        """Environment steps in it; holes are none."""
        return int(self.is_valid.sum())

    def rows(self, start: int, stop: int) -> "RolloutFragment":
        """The environments from ``start`` up to ``stop``, without copying."""
        return _map(lambda parts: parts[0][start:stop], [self])

    def columns(self) -> dict[str, Any]:
        """The fragment as a learner's batch, under RLlib's names as far as there are any."""
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
        }


def concatenate(fragments: Sequence[RolloutFragment]) -> RolloutFragment:
    """Puts the environments of several fragments of equal length under each other."""
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
