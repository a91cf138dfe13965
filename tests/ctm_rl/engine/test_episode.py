"""The fast unroll against ticking one by one: values, final states and every gradient."""

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from reference import parts
from torch import Tensor, nn

from ctm_rl.config import CoreConfig
from ctm_rl.engine.episode import can_unroll, step_through, unroll
from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.recurrent_baselines import LSTMCore
from ctm_rl.machine.state import CoreState

T, B, F = 11, 5, 6
SMALL = CoreConfig(
    num_neurons=19, nlm_hidden_dim=3, num_output_sync_neurons=4, num_synapse_blocks=2, pairing="last-first",
    history_length=3,
)  # fmt: skip
CASES: list[dict[str, Any]] = [
    {"num_ticks": num_ticks, "history_length": length, "sync_window": window, "is_nlm_deep": deep}
    for num_ticks, length, window, deep in product((1, 2, 5), (3, 16), (False, True), (False, True))
]
CASES += [{"num_synapse_blocks": 1}, {"pairing": "random"}, {"pairing": "random-pairing", "sync_window": True}]
CASES += [{"history_length": 1, "sync_window": True}, {"num_ticks": 6}, {"num_ticks": 6, "is_nlm_deep": False}]
CASES += [{"use_first_order": True, "sync_window": window} for window in (False, True)]
CASES += [{"use_first_order": True, "pairing": "random-pairing", "num_ticks": 3}]
CASES += [{"use_first_order": True, "num_output_sync_neurons": 0}]


def make(
    case: dict[str, Any], dtype: torch.dtype, num_steps: int = T, num_rows: int = B
) -> tuple[CTMCore, Tensor, CoreState]:
    """A core with parameters away from their start values, features, and a state from somewhere else."""
    torch.manual_seed(31)
    core = CTMCore(dataclasses.replace(SMALL, **case), F)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.0, 1.0)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    core = core.to(dtype)
    features = torch.randn(num_steps, num_rows, F, dtype=dtype, requires_grad=True)
    state = CoreState._make(
        None if part is None else (part.detach() + 0.5 * torch.rand_like(part)).requires_grad_()
        for part in core.initial_state(num_rows)
    )
    return core, features, state


def one_by_one(core: CTMCore, features: Tensor, is_first: Tensor, state: CoreState) -> Any:
    """The path that the fast one must equal."""
    return step_through(core, features, is_first, state, core.config.num_ticks)


def run(path: Any, core: CTMCore, features: Tensor, is_first: Tensor, state: CoreState) -> tuple[Any, Any]:
    """Outputs of one path, and the gradients of a random sum of all of them."""
    sync, last = path(core, features, is_first, state)
    outputs = [sync, *parts(last)]
    generator = torch.Generator().manual_seed(32)
    loss = torch.stack([
        (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum() for output in outputs
    ]).sum()  # fmt: skip
    leaves = [features, *parts(state), *core.parameters()]
    # where every row is reset, the given state has no part in the outputs
    return outputs, torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def starts(chance: float) -> Tensor:
    """Episode starts at random."""
    return torch.rand(T, B, generator=torch.Generator().manual_seed(33)) < chance


def assert_equal_paths(case: dict[str, Any], is_first: Tensor, dtype: torch.dtype, value: float, grad: float) -> None:
    """Values within ``value`` absolutely, gradients within ``grad`` of their norm."""
    core, features, state = make(case, dtype, *is_first.shape)
    slow, slow_grads = run(one_by_one, core, features, is_first, state)
    fast, fast_grads = run(unroll, core, features, is_first, state)
    for one, two in zip(slow, fast, strict=True):
        assert one.shape == two.shape
        assert (one - two).abs().max() <= value
    names = ["features", *("state" for _ in parts(state)), *(name for name, _ in core.named_parameters())]
    for name, one, two in zip(names, slow_grads, fast_grads, strict=True):
        assert (one - two).norm() <= grad * one.norm() + 1e-12, name


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fast_unroll_equals_ticking_one_by_one(case: dict[str, Any], chance: float) -> None:
    assert_equal_paths(case, starts(chance), torch.float64, value=1e-12, grad=1e-10)


@pytest.mark.parametrize("case", [CASES[0], CASES[7], CASES[14]], ids=str)
def test_fast_unroll_equals_ticking_one_by_one_in_single_precision(case: dict[str, Any]) -> None:
    assert_equal_paths(case, starts(0.25), torch.float32, value=1e-5, grad=1e-4)


@pytest.mark.parametrize(("num_steps", "num_ticks", "where"), [(20, 2, 8), (17, 1, 16), (33, 1, 32), (9, 1, 0)])
def test_fast_unroll_of_a_single_row_equals_ticking_one_by_one(num_steps: int, num_ticks: int, where: int) -> None:
    # with one row, rows before neurons and neurons before rows are the same memory
    is_first = torch.zeros(num_steps, 1, dtype=torch.bool)
    is_first[where] = True
    assert_equal_paths({"num_ticks": num_ticks}, is_first, torch.float64, value=1e-12, grad=1e-10)


def test_fast_unroll_leaves_no_trace_of_a_state_it_replaces() -> None:
    for window in (False, True):
        core, features, state = make({"sync_window": window}, torch.float64)
        broken = CoreState._make(None if part is None else torch.full_like(part, torch.nan) for part in state)
        is_first = torch.zeros(T, B, dtype=torch.bool)
        is_first[0] = True
        sync, last = unroll(core, features, is_first, broken)
        assert sync.isfinite().all()
        assert all(part.isfinite().all() for part in parts(last))
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(sync.sum(), list(core.parameters())))


@pytest.mark.parametrize("window", [False, True])
def test_fast_unroll_can_be_differentiated_again(window: bool) -> None:
    core, features, state = make({"sync_window": window}, torch.float64)
    is_first = torch.rand(T, B, generator=torch.Generator().manual_seed(34)) < 0.3
    sync, _ = unroll(core, features, is_first, state)
    first, again = (torch.autograd.grad(sync.sum(), list(core.parameters()), retain_graph=True) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("case", "is_supported"),
    [({}, True), ({"dropout": 0.1}, False), ({"nlm_dropout": 0.1}, False), ({"use_nlm_norm": True}, False),
     ({"synapse_depth": 2, "num_synapse_blocks": 1}, False), ({"num_synapse_blocks": 3}, False),
     ({"num_action_sync_neurons": 2}, False)],
)  # fmt: skip
def test_only_cores_it_is_equal_for_are_unrolled_fast(case: dict[str, Any], is_supported: bool) -> None:
    assert can_unroll(CTMCore(dataclasses.replace(SMALL, **case), F)) is is_supported


def test_dropout_excludes_training_only() -> None:
    core = CTMCore(dataclasses.replace(SMALL, dropout=0.1), F)
    assert can_unroll(core.eval())
    assert not can_unroll(LSTMCore(F, 7))
    assert not can_unroll(nn.Linear(2, 2))
