"""Model configurations from the plain values by which RLlib and JSON carry them, under the names of their fields."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ctm_rl.config import CoreConfig, tuples_for_lists

Config = TypeVar("Config", bound=CoreConfig)


def rebuild_config(kind: type[Config], model_config: Mapping[str, Any] | None, ignored: Collection[str] = ()) -> Config:
    """Rebuilds and checks a model's configuration.

    Args:
        kind: the class of the configuration.
        model_config: its fields, as ``dataclasses.asdict`` returns them; missing fields keep their default, and lists
            count as tuples, as JSON has no tuples.
        ignored: names that are left out.

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
