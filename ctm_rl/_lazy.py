"""Exports that are imported at first access (PEP 562), so that importing a package takes almost no time."""

import ast
import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path


def lazy_exports(
    package: str, file: str, renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Makes a package's ``__getattr__`` and ``__dir__`` from the imports in its stub, ``__init__.pyi``.

    The stub is the one list of what a package exports: type checkers read it, and so does this.

    Args:
        package: the package's own name, its ``__name__``.
        file: its ``__init__.py``, its ``__file__``.
        renamed: names of earlier versions and what they are called now; using one warns.

    Returns:
        ``(__getattr__, __dir__)``, to be assigned at the package's top level.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text())
    modules = {
        alias.name: str(node.module) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }

    def load(name: str) -> object:
        if renamed is not None and name in renamed:
            now = renamed[name]
            message = f"{package}.{name} is now called {now}; the next release removes the old name."
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            name = now
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *modules})

    return load, names
