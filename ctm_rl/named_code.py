"""Code of users by name: ``module:Name``, or a name that an installed package declares as an entry point."""

import importlib
import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ctm_rl.errors import CodeError


def is_code_name(text: str) -> bool:
    """Whether a text has the form ``module:Name``, with dots in either part, as ``package.module:Class.method``."""
    module, colon, name = text.partition(":")
    parts = [*module.split("."), *name.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def load_code(name: str, option: str, declared: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Imports what a name stands for.

    Args:
        name: ``module:Name``, or a key of ``declared``.
        option: what it was given for, for messages, as ``--callbacks``.
        declared: entry points by name, see ``declared_code``.

    Returns:
        The class or function.

    Raises:
        CodeError: there is no such module or name in it, or it cannot be called; what the module itself raises
            becomes its message.
    """
    if declared and name in declared:
        name = declared[name].value
    if not is_code_name(name):
        known = f" or one of {', '.join(sorted(declared))}" if declared else ""
        raise CodeError(f"{option} must be module:Name{known}, got {name!r}.")
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever a module may raise while it is imported
        raise CodeError(f"{option} {name}: {_reason(module, error)}.") from error
    for part in path.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(key for key in vars(found) if not key.startswith("_")))
            raise CodeError(f"{option} {name}: {module} has no {path}; it has {names or 'nothing'}.")
        found = getattr(found, part)
    if not callable(found):
        raise CodeError(f"{option} {name}: it must be a class or a function, and is a {type(found).__name__}.")
    return found


def declared_code(group: str) -> dict[str, Any]:
    """Returns the entry points of a group, such as ``ctm_rl.wrappers``, by name; none is imported."""
    from importlib.metadata import entry_points  # the command line's help does without

    return {point.name: point for point in entry_points(group=group)}


class Misfit(NamedTuple):
    """How given arguments differ from those that a class or function takes."""

    missing: list[str]
    """Required, and not given."""
    unknown: list[str]
    """Given, and not taken."""
    known: list[str]
    """All that can be given by name."""


def misfit_of(found: Callable[..., Any], num_positional: int, named: Collection[str]) -> Misfit:
    """Compares arguments with a signature; where there is none to be read, nothing differs.

    Args:
        found: a class or function.
        num_positional: how many arguments are given by position.
        named: names of the others.
    """
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return Misfit([], [], [])
    by_name = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)][num_positional:]
    known = [one.name for one in by_name]
    missing = [one.name for one in by_name if one.default is one.empty and one.name not in named]
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return Misfit(missing, [] if takes_any else [name for name in named if name not in known], known)


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
