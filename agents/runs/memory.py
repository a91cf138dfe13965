"""Estimates the memory that learning to answer needs, so that a run that cannot fit is refused before it starts.

The model's forward pass is run without memory (on PyTorch's meta device) for one or two samples, and what it stores for
the backward pass is counted: it grows with the samples and the ticks.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.config import AnswerConfig
from ctm_rl.errors import UserError
from ctm_rl.models.answering import build_model
from ctm_rl.models.preprocessing import model_inputs

GB = 10**9
BYTES_PER_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, in float32."""
BACKWARD = 1.25
"""Memory at the peak of the backward pass, relative to what the forward pass stores: measured 1.27 to 1.51."""
_HALF = 0.5
"""Share of float32 that half precision needs at least."""
_NEGLIGIBLE = GB
"""Runs that cannot need more than this are not examined."""
_ENCODED = 1000
"""Largest factor by which the activations of an encoder exceed its input: ResNet-152 has about this."""
_NUMS_TICKS = (2, 4)
"""Numbers of ticks that are counted; the rest is extrapolated."""
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def check_memory(experiment: AnsweringExperiment, config: AnswerConfig, observations: Any) -> None:
    """Refuses a run whose optimiser steps cannot fit into the memory of this machine.

    Learners on GPUs or on other machines are not examined.

    Args:
        experiment: the run.
        config: of the model, fitted to the environment.
        observations: tensors of one sample, by name if there are several.

    Raises:
        UserError: one line with the estimate, what there is, and what to change.
    """
    is_elsewhere = experiment.num_learners > 0 and experiment.address is not None
    available = available_bytes()
    if is_elsewhere or experiment.num_gpus_per_learner > 0 or available is None:
        return
    learning, num_learners = experiment.learning, max(1, experiment.num_learners)
    num_rows = experiment.num_rows // learning.num_accumulated
    if num_rows * num_learners * _largest_sample(config, observations) < min(_NEGLIGIBLE, available):
        return
    found = count_stored(config, observations)
    if found is None:
        return
    num_parameters, per_sample = found
    per_sample = BACKWARD * per_sample * (1.0 if learning.precision == "float32" else _HALF)
    # The samples of this iteration, and of the next one.
    samples = 2 * learning.num_steps_per_iteration * learning.batch_size * _bytes_of(observations)
    fixed = num_learners * num_parameters * BYTES_PER_PARAMETER + samples
    needed = fixed + num_learners * num_rows * per_sample
    if needed <= available:
        return
    raise UserError(
        f"an optimiser step on {num_rows * num_learners} samples x {config.num_ticks} ticks needs about "
        f"{needed / GB:.0f} GB ({per_sample / 10**6:,.0f} MB for each sample, and {fixed / GB:.1f} GB for weights and "
        f"data), and this machine has {available / GB:.1f} GB free: "
        f"{_way_out(experiment, (available - fixed) / (num_learners * per_sample))}."
    )


def count_stored(config: AnswerConfig, observations: Any) -> tuple[int, float] | None:
    """Counts the parameters of a model, and the bytes that its forward pass stores for each sample.

    Args:
        config: of the model.
        observations: tensors of one sample.

    Returns:
        Both; ``None``: the model looks at numbers of its input, which do not exist without memory.
    """
    inputs = [part for part in model_inputs(config, observations) if part is not None]
    # Every tick stores as much as another one: two numbers of ticks tell the rest.
    few = [min(config.num_ticks, num_ticks) for num_ticks in _NUMS_TICKS]
    per_sample, num_parameters = [], 0
    for num_ticks in few:
        with torch.device("meta"):
            model = build_model(dataclasses.replace(config, num_ticks=num_ticks)).train()
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        try:
            one, two = (_stored_by(model, [_without_memory(part, rows) for part in inputs]) for rows in (1, 2))
        except (NotImplementedError, RuntimeError):
            return None
        per_sample.append(two - one)
    per_tick = (per_sample[1] - per_sample[0]) / max(1, few[1] - few[0])
    return num_parameters, per_sample[1] + per_tick * (config.num_ticks - few[1])


def available_bytes() -> int | None:
    """The memory that this process can get: free on the machine, and in its control group; ``None``: unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        found.append(next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):  # "max": there is no limit
        limit = int((_CGROUP / "memory.max").read_text())
        found.append(limit - int((_CGROUP / "memory.current").read_text()))
    return min(found, default=None)


def _largest_sample(config: AnswerConfig, observations: Any) -> int:
    """An upper bound of the bytes that a sample needs, in the order of magnitude."""
    numbers = sum(part[0].numel() for part in _parts_of(observations))
    ticks = config.num_ticks * config.num_neurons * (2 * config.nlm_hidden_dim + 64)
    return 4 * (_ENCODED * numbers + ticks)


def _way_out(experiment: AnsweringExperiment, most: float) -> str:
    """What to change so that at most this many samples are processed at once."""
    num_rows = experiment.num_rows
    parts = next(
        (parts for parts in range(1, num_rows + 1) if num_rows % parts == 0 and num_rows / parts <= most), None
    )
    if parts is None:
        return "lower --model.num-ticks or --model.num-neurons, or use a machine with more memory"
    return f"use --learning.num-accumulated {parts}, which processes a batch in parts, or lower --learning.batch-size"


def _stored_by(model: nn.Module, inputs: list[Tensor]) -> int:
    """The bytes of all tensors that a forward pass stores, except parameters and buffers."""
    stored: dict[int, tuple[Any, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        stored[StorageWeakRef(storage).cdata] = storage, storage.nbytes()  # kept, so that no other gets its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answers = model(*inputs).predictions
        answers.square().sum()
    for part in (*model.parameters(), *model.buffers()):
        stored.pop(StorageWeakRef(part.untyped_storage()).cdata, None)
    return sum(size for _, size in stored.values())


def _without_memory(part: Tensor, num_rows: int) -> Tensor:
    return torch.empty((num_rows, *part.shape[1:]), dtype=part.dtype, device="meta")


def _bytes_of(observations: Any) -> int:
    return sum(part[0].numel() * part.element_size() for part in _parts_of(observations))


def _parts_of(observations: Any) -> list[Tensor]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]
