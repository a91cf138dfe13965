"""Acting step by step against unrolling: the same numbers, whatever buffers are used."""

import dataclasses
from typing import Any

import pytest
import torch
from reference import assert_same_state, parts
from torch import Tensor

from ctm_rl.config import PolicyConfig
from ctm_rl.inference.stepper import Stepper
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

CONFIG = PolicyConfig(
    num_neurons=17, history_length=5, num_ticks=2, nlm_hidden_dim=3, num_output_sync_neurons=4, feature_dim=6,
    head_dims=(5,), baseline_dim=7, encoder="control",
)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "accumulators": {},
    "window": {"sync_window": True},
    "shallow": {"is_nlm_deep": False, "sync_window": True},
    "one block": {"num_synapse_blocks": 1, "num_ticks": 1},
    "u-net": {"synapse_depth": 2, "num_synapse_blocks": 1},
    "lstm": {"kind": "lstm"},
    "gru": {"kind": "gru"},
    "mlp": {"kind": "mlp"},
    "no memory": {"is_state_carried": False},
}
variants = pytest.mark.parametrize("variant", VARIANTS)
T, B = 75, 3  # more steps than fit into the buffers twice


def make(variant: str) -> tuple[ActorCritic, Tensor, Tensor]:
    torch.manual_seed(61)
    agent = ActorCritic(dataclasses.replace(CONFIG, **VARIANTS[variant]), vector_layout(4), Choices(sizes=(2,))).eval()
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.0, 1.0)
    return agent, torch.randn(T, B, 4), torch.rand(T, B) < 0.05


@variants
def test_single_steps_equal_the_unroll(variant: str) -> None:
    agent, observations, is_first = make(variant)
    with torch.no_grad():
        expected = agent.unroll(observations, is_first, agent.initial_state(B))
    stepper = Stepper(agent, B)
    steps = [stepper.step(*step) for step in zip(observations, is_first, strict=True)]
    logits, values = (torch.stack(part) for part in zip(*steps, strict=True))
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(values, expected.values)
    torch.testing.assert_close(parts(stepper.state), parts(expected.state))


@variants
def test_new_parameters_are_used_from_the_next_step_on_and_the_state_stays(variant: str) -> None:
    agent, observations, is_first = make(variant)
    stepper = Stepper(agent, B)
    for step in zip(observations[:40], is_first[:40], strict=True):
        stepper.step(*step)
    before = stepper.state
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(1.1)
        expected = agent.unroll(observations[40:41], is_first[40:41], before)
    stepper.refresh()
    if "sync_window" not in VARIANTS[variant]:  # a window's sums go by the new decay at once
        assert_same_state(stepper.state, before)
    logits, values = stepper.step(observations[40], is_first[40])
    torch.testing.assert_close(logits, expected.logits[0])
    torch.testing.assert_close(values, expected.values[0])


@variants
def test_a_peek_tells_the_next_value_and_changes_nothing(variant: str) -> None:
    agent, observations, _ = make(variant)
    stepper = Stepper(agent, B)
    never = torch.zeros(B, dtype=torch.bool)
    for observation in observations[:33]:
        stepper.step(observation, never)
    before = stepper.state
    some = torch.tensor([2, 0])
    peeked, peeked_some = stepper.peek(observations[33]), stepper.peek(observations[33][some], some)
    assert_same_state(stepper.state, before)
    _, values = stepper.step(observations[33], never)
    torch.testing.assert_close(peeked, values)
    torch.testing.assert_close(peeked_some, values[some])


def test_a_row_that_starts_afresh_forgets_even_nan() -> None:
    for variant in ("accumulators", "window", "lstm", "gru"):
        agent, observations, _ = make(variant)
        stepper = Stepper(agent, B)
        state = stepper.state
        stepper.state = type(state)._make(None if part is None else torch.full_like(part, torch.nan) for part in state)
        logits, values = stepper.step(observations[0], torch.tensor([True, False, True]))
        assert [bool(row) for row in logits.isfinite().all(1)] == [True, False, True]
        assert [bool(row) for row in values.isfinite()] == [True, False, True]
