"""Models that answer, run by the engine and tick by tick: values and all gradients must be equal."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ctm_rl.config import AnswerConfig
from ctm_rl.engine import dispatch
from ctm_rl.machine.core import CTMCore
from ctm_rl.models.answering import ContinuousThoughtMachine, Thought

B, K = 3, 5
SMALL = AnswerConfig(
    num_neurons=19, history_length=3, num_ticks=K, nlm_hidden_dim=2, num_output_sync_neurons=4,
    num_action_sync_neurons=3, feature_dim=8, num_heads=2, num_classes=6,
)  # fmt: skip
PARITY: dict[str, Any] = {"encoder": "parity", "positions": "rotational-1d", "num_groups": 9, "num_classes": 2}
IMAGE: dict[str, Any] = {"encoder": "resnet18-1", "positions": "fourier"}
DIGITS: dict[str, Any] = {"encoder": "digits", "ticks_per_input": 2, "num_answer_ticks": 3}
SORTING: dict[str, Any] = {"num_heads": 0, "num_action_sync_neurons": 0, "input_dim": 4}
CASES: dict[str, dict[str, Any]] = {
    "parity": PARITY,
    "shallow": {**PARITY, "is_nlm_deep": False},
    "two blocks": {**PARITY, "num_synapse_blocks": 2},
    "U-Net of two": {**PARITY, "synapse_depth": 2},
    "U-Net of four": {**PARITY, "synapse_depth": 4},
    "one tick": {**PARITY, "num_ticks": 1},
    "long history": {**PARITY, "history_length": 16},
    "history of one": {**PARITY, "history_length": 1},
    "last-first": {**PARITY, "pairing": "last-first"},
    "random": {**PARITY, "pairing": "random"},
    "random-pairing": {**PARITY, "pairing": "random-pairing", "num_self_pairs": 2},
    "first order": {**PARITY, "use_first_order": True},
    "image": {**IMAGE, "synapse_depth": 3},
    "digits": DIGITS,
    "digits U-Net": {**DIGITS, "synapse_depth": 3, "pairing": "random"},
    "sorting": SORTING,
    "sorting U-Net": {**SORTING, "synapse_depth": 3, "is_nlm_deep": False, "pairing": "random-pairing"},
}


SYNAPSES = ("two blocks", "U-Net of two", "U-Net of four", "image", "digits U-Net", "sorting U-Net")
"""Cases with a synapse of more than one block: several blocks, or a U-Net."""


def make(case: dict[str, Any], dtype: torch.dtype) -> tuple[ContinuousThoughtMachine, tuple[Tensor, ...]]:
    """A model with parameters away from their start values, in evaluation mode, and inputs with gradient."""
    torch.manual_seed(41)
    model = ContinuousThoughtMachine(dataclasses.replace(SMALL, **case)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.0, 1.0)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    if model.config.encoder == "parity":
        return model.to(dtype), (torch.randint(0, 2, (B, 9)).to(dtype) * 2 - 1,)
    if model.config.encoder == "resnet18-1":
        return model.to(dtype), (torch.randn(B, 3, 12, 12, dtype=dtype, requires_grad=True),)
    if model.config.encoder == "digits":
        question = torch.tensor([[0, -1, 1], [1, -2, 1], [0, -2, 0]])
        return model.to(dtype), (torch.randn(B, 2, 1, 16, 16, dtype=dtype, requires_grad=True), question)
    return model.to(dtype), (torch.randn(B, 4, dtype=dtype, requires_grad=True),)


def core_of(model: ContinuousThoughtMachine) -> CTMCore:
    """The core, which is the machine's."""
    assert isinstance(model.core, CTMCore)
    return model.core


def one_by_one(model: ContinuousThoughtMachine, inputs: tuple[Tensor, ...]) -> Thought:
    """The path that the fast one must equal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "can_think_fast", lambda core, readings: False)
        return model(*inputs)


def at_once(model: ContinuousThoughtMachine, inputs: tuple[Tensor, ...]) -> Thought:
    """The fast path, and no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "think", None)
        return model(*inputs)


def gradients(model: ContinuousThoughtMachine, inputs: tuple[Tensor, ...], thought: Thought) -> dict[str, Tensor]:
    """Of a random sum of all answers and certainties."""
    generator = torch.Generator().manual_seed(42)
    loss = torch.stack([
        (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum()
        for part in (thought.predictions, thought.certainties)
    ]).sum()  # fmt: skip
    leaves = {f"inputs {place}": part for place, part in enumerate(inputs) if part.requires_grad}
    leaves.update(model.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def assert_equal(one: Tensor, two: Tensor, limit: float, name: str) -> None:
    """Within ``limit`` of the norm."""
    assert (one - two).norm() <= limit * one.norm() + 1e-12, name


def assert_equal_paths(case: dict[str, Any], dtype: torch.dtype, value: float, grad: float) -> None:
    """Values within ``value`` absolutely, gradients within ``grad`` of their norm, with and without gradient."""
    model, inputs = make(case, dtype)
    slow, fast = one_by_one(model, inputs), at_once(model, inputs)
    with torch.no_grad():
        without_gradient = at_once(model, inputs)
    for thought in (fast, without_gradient):
        assert thought.predictions.shape == slow.predictions.shape
        assert (thought.predictions - slow.predictions).abs().max() <= value
        assert (thought.certainties - slow.certainties).abs().max() <= value
    expected, found = gradients(model, inputs, slow), gradients(model, inputs, fast)
    for name, one in expected.items():
        assert_equal(one, found[name], grad, name)
