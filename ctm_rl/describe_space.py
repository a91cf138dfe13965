"""A space of Gymnasium in a few words for messages: kinds, shapes and limits, never whole arrays of bounds."""

from typing import Any

MAX_LENGTH = 200
"""Longest description, in characters."""


def describe_space(space: Any) -> str:
    """Describes a space on one line, such as ``Box of shape (84, 84, 3), uint8 from 0 to 255``.

    Args:
        space: of Gymnasium, which is not imported; dictionaries and tuples are described by their parts.
    """
    text = _describe(space)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def _describe(space: Any) -> str:
    """Describes a space, however long."""
    kind = type(space).__name__
    if kind == "Box":
        bounds = f" from {space.low.min():g} to {space.high.max():g}" if space.low.size else ""
        return f"Box of shape {tuple(map(int, space.shape))}, {space.dtype}{bounds}"
    if kind in ("Dict", "Tuple"):
        is_dict = kind == "Dict"
        parts = space.spaces.items() if is_dict else enumerate(space.spaces)
        inner = ", ".join(f"{name}: {_describe(part)}" if is_dict else _describe(part) for name, part in parts)
        return f"{kind}({inner})"
    return " ".join(str(space).split())
