"""All ticks as one node against ticking one by one: answers, certainties and every gradient."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from answering_paths import (
    CASES,
    DIGITS,
    PARITY,
    SORTING,
    SYNAPSES,
    B,
    K,
    assert_equal,
    assert_equal_paths,
    at_once,
    core_of,
    gradients,
    make,
    one_by_one,
)
from torch import Tensor, nn

from ctm_rl.engine import answering_weights
from ctm_rl.engine.answering import AnsweringForward, can_think_fast
from ctm_rl.machine.attention import ConstantReading, Glimpse
from ctm_rl.models.answering import ContinuousThoughtMachine


@pytest.mark.parametrize("case", [case for case in CASES if case not in SYNAPSES])
def test_thinking_fast_equals_ticking_one_by_one(case: str) -> None:
    assert_equal_paths(CASES[case], torch.float64, value=1e-10, grad=1e-9)


@pytest.mark.parametrize("case", ["parity", "digits", "sorting"])
def test_thinking_fast_equals_ticking_one_by_one_in_single_precision(case: str) -> None:
    assert_equal_paths(CASES[case], torch.float32, value=1e-5, grad=1e-4)


DROPPING: dict[str, dict[str, Any]] = {
    name: {**CASES[name], "dropout": 0.4, "nlm_dropout": 0.0}
    for name in ("parity", "two blocks", "U-Net of four", "digits", "digits U-Net", "sorting", "sorting U-Net")
}


def by_tick(model: ContinuousThoughtMachine, masks: list[Tensor], num_reads: int, num_ticks: int) -> Iterator[Tensor]:
    """The masks in the order in which one tick after the other asks for them."""
    synapse, attention = masks, None
    if num_reads:
        synapse, attention = masks[:-1], masks[-1].unflatten(1, (B, -1))
    half = len(synapse) // 2
    if model.config.synapse_depth > 1:  # down, then up from the narrowest
        synapse = synapse[:half] + synapse[half:][::-1]
    for tick in range(num_ticks):
        if attention is not None and tick < num_reads:
            yield attention[tick]
        yield from (mask[tick] for mask in synapse)


@pytest.mark.parametrize("case", DROPPING)
def test_dropout_equals_that_of_ticking_one_by_one(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = make(DROPPING[case], torch.float64)
    for part in (core_of(model), model.reader):
        if part is not None:
            part.train()
    masks: list[Tensor] = []
    draw = answering_weights.dropout_mask

    def keep(*args: Any) -> Tensor:
        masks.append(draw(*args))
        return masks[-1]

    monkeypatch.setattr(answering_weights, "dropout_mask", keep)
    fast = at_once(model, inputs)
    assert all(0.0 < float((mask == 0).double().mean()) < 1.0 for mask in masks)
    num_ticks = fast.predictions.shape[2]
    num_reads = 0 if model.reader is None else 4 if "digits" in case else num_ticks
    queue = by_tick(model, masks, num_reads, num_ticks)
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x * next(queue) if self.p else x)
    slow = one_by_one(model, inputs)
    assert next(queue, None) is None
    assert (fast.predictions - slow.predictions).abs().max() <= 1e-10
    expected, found = gradients(model, inputs, slow), gradients(model, inputs, fast)
    for name, one in expected.items():
        assert_equal(one, found[name], 1e-9, name)


def test_dropout_keeps_the_mean() -> None:
    mask = answering_weights.dropout_mask((200, 50), 0.2, torch.ones(1, dtype=torch.float64))
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert abs(float(mask.mean()) - 1.0) < 0.02


def test_the_backward_pass_can_be_repeated() -> None:
    model, inputs = make(CASES["U-Net of four"], torch.float64)
    loss = at_once(model, inputs).predictions.square().sum()
    first, again = (torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)


def test_frozen_parts_need_no_gradient() -> None:
    model, inputs = make(CASES["digits"], torch.float64)
    core = core_of(model)
    for part in (core, model.encoder):
        part.requires_grad_(False)
    at_once(model, inputs).predictions.sum().backward()
    assert model.reader is not None
    assert model.reader.query.weight.grad is not None
    assert all(parameter.grad is None for parameter in core.parameters())


def held() -> int:
    """Bytes in all tensors that are alive."""
    parts = [part for part in gc.get_objects() if type(part) is Tensor]
    return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}.values())


def test_only_answers_are_kept_from_tick_to_tick_without_gradient() -> None:
    model, inputs = make({**PARITY, "num_ticks": 40}, torch.float64)
    sizes = []

    def run_and_count(forward: AnsweringForward, tick: int) -> Tensor:
        sizes.append(held() if tick in (10, 39) else 0)  # it visits every object there is
        return run(forward, tick)

    run = AnsweringForward.run
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnsweringForward, "run", run_and_count)
        at_once(model, inputs)
    num_answers = B * 9 * 2
    assert len(sizes) == 40
    assert sizes[-1] - sizes[10] == 29 * num_answers * 8


def test_autocast_leaves_the_ticks_in_full_precision() -> None:
    model, inputs = make(CASES["image"], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        thought = at_once(model, inputs)
        loss = thought.predictions.float().square().mean()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        exact = at_once(model, inputs)
    assert (thought.predictions - exact.predictions).abs().max() < 0.05 * exact.predictions.abs().max()


@pytest.mark.parametrize(
    ("case", "is_supported"),
    [({}, True), ({"dropout": 0.1}, False), ({"dropout": 0.1, "nlm_dropout": 0.0}, True), ({"nlm_dropout": 0.1}, False),
     ({"use_nlm_norm": True}, False), ({"synapse_depth": 3}, True), ({"sync_window": True}, False),
     ({"kind": "lstm"}, False), ({"kind": "gru"}, False)],
)  # fmt: skip
def test_only_supported_cores_and_readings_think_fast(case: dict[str, Any], is_supported: bool) -> None:
    model, inputs = make({**PARITY, **case}, torch.float32)
    readings = model._readings_of(inputs[0], inputs[1] if len(inputs) > 1 else None)
    assert can_think_fast(model.train().core, readings) is is_supported
    assert not can_think_fast(model.core, [*readings[:-1], lambda query: Glimpse(torch.zeros(B, 8))])


def test_constants_are_supported_with_and_without_attention() -> None:
    model, inputs = make(SORTING, torch.float32)
    assert can_think_fast(model.core, [ConstantReading(inputs[0])] * K)
    model, inputs = make(DIGITS, torch.float32)
    assert can_think_fast(model.core, model._question_readings(*inputs))
