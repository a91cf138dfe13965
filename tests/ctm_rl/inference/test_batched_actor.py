"""Acting step by step equals unrolling, with and without buffers."""

import dataclasses
from typing import Any

import pytest
import torch
from reference import assert_same_state, parts
from torch import Tensor, nn

from ctm_rl.config import PolicyConfig
from ctm_rl.inference import batched_actor as actor_module
from ctm_rl.inference.batched_actor import Actor
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
    "own critic": {"critic": "own"},
    "own critic of an lstm": {"kind": "lstm", "critic": "own"},
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


def holding(agent: ActorCritic) -> Actor:
    """An actor that holds B rows with the start state."""
    actor = Actor(agent)
    actor.reset(B)
    return actor


@variants
def test_single_steps_equal_the_unroll(variant: str) -> None:
    agent, observations, is_first = make(variant)
    with torch.no_grad():
        start = agent.initial_critic_state(B)
        expected = agent.unroll(observations, is_first, agent.initial_state(B), critic_state=start)
    actor = holding(agent)
    steps = [actor.step(*step) for step in zip(observations, is_first, strict=True)]
    logits, values = (torch.stack(part) for part in zip(*steps, strict=True))
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(values, expected.values)
    torch.testing.assert_close(parts(actor.state), parts(expected.state))
    assert (actor.critic_state is None) == (expected.critic_state is None)
    if actor.critic_state is not None and expected.critic_state is not None:
        torch.testing.assert_close(parts(actor.critic_state), parts(expected.critic_state))


def change(agent: ActorCritic, how: str) -> None:
    """Multiplies all parameters by 1.1, in place or as new ones."""
    for module in agent.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if how == "replaced":
                setattr(module, name, nn.Parameter(parameter * 1.1))
            else:
                parameter.mul_(1.1)


@variants
@pytest.mark.parametrize("how", ["in place", "replaced", "in inference mode"])
def test_changed_parameters_are_used_from_the_next_step_on_and_the_state_stays(variant: str, how: str) -> None:
    # parameters made in inference mode count no versions
    with torch.inference_mode() if how == "in inference mode" else torch.no_grad():
        agent, observations, is_first = make(variant)
        actor = holding(agent)
        for step in zip(observations[:40], is_first[:40], strict=True):
            actor.step(*step)
        before, critic = actor.state, actor.critic_state
        change(agent, how)
        expected = agent.unroll(observations[40:41], is_first[40:41], before, critic_state=critic)
    if "sync_window" not in VARIANTS[variant]:  # a window's sums use the new decay at once
        assert_same_state(actor.state, before)
    logits, values = actor.step(observations[40], is_first[40])
    torch.testing.assert_close(logits, expected.logits[0])
    torch.testing.assert_close(values, expected.values[0])


def test_what_depends_on_parameters_is_kept_until_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, observations, is_first = make("accumulators")
    folds, fold = [], actor_module.fold
    monkeypatch.setattr(actor_module, "fold", lambda core: (folds.append(1), fold(core))[1])
    actor = holding(agent)
    for step in zip(observations[:3], is_first[:3], strict=True):
        actor.step(*step)
        actor.act(*step, actor.state)
    assert len(folds) == 1
    with torch.no_grad():
        dict(agent.named_parameters())["core.start_pre_history"].add_(1.0)
    actor.step(observations[3], is_first[3])
    assert len(folds) == 2


@variants
def test_a_peek_returns_the_next_value_and_changes_nothing(variant: str) -> None:
    agent, observations, _ = make(variant)
    actor = holding(agent)
    never = torch.zeros(B, dtype=torch.bool)
    for observation in observations[:33]:
        actor.step(observation, never)
    before = actor.state
    some = torch.tensor([2, 0])
    peeked, peeked_some = actor.peek(observations[33]), actor.peek(observations[33][some], some)
    assert_same_state(actor.state, before)
    _, values = actor.step(observations[33], never)
    torch.testing.assert_close(peeked, values)
    torch.testing.assert_close(peeked_some, values[some])


def test_a_row_that_starts_an_episode_forgets_even_nan() -> None:
    for variant in ("accumulators", "window", "lstm", "gru"):
        agent, observations, _ = make(variant)
        actor = holding(agent)
        state = actor.state
        actor.state = type(state)._make(None if part is None else torch.full_like(part, torch.nan) for part in state)
        logits, values = actor.step(observations[0], torch.tensor([True, False, True]))
        assert [bool(row) for row in logits.isfinite().all(1)] == [True, False, True]
        assert [bool(row) for row in values.isfinite()] == [True, False, True]
