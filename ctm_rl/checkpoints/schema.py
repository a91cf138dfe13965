"""Checks what a checkpoint holds before it is used: names, types, shapes and ranges, of settings and of tensors.

A checkpoint may be whole, with all its digests right, and yet hold anything. Every check raises ``ValueError`` with one
clause that names the entry; ``store.rebuilding`` adds the checkpoint's name.
"""

import math
import reprlib
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from ctm_rl.config import CoreConfig, tuples_for_lists
from ctm_rl.spaces.actions import Actions, Choices, Numbers
from ctm_rl.spaces.observations import Layout, Part

MAX_COUNT = 2**53
"""Largest count in a checkpoint."""
MAX_TICKS = 1_000_000
"""Largest number of ticks of a model: no weight's shape depends on it."""

_MAX_REAL = 1e300

Settings = TypeVar("Settings")
Model = TypeVar("Model", bound=nn.Module)


def check_mapping(name: str, value: object, keys: Collection[str] | None = None) -> Mapping[Any, Any]:
    """Returns a mapping; with ``keys``, one that has exactly these."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {reprlib.repr(value)}")
    if keys is not None and set(value) != set(keys):
        raise ValueError(f"{name} must have the entries {', '.join(keys)}, got {_listed(value)}")
    return value


def check_list(name: str, value: object) -> list[Any] | tuple[Any, ...]:
    """Returns a list or tuple."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} must be a list, got {reprlib.repr(value)}")
    return value


def check_whole(name: str, value: object, at_least: int = 0, at_most: int = MAX_COUNT) -> int:
    """Returns a whole number between limits."""
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
        raise ValueError(f"{name} must be a whole number from {at_least} to {at_most}, got {reprlib.repr(value)}")
    return value


def check_real(name: str, value: object, at_least: float = -math.inf, at_most: float = math.inf) -> float:
    """Returns a finite number between limits."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        is_inside = abs(value) <= _MAX_REAL and at_least <= value <= at_most
    else:
        is_inside = False
    if not is_inside:
        limits = "" if at_least == -math.inf else f" of at least {at_least:g}"
        limits += "" if at_most == math.inf else f" and at most {at_most:g}"
        raise ValueError(f"{name} must be a finite number{limits}, got {reprlib.repr(value)}")
    return float(value)  # pyright: ignore[reportArgumentType]


def check_tensor(name: str, value: object, shape: Collection[int], dtype: torch.dtype) -> Tensor:
    """Returns a tensor of a given shape and type."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.shape != torch.Size(shape) or value.dtype != dtype or value.layout != torch.strided:
        raise ValueError(
            f"{name} must be {_typed(dtype)} of shape {tuple(shape)}, got {_typed(value.dtype)} of shape "
            f"{tuple(value.shape)}"
        )
    return value


def check_range(name: str, values: Tensor, at_least: float, below: float = math.inf) -> None:
    """Refuses numbers outside of [at_least, below)."""
    if values.numel() and not (values.min() >= at_least and values.max() < below):
        raise ValueError(
            f"{name} must hold numbers of at least {at_least:g}"
            + ("" if below == math.inf else f" and below {below:g}")
            + f", got {values.min().item():g} to {values.max().item():g}"
        )


def check_settings(kind: type[Settings], plain: object, name: str) -> Settings:
    """Builds a dataclass of plain values after checking their names and types against its annotations.

    Args:
        kind: the dataclass, which checks ranges itself.
        plain: its fields; those with a default may be missing, and lists count as tuples.
        name: of the settings, for messages.

    Returns:
        The settings.
    """
    values, hints = tuples_for_lists(check_mapping(name, plain)), get_type_hints(kind)
    for field, value in values.items():
        if field not in hints:
            raise ValueError(f"{name} has the unknown entry {reprlib.repr(field)}")
        if not _fits(value, hints[field]):
            raise ValueError(f"{name}.{field} must be of type {_described(hints[field])}, got {reprlib.repr(value)}")
    return kind(**values)


def check_layout(plain: object) -> Layout:
    """Builds the layout of observations that ``Layout.to_plain`` returned."""
    parts = tuple(
        check_settings(Part, part, f"layout {index}") for index, part in enumerate(check_list("layout", plain))
    )
    for part in parts:
        _check_sizes("layout", part.shape, part.sizes, part.starts)
        check_real("layout.scale", part.scale, at_least=1e-300)
    return Layout(parts)


