"""Model configurations as RLlib and JSON carry them around: plain values under the names of their fields."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ctm_rl.config import CoreConfig, tuples_for_lists

Config = TypeVar("Config", bound=CoreConfig)


def rebuild_config(kind: type[Config], model_config: Mapping[str, Any] | None, ignored: Collection[str] = ()) -> Config:
    """Rebuilds and checks a model's configuration.

    Args:
        kind: which configuration.
        model_config: its fields, as ``dataclasses.asdict`` gives them; fields left out keep their default, and lists
            stand for tuples, as after a journey through JSON.
        ignored: names that mean nothing.

    Returns:
        The configuration.

    Raises:
        ValueError: a field is unknown or its value is not allowed.
    """
    values = tuples_for_lists({name: value for name, value in (model_config or {}).items() if name not in ignored})
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"model_config has unknown fields: {', '.join(unknown)}; allowed: {', '.join(known)}.")
    return kind(**values)
