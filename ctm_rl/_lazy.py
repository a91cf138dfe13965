"""Exports that are imported when first asked for (PEP 562), so that importing a package costs next to nothing."""

import importlib
from collections.abc import Callable, Mapping


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Makes a package's ``__getattr__`` and ``__dir__`` out of a table of what it exports.

    Args:
        package: the package's own name, its ``__name__``.
        modules: for each exported name, the full name of the module that defines it.

    Returns:
        ``(__getattr__, __dir__)``, to be assigned at the package's top level.
    """

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *modules})

    return load, names