def check_actions(plain: object) -> Actions:
    """Builds the action space that ``to_plain`` returned."""
    values = dict(check_mapping("actions", plain))
    kind = values.pop("kind", None)
    if kind not in ("choices", "numbers"):
        raise ValueError(f"actions.kind must be choices or numbers, got {reprlib.repr(kind)}")
    actions = check_settings(Choices if kind == "choices" else Numbers, values, "actions")
    num_numbers = math.prod(actions.shape)
    if isinstance(actions, Choices):
        _check_sizes("actions", actions.shape, actions.sizes, actions.starts)
        is_whole = len(actions.sizes) == num_numbers
    else:
        _check_sizes("actions", actions.shape, (), ())
        is_whole = len(actions.low) == len(actions.high) == num_numbers
        if not all(low < high for low, high in zip(actions.low, actions.high, strict=is_whole)):
            raise ValueError("actions.low must be below actions.high")
    if not is_whole:
        raise ValueError(f"actions of shape {actions.shape} must have {num_numbers} sizes or bounds")
    if np.dtype(actions.dtype).kind not in ("iub" if isinstance(actions, Choices) else "f"):
        raise ValueError(f"actions.dtype must be a type of numbers, got {actions.dtype!r}")
    return actions


def rebuild_model(build: Callable[[], Model], config: CoreConfig, weights: object) -> Model:
    """Builds a model and loads weights into it, after checking that these fit.

    Args:
        build: makes the model of a configuration.
        config: that configuration.
        weights: of its parameters and buffers, by name.

    Returns:
        The model with these weights.
    """
    check_weights(outline(build, config, weights), config, weights, "")
    model = build()
    model.load_state_dict(dict(check_mapping("weights", weights)))
    return model


def outline(build: Callable[[], Model], config: CoreConfig, weights: object) -> Model:
    """Builds a model without memory for its weights: their names, shapes and types alone.

    Args:
        build: makes the model of a configuration.
        config: that configuration; no number of layers may be above that of the weights.
        weights: tensors by name.
    """
    num_weights = len(check_mapping("weights", weights))
    for name in ("num_synapse_blocks", "synapse_depth", "num_baseline_layers"):
        check_whole(name, getattr(config, name, 1), 1, max(num_weights, 1))
    check_whole("the number of head_dims", len(getattr(config, "head_dims", ())), 0, num_weights)
    check_whole("num_ticks", config.num_ticks, 1, MAX_TICKS)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return build()


def check_weights(model: nn.Module, config: CoreConfig, weights: object, prefix: str) -> None:
    """Refuses weights that are not exactly those of a model.

    Args:
        model: with or without memory for its weights.
        config: its configuration.
        weights: by name; entries that do not begin with the prefix are ignored.
        prefix: what comes before the names of the model.
    """
    expected = model.state_dict()
    found = {
        name.removeprefix(prefix): value
        for name, value in check_mapping("weights", weights).items()
        if isinstance(name, str) and name.startswith(prefix)
    }
    if expected.keys() != found.keys():
        lacking, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        raise ValueError(
            f"weights must be those of its settings: {len(lacking)} are missing{_such_as(lacking)}, and "
            f"{len(unknown)} are unknown{_such_as(unknown)}"
        )
    for name, wanted in expected.items():
        values = check_tensor(f"weight {prefix}{name}", found[name], wanted.shape, wanted.dtype)
        check_buffer(f"weight {prefix}{name}", values, config)


def check_buffer(name: str, values: Tensor, config: CoreConfig) -> None:
    """Refuses indices of neurons that do not exist, and variances and counts below 0."""
    last = name.rpartition(".")[2]
    if last in ("left", "right") and not values.is_floating_point():
        check_range(name, values, 0, config.num_neurons)
    elif last in ("variance", "running_var", "count", "num_batches_tracked"):
        check_range(name, values, 0)


def _check_sizes(name: str, shape: tuple[int, ...], sizes: tuple[int, ...], starts: tuple[int, ...]) -> None:
    """Checks the sizes of a part of an observation, or of actions."""
    for size in (*shape, *sizes):
        check_whole(f"{name}: a size", size, 1, 2**31)
    for start in starts:
        check_whole(f"{name}: a start", start, -(2**63), 2**63 - 1)
    check_whole(f"{name}: the product of its sizes", math.prod(shape), 1, 2**31)
    if len(starts) not in (0, len(sizes)):
        raise ValueError(f"{name} must have as many starts as sizes, got {len(starts)} and {len(sizes)}")


def _fits(value: object, hint: Any) -> bool:
    """Whether a plain value is of an annotated type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is float and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**53
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    """A type in words."""
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint).replace("typing.", "")


def _typed(dtype: torch.dtype) -> str:
    """A type of tensors in words."""
    return str(dtype).removeprefix("torch.")


def _listed(names: Collection[object]) -> str:
    """The first names of a mapping."""
    shown = ", ".join(reprlib.repr(name) for name in list(names)[:8])
    return shown + (", ..." if len(names) > 8 else "") if names else "none"


def _such_as(names: list[str]) -> str:
    """The first of some names."""
    return f" (such as {reprlib.repr(names[0])})" if names else ""
