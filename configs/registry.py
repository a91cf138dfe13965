"""The experiments by name, for ``ctm-rl train NAME`` and ``ctm-rl list``."""

import ast
import difflib
import inspect
import re
from collections.abc import Callable
from typing import Any

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.configs import (
    acrobot,
    cartpole,
    images,
    mazes,
    minigrid,
    mountaincar,
    parity,
    pendulum,
    popgym,
    qa_mnist,
    sorting,
)
from ctm_rl.configs.any_env import for_env
from ctm_rl.configs.own_task import for_data, for_task
from ctm_rl.errors import CodeError, UserError
from ctm_rl.named_code import declared_code, is_code_name, load_code

__all__ = ["describe", "for_data", "for_env", "for_task", "load", "names"]

_MODULES = (cartpole, acrobot, pendulum, mountaincar, minigrid, popgym, parity, sorting, mazes, qa_mnist, images)
_EXPERIMENTS: dict[str, Callable[[], AnyExperiment]] = {
    name.replace("_", "-"): function
    for module in _MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
}
"""Every public function of these files is an experiment, named like the function, with dashes."""
OWN_EXPERIMENTS = "ctm_rl.experiments"
"""The group of entry points by which installed packages declare experiments: functions that return one."""
_OPTION = "experiment"


def names() -> list[str]:
    """Returns the names of all experiments, those that other installed packages declare last."""
    return list(dict.fromkeys((*_EXPERIMENTS, *sorted(declared_code(OWN_EXPERIMENTS)))))


def load(name: str) -> AnyExperiment:
    """Returns the experiment of a name; ``module:function`` names a function that returns one.

    Raises:
        UserError: there is none; the message names the closest one, and how to list all.
    """
    if name not in _EXPERIMENTS and (is_code_name(name) or name in declared_code(OWN_EXPERIMENTS)):
        return _load_own(name)
    if name not in _EXPERIMENTS:
        closest = difflib.get_close_matches(name, names(), n=1)
        if re.search(r"-v\d+$|[:/]", name):
            guess = f"an environment is given as --env {name}"
        else:
            guess = f"did you mean {closest[0]}?" if closest else "any environment can be given as --env ID"
        raise UserError(f"unknown experiment {name!r}: {guess} (all are listed by ctm-rl list).")
    return _EXPERIMENTS[name]()


def describe(name: str) -> str:
    """Returns an experiment's description in one line; that of another package says why it cannot be imported."""
    try:
        function = _EXPERIMENTS[name] if name in _EXPERIMENTS else _find_own(name)
    except CodeError as error:
        return f"({error})"
    # With PYTHONOPTIMIZE=2 Python drops docstrings; the source still has them.
    text = function.__doc__ or ast.get_docstring(ast.parse(inspect.getsource(function)).body[0])  # pyright: ignore[reportArgumentType]
    return (text or "").strip().partition("\n")[0]


def _find_own(name: str) -> Callable[[], Any]:
    """The function of an experiment of somebody else's."""
    return load_code(name, _OPTION, declared_code(OWN_EXPERIMENTS))


def _load_own(name: str) -> AnyExperiment:
    """Returns an experiment of somebody else's.

    Raises:
        UserError: there is none, or the function fails or returns something else.
    """
    function = _find_own(name)
    try:
        experiment = function()
    except Exception as error:  # a function of the user's may raise anything
        raise UserError(f"{_OPTION} {name}: it raised {type(error).__name__}: {error}") from error
    if not isinstance(experiment, (ActingExperiment, AnsweringExperiment)):
        raise UserError(
            f"{_OPTION} {name}: it must return an ActingExperiment or an AnsweringExperiment, and returned a "
            f"{type(experiment).__name__}."
        )
    return experiment
