"""Names of what an environment's policy does and sees: the environment's own where it has them."""

import enum
from typing import Any

import gymnasium as gym

from ctm_rl.errors import escape_controls
from ctm_rl.spaces.actions import Actions, Choices

_ACTIONS: dict[str, tuple[str, ...]] = {
    "CartPole": ("push left", "push right"),
    "Acrobot": ("torque -1", "torque 0", "torque +1"),
    "MountainCar": ("push left", "no push", "push right"),
    "MountainCarContinuous": ("force",),
    "Pendulum": ("torque",),
    "LunarLander": ("nothing", "left engine", "main engine", "right engine"),
    "LunarLanderContinuous": ("main engine", "side engines"),
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pick up", "drop off"),
    "Blackjack": ("stick", "hit"),
}
"""Of environments of Gymnasium that document their actions and do not name them in code, by name without version."""
_OBSERVATIONS: dict[str, tuple[str, ...]] = {
    "CartPole": ("cart position", "cart velocity", "pole angle", "pole angular velocity"),
    "Acrobot": ("cos angle 1", "sin angle 1", "cos angle 2", "sin angle 2", "angular velocity 1", "angular velocity 2"),
    "MountainCar": ("position", "velocity"),
    "MountainCarContinuous": ("position", "velocity"),
    "Pendulum": ("cos angle", "sin angle", "angular velocity"),
    "LunarLander": ("x", "y", "x velocity", "y velocity", "angle", "angular velocity", "left leg", "right leg"),
}
"""The same for the numbers that they show."""


def name_actions(env: gym.Env, env_id: str, actions: Actions) -> list[list[str]]:
    """Names of the options of each choice, or of each number (in a list of one name each).

    An environment names its actions by an enumeration ``actions`` or ``Actions`` (as MiniGrid does), a method
    ``get_action_meanings`` (as Atari's games do), or a list ``action_names``. Others are called ``action 0`` and so on.

    Args:
        env: the environment.
        env_id: its id.
        actions: its action space.
    """
    starts = actions.starts or (0,) * len(actions.sizes) if isinstance(actions, Choices) else (0,)
    own = _own_names(env, starts[0])
    known = _ACTIONS.get(_base_name(env_id), ())
    if not isinstance(actions, Choices):
        numbers = len(actions.low)
        names = next((names for names in (own, known) if len(names) == numbers), None)
        return [[name] for name in names or _numbered("action", numbers)]
    if len(actions.sizes) == 1:
        size = actions.sizes[0]
        names = next((names for names in (own, known) if len(names) == size), None)
        return [list(names or _numbered("action", size, starts[0]))]
    return [
        [f"choice {index}: {number}" for number in range(start, start + size)]
        for index, (size, start) in enumerate(zip(actions.sizes, starts, strict=True))
    ]


def name_numbers(env_id: str, count: int) -> list[str]:
    """Names of the numbers of a vector that an environment shows.

    Args:
        env_id: of the environment.
        count: how many numbers there are.
    """
    known = _OBSERVATIONS.get(_base_name(env_id), ())
    return list(known) if len(known) == count else _numbered("number", count)


def _own_names(env: gym.Env, first: int) -> tuple[str, ...]:
    """Names that an environment has for its actions, from option ``first`` on; empty: none."""
    inner = env.unwrapped
    for name in ("get_action_meanings", "action_names"):
        found: Any = getattr(inner, name, None)
        if callable(found):
            found = found()
        if isinstance(found, (list, tuple)) and all(isinstance(one, str) for one in found):
            return tuple(map(_plain, found))
    for name in ("actions", "Actions"):
        found = getattr(inner, name, None)
        if isinstance(found, type) and issubclass(found, enum.IntEnum):
            by_value = {int(member): _plain(member.name) for member in found}
            return tuple(by_value[value] for value in range(first, first + len(by_value)) if value in by_value)
    return ()


def _plain(name: str) -> str:
    """A name in lower case, with spaces, and without what would control a terminal."""
    return escape_controls(name.replace("_", " ").lower())


def _base_name(env_id: str) -> str:
    """The name of an environment without namespace, module and version."""
    return env_id.rpartition(":")[2].rpartition("/")[2].partition("-v")[0]


def _numbered(word: str, count: int, start: int = 0) -> list[str]:
    """Names with a number."""
    return [f"{word} {number}" for number in range(start, start + count)]
