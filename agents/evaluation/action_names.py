"""The names that an environment itself has for its actions."""

import enum
from collections.abc import Sequence

import gymnasium as gym

from ctm_rl.errors import escape_controls


def action_names(env: gym.Env) -> tuple[str, ...]:
    """Returns an environment's names of the options of a single choice, in their order.

    They are what ``get_action_meanings`` returns, as of Atari games, or the members of an enumeration ``actions`` or
    ``Actions``, as of MiniGrid.

    Returns:
        As many as there are options; empty: the environment has none, or not of all.
    """
    space = env.action_space
    if not isinstance(space, gym.spaces.Discrete):
        return ()
    found = _names_in(env.unwrapped, int(space.start))
    return found if len(found) == space.n else ()


def _names_in(env: gym.Env, first: int) -> tuple[str, ...]:
    """The names that an unwrapped environment has; empty: none."""
    meanings = getattr(env, "get_action_meanings", None)
    if callable(meanings):
        listed = meanings()
        return tuple(_plain(name) for name in listed) if isinstance(listed, Sequence) else ()
    members = getattr(env, "actions", None)
    members = members if isinstance(members, enum.EnumType) else getattr(env, "Actions", None)
    if not (isinstance(members, enum.EnumType) and issubclass(members, enum.IntEnum)):
        return ()
    by_value = {int(member): _plain(member.name) for member in members}
    return tuple(by_value[value] for value in range(first, first + len(by_value)) if value in by_value)


def _plain(name: object) -> str:
    """A name in lower case, with spaces, and without what would control a terminal."""
    return escape_controls(str(name).replace("_", " ").lower())
