"""The experiments by name, for ``ctm-rl train NAME`` and ``ctm-rl list``."""

import ast
import difflib
import inspect
from collections.abc import Callable

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.configs import acrobot, cartpole, images, mazes, minigrid, parity, pendulum, qa_mnist, sorting
from ctm_rl.configs.any_env import for_env
from ctm_rl.configs.own_task import for_data, for_task
from ctm_rl.errors import UserError

__all__ = ["describe", "for_data", "for_env", "for_task", "load", "names"]

_MODULES = (cartpole, acrobot, pendulum, minigrid, parity, sorting, mazes, qa_mnist, images)
_EXPERIMENTS: dict[str, Callable[[], AnyExperiment]] = {
    name.replace("_", "-"): function
    for module in _MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
}
"""Every public function of these files is an experiment, named like the function, with dashes."""


def names() -> list[str]:
    """Returns the names of all experiments."""
    return list(_EXPERIMENTS)


def load(name: str) -> AnyExperiment:
    """Returns the experiment of a name.

    Raises:
        UserError: there is none; the message lists all names, the closest one first.
    """
    if name not in _EXPERIMENTS:
        closest = difflib.get_close_matches(name, names(), n=len(_EXPERIMENTS))
        ordered = [*closest, *(other for other in names() if other not in closest)]
        raise UserError(
            f"unknown experiment {name!r}; allowed are {', '.join(ordered)} (any environment: ctm-rl train --env ID)."
        )
    return _EXPERIMENTS[name]()


def describe(name: str) -> str:
    """Returns an experiment's description in one line."""
    function = _EXPERIMENTS[name]
    # With PYTHONOPTIMIZE=2 Python drops docstrings; the source still has them.
    text = function.__doc__ or ast.get_docstring(ast.parse(inspect.getsource(function)).body[0])  # pyright: ignore[reportArgumentType]
    return (text or "").strip().partition("\n")[0]
