"""Complete experiments: each is a function that returns one checked Experiment; its first line tells what it shows."""

import difflib
from collections.abc import Callable

from ctm_rl.agents.experiment_json import AnyExperiment
from ctm_rl.configs.acrobot import acrobot, acrobot_paper
from ctm_rl.configs.cartpole import cartpole, cartpole_paper, cartpole_window
from ctm_rl.configs.generic import for_env
from ctm_rl.configs.parity import parity, parity_64
from ctm_rl.errors import UserError

__all__ = ["describe", "for_env", "load", "names"]

_EXPERIMENTS: dict[str, Callable[[], AnyExperiment]] = {
    "cartpole": cartpole,
    "cartpole-window": cartpole_window,
    "cartpole-paper": cartpole_paper,
    "acrobot": acrobot,
    "acrobot-paper": acrobot_paper,
    "parity": parity,
    "parity-64": parity_64,
}


def names() -> list[str]:
    """The names of all experiments."""
    return list(_EXPERIMENTS)


def load(name: str) -> AnyExperiment:
    """Gives the experiment of that name.

    Raises:
        UserError: there is none; the message lists those there are, the closest one first.
    """
    if name not in _EXPERIMENTS:
        closest = difflib.get_close_matches(name, names(), n=len(_EXPERIMENTS))
        ordered = [*closest, *(other for other in names() if other not in closest)]
        raise UserError(
            f"unknown experiment {name!r}; there are {', '.join(ordered)} (any environment: ctm-rl train --env ID)."
        )
    return _EXPERIMENTS[name]()


def describe(name: str) -> str:
    """What an experiment shows, in one line."""
    return (_EXPERIMENTS[name].__doc__ or "").strip().splitlines()[0]
