"""The agent over environment steps: single steps equal all at once, and resets equal fresh starts."""

import dataclasses
from typing import Any

import pytest
import torch
from reference import assert_same_state, parts
from torch import Tensor

from ctm_rl.config import PolicyConfig
from ctm_rl.engine.episode import step_through
from ctm_rl.machine.core import Core
from ctm_rl.models.actor_critic import ActorCritic, Unrolled
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import Layout, Part, grid_layout, vector_layout

T, B, A = 7, 3, 4
ACTIONS = Choices(sizes=(A,))
SMALL = PolicyConfig(
    num_neurons=17, history_length=5, num_ticks=2, nlm_hidden_dim=2, num_output_sync_neurons=4, feature_dim=6,
    head_dims=(9, 8), baseline_dim=7,
)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "accumulators": {"encoder": "control"},
    "window": {"encoder": "control", "sync_window": True},
    "lstm": {"encoder": "control", "kind": "lstm"},
    "gru": {"encoder": "control", "kind": "gru"},
    "mlp": {"encoder": "control", "kind": "mlp"},
    "grid": {"encoder": "grid"},
    "parts": {"encoder": "auto"},
    "afresh": {"encoder": "control", "is_state_carried": False},
    **{f"own {kind}": {"encoder": "control", "kind": kind, "critic": "own"} for kind in ("ctm", "lstm", "gru", "mlp")},
    "own grid": {"encoder": "grid", "critic": "own"},
}


def make(variant: str, **changes: Any) -> tuple[ActorCritic, Tensor, Tensor]:
    """An agent, observations [T, B, ...] and episode starts [T, B] with resets in the middle."""
    torch.manual_seed(21)
    config = dataclasses.replace(SMALL, **VARIANTS[variant], **changes)
    if variant == "grid":
        agent = ActorCritic(config, grid_layout(4, 3), ACTIONS)
        observations = torch.randint(0, 3, (T, B, 4, 3, 3), dtype=torch.uint8)
    elif variant == "parts":
        heading = Part(encoder="categories", shape=(1,), path=("direction",), sizes=(3,))
        (image,) = grid_layout(4, 3).parts
        layout = Layout((heading, dataclasses.replace(image, path=("image",))))
        agent = ActorCritic(config, layout, ACTIONS)
        observations = torch.randint(0, 3, (T, B, *layout.shape), dtype=torch.uint8)
    else:
        agent = ActorCritic(config, Layout((Part(encoder="control", shape=(2, 3)),)), ACTIONS)
        observations = torch.randn(T, B, 2, 3)
    is_first = torch.zeros(T, B, dtype=torch.bool)
    is_first[0, 1] = is_first[3, 0] = is_first[4, 2] = is_first[5, 2] = True
    return agent, observations, is_first


def run(variant: str) -> Unrolled:
    agent, observations, is_first = make(variant)
    return unroll(agent, observations, is_first)


