"""Wrappers by name, as command lines and configurations request them."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
from gymnasium.vector import VectorEnv

from ctm_rl.envs.wrappers.atari import preprocess
from ctm_rl.envs.wrappers.clip_rewards import ClipRewards
from ctm_rl.envs.wrappers.frame_skip import FrameSkip
from ctm_rl.envs.wrappers.frame_stack import stack_frames
from ctm_rl.envs.wrappers.hide_velocity import HideVelocity, HideVelocityVector
from ctm_rl.envs.wrappers.previous_step import PreviousPart, ShowPrevious, ShowPreviousVector
from ctm_rl.envs.wrappers.staggered_start import StaggeredStart
from ctm_rl.errors import UserError
from ctm_rl.named_code import declared_code, is_code_name, load_code, misfit_of

TIME_LIMIT = "time-limit"
ATARI = "atari"
CLIP_REWARDS = "clip-rewards"
PREVIOUS_ACTION = "previous-action"
PREVIOUS_REWARD = "previous-reward"
OWN_WRAPPERS = "ctm_rl.wrappers"
"""The group of entry points by which installed packages declare wrappers."""
_OPTION = "--env.wrappers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of wrapper that has a name."""

    wrap: Callable[[gym.Env, Any], gym.Env]
    """Wraps an environment; the second argument is the value."""
    value: Literal["none", "number", "indices"] = "none"
    """What follows the name: nothing, ``=N``, or ``=I,J,...``, which is optional."""
    wrap_vector: Callable[[VectorEnv, Any], VectorEnv] | None = None
    """Wraps a vector of environments with autoreset mode NextStep; ``None``: it wraps single ones only."""


class Named(NamedTuple):
    """A requested wrapper."""

    name: str
    value: Any
    """By kind: ``None``, a number, or indices (``None`` where they are left out)."""


def wrap(env: gym.Env, wrappers: Iterable[str]) -> gym.Env:
    """Wraps an environment, the first wrapper innermost.

    MiniGrid's own observation space gets bounds that are the numbers of objects, colours and states; one that another
    wrapper has made stays as it is.

    Args:
        env: any environment.
        wrappers: names such as ``["frame-skip=4", "time-limit=500"]``: ``hide-velocities`` (of classic control, or
            ``hide-velocities=1,3`` with the indices), ``frame-skip=N``, ``frame-stack=N`` (the last observations as
            one), ``time-limit=N``, ``grid-image`` (MiniGrid's image alone), ``grid-full`` (an image of the whole grid),
            ``grid-onehot``, ``atari`` (the usual preprocessing of Atari games), ``previous-action`` and
            ``previous-reward`` (beside the observation), ``clip-rewards`` (to -1 to 1) and ``stagger`` (the first
            episode is truncated at a random step). Wrappers of others are ``module:Class`` or the name of an entry
            point, alone or with ``=VALUE``: a number, text or list is the second argument after the environment, a JSON
            object has the arguments by name.

    Returns:
        The environment, wrapped.

    Raises:
        UserError: there is no such wrapper, or it does not fit this environment.
    """
    named = parse(wrappers)
    if "minigrid" in sys.modules:  # otherwise this is not MiniGrid, which is then not imported
        from ctm_rl.envs.wrappers.minigrid_fast_view import FastView, has_plain_view
        from ctm_rl.envs.wrappers.minigrid_views import TightGrid, is_plain_grid

        if is_plain_grid(env):
            env = TightGrid(FastView(env) if has_plain_view(env) else env)
    for name, value in named:
        env = KINDS[name].wrap(env, value) if name in KINDS else _wrap_own(env, name, value)
    return env


def wraps_vectors(wrapper: Named) -> bool:
    """Whether a wrapper can be put around a vector of environments."""
    return wrapper.name in KINDS and KINDS[wrapper.name].wrap_vector is not None


def wrap_vector(env: VectorEnv, wrappers: Iterable[Named]) -> VectorEnv:
    """Wraps a vector of environments in those of the wrappers that can be put around one, the first innermost.

    Raises:
        UserError: one does not fit.
    """
    for wrapper in wrappers:
        wrap_it = KINDS[wrapper.name].wrap_vector if wraps_vectors(wrapper) else None
        env = env if wrap_it is None else wrap_it(env, wrapper.value)
    return env


def parse(wrappers: Iterable[str]) -> list[Named]:
    """Parses names with their values.

    Raises:
        UserError: there is no such wrapper, or its value is invalid.
    """
    if isinstance(wrappers, str):
        wrappers = wrappers.split()
    return [_parse(text) for text in wrappers]


