"""The experiments by name, for ``ctm-rl train NAME`` and ``ctm-rl list``."""

import ast
import difflib
import inspect
import re
from collections.abc import Callable

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.configs import acrobot, cartpole, images, mazes, minigrid, parity, pendulum, qa_mnist, sorting
from ctm_rl.configs.any_env import for_env
from ctm_rl.errors import UserError

__all__ = ["describe", "for_env", "load", "names"]

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
        UserError: there is none; the message names the closest one, and how to list all.
    """
    if name not in _EXPERIMENTS:
        closest = difflib.get_close_matches(name, names(), n=1)
        if re.search(r"-v\d+$|[:/]", name):
            guess = f"an environment is given as --env {name}"
        else:
            guess = f"did you mean {closest[0]}?" if closest else "any environment can be given as --env ID"
        raise UserError(f"unknown experiment {name!r}: {guess} (all are listed by ctm-rl list).")
    return _EXPERIMENTS[name]()


def describe(name: str) -> str:
    """Returns an experiment's description in one line."""
    function = _EXPERIMENTS[name]
    # With PYTHONOPTIMIZE=2 Python drops docstrings; the source still has them.
    text = function.__doc__ or ast.get_docstring(ast.parse(inspect.getsource(function)).body[0])  # pyright: ignore[reportArgumentType]
    return (text or "").strip().partition("\n")[0]
