"""Columns of data for learners."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch


def to_device(columns: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """All columns, nested ones too, as tensors on a device."""
    return {
        name: to_device(column, device) if isinstance(column, Mapping) else to_tensor(column, device)
        for name, column in columns.items()
    }


def to_tensor(column: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """One column; arrays from Ray's object store are read-only, which tensors cannot be, and are copied."""
    return torch.from_numpy(np.require(column, requirements="W")).to(device)


def batch_of(columns: Mapping[str, Any], num_steps: int) -> MultiAgentBatch:
    """Columns as RLlib's learners take them."""
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(dict(columns))}, env_steps=num_steps)
