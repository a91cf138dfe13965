"""Checks action masks in observations: an environment that goes on must leave something to do."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from ctm_rl.envs.guard.describe_fault import BadObservation
from ctm_rl.spaces.action_masks import MASK, find_forbidden, read_masks


def num_options(space: Space) -> tuple[int, ...] | None:
    """Number of options of each choice of an action space; ``None``: its actions are not chosen."""
    if isinstance(space, Discrete):
        return (int(space.n),)
    if isinstance(space, MultiDiscrete):
        return tuple(int(size) for size in space.nvec.reshape(-1))
    if isinstance(space, MultiBinary):
        return (2,) * int(np.prod(space.shape))
    return None


def make_mask_check(observation_space: Space, action_space: Space) -> Callable[[Any, np.ndarray | None], None] | None:
    """Makes the check of the action masks in observations.

    Args:
        observation_space: of one environment.
        action_space: of one environment.

    Returns:
        A function that raises ``BadObservation`` for a mask without a legal action. It takes one observation and
        ``None``, or a batch of them and which of its rows have ended, [B]: their masks may forbid everything.
        ``None``: observations have no masks of the actions.
    """
    sizes = num_options(action_space)
    if sizes is None or not isinstance(observation_space, Dict) or MASK not in observation_space.spaces:
        return None
    if _num_entries(observation_space[MASK]) != sum(sizes):
        return None  # a policy either refuses it, or reads it as numbers

    def check(observations: Any, has_ended: np.ndarray | None) -> None:
        try:
            masks = read_masks(observations[MASK], sizes, 1 if has_ended is None else len(has_ended))
        except ValueError as error:
            raise BadObservation(f"has no valid mask of its actions: {error}".rstrip(".")) from error
        if has_ended is not None:
            masks = masks | has_ended[:, None]
        forbidden = find_forbidden(masks, sizes)
        if forbidden is not None:
            row = "" if has_ended is None else f" in row {forbidden.row}"
            raise BadObservation(f"part {MASK!r} {forbidden.describe(sizes)}{row}")

    return check


def _num_entries(space: Space) -> int:
    """Numbers in an observation of a space."""
    if isinstance(space, Tuple):
        return sum(map(_num_entries, space.spaces))
    return int(np.prod(space.shape or ()))
