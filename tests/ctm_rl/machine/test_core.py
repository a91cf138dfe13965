"""The machine against the slow reference, and the properties that any recurrent core must have."""

import dataclasses
from itertools import repeat
from typing import Any

import pytest
import torch
from reference import assert_same_state, parts, run_row
from torch import Tensor

from ctm_rl.config import CoreConfig
from ctm_rl.machine.attention import ConstantReading, Glimpse, Reading
from ctm_rl.machine.core import CTMCore, project_, think
from ctm_rl.machine.state import CoreState, select_rows

B, F, K = 3, 5, 6
SMALL = CoreConfig(num_neurons=17, history_length=4, nlm_hidden_dim=2, num_output_sync_neurons=3)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two blocks": {"num_synapse_blocks": 2, "pairing": "last-first"},
    "window": {"sync_window": True},
    "long window": {"sync_window": True, "history_length": 11},
    "first order": {"use_first_order": True},
    "first order, window": {"use_first_order": True, "sync_window": True, "pairing": "random"},
    "attention": {"num_action_sync_neurons": 2},
    "attention and window": {"num_action_sync_neurons": 2, "sync_window": True, "pairing": "random"},
    "shallow": {"is_nlm_deep": False},
    "normalised": {"use_nlm_norm": True},
    "u-net": {"synapse_depth": 3, "num_neurons": 24},
    "random": {"pairing": "random", "num_action_sync_neurons": 2},
    "random-pairing": {"pairing": "random-pairing", "num_self_pairs": 1, "num_action_sync_neurons": 4},
}


def make_core(variant: str) -> CTMCore:
    """A core with decay rates spread over their range, in float64."""
    torch.manual_seed(5)
    core = CTMCore(dataclasses.replace(SMALL, **VARIANTS[variant]), F).double()
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.0, 1.5)
            elif name.endswith(("bias", "temperature")) or "norm" in name:
                parameter.add_(torch.rand_like(parameter) * 0.3)
    return core


