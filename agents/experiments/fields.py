"""The fields of nested dataclasses by their full names, and the name that a misspelt one probably stands for."""

import dataclasses
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_type_hints


def fields_of(kind: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the type of every field by its full name, such as ``ppo.lr``.

    Args:
        kind: a dataclass; the fields of dataclasses in it are listed in their place.
        prefix: put before each name.
    """
    found: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        found |= fields_of(hint, f"{name}.") if dataclasses.is_dataclass(hint) else {name: hint}
    return found


def closest_field(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name most like a given one: the same last part first, then a similar name; None: there is none.

    Args:
        name: a full name or its last part, as ``lr`` for ``ppo.lr``.
        known: full names.
    """
    known = list(known)
    leaf_of = {full.rpartition(".")[2]: full for full in reversed(known)}
    leaf = name.rpartition(".")[2]
    if leaf in leaf_of:
        return leaf_of[leaf]
    similar = get_close_matches(name, known, n=1, cutoff=0.75)
    return next(iter(similar or map(leaf_of.__getitem__, get_close_matches(leaf, leaf_of, n=1))), None)
