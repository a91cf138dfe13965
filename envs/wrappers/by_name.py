"""Wrappers by name: what a command line, a configuration or a Python program asks for, put around an environment."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym

from ctm_rl.envs.wrappers.frame_skip import FrameSkip
from ctm_rl.envs.wrappers.hide_velocity import HideVelocity
from ctm_rl.envs.wrappers.staggered_start import StaggeredStart
from ctm_rl.errors import UserError

HIDE_VELOCITIES = "hide-velocities"
TIME_LIMIT = "time-limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A wrapper that has a name."""

    wrap: Callable[[gym.Env, Any], gym.Env]
    """Puts it around an environment; the second argument is its value."""
    value: Literal["none", "number", "indices"] = "none"
    """What follows the name: nothing, ``=N``, or ``=I,J,...``, which can be left out."""


class Named(NamedTuple):
    """A wrapper that was asked for."""

    name: str
    value: Any
    """Its number; its indices or ``None``; ``None``."""


def wrap(env: gym.Env, wrappers: Iterable[str]) -> gym.Env:
    """Puts wrappers around an environment, the first innermost.

    MiniGrid's observation space is made to say how many objects, colours and states there are, whatever is asked for.

    Args:
        env: any environment.
        wrappers: their names, as ``["frame-skip=4", "time-limit=500"]``: ``hide-velocities`` (of classic control, or
            ``hide-velocities=1,3`` with the entries' places), ``frame-skip=N``, ``time-limit=N``, ``grid-image``
            (MiniGrid's image alone), ``grid-full`` (the whole grid for an image), ``grid-onehot``, and ``stagger`` (the
            first episode is cut off at random).

    Returns:
        The environment, wrapped.

    Raises:
        UserError: there is no such wrapper, or it does not fit this environment.
    """
    named = parse(wrappers)
    if _is_grid(env):
        from ctm_rl.envs.wrappers.minigrid_fast_view import QuickView, has_plain_view
        from ctm_rl.envs.wrappers.minigrid_views import TightGrid

        env = TightGrid(QuickView(env) if has_plain_view(env) else env)
    for name, value in named:
        env = KINDS[name].wrap(env, value)
    return env


def parse(wrappers: Iterable[str]) -> list[Named]:
    """Reads names with their values.

    Raises:
        UserError: one line that lists all there are.
    """
    if isinstance(wrappers, str):
        wrappers = wrappers.split()
    return [_read(text) for text in wrappers]


def _read(text: str) -> Named:
    """Reads one name with its value."""
    name, equals, value = text.partition("=")
    kind = KINDS.get(name)
    if kind is None:
        raise UserError(f"there is no wrapper {text!r}; there are {', '.join(map(_usage, KINDS))}.")
    if kind.value == "none" and not equals:
        return Named(name, None)
    if kind.value == "indices" and not equals:
        return Named(name, None)
    numbers = [int(part) for part in value.split(",") if part.strip().isdecimal()]
    is_complete = kind.value != "none" and bool(numbers) and len(numbers) == value.count(",") + 1
    if not is_complete or (kind.value == "number" and (len(numbers) > 1 or numbers[0] < 1)):
        allowed = "N a whole number from 1" if kind.value == "number" else "as named"
        raise UserError(
            f"wrapper {name} is given as {_usage(name)} ({allowed}), got {text!r}; "
            f"there are {', '.join(map(_usage, KINDS))}."
        )
    return Named(name, numbers[0] if kind.value == "number" else numbers)


def _usage(name: str) -> str:
    """A name with what follows it."""
    return name + {"none": "", "number": "=N", "indices": "[=INDEX,INDEX,...]"}[KINDS[name].value]


def _is_grid(env: gym.Env) -> bool:
    """Whether this is MiniGrid, without loading MiniGrid to find out."""
    if "minigrid" not in sys.modules:
        return False
    from ctm_rl.envs.wrappers.minigrid_views import is_grid

    return is_grid(env)


def _hide_velocities(env: gym.Env, indices: Sequence[int] | None) -> gym.Env:
    """Leaves velocities out."""
    return HideVelocity(env, indices)


def _limit_time(env: gym.Env, limit: int) -> gym.Env:
    """Ends episodes after so many steps: takes the place of the limit there is, unless frames were skipped since."""
    inner = env
    while isinstance(inner, gym.Wrapper) and not isinstance(inner, FrameSkip):
        if isinstance(inner, gym.wrappers.TimeLimit):
            inner._max_episode_steps = limit
            return env
        inner = inner.env
    if inner is env.unwrapped and "minigrid" in sys.modules:
        from minigrid.minigrid_env import MiniGridEnv

        from ctm_rl.envs.wrappers.minigrid_views import set_max_steps

        if isinstance(inner, MiniGridEnv):
            set_max_steps(env, limit)
            return env
    return gym.wrappers.TimeLimit(env, limit)


def _grid(function: str) -> Callable[[gym.Env, Any], gym.Env]:
    """One of the functions of ``grids``, which loads MiniGrid."""

    def put_around(env: gym.Env, value: None) -> gym.Env:
        from ctm_rl.envs.wrappers import minigrid_views as grids

        return getattr(grids, function)(env)

    return put_around


KINDS = {
    HIDE_VELOCITIES: Kind(wrap=_hide_velocities, value="indices"),
    "frame-skip": Kind(wrap=FrameSkip, value="number"),
    TIME_LIMIT: Kind(wrap=_limit_time, value="number"),
    "grid-image": Kind(wrap=_grid("show_image")),
    "grid-full": Kind(wrap=_grid("show_full")),
    "grid-onehot": Kind(wrap=_grid("show_one_hot")),
    "stagger": Kind(wrap=lambda env, value: StaggeredStart(env)),
}
"""All wrappers that have a name."""
