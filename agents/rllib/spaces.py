"""Fits a policy to an environment's spaces: the encoder of each part of an observation, and the actions."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from ctm_rl.config import SKIP, PolicyConfig, encoders_by_part, quote_part
from ctm_rl.encoders.conv import is_image
from ctm_rl.encoders.grid import SIZES
from ctm_rl.errors import UserError
from ctm_rl.spaces.actions import Actions, Choices, Numbers
from ctm_rl.spaces.observations import Layout, Part

MINIGRID_SHAPE = (7, 7, 3)
"""Observation of MiniGrid: object, colour and state of every cell in view."""
_FULL_VIEW_SIZES = (*SIZES[:2], 4)
"""In the full view, the agent is among the objects, and its direction is the state; where bounds don't say sizes."""
_MAX_GRID_SIZE = 32
"""Bounds up to this are those of objects, colours and states; larger ones are those of an image's bytes."""
_MAX_CATEGORIES = 2**20
_MAX_OPTIONS = 2**16
"""Options of an action, and numbers of one, at most: the policy head has an output for each."""
_MAX_NUMBERS = 2**24
"""Numbers of a part of an observation, at most."""
_SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, Text, and Dict and Tuple of these"
_SUPPORTED_ACTIONS = "Discrete, MultiDiscrete, MultiBinary and Box"


class Fitted(NamedTuple):
    """A policy fitted to an environment's spaces."""

    config: PolicyConfig
    """With the encoder of each part."""
    layout: Layout
    """Layout of observations."""
    actions: Actions
    """The action space."""


def fit(config: PolicyConfig, observation_space: gym.Space, action_space: gym.Space) -> Fitted:
    """Fits a policy to the spaces of an environment.

    Each part of an observation gets an encoder: ``control`` (a vector of numbers: Box, MultiBinary), ``conv`` (an
    image: a Box with two long sides), ``grid`` (MiniGrid's cells: a Box of whole numbers [height, width, 3] whose
    bounds say how many objects, colours and states there are, or MiniGrid's 7 x 7 x 3), ``categories`` (Discrete,
    MultiDiscrete), or ``text``. ``config.encoder`` overrides this by name.

    Args:
        config: the requested policy.
        observation_space: of one environment.
        action_space: of one environment.

    Returns:
        The policy, the layout of observations, and the actions.

    Raises:
        UserError: a space is not supported, or not by the requested encoder.
    """
    named = encoders_by_part(config.encoder)
    parts = list(_parts_of(observation_space, ()))
    known = {_name_of(path) for path, _ in parts}
    if len(known) < len(parts):
        names = [_name_of(path) for path, _ in parts]
        same = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two parts of the observation are called {same!r}; a wrapper can rename one of them.")
    if unknown := [name for name in named if name and name not in known]:
        raise UserError(
            f"model.encoder names the part {unknown[0]!r}, which the observation does not have; "
            f"it has {', '.join(sorted(known)) if len(known) > 1 else 'no parts'}."
        )
    is_one = "" in named
    if is_one and named[""] != "auto" and len(parts) > 1:
        raise UserError(
            f"model.encoder {named['']!r} is for an observation without parts; name the parts, such as "
            f"{quote_part(_name_of(parts[0][0]))}={named['']}: there are "
            f"{', '.join(_name_of(path) for path, _ in parts)}."
        )
    fitted = []
    for path, space in parts:
        encoder = named.get(_name_of(path), "auto") if path else named.get("", "auto")
        if encoder != SKIP:
            fitted.append(_part_of(path, space, encoder))
    if not fitted:
        raise UserError(f"model.encoder {config.encoder!r} skips every part of the observation; leave one to be read.")
    chosen = ",".join(f"{quote_part(part.name)}={part.encoder}" if part.path else part.encoder for part in fitted)
    skipped = ",".join(f"{quote_part(name)}={SKIP}" for name, encoder in named.items() if encoder == SKIP)
    config = replace(config, encoder=",".join(filter(None, (chosen, skipped))))
    return Fitted(config, Layout(tuple(fitted)), actions_of(action_space))


def actions_of(space: gym.Space) -> Actions:
    """The actions of an action space.

    Raises:
        UserError: the space is not supported.
    """
    _check_options(space)
    if isinstance(space, Discrete):
        return Choices(sizes=(int(space.n),), starts=_starts_of(space))
    if isinstance(space, MultiDiscrete):
        return Choices(
            sizes=_ints(space.nvec), starts=_starts_of(space), shape=_shape_of(space), dtype=str(space.dtype)
        )
    if isinstance(space, MultiBinary):
        shape = _shape_of(space)
        return Choices(sizes=(2,) * int(np.prod(shape)), shape=shape, dtype=str(space.dtype))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(map(float, bound.reshape(-1))) for bound in (space.low, space.high))
        if any(one >= other for one, other in zip(low, high, strict=True)):
            raise UserError(f"action space {space} is not supported: each lower bound must be below the upper one.")
        return Numbers(low=low, high=high, shape=_shape_of(space), dtype=str(space.dtype))
    raise UserError(
        f"action space {space} is not supported: it must be {_SUPPORTED_ACTIONS} (of real numbers); a wrapper can turn "
        "it into one of these, for example gymnasium.wrappers.TransformAction."
    )


