"""Code of users by name: ``module:Name``, or a name that an installed package declares as an entry point."""

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ctm_rl.errors import UserError


def is_code_name(text: str) -> bool:
    """Whether a text has the form ``module:Name``, with dots in either part, as ``package.module:Class.method``."""
    module, colon, name = text.partition(":")
    parts = [*module.split("."), *name.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def load_code(name: str, option: str, declared: dict[str, EntryPoint] | None = None) -> Callable[..., Any]:
    """Imports what a name stands for.

    Args:
        name: ``module:Name``, or a key of ``declared``.
        option: what it was given for, for messages, as ``--callbacks``.
        declared: entry points by name, see ``declared_code``.

    Returns:
        The class or function.

    Raises:
        UserError: there is no such module or name in it, or it cannot be called; what the module itself raises
            becomes its message.
    """
    if declared and name in declared:
        name = declared[name].value
    if not is_code_name(name):
        known = f" or one of {', '.join(sorted(declared))}" if declared else ""
        raise UserError(f"{option} must be module:Name{known}, got {name!r}.")
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever a module may raise while it is imported
        raise UserError(f"{option} {name}: {_reason(module, error)}.") from error
    for part in path.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(key for key in vars(found) if not key.startswith("_")))
            raise UserError(f"{option} {name}: {module} has no {path}; it has {names or 'nothing'}.")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{option} {name}: it must be a class or a function, and is a {type(found).__name__}.")
    return found


def declared_code(group: str) -> dict[str, EntryPoint]:
    """Returns the entry points of a group, such as ``ctm_rl.wrappers``, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=group)}


def _reason(module: str, error: Exception) -> str:
    """Why a module cannot be imported, in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name and module.split(".")[0] == error.name.split(".")[0]:
        return f"there is no module {error.name} in this folder, nor is it installed"
    text = " ".join(str(error).split())
    where = _innermost_line(error)
    return f"importing {module} raised {type(error).__name__}: {text.rstrip('.')}{where}"


def _innermost_line(error: Exception) -> str:
    """The innermost line of a traceback, as `` (file.py:3)``; empty if it has none of a file."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in (__file__, importlib.__file__) and not name.startswith("<"):
            where = f" ({name}:{trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({error.filename}:{error.lineno})"
    return where
