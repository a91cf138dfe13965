"""Parts that the two kinds of run share; ``acting_task`` and ``answering_task`` have what differs, one class each.

A run that acts (``acting_task``) plays episodes in an environment and learns from rewards: its metrics are returns,
episode lengths and the losses of an actor-critic algorithm, its checkpoints hold a policy. A run that answers
(``answering_task``) draws samples from a single-step environment and learns from the right answers, or from how right
its own answers were: its metrics are accuracies on held-out samples and losses, its checkpoints hold a model.
"""

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ctm_rl.agents.run_directory.progress import Row

MODULE = "default_policy"
"""RLlib's name of the one module that every algorithm trains."""

COMMON_METRICS = ("iteration", "env_steps", "seconds", "env_steps_per_second")
"""The first keys of every line of metrics."""


def read_losses(learner: Mapping[str, Any], names: Sequence[str], rllib_names: Mapping[str, str]) -> Row:
    """Returns a learner's results by our names; None where RLlib has none, or one that is not finite.

    Args:
        learner: RLlib's results of the module.
        names: our names.
        rllib_names: RLlib's names, where they differ from ours.
    """
    values = {name: learner.get(rllib_names.get(name, name)) for name in names}
    return {name: None if value is None or not math.isfinite(value) else float(value) for name, value in values.items()}


def mean_of(values: Sequence[float]) -> float | None:
    """Returns the mean; None if there are no values."""
    return math.fsum(values) / len(values) if values else None


def peak_memory_mb() -> float:
    """Returns the largest resident size of the training process so far, in units of 2**20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
