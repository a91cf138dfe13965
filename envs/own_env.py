"""Environments by name: an id of Gymnasium, or ``module:Name``, a class or function of the user's."""

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import find_highest_version, load_env_creator

from ctm_rl.errors import UserError
from ctm_rl.named_code import is_code_name, misfit_of

_MODULES = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid", "ALE/": "ale_py", "popgym-": "popgym"}
"""The module that registers the environments whose names begin like this."""
_OLD_ATARI = "NoFrameskip-v"
"""Part of the old names of the games of ``ale-py``."""
_PACKAGES = {
    "ale_py": 'ale-py, or pip install "ctm-rl[atari]" with what wrapper atari needs',
    "popgym": '"ctm-rl[popgym]"',
}
"""What installs a module."""


def import_for(env_id: str) -> None:
    """Imports the module that registers an environment or holds it: the one before the colon, or the known one.

    Raises:
        UserError: a known module is not installed.
    """
    module, name, _ = _split(env_id)
    known = (_MODULES[prefix] for prefix in _MODULES if name.startswith(prefix))
    module = module or next(known, "ale_py" if _OLD_ATARI in name else "")
    if module in _PACKAGES and importlib.util.find_spec(module) is None:
        raise UserError(f"it needs {module}, which is not installed: pip install {_PACKAGES[module]}.")
    if module:
        importlib.import_module(module)


def find_own(env_id: str) -> Callable[..., Any] | None:
    """Finds the class or function that ``module:Name`` names; ``None``: it is an id, registered or not.

    ``module::Name`` is never an id.

    Args:
        env_id: as ``--env`` has it; its module has been imported.

    Raises:
        UserError: it is both, or neither.
    """
    module, name, is_code = _split(env_id)
    if not module or not is_code_name(f"{module}:{name}"):
        return None
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    registered = None if is_code else _registered(module, name)
    if registered is not None and found is not None:
        kind = "class" if inspect.isclass(found) else "function"
        versioned = registered if registered != name else f"{name}-v0, after registering it with that version,"
        raise UserError(
            f"it may be the {kind} {name} or the registered id {registered}: write {module}::{name} for the {kind}, or "
            f"{module}:{versioned} for the id."
        )
    if found is None and registered is None:
        own = _candidates(module)
        close = difflib.get_close_matches(name, own, n=1)
        hint = f"did you mean {module}:{close[0]}?" if close else f"it has {', '.join(own) or 'none'}."
        raise UserError(f"{module} has no class or function {name}, nor does it register such an id; {hint}")
    if found is not None and not callable(found):
        raise UserError(f"{module}:{name} is of type {type(found).__name__}, and must be a class or a function.")
    return found


def make_own(env_id: str, entry: Callable[..., Any], arguments: dict[str, Any]) -> gym.Env:
    """Calls a class or function of the user's.

    Args:
        env_id: its name, for messages.
        entry: what ``find_own`` has found.
        arguments: ``--env.kwargs``.

    Raises:
        UserError: it does not take these arguments, or returns no environment.
        ValueError: it has raised a ``TypeError``.
    """
    try:
        env = entry(**arguments)
    except TypeError as error:
        raise explain_arguments(entry, arguments, error) from error
    if not isinstance(env, gym.Env):
        raise UserError(f"{env_id} must return a gymnasium.Env, and returned {_described(env)}.")
    return env


def make_registered(make: Callable[..., Any], env_id: str, *args: Any, **kwargs: Any) -> Any:
    """Calls ``gymnasium.make`` or ``make_vec``.

    Raises:
        UserError: the environment does not take these arguments.
        ValueError: it has raised a ``TypeError``, which ``gymnasium.make`` would pass on as its own.
    """
    try:
        return make(env_id, *args, **kwargs)
    except TypeError as error:
        spec = gym.registry.get(_split(env_id)[1])
        if spec is None or spec.entry_point is None:
            raise ValueError(str(error)) from error
        entry = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        own = {name: value for name, value in kwargs.items() if name not in inspect.signature(gym.make).parameters}
        raise explain_arguments(entry, {**spec.kwargs, **own}, error) from error


def explain_arguments(entry: Callable[..., Any], arguments: dict[str, Any], error: TypeError) -> ValueError:
    """What to raise for a ``TypeError`` of an environment's constructor: which argument is missing or unknown."""
    misfit = misfit_of(entry, 0, arguments)
    reasons = []
    if misfit.unknown:
        unknown, known = " and ".join(map(repr, misfit.unknown)), ", ".join(misfit.known) or "none"
        reasons.append(f"--env.kwargs has {unknown}, which it does not take; it takes {known}")
    if misfit.missing:
        given = ", ".join(f'"{name}": ...' for name in misfit.missing)
        reasons.append(f"it needs the argument {' and '.join(misfit.missing)}: --env.kwargs '{{{given}}}'")
    return UserError(f"{'; '.join(reasons)}.") if reasons else ValueError(str(error))


def _split(env_id: str) -> tuple[str, str, bool]:
    """The module, or an empty text, the rest, and whether it can only be code (``module::Name``)."""
    module, colon, name = env_id.partition(":")
    return (module, name.removeprefix(":"), name.startswith(":")) if colon else ("", env_id, False)


def _registered(module: str, name: str) -> str | None:
    """The id that a name without version stands for; one with a version counts if the module itself registers it."""
    if name in gym.registry:
        return name
    version = find_highest_version(None, name)
    if version is None:
        return None
    entry = gym.registry[f"{name}-v{version}"].entry_point
    owner = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{name}-v{version}" if owner.partition(".")[0] == module.partition(".")[0] else None


def _candidates(module: str) -> list[str]:
    """The public classes and functions that a module defines itself."""
    values = vars(importlib.import_module(module)).items()
    return sorted(
        name
        for name, value in values
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module
    )


def _described(value: Any) -> str:
    """What is no environment, in words."""
    if isinstance(value, gym.vector.VectorEnv):
        return "a vector of environments; return a single one, and set --num-envs-per-env-runner"
    return f"a {type(value).__module__}.{type(value).__qualname__}"
