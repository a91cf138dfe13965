"""Machines side by side against each of them alone, ticking one by one: values, final states and every gradient."""

import dataclasses
from typing import Any

import pytest
import torch
from reference import parts
from torch import Tensor, nn

from ctm_rl.config import CoreConfig
from ctm_rl.engine.episode import step_through
from ctm_rl.engine.side_by_side import can_run_side_by_side, unroll_side_by_side
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.recurrent_baselines import LSTMCore
from ctm_rl.machine.state import CoreState

T, B, F = 17, 4, 6
SMALL = CoreConfig(
    num_neurons=19, nlm_hidden_dim=3, num_output_sync_neurons=4, num_synapse_blocks=2, pairing="last-first",
    history_length=3,
)  # fmt: skip
CASES: list[dict[str, Any]] = [
    {},
    {"num_synapse_blocks": 1, "num_ticks": 1},
    {"is_nlm_deep": False, "num_ticks": 3},
    {"use_first_order": True},
    {"use_first_order": True, "pairing": "random", "sync_window": True},
    {"pairing": "random-pairing", "sync_window": True, "history_length": 12},  # synchronised neurons differ
    {"pairing": "random-pairing", "num_ticks": 6},
]


def make(case: dict[str, Any], count: int, num_rows: int, dtype: torch.dtype) -> tuple[list[CTMCore], list[CoreState]]:
    """Cores that differ in every parameter, each with a state from somewhere."""
    torch.manual_seed(41)
    cores, states = [], []
    for _ in range(count):
        core = CTMCore(dataclasses.replace(SMALL, **case), F)
        with torch.no_grad():
            for name, parameter in core.named_parameters():
                parameter.copy_(torch.rand_like(parameter) if name.endswith("decay_rate") else parameter)
                parameter.add_(0.1 * torch.rand_like(parameter))
        cores.append(core.to(dtype))
        states.append(
            CoreState._make(
                None if part is None else (part.detach() + 0.5 * torch.rand_like(part)).requires_grad_()
                for part in cores[-1].initial_state(num_rows)
            )
        )
    return cores, states


def one_after_the_other(
    cores: list[CTMCore], features: Tensor, is_first: Tensor, states: list[CoreState], ticks: Any
) -> Any:
    each = cores[0].config.num_ticks if ticks is None else ticks
    pairs = zip(cores, states, strict=True)
    return [step_through(core, features, is_first, state, each) for core, state in pairs]


def side_by_side(cores: list[CTMCore], features: Tensor, is_first: Tensor, states: list[CoreState], ticks: Any) -> Any:
    def project(weight: Tensor, bias: Tensor) -> Tensor:
        return nn.functional.linear(features, weight, bias)

    return unroll_side_by_side(cores, project, is_first, states, ticks)


@pytest.mark.parametrize(
    ("case", "count", "num_rows", "dtype", "value", "share"),
    [
        *((case, count, B, torch.float64, 1e-12, 1e-10) for case in CASES for count in (2, 3)),
        *((case, 2, 1, torch.float64, 1e-12, 1e-10) for case in CASES),
        *((case, 2, B, torch.float32, 1e-5, 1e-4) for case in (CASES[0], CASES[3])),
    ],
    ids=str,
)
def test_machines_side_by_side_equal_each_alone(
    case: dict[str, Any], count: int, num_rows: int, dtype: torch.dtype, value: float, share: float
) -> None:
    cores, states = make(case, count, num_rows, dtype)
    generator = torch.Generator().manual_seed(42)
    features = torch.randn(T, num_rows, F, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    is_first = torch.rand(T, num_rows, generator=generator) < 0.25
    is_first[-1] = True  # with one tick a step the first of a chunk
    leaves = [features, *(part for state in states for part in parts(state))]
    leaves += [parameter for core in cores for parameter in core.parameters()]
    for ticks in (None, [1, 3, 2, 2, 1, 1, 4, 1, 2, 1, 1, 3, 1, 2, 1, 1, 2]):
        found = []
        for path in (one_after_the_other, side_by_side):
            outputs = [
                tensor
                for sync, last in path(cores, features, is_first, states, ticks)
                for tensor in (sync, *parts(last))
            ]
            weights = torch.Generator().manual_seed(43)
            loss = sum((part * torch.randn(part.shape, generator=weights, dtype=dtype)).sum() for part in outputs)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)  # pyright: ignore
            found.append((outputs, grads))
        (slow, slow_grads), (fast, fast_grads) = found
        for one, two in zip(slow, fast, strict=True):
            assert one.shape == two.shape
            assert (one - two).abs().max() <= value
        for one, two in zip(slow_grads, fast_grads, strict=True):
            assert (one - two).norm() <= share * one.norm() + 1e-12


def test_only_machines_of_one_configuration_run_side_by_side() -> None:
    one, two = CTMCore(SMALL, F), CTMCore(SMALL, F)
    assert can_run_side_by_side((one, two))
    assert not can_run_side_by_side((one, CTMCore(dataclasses.replace(SMALL, history_length=4), F)))
    assert not can_run_side_by_side((one, LSTMCore(F, 7)))
    normed = dataclasses.replace(SMALL, use_nlm_norm=True)  # the engine does not know these
    assert not can_run_side_by_side((CTMCore(normed, F), CTMCore(normed, F)))