def _parse(text: str) -> Named:
    """Parses one name with its value."""
    name, equals, value = text.partition("=")
    kind = KINDS.get(name)
    if kind is None:
        declared = declared_code(OWN_WRAPPERS)
        if name in declared or is_code_name(name):
            return Named(name, _value_of(value) if equals else None)
        names = ", ".join((*map(_usage, KINDS), *sorted(declared)))
        raise UserError(f"there is no wrapper {text!r}; the wrappers are {names}, and module:Class of your own.")
    if kind.value != "number" and not equals:
        return Named(name, None)
    numbers = [int(part) for part in value.split(",") if part.strip().isdecimal()]
    is_complete = kind.value != "none" and bool(numbers) and len(numbers) == value.count(",") + 1
    if not is_complete or (kind.value == "number" and (len(numbers) > 1 or numbers[0] < 1)):
        allowed = "N an integer of at least 1" if kind.value == "number" else "as named"
        raise UserError(
            f"wrapper {name} is given as {_usage(name)} ({allowed}), got {text!r}; "
            f"there are {', '.join(map(_usage, KINDS))}."
        )
    return Named(name, numbers[0] if kind.value == "number" else numbers)


def _value_of(text: str) -> Any:
    """The value of a wrapper of the user's: JSON, numbers between commas, or text."""
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text


def _wrap_own(env: gym.Env, name: str, value: Any) -> gym.Env:
    """Wraps an environment in a wrapper of the user's.

    Raises:
        UserError: there is no such wrapper, it does not take the value, or returns no environment.
    """
    make = load_code(name, _OPTION, declared_code(OWN_WRAPPERS))
    named = value if isinstance(value, dict) else {}
    positional = (env,) if value is None or isinstance(value, dict) else (env, value)
    try:
        wrapped = make(*positional, **named)
    except TypeError as error:
        misfit = misfit_of(make, len(positional), named)
        if misfit.missing:
            needed = " and ".join(misfit.missing)
            raise UserError(f"wrapper {name} needs {needed}: {name}=VALUE, or {name}='{{\"NAME\": VALUE}}'.") from error
        if misfit.unknown:
            unknown = " and ".join(map(repr, misfit.unknown))
            raise UserError(f"wrapper {name} takes no {unknown}; it takes {', '.join(misfit.known)}.") from error
        raise ValueError(str(error)) from error  # gymnasium.make would take it for one of its own
    if not isinstance(wrapped, gym.Env):
        raise UserError(f"wrapper {name} must return a gymnasium.Env, and returned a {type(wrapped).__name__}.")
    return wrapped


def _usage(name: str) -> str:
    """A name with the form of its value."""
    return name + {"none": "", "number": "=N", "indices": "[=INDEX,INDEX,...]"}[KINDS[name].value]


def _limit_time(env: gym.Env, limit: int) -> gym.Env:
    """Truncates episodes after so many steps; replaces the limit there is, unless frames have been skipped since."""
    inner = env
    while isinstance(inner, gym.Wrapper) and not isinstance(inner, FrameSkip):
        if isinstance(inner, gym.wrappers.TimeLimit):
            inner._max_episode_steps = limit
            return env
        inner = inner.env
    if inner is env.unwrapped and "minigrid" in sys.modules:
        from minigrid.minigrid_env import MiniGridEnv

        if isinstance(inner, MiniGridEnv):
            inner.max_steps = limit  # MiniGrid's rewards decrease with the share of this limit that was used
            if hasattr(inner, "fixed_max_steps"):  # BabyAI would choose another limit at every reset
                inner.fixed_max_steps = True  # pyright: ignore[reportAttributeAccessIssue]
            return env
    return gym.wrappers.TimeLimit(env, limit)


def _minigrid(function: str) -> Callable[[gym.Env, Any], gym.Env]:
    """A function of ``wrappers.minigrid_views``, which is imported when it is called."""

    def apply(env: gym.Env, value: None) -> gym.Env:
        from ctm_rl.envs.wrappers import minigrid_views

        return getattr(minigrid_views, function)(env)

    return apply


def _previous(part: PreviousPart) -> Kind:
    """The kind of wrapper that shows a part of the previous step."""
    return Kind(
        wrap=lambda env, value: ShowPrevious(env, part), wrap_vector=lambda env, value: ShowPreviousVector(env, part)
    )


KINDS = {
    "hide-velocities": Kind(wrap=HideVelocity, value="indices", wrap_vector=HideVelocityVector),
    "frame-skip": Kind(wrap=FrameSkip, value="number"),
    "frame-stack": Kind(wrap=stack_frames, value="number"),
    TIME_LIMIT: Kind(wrap=_limit_time, value="number"),
    "grid-image": Kind(wrap=_minigrid("show_image")),
    "grid-full": Kind(wrap=_minigrid("show_full")),
    "grid-onehot": Kind(wrap=_minigrid("show_one_hot")),
    ATARI: Kind(wrap=lambda env, value: preprocess(env)),
    PREVIOUS_ACTION: _previous("previous_action"),
    PREVIOUS_REWARD: _previous("previous_reward"),
    CLIP_REWARDS: Kind(wrap=lambda env, value: ClipRewards(env)),
    "stagger": Kind(wrap=lambda env, value: StaggeredStart(env)),
}
"""All wrappers by name."""
