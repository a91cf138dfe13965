"""Columns of data for learners."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    TIMERS,
)

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.iteration import SLICE_SECONDS, report
from ctm_rl.agents.rllib.spans import LEARN, span


def map_arrays(columns: Any, change: Callable[[Any], Any]) -> Any:
    """Applies a function to an array or tensor, or to each of those in nested dictionaries."""
    if isinstance(columns, Mapping):
        return {name: map_arrays(column, change) for name, column in columns.items()}
    return change(columns)


def join(parts: Sequence[Any]) -> Any:
    """Concatenates batches: arrays, or arrays by name."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def to_device(columns: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """All columns, nested ones too, as tensors on a device."""
    return map_arrays(columns, functools.partial(to_tensor, device=device))


def to_tensor(column: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """One column; arrays from Ray's object store are read-only, which tensors cannot be, and are copied."""
    return torch.from_numpy(np.require(column, requirements="W")).to(device)


def batch_of(columns: Mapping[str, Any], num_steps: int) -> MultiAgentBatch:
    """Columns as RLlib's learners take them."""
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(dict(columns))}, env_steps=num_steps)


def for_learners(batches: list[Any], num_learners: int) -> dict[str, Any]:
    """The learners' batches, or references to them, as ``LearnerGroup.update`` takes them."""
    are_references = isinstance(batches[0], ray.ObjectRef)
    if num_learners == 0:
        return {"batch": ray.get(batches[0]) if are_references else batches[0]}
    return {"batch_refs" if are_references else "batches": batches}


def update_learners(algorithm: Algorithm, data: Mapping[str, Any]) -> None:
    """Updates the learners once, and logs their metrics and the time.

    Args:
        algorithm: with the number of sampled steps in its metrics, which schedules advance by.
        data: from ``for_learners``.
    """
    group = algorithm.learner_group
    assert group is not None
    metrics, trained = algorithm.metrics, (LEARNER_RESULTS, ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME)
    timesteps = {
        NUM_ENV_STEPS_SAMPLED_LIFETIME: metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)),
        NUM_MODULE_STEPS_TRAINED_LIFETIME: metrics.peek(trained, default=0),
    }
    with span(LEARN), metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
        if group.is_local:
            results = group.update(**data, timesteps=timesteps)
        else:
            waiting = functools.partial(report, "learners")
            results = private.update_remote_learners(group, SLICE_SECONDS, waiting, **data, timesteps=timesteps)
        metrics.aggregate(results, key=LEARNER_RESULTS)
