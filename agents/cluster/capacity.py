"""Checks that a run's CPU cores and GPUs exist: in the whole cluster, and on a single node for each process."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ctm_rl.agents.experiments.settings import RunSettings
from ctm_rl.errors import UserError

_MAX_NAMED = 8
"""The most nodes that a message names."""


class Node(NamedTuple):
    """One machine of a cluster."""

    name: str
    """Its address."""
    cpus: float
    """CPU cores that Ray may assign."""
    gpus: float
    """GPUs that Ray may assign."""
    has_package: bool
    """Whether this package is installed there with the same files as here."""


def needed_cpus(experiment: RunSettings) -> float:
    """Returns how many CPU cores Ray must reserve for a run, beside those of the training process."""
    learners = experiment.num_learners if experiment.num_gpus_per_learner == 0 else 0
    return experiment.num_env_runners * experiment.num_cpus_per_env_runner + learners


def needed_gpus(experiment: RunSettings) -> float:
    """Returns how many GPUs a run learns on; without separate learners, those of the training process."""
    return experiment.num_gpus_per_learner * max(1, experiment.num_learners)


def check_capacity(experiment: RunSettings, where: str, nodes: Sequence[Node]) -> None:
    """Refuses a run that would wait forever for processors that do not exist.

    Args:
        experiment: what is to be run.
        where: the machine or cluster, for the message.
        nodes: what exists, whether it is in use or not.

    Raises:
        UserError: there are too few cores or GPUs, or too few on one node.
    """
    needed, num_cpus = needed_cpus(experiment), sum(node.cpus for node in nodes)
    size, count = experiment.num_cpus_per_env_runner, experiment.num_env_runners
    if needed > num_cpus:
        raise UserError(
            f"num_env_runners {count} x num_cpus_per_env_runner {size:g} and num_learners {experiment.num_learners} "
            f"need {needed:g} CPU cores, and {where} has {_describe_total(nodes, num_cpus, 'cpus')}; ask for fewer."
        )
    if count and size and (num_fitting := _count_fitting([node.cpus for node in nodes], size)) < count:
        fits = f"{num_fitting} of {count} fit" if num_fitting else "it fits on no node"
        raise UserError(
            f"num_cpus_per_env_runner {size:g} must be free on one node, and {fits}: {where} has "
            f"{_describe_total(nodes, num_cpus, 'cpus')} CPU cores; ask for fewer."
        )
    gpus, num_gpus = needed_gpus(experiment), sum(node.gpus for node in nodes)
    each, num_learners = experiment.num_gpus_per_learner, max(1, experiment.num_learners)
    if gpus and (gpus > num_gpus or _count_fitting([node.gpus for node in nodes], each) < num_learners):
        raise UserError(
            f"num_gpus_per_learner {each:g} for {num_learners} learners needs {gpus:g} GPUs, and {where} has "
            f"{_describe_total(nodes, num_gpus, 'gpus')}; 0 learns on the CPU."
        )


def _count_fitting(sizes: Sequence[float], size: float) -> int:
    """How many processes of a size fit."""
    return sum(math.floor(there / size + 1e-9) for there in sizes)


def _describe_total(nodes: Sequence[Node], total: float, what: str) -> str:
    """The total, and the share of each node if there are several."""
    if len(nodes) == 1:
        return f"{total:g}"
    named = [f"{node.name} {getattr(node, what):g}" for node in nodes[:_MAX_NAMED]]
    rest = [f"{len(nodes) - _MAX_NAMED} more nodes"] if len(nodes) > _MAX_NAMED else []
    return f"{total:g} ({', '.join([*named, *rest])})"