def unroll(agent: ActorCritic, observations: Tensor, is_first: Tensor) -> Unrolled:
    """From the start state."""
    start, critic = agent.initial_state(B), agent.initial_critic_state(B)
    return agent.unroll(observations, is_first, start, critic_state=critic)


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_at_once_equal_single_steps(variant: str) -> None:
    agent, observations, is_first = make(variant)
    at_once = run(variant)
    state, critic = agent.initial_state(B), agent.initial_critic_state(B)
    for t in range(T):
        step = agent.unroll(observations[t : t + 1], is_first[t : t + 1], state, critic_state=critic)
        state, critic = step.state, step.critic_state
        torch.testing.assert_close(step.logits[0], at_once.logits[t])
        torch.testing.assert_close(step.values[0], at_once.values[t])
    for one, two in zip(parts(state), parts(at_once.state), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reset_row_is_a_fresh_start_even_from_nan(variant: str) -> None:
    agent, observations, _ = make(variant)
    broken = type(agent.initial_state(B))._make(
        None if part is None else torch.full_like(part, torch.nan) for part in agent.initial_state(B)
    )
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[0] = True
    from_nan = agent.unroll(observations, reset, broken)
    fresh = agent.unroll(observations, torch.zeros(T, B, dtype=torch.bool), agent.initial_state(B))
    assert torch.equal(from_nan.logits, fresh.logits)
    assert_same_state(from_nan.state, fresh.state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_episode_does_not_depend_on_the_one_before(variant: str) -> None:
    agent, observations, is_first = make(variant)
    changed = observations.clone()
    changed[:3, 0] = 2 - changed[:3, 0]  # before the reset of row 0 at step 3
    one = agent.unroll(observations, is_first, agent.initial_state(B))
    two = agent.unroll(changed, is_first, agent.initial_state(B))
    assert torch.equal(one.logits[3:, 0], two.logits[3:, 0])
    assert torch.equal(one.logits[:, 1:], two.logits[:, 1:])
    assert not torch.equal(one.logits[:3, 0], two.logits[:3, 0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant: str) -> None:
    agent, observations, is_first = make(variant)
    unrolled = unroll(agent, observations, is_first)
    (unrolled.logits.square().sum() + unrolled.values.square().sum()).backward()
    for name, parameter in agent.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("variant", ["accumulators", "lstm", "mlp", "grid"])
def test_a_detached_critic_has_the_same_values_and_leaves_the_policy_alone(variant: str) -> None:
    agent, observations, is_first = make(variant)
    detached, _, _ = make(variant, critic="detached")
    detached.load_state_dict(agent.state_dict())
    unrolled = detached.unroll(observations, is_first, detached.initial_state(B))
    assert torch.equal(unrolled.values, run(variant).values)
    unrolled.values.square().sum().backward()
    for name, parameter in detached.named_parameters():
        assert (parameter.grad is not None) == name.startswith("value."), name


@pytest.mark.parametrize("kind", ["ctm", "lstm", "gru", "mlp"])
def test_a_critic_of_its_own_shares_the_encoder_alone(kind: str) -> None:
    agent, observations, is_first = make(f"own {kind}")
    unrolled = unroll(agent, observations, is_first)
    unrolled.values.square().sum().backward()
    moved = {
        name.partition(".")[0]
        for name, parameter in agent.named_parameters()
        if parameter.grad is not None and (kind != "ctm" or parameter.grad.any())  # 0 where both cores are one node
    }
    assert moved == {"encoder", "critic_core", "value"}
    # Without its state the policy acts the same; machines side by side may sum in another order.
    alone = agent.unroll(observations, is_first, agent.initial_state(B))
    rounding = 1e-6 if kind == "ctm" else 0.0
    torch.testing.assert_close(alone.logits, unrolled.logits, rtol=rounding, atol=rounding)
    assert alone.values.isnan().all()
    assert alone.critic_state is None


def test_a_critic_of_its_own_reads_the_encoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, observations, is_first = make("own ctm")
    calls = []
    monkeypatch.setattr(
        agent.encoder, "forward", lambda x, forward=agent.encoder.forward: (calls.append(1), forward(x))[1]
    )
    unroll(agent, observations, is_first)
    assert len(calls) == 1


def test_a_state_that_is_not_carried_makes_every_step_the_first() -> None:
    agent, observations, _ = make("afresh")
    never = agent.unroll(observations, torch.zeros(T, B, dtype=torch.bool), agent.initial_state(B))
    always = agent.unroll(observations, torch.ones(T, B, dtype=torch.bool), agent.initial_state(B))
    assert torch.equal(never.logits, always.logits)


def test_a_feed_forward_policy_remembers_nothing() -> None:
    agent, observations, is_first = make("mlp")
    turned = agent.unroll(observations.flip(0), is_first, agent.initial_state(B))
    torch.testing.assert_close(turned.logits.flip(0), run("mlp").logits)


@pytest.mark.parametrize("kind", ["lstm", "gru", "mlp"])
def test_the_policy_gain_applies_to_the_machine_only(kind: str) -> None:
    one, thirty = (
        ActorCritic(
            dataclasses.replace(SMALL, encoder="control", kind=kind, policy_gain=gain), vector_layout(4), ACTIONS
        )
        for gain in (1.0, 30.0)
    )
    largest = [
        float(dict(agent.policy.named_parameters())["layers.4.weight"].detach().norm()) for agent in (one, thirty)
    ]
    assert largest[0] == pytest.approx(largest[1])


def test_memory_reaches_back_without_limit_with_accumulators_and_not_with_a_window() -> None:
    # A window of 5 ticks and 2 ticks a step: the sync of step 6 itself covers steps 4 to 6 only. What came earlier
    # acts through the neurons alone; with accumulators it stays in alpha.
    for variant, is_kept in (("accumulators", True), ("window", False)):
        agent, observations, _ = make(variant)
        states = []
        for bump in (0.0, 10.0):
            start = agent.initial_state(B)
            if variant == "accumulators":
                start = start._replace(alpha=start.alpha + bump)  # pyright: ignore
            else:
                assert start.post_history is not None  # pyright: ignore
                start = start._replace(post_history=start.post_history + bump)  # pyright: ignore
            never = torch.zeros(T, B, dtype=torch.bool)
            states.append(agent.unroll(observations, never, start).sync[-1])
        assert (not torch.allclose(states[0], states[1])) is is_kept


def test_the_grid_encoder_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="reads \\[height, width, 3\\]"):
        ActorCritic(SMALL, Layout((Part(encoder="grid", shape=(5, 5)),)), ACTIONS)
    with pytest.raises(
        ValueError, match="encoder must be one of control, plain, conv, patches, grid, categories, text; got 'auto'"
    ):
        Part(encoder="auto", shape=(5,))


@pytest.mark.parametrize("variant", ["grid", "parts"])
def test_learning_from_a_projected_grid_equals_learning_from_its_features(variant: str) -> None:
    agent, observations, is_first = make(variant)
    agent = agent.double()
    assert isinstance(agent.core, Core)
    features = agent.encoder(observations.flatten(0, 1)).unflatten(0, (T, B))
    sync, _ = step_through(agent.core, features, is_first, agent.initial_state(B), SMALL.num_ticks)
    expected = torch.cat((agent.policy(sync), agent.value(sync)), -1)
    got = agent.unroll(observations, is_first, agent.initial_state(B))
    outputs = torch.cat((got.logits, got.values[..., None]), -1)
    torch.testing.assert_close(outputs, expected)
    parameters = list(agent.parameters())
    grad = torch.randn_like(outputs)
    expected_grads = torch.autograd.grad(expected, parameters, grad)
    for one, two in zip(torch.autograd.grad(outputs, parameters, grad), expected_grads, strict=True):
        torch.testing.assert_close(one, two)
