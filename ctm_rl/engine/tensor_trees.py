"""Nested tuples and lists of tensors as one flat list and back: autograd takes and stores flat lists only."""

from collections.abc import Iterable
from itertools import repeat
from typing import Any, TypeVar

from torch import Tensor

Tree = TypeVar("Tree")
"""A tensor or None, or a tuple (named too) or list of trees."""


def flatten(tree: Any) -> list[Tensor | None]:
    """All tensors of a tree, in order."""
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in flatten(part)]
    return [tree]


def unflatten(structure: Tree, leaves: Iterable[Tensor | None]) -> Tree:
    """Reverses ``flatten``, from any tree of the same structure."""
    leaves = iter(leaves)
    if isinstance(structure, (tuple, list)):
        make: Any = getattr(structure, "_make", type(structure))
        return make([unflatten(part, leaves) for part in structure])
    return next(leaves)  # pyright: ignore[reportReturnType]


def structure_of(tree: Tree) -> Tree:
    """A tree of the same structure without its tensors."""
    return unflatten(tree, repeat(None))
