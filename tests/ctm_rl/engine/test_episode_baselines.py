"""The unroll of the LSTM and GRU against ticking one by one: values, final states and every gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ctm_rl.engine.episode import step_through
from ctm_rl.engine.episode_baselines import can_unroll_baseline, unroll_baseline
from ctm_rl.machine.recurrent_baselines import GRUCore, LSTMCore
from ctm_rl.machine.state import GRUState, LSTMState

T, B, F, D = 9, 5, 4, 7
BASELINES = [(LSTMCore, LSTMState), (GRUCore, GRUState)]


def run(path: Any, core: Any, features: Tensor, is_first: Tensor, state: Any, num_ticks: int) -> Any:
    """Outputs of one path, and the gradients of a random sum of all of them."""
    hidden, last = path(core, features, is_first, state, num_ticks)
    outputs = [hidden, *last]
    generator = torch.Generator().manual_seed(42)
    loss = torch.stack([
        (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum() for output in outputs
    ]).sum()  # fmt: skip
    leaves = [features, *state, *core.parameters()]
    return outputs, torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize(("make_core", "kind"), BASELINES)
@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("num_ticks", [1, 2, 5])
def test_fast_unroll_equals_ticking_one_by_one(num_ticks: int, chance: float, make_core: Any, kind: Any) -> None:
    torch.manual_seed(44)
    core = make_core(F, D).double()
    features = torch.randn(T, B, F, dtype=torch.float64, requires_grad=True)
    state = kind._make(torch.randn(B, 1, D, dtype=torch.float64, requires_grad=True) for _ in kind._fields)
    is_first = torch.rand(T, B, generator=torch.Generator().manual_seed(43)) < chance
    slow, slow_grads = run(step_through, core, features, is_first, state, num_ticks)
    fast, fast_grads = run(unroll_baseline, core, features, is_first, state, num_ticks)
    for one, two in zip([*slow, *slow_grads], [*fast, *fast_grads], strict=True):
        assert one.shape == two.shape
        assert (one - two).abs().max() <= 1e-12


@pytest.mark.parametrize(("make_core", "kind"), BASELINES)
def test_a_reset_leaves_no_trace_of_nan(make_core: Any, kind: Any) -> None:
    core = make_core(F, D)
    state = kind._make(torch.full((B, 1, D), torch.nan) for _ in kind._fields)
    is_first = torch.zeros(T, B, dtype=torch.bool)
    is_first[0] = True
    hidden, last = unroll_baseline(core, torch.randn(T, B, F), is_first, state, 2)
    assert all(part.isfinite().all() for part in (hidden, *last))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(hidden.sum(), list(core.parameters())))


@pytest.mark.parametrize(("make_core", "kind"), BASELINES)
def test_only_one_layer_is_unrolled_fast(make_core: Any, kind: Any) -> None:
    assert can_unroll_baseline(make_core(F, D))
    assert not can_unroll_baseline(make_core(F, D, num_layers=2))
