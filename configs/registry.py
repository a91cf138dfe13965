"""The experiments by name, for ``ctm-rl train NAME`` and ``ctm-rl list``."""

import difflib
from collections.abc import Callable

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.configs.acrobot import acrobot, acrobot_paper
from ctm_rl.configs.any_env import for_env
from ctm_rl.configs.cartpole import cartpole, cartpole_paper, cartpole_window
from ctm_rl.configs.images import (
    cifar10,
    cifar100,
    cifar100_d128,
    cifar100_d256,
    cifar100_d1024,
    cifar100_k25,
    cifar100_k75,
    cifar100_k100,
    imagenet,
    mnist,
)
from ctm_rl.configs.mazes import mazes, mazes_19, mazes_39
from ctm_rl.configs.minigrid import (
    minigrid_doorkey,
    minigrid_empty,
    minigrid_fourrooms,
    minigrid_fourrooms_paper,
    minigrid_keycorridor,
    minigrid_memory,
)
from ctm_rl.configs.parity import parity, parity_64, parity_bandit
from ctm_rl.configs.pendulum import pendulum
from ctm_rl.configs.qa_mnist import qa_mnist, qa_mnist_10
from ctm_rl.configs.sorting import sorting, sorting_30
from ctm_rl.errors import UserError

__all__ = ["describe", "for_env", "load", "names"]

_EXPERIMENTS: dict[str, Callable[[], AnyExperiment]] = {
    "cartpole": cartpole,
    "cartpole-window": cartpole_window,
    "cartpole-paper": cartpole_paper,
    "acrobot": acrobot,
    "acrobot-paper": acrobot_paper,
    "pendulum": pendulum,
    "minigrid-empty": minigrid_empty,
    "minigrid-doorkey": minigrid_doorkey,
    "minigrid-memory": minigrid_memory,
    "minigrid-keycorridor": minigrid_keycorridor,
    "minigrid-fourrooms": minigrid_fourrooms,
    "minigrid-fourrooms-paper": minigrid_fourrooms_paper,
    "parity": parity,
    "parity-64": parity_64,
    "parity-bandit": parity_bandit,
    "sorting": sorting,
    "sorting-30": sorting_30,
    "mazes": mazes,
    "mazes-19": mazes_19,
    "mazes-39": mazes_39,
    "qa-mnist": qa_mnist,
    "qa-mnist-10": qa_mnist_10,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cifar100-d128": cifar100_d128,
    "cifar100-d256": cifar100_d256,
    "cifar100-d1024": cifar100_d1024,
    "cifar100-k25": cifar100_k25,
    "cifar100-k75": cifar100_k75,
    "cifar100-k100": cifar100_k100,
    "imagenet": imagenet,
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
