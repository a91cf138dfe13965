"""Fits a policy to an environment's spaces: the encoder of each part of an observation, and the actions."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from ctm_rl.config import MAX_NUMBERS, SKIP, PolicyConfig, encoders_by_part, is_own_encoder, quote_part
from ctm_rl.describe_space import describe_space
from ctm_rl.encoders.conv import is_image
from ctm_rl.encoders.grid import SIZES
from ctm_rl.encoders.patches import is_large_image
from ctm_rl.errors import UserError
from ctm_rl.spaces.action_masks import MASK, METHOD
from ctm_rl.spaces.actions import Actions, Choices, Numbers, is_masked
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

    Each part of an observation gets an encoder: ``control`` (a vector of numbers: Box, MultiBinary), ``plain`` (the
    same, if they are normalised), ``conv`` (an
    image: a Box with two long sides), ``patches`` (a large image, whose sides are at least 48), ``grid`` (MiniGrid's
    cells: a Box of whole numbers [height, width, 3] whose bounds say how many objects, colours and states there are, or
    MiniGrid's 7 x 7 x 3), ``categories`` (Discrete, MultiDiscrete), or ``text``. ``config.encoder`` overrides this by
    name. An encoder of the user's reads any of these, packed as for the encoder of ours; one for an observation with
    parts gets them all.

    The entry ``action_mask`` of a Dict is no such part but says which actions are legal, unless ``config.encoder``
    names it.

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
    actions = actions_of(action_space)
    parts = list(_parts_of(observation_space, ()))
    if _shows_masks(observation_space) and not any(_is_of_mask(name) for name in named):
        actions = _with_masks(actions, observation_space, action_space)
        parts = [(path, space) for path, space in parts if path[0] != MASK]
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
    whole = named.get("", "auto")
    has_own = is_own_encoder(whole)  # it reads all parts
    if whole != "auto" and not has_own and len(parts) > 1:
        raise UserError(
            f"model.encoder {whole!r} is for an observation without parts; name the parts, such as "
            f"{quote_part(_name_of(parts[0][0]))}={whole}: there are "
            f"{', '.join(_name_of(path) for path, _ in parts)}."
        )
    fitted, own = [], {}
    for path, space in parts:
        encoder, is_own = named.get(_name_of(path), whole), False
        if is_own_encoder(encoder):
            own[_name_of(path)] = encoder
            encoder, is_own = "auto", True
        if encoder != SKIP:
            is_plain = config.normalize_observations and not is_own
            fitted.append(_part_of(path, space, encoder, is_plain=is_plain))
    if not fitted:
        raise UserError(f"model.encoder {config.encoder!r} skips every part of the observation; leave one to be read.")
    if not has_own:
        names = [(part.name, own.get(part.name, part.encoder)) for part in fitted]
        names += [(name, SKIP) for name, encoder in named.items() if encoder == SKIP]
        chosen = [f"{quote_part(name)}={encoder}" if name else encoder for name, encoder in names]
        config = replace(config, encoder=",".join(chosen))
    return Fitted(config, Layout(tuple(fitted)), actions)


def check_masks(actions: Actions, observation_space: gym.Space) -> None:
    """Refuses an environment without action masks for a policy that was trained with them.

    Raises:
        UserError: it is one.
    """
    if is_masked(actions) and not _shows_masks(observation_space):
        raise UserError(
            f"it was trained with action masks, and the environment shows none: it needs {MASK} in a Dict observation, "
            f"or a method {METHOD}."
        )


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
            raise UserError(
                f"action space {describe_space(space)} is not supported: each lower bound must be below the upper one."
            )
        return Numbers(low=low, high=high, shape=_shape_of(space), dtype=str(space.dtype))
    raise UserError(
        f"action space {describe_space(space)} is not supported: it must be {_SUPPORTED_ACTIONS} (of real numbers); "
        "a wrapper can turn it into one of these, for example gymnasium.wrappers.TransformAction."
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
            f"action space {describe_space(space)} has {sum(sizes):,} options; 1 to {_MAX_OPTIONS:,} are supported, "
            "and a wrapper can turn it into several smaller choices (gymnasium.wrappers.TransformAction)."
        )


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


def _shows_masks(space: gym.Space) -> bool:
    """Whether observations have an action mask."""
    return isinstance(space, Dict) and MASK in space.spaces


def _is_of_mask(name: str) -> bool:
    """Whether this is the name of the action mask, or of a part of it."""
    return name == MASK or name.startswith(f"{MASK}.")


def _with_masks(actions: Actions, observation_space: gym.Space, action_space: gym.Space) -> Choices:
    """The actions with the masks that observations have.

    Raises:
        UserError: the mask does not fit the actions.
    """
    assert isinstance(observation_space, Dict)
    shown = describe_space(action_space)
    if not isinstance(actions, Choices):
        raise UserError(
            f"the observation has an {MASK}, and the action space {shown} is continuous: masks are for Discrete, "
            f"MultiDiscrete and MultiBinary actions; model.encoder {MASK}=control reads it as numbers, {MASK}={SKIP} "
            "leaves it out."
        )
    if len(observation_space.spaces) == 1:
        raise UserError(f"the observation has nothing but its {MASK}; a policy needs something to see beside it.")
    parts = list(_parts_of(observation_space[MASK], ()))
    entries = [int(np.prod(part.shape or ())) for _, part in parts]
    if any(isinstance(key, str) for path, _ in parts for key in path):
        raise UserError(f"{MASK} of the observation is a Dict; it must be an array, or a Tuple of one for each choice.")
    if sum(entries) != actions.num_outputs or (len(entries) > 1 and tuple(entries) != actions.sizes):
        wanted = f"one for each option ({' + '.join(map(str, actions.sizes[:8]))}{' + ...' * (len(actions.sizes) > 8)})"
        found = f"{' + '.join(map(str, entries[:8]))} entries"
        raise UserError(f"{MASK} of the observation has {found}, and the action space {shown} needs {wanted}.")
    return replace(actions, is_masked=True)


def _name_of(path: tuple[str | int, ...]) -> str:
    """A path as one name, as in ``Part.name``."""
    return ".".join(str(key) for key in path)


def _part_of(path: tuple[str | int, ...], space: gym.Space, encoder: str, *, is_plain: bool) -> Part:
    """Fits one part."""
    shown, example = describe_space(space), quote_part(_name_of(path)) if path else "part"
    what = f"observation space {shown}" if not path else f"part {_name_of(path)!r} of the observation, {shown},"
    fitting = _fitting_encoders(space)
    if not fitting:
        raise UserError(
            f"{what} is not supported: it must be {_SUPPORTED_OBSERVATIONS}; a wrapper can turn it into one of these "
            f"(gymnasium.wrappers.TransformObservation), and model.encoder {example}={SKIP} leaves a part "
            "of a Dict or Tuple out."
        )
    if encoder == "auto":
        encoder = "plain" if fitting[0] == "control" and is_plain else fitting[0]
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
    if not 0 < np.prod(space.shape or (), dtype=float) <= MAX_NUMBERS:
        return ()
    if isinstance(space, MultiBinary):
        return ("control", "plain")
    if not isinstance(space, Box) or np.issubdtype(space.dtype, np.complexfloating):
        return ()
    shape = space.shape
    is_cells = len(shape) == 3 and shape[-1] == 3 and np.issubdtype(space.dtype, np.integer)
    images = (*_image_encoders(shape), "control", "plain")
    if not is_cells:
        return images
    is_grid = _grid_sizes(space) is not None or shape == MINIGRID_SHAPE
    return ("grid", *images) if is_grid else (*images, "grid")


def _image_encoders(shape: tuple[int, ...]) -> tuple[str, ...]:
    """The encoders that read an image of this shape, the default first; none if it is no image."""
    if not is_image(shape):
        return ()
    return ("patches", "conv") if is_large_image(shape) else ("conv", "patches")


def _grid_sizes(space: Any) -> tuple[int, ...] | None:
    """Number of objects, colours and states of a grid by its bounds; ``None`` if the bounds are those of bytes."""
    highest = tuple(int(bound) + 1 for bound in space.high.reshape(-1, 3).max(0))
    return highest if max(highest) <= _MAX_GRID_SIZE and space.low.min() >= 0 else None


def _scale_of(space: gym.Space, encoder: str) -> float:
    """What numbers are divided by: bytes and bounded images are scaled to between -1 and 1."""
    if not isinstance(space, Box) or (encoder in ("control", "plain") and space.dtype != np.uint8):
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