def _check_options(space: gym.Space) -> None:
    """Refuses an action space without options, or with more of them than a policy head can have outputs.

    Raises:
        UserError: it is one of these.
    """
    sizes = [int(np.prod(space.shape or ()))]
    if isinstance(space, Discrete):
        sizes = [int(space.n)]
    elif isinstance(space, MultiDiscrete) and sizes[0] <= _MAX_OPTIONS:
        sizes = list(_ints(space.nvec))
    if isinstance(space, (Discrete, MultiDiscrete, MultiBinary, Box)) and not 0 < sum(sizes) <= _MAX_OPTIONS:
        raise UserError(
            f"action space {_shortened(space)} has {sum(sizes):,} options; 1 to {_MAX_OPTIONS:,} are supported, and a "
            "wrapper can turn it into several smaller choices (gymnasium.wrappers.TransformAction)."
        )


def _shortened(space: gym.Space) -> str:
    """A space for a message, on one line and not too long."""
    text = " ".join(str(space).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _parts_of(space: gym.Space, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], gym.Space]]:
    """The parts of a space through its dictionaries and tuples, with their paths."""
    if isinstance(space, Dict):
        for key, inner in space.spaces.items():
            if not isinstance(key, (str, int)):
                raise UserError(
                    f"the observation has a part under the key {key!r}; a key must be a text or an integer."
                )
            yield from _parts_of(inner, (*path, key))
    elif isinstance(space, Tuple):
        for place, inner in enumerate(space.spaces):
            yield from _parts_of(inner, (*path, place))
    else:
        yield path, space


def _name_of(path: tuple[str | int, ...]) -> str:
    """A path as one name, as in ``Part.name``."""
    return ".".join(str(key) for key in path)


def _part_of(path: tuple[str | int, ...], space: gym.Space, encoder: str) -> Part:
    """Fits one part."""
    shown, example = _shortened(space), quote_part(_name_of(path)) if path else "part"
    what = f"observation space {shown}" if not path else f"part {_name_of(path)!r} of the observation, {shown},"
    fitting = _fitting_encoders(space)
    if not fitting:
        raise UserError(
            f"{what} is not supported: it must be {_SUPPORTED_OBSERVATIONS}; a wrapper can turn it into one of these "
            f"(gymnasium.wrappers.TransformObservation), and model.encoder {example}={SKIP} leaves a part "
            "of a Dict or Tuple out."
        )
    encoder = fitting[0] if encoder == "auto" else encoder
    if encoder not in fitting:
        raise UserError(f"{what} is not supported by encoder {encoder}; use one of {', '.join(fitting)}.")
    common: dict[str, Any] = {"encoder": encoder, "path": path, "shape": _shape_of(space)}
    if encoder == "text":
        return Part(**{**common, "shape": ()}, is_byte=True)
    if encoder == "grid":
        return Part(**common, sizes=_grid_sizes(space) or _FULL_VIEW_SIZES, is_byte=True)
    if isinstance(space, Discrete):
        return Part(**common, sizes=(int(space.n),), starts=_starts_of(space), is_byte=bool(space.n <= 256))
    if isinstance(space, MultiDiscrete):
        is_byte = int(space.nvec.max()) <= 256
        return Part(**common, sizes=_ints(space.nvec), starts=_starts_of(space), is_byte=is_byte)
    is_byte = isinstance(space, MultiBinary) or space.dtype == np.uint8
    return Part(**common, scale=_scale_of(space, encoder), is_byte=bool(is_byte))


def _fitting_encoders(space: gym.Space) -> tuple[str, ...]:
    """The encoders that can read a space, the default first."""
    if space.dtype is not None and np.dtype(space.dtype).kind == "U":
        return ("text",)
    if isinstance(space, Discrete):
        return ("categories",) if space.n <= _MAX_CATEGORIES else ()
    if isinstance(space, MultiDiscrete):
        is_small = 0 < space.nvec.size <= _MAX_CATEGORIES and sum(_ints(space.nvec)) <= _MAX_CATEGORIES
        return ("categories",) if is_small else ()
    if not 0 < np.prod(space.shape or (), dtype=float) <= _MAX_NUMBERS:
        return ()
    if isinstance(space, MultiBinary):
        return ("control",)
    if not isinstance(space, Box) or np.issubdtype(space.dtype, np.complexfloating):
        return ()
    shape = space.shape
    is_cells = len(shape) == 3 and shape[-1] == 3 and np.issubdtype(space.dtype, np.integer)
    images = ("conv", "control") if is_image(shape) else ("control",)
    if not is_cells:
        return images
    is_grid = _grid_sizes(space) is not None or shape == MINIGRID_SHAPE
    return ("grid", *images) if is_grid else (*images, "grid")


def _grid_sizes(space: Any) -> tuple[int, ...] | None:
    """Number of objects, colours and states of a grid by its bounds; ``None`` if the bounds are those of bytes."""
    highest = tuple(int(bound) + 1 for bound in space.high.reshape(-1, 3).max(0))
    return highest if max(highest) <= _MAX_GRID_SIZE and space.low.min() >= 0 else None


def _scale_of(space: gym.Space, encoder: str) -> float:
    """What numbers are divided by: bytes and bounded images are scaled to between -1 and 1."""
    if not isinstance(space, Box) or (encoder == "control" and space.dtype != np.uint8):
        return 1.0
    limit = max(abs(float(space.low.min())), abs(float(space.high.max())))
    return limit if 0 < limit < 1e6 else 1.0


def _shape_of(space: gym.Space) -> tuple[int, ...]:
    """The shape of one element; empty for text."""
    return tuple(int(size) for size in space.shape or ())


def _starts_of(space: Discrete | MultiDiscrete) -> tuple[int, ...]:
    """The first number of each category; empty if all are 0."""
    starts = _ints(np.asarray(space.start))
    return starts if any(starts) else ()


def _ints(array: np.ndarray) -> tuple[int, ...]:
    """An array of whole numbers, flat."""
    return tuple(int(number) for number in array.reshape(-1))
