"""The experiments by name, for ``ctm-rl train NAME`` and ``ctm-rl list``."""

import difflib
from collections.abc import Callable

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.configs import acrobot, cartpole, images, mazes, minigrid, parity, pendulum, qa_mnist, sorting
from ctm_rl.configs.any_env import for_env
from ctm_rl.errors import UserError

__all__ = ["describe", "for_env", "load", "names"]

_FUNCTIONS: tuple[Callable[[], AnyExperiment], ...] = (
    cartpole.cartpole,
    cartpole.cartpole_window,
    cartpole.cartpole_paper,
    acrobot.acrobot,
    acrobot.acrobot_paper,
    pendulum.pendulum,
    minigrid.minigrid_empty,
    minigrid.minigrid_doorkey,
    minigrid.minigrid_memory,
    minigrid.minigrid_keycorridor,
    minigrid.minigrid_fourrooms,
    minigrid.minigrid_fourrooms_paper,
    parity.parity,
    parity.parity_64,
    parity.parity_bandit,
    sorting.sorting,
    sorting.sorting_30,
    mazes.mazes,
    mazes.mazes_19,
    mazes.mazes_39,
    qa_mnist.qa_mnist,
    qa_mnist.qa_mnist_10,
    images.mnist,
    images.cifar10,
    images.cifar100,
    images.cifar100_d128,
    images.cifar100_d256,
    images.cifar100_d1024,
    images.cifar100_k25,
    images.cifar100_k75,
    images.cifar100_k100,
    images.imagenet,
)
_EXPERIMENTS = {function.__name__.replace("_", "-"): function for function in _FUNCTIONS}
"""Every experiment is named like its function, with dashes."""


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
    return (_EXPERIMENTS[name].__doc__ or "").strip().splitlines()[0]