def make_features(seed: int = 6) -> Tensor:
    return torch.randn(B, F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def looking(features: Tensor) -> Reading:
    """A reading that depends on the query, as attention does."""
    return lambda query: Glimpse(features + torch.sin(query.sum(-1, keepdim=True)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_machine_equals_slow_reference_in_value_and_gradient(variant: str) -> None:
    core, features = make_core(variant), make_features()
    torch.manual_seed(7)
    weights = torch.randn(B, core.answer_dim, dtype=torch.float64)
    ticks = list(think(core, core.initial_state(B), repeat(looking(features), K)))
    fast_loss = (core.answer(ticks[-1].state) * weights).sum()
    fast = torch.autograd.grad(fast_loss, list(core.parameters()), allow_unused=True)
    slow_loss = torch.zeros((), dtype=torch.float64)
    for row in range(B):
        expected = run_row(core, lambda query, k, row=row: features[row] + torch.sin(query.sum()), K)
        for k, tick in enumerate(ticks):
            torch.testing.assert_close(tick.state.pre_history[row, :, -1], expected["pre_activation"][k])
            torch.testing.assert_close(tick.state.post_activation[row], expected["post_activation"][k])
            torch.testing.assert_close(core.answer(tick.state)[row], expected["output_sync"][k])
            if core.query_dim:
                torch.testing.assert_close(tick.query[row], expected["action_sync"][k])
        slow_loss = slow_loss + (expected["output_sync"][-1] * weights[row]).sum()
    slow = torch.autograd.grad(slow_loss, list(core.parameters()), allow_unused=True)
    for (name, _), one, two in zip(core.named_parameters(), fast, slow, strict=True):
        assert one is not None, name
        assert two is not None, name
        torch.testing.assert_close(one, two, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_the_batch_do_not_touch_each_other(variant: str) -> None:
    core, features = make_core(variant), make_features()
    changed = features.clone()
    changed[1] = torch.nan
    for one, two in zip(
        think(core, core.initial_state(B), repeat(looking(features), K)),
        think(core, core.initial_state(B), repeat(looking(changed), K)),
        strict=True,
    ):
        for before, after in zip(parts(one.state), parts(two.state), strict=True):
            assert torch.equal(before[[0, 2]], after[[0, 2]])


def test_a_neurons_model_sees_only_its_own_history() -> None:
    core = make_core("plain")
    history = torch.randn(B, 17, 4, dtype=torch.float64)
    changed = history.clone()
    changed[:, 9] += 1.0
    moved = (core.nlm(history) != core.nlm(changed)).any(0)
    assert moved.nonzero().flatten().tolist() == [9]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant: str) -> None:
    core = make_core(variant)
    # fewer ticks than the history is long, so that start values still count
    ticks = list(think(core, core.initial_state(B), repeat(looking(make_features()), 3)))
    torch.stack([core.answer(tick.state) for tick in ticks]).square().sum().backward()
    for name, parameter in core.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_thinking_changes_nothing_but_what_it_returns(variant: str) -> None:
    core, features = make_core(variant), make_features()
    weights = {name: value.clone() for name, value in core.state_dict().items()}
    attributes = {name: dict(vars(module)) for name, module in core.named_modules()}
    start = core.initial_state(B)
    given = CoreState._make(None if part is None else part.clone() for part in start)
    generator = torch.get_rng_state()
    list(think(core, start, repeat(looking(features), K)))
    assert torch.equal(torch.get_rng_state(), generator)
    for name, value in core.state_dict().items():
        assert torch.equal(value, weights[name])
    for name, module in core.named_modules():
        assert vars(module) == attributes[name]
    assert_same_state(given, start)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_ticks_at_once_equal_single_ticks(variant: str) -> None:
    core, reading = make_core(variant), looking(make_features())
    *_, last = think(core, core.initial_state(B), repeat(reading, K))
    state = core.initial_state(B)
    for _ in range(K):
        (tick,) = think(core, state, [reading])
        state = tick.state
    assert_same_state(last.state, state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reset_row_is_a_fresh_start_even_from_nan(variant: str) -> None:
    core, reading = make_core(variant), ConstantReading(make_features())
    used = core.initial_state(B)
    for tick in think(core, used, repeat(reading, 2)):
        used = tick.state
    poisoned = CoreState._make(None if part is None else part.clone() for part in used)
    for part in parts(poisoned):
        part[1] = torch.nan
    reset = select_rows(torch.tensor([False, True, False]), core.initial_state(B), poisoned)
    for fresh, before, after in zip(parts(core.initial_state(B)), parts(used), parts(reset), strict=True):
        assert torch.equal(after[1], fresh[1])
        assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert all(tick.state.post_activation.isfinite().all() for tick in think(core, reset, repeat(reading, K)))


def test_state_keeps_the_shapes_it_documents() -> None:
    state = make_core("attention and window").initial_state(B)
    core = make_core("attention and window")
    assert state.pre_history.shape == (B, 17, 4)
    assert state.post_activation.shape == (B, 17)
    assert state.alpha.shape == state.beta.shape == (B, 6)
    assert state.action_alpha is not None and state.action_alpha.shape == (B, 3)
    assert state.post_history is not None
    assert state.post_history.shape == (B, len(core.output_sync.neurons), 4)


def test_half_of_the_terms_of_a_long_memory_forget_nothing_before_training() -> None:
    config = CoreConfig(num_neurons=17, num_output_sync_neurons=3, use_first_order=True, start_decay_rate=1.5)
    assert CTMCore(config, 0).output_sync.decay_rate.unique().tolist() == [1.5]
    rates = CTMCore(dataclasses.replace(config, use_long_memory=True), 0).output_sync.decay_rate
    assert rates.tolist() == [0.0, 1.5] * 11 + [0.0]  # 6 pairs and 17 neurons


def test_project_reaches_every_synchronisation_of_a_model() -> None:
    core = make_core("attention")
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if name.endswith("decay_rate"):
                parameter.fill_(-2.0)
    project_(torch.nn.Sequential(torch.nn.Identity(), core))
    for name, parameter in core.named_parameters():
        if name.endswith("decay_rate"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name


def test_decay_rates_leave_zero_under_a_plain_optimiser_and_come_back() -> None:
    core, reading = make_core("plain"), ConstantReading(make_features())
    rates = core.output_sync.decay_rate
    with torch.no_grad():
        rates.zero_()
    optimizer = torch.optim.SGD([rates], lr=1e-3)
    for sign, num_steps in ((1.0, 5), (-1.0, 20)):
        for _ in range(num_steps):
            *_, last = think(core, core.initial_state(B), repeat(reading, K))
            optimizer.zero_grad()
            (sign * last.state.beta.sum()).backward()  # the count of remembered ticks: less decay, larger beta
            optimizer.step()
        if sign > 0:
            assert (rates > 0.1).all()
    assert (rates <= 0.0).all()
    assert (rates > -0.1).all()  # a step beyond the limit at most, not a walk


def test_the_gain_scales_what_the_neuron_level_models_begin_with_and_nothing_else() -> None:
    parameters = []
    for gain in (1.0, 3.0):
        torch.manual_seed(8)
        parameters.append(dict(CTMCore(dataclasses.replace(SMALL, nlm_gain=gain), 5).named_parameters()))
    for name, plain in parameters[0].items():
        is_scaled = name.startswith("nlm.layers") and name.endswith("weight")
        torch.testing.assert_close(parameters[1][name], plain * (3.0 if is_scaled else 1.0))
    with pytest.raises(ValueError, match="nlm_gain must be above 0 and finite, got 0"):
        dataclasses.replace(SMALL, nlm_gain=0.0)
