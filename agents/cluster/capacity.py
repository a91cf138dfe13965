"""Whether the processors that a run asks for are there: on all nodes together, and on a single one for each process."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.errors import UserError

_MAX_NAMED = 8
"""Nodes that a message names."""


class Node(NamedTuple):
    """One machine of a cluster."""

    name: str
    """Its address."""
    cpus: float
    """CPU cores that Ray may give away."""
    gpus: float
    """GPUs that Ray may give away."""
    has_package: bool
    """Whether this package is there, file for file as it is here."""


def needed_cpus(experiment: RunSettings) -> float:
    """How many CPU cores Ray has to set aside for a run, beside the training process itself."""
    learners = experiment.num_learners if experiment.num_gpus_per_learner == 0 else 0
    return experiment.num_env_runners * experiment.num_cpus_per_env_runner + learners


def needed_gpus(experiment: RunSettings) -> float:
    """How many GPUs a run learns on; without learners of their own, those of the training process."""
    return experiment.num_gpus_per_learner * max(1, experiment.num_learners)


def check_capacity(experiment: RunSettings, where: str, nodes: Sequence[Node]) -> None:
    """Refuses a run that would wait for ever for processors that are not there.

    Args:
        experiment: what is asked for.
        where: the machine or cluster, for the message.
        nodes: what is there, whoever uses it now.

    Raises:
        UserError: there is too little, or too little in one place.
    """
    needed, num_cpus = needed_cpus(experiment), sum(node.cpus for node in nodes)
    size, count = experiment.num_cpus_per_env_runner, experiment.num_env_runners
    if needed > num_cpus:
        raise UserError(
            f"num_env_runners {count} x num_cpus_per_env_runner {size:g} and num_learners {experiment.num_learners} "
            f"need {needed:g} CPU cores, and {where} has {_has(nodes, num_cpus, 'cpus')}; ask for fewer."
        )
    if count and size and _rooms([node.cpus for node in nodes], size) < count:
        _refuse_runners(experiment, where, nodes)
    gpus, num_gpus = needed_gpus(experiment), sum(node.gpus for node in nodes)
    each, num_learners = experiment.num_gpus_per_learner, max(1, experiment.num_learners)
    if gpus and (gpus > num_gpus or _rooms([node.gpus for node in nodes], each) < num_learners):
        raise UserError(
            f"num_gpus_per_learner {each:g} for {num_learners} learners needs {gpus:g} GPUs, and {where} has "
            f"{_has(nodes, num_gpus, 'gpus')}; 0 learns on the CPU."
        )


def _refuse_runners(experiment: RunSettings, where: str, nodes: Sequence[Node]) -> None:
    """There are cores enough, and not in one place.

    Raises:
        UserError: always.
    """
    size = experiment.num_cpus_per_env_runner
    room = _rooms([node.cpus for node in nodes], size)
    fits = f"{room} of {experiment.num_env_runners} fit" if room else "it fits on no node"
    raise UserError(
        f"num_cpus_per_env_runner {size:g} must be free on one node, and {fits}: {where} has "
        f"{_has(nodes, sum(node.cpus for node in nodes), 'cpus')} CPU cores; ask for fewer."
    )


def _rooms(sizes: Sequence[float], size: float) -> int:
    """How many processes of a size find room."""
    return sum(math.floor(there / size + 1e-9) for there in sizes)


def _has(nodes: Sequence[Node], total: float, what: str) -> str:
    """How much there is; of several nodes, how much on each."""
    if len(nodes) == 1:
        return f"{total:g}"
    named = [f"{node.name} {getattr(node, what):g}" for node in nodes[:_MAX_NAMED]]
    rest = [f"{len(nodes) - _MAX_NAMED} more nodes"] if len(nodes) > _MAX_NAMED else []
    return f"{total:g} ({', '.join([*named, *rest])})"
