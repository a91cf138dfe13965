"""A recorded policy acts as an unrecorded one, and the record holds what the machine did at every tick."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from paths import GOLDEN
from reference import parts

from ctm_rl.checkpoints.published import load_official
from ctm_rl.config import PolicyConfig
from ctm_rl.inference.policy import Policy, RecordedAction
from ctm_rl.machine.certainty import certainty
from ctm_rl.machine.state import CoreState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import Actions, Choices, Numbers
from ctm_rl.spaces.observations import vector_layout

K, B, T = 4, 3, 5
CONFIG = PolicyConfig(
    num_neurons=17, history_length=5, num_ticks=K, nlm_hidden_dim=3, num_output_sync_neurons=4, feature_dim=6,
    head_dims=(5,), baseline_dim=7, encoder="control",
)  # fmt: skip
CORES: dict[str, dict[str, Any]] = {
    "ctm": {},
    "window": {"sync_window": True},
    "first order": {"use_first_order": True, "normalize_observations": True, "encoder": "auto"},
    "u-net": {"synapse_depth": 2, "num_synapse_blocks": 1},
    "lstm": {"kind": "lstm"},
    "gru": {"kind": "gru"},
    "mlp": {"kind": "mlp"},
    "no memory": {"is_state_carried": False},
    "detached critic": {"critic": "detached"},
    "own critic": {"critic": "own"},
    "own critic of an mlp": {"kind": "mlp", "critic": "own"},
    "random ticks": {"train_random_ticks": True},
}
ACTIONS: dict[str, Actions] = {
    "choice": Choices(sizes=(3,), starts=(2,)),
    "choices": Choices(sizes=(2, 4), shape=(2,)),
    "masked": Choices(sizes=(2, 4), shape=(2,), is_masked=True),
    "numbers": Numbers(low=(-1.0, -2.0), high=(1.0, 2.0), shape=(2,)),
}


def make(core: str = "ctm", actions: str = "choice") -> Policy:
    """An untrained policy whose parameters were moved away from their start values."""
    torch.manual_seed(71)
    agent = ActorCritic(dataclasses.replace(CONFIG, **CORES[core]), vector_layout(4), ACTIONS[actions])
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            parameter.uniform_(0.0, 1.0) if name.endswith("rate") else parameter.add_(torch.randn_like(parameter) * 0.1)
    return Policy(agent)


def masks_of(policy: Policy, random: np.random.Generator) -> np.ndarray | None:
    """Masks in which every choice has a legal option; ``None``: the policy has no masks."""
    if not isinstance(policy.actions, Choices) or not policy.actions.is_masked:
        return None
    masks = random.random((B, 6)) < 0.5
    masks[:, [0, 2]] = True
    return masks


@pytest.mark.parametrize(
    ("core", "actions", "halt_certainty"),
    [
        *((core, "choice", None) for core in CORES),
        *(("ctm", actions, None) for actions in ACTIONS),
        *(("random ticks", actions, certainty) for actions in ("choice", "masked") for certainty in (0.0, 0.3)),
    ],
)
def test_a_recorded_policy_equals_an_unrecorded_one(core: str, actions: str, halt_certainty: float | None) -> None:
    policy, random = make(core, actions), np.random.default_rng(3)
    state = policy.initial_state(B)
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    counted = set()
    for step in range(T):
        observations, is_first = random.normal(size=(B, 4)).astype(np.float32), random.random(B) < 0.1
        options: dict[str, Any] = {
            "is_first": is_first, "masks": masks_of(policy, random), "halt_certainty": halt_certainty,
            "num_ticks": 3 if core == "random ticks" and step % 2 else None,
        }  # fmt: skip
        result = policy.record_packed(observations, state, generator=two, **options)
        chosen, state = policy.act_packed(observations, state, generator=one, **options)
        np.testing.assert_allclose(result.action, chosen, atol=1e-6)
        for part, other in zip(parts(result.state), parts(state), strict=True):
            torch.testing.assert_close(part, other, atol=1e-6, rtol=1e-6)
        if "mlp" not in core:
            np.testing.assert_array_equal(result.record.ticks, policy.ticks)
        counted |= set(result.record.ticks.tolist())
    assert len(counted) > 1 or core != "random ticks" or halt_certainty == 0.0


@pytest.mark.parametrize("core", ["ctm", "window", "lstm", "mlp", "no memory", "own critic"])
def test_the_record_holds_every_tick(core: str) -> None:
    policy = make(core)
    agent, observations = policy.agent, torch.randn(B, 4)
    state, critic_state = policy.initial_state(B), policy.initial_critic_state(B)
    never = torch.zeros(B, dtype=torch.bool)
    for _ in range(2):  # the second step does not begin with the start state
        result = policy.record_packed(observations.numpy(), state, critic_state=critic_state)
        record = result.record
        num_ticks, critic_after = 1 if "mlp" in core else K, None
        assert record.ticks.tolist() == [num_ticks] * B
        for tick in range(num_ticks):
            each = None if "mlp" in core else [tick + 1]
            with torch.no_grad():
                expected = agent.unroll(observations[None], never[None], state, each, critic_state=critic_state)
            critic_after = expected.critic_state
            for found, wanted in (
                (record.logits, expected.logits),
                (record.value, expected.values),
                (record.output_sync, expected.sync),
            ):
                np.testing.assert_allclose(found[:, tick], wanted[0], atol=1e-6)
            np.testing.assert_allclose(record.certainty[:, tick], certainty(expected.logits[0][:, None]), atol=1e-6)
            if isinstance(expected.state, CoreState):
                assert record.pre_activations is not None
                np.testing.assert_allclose(record.post_activations[:, tick], expected.state.post_activation, atol=1e-6)
                np.testing.assert_allclose(
                    record.pre_activations[:, tick], expected.state.pre_history[..., -1], atol=1e-6
                )
            else:
                assert record.pre_activations is None
                np.testing.assert_allclose(record.post_activations[:, tick], expected.sync[0], atol=1e-6)
        assert record.action_sync is None
        if result.critic_state is not None:
            assert critic_after is not None
            torch.testing.assert_close(parts(result.critic_state), parts(critic_after))
        state, critic_state = result.state, result.critic_state


def test_rows_that_halt_are_recorded_up_to_their_last_tick() -> None:
    policy = make("random ticks")
    random, state = np.random.default_rng(4), policy.initial_state(B)
    seen = set()
    for _ in range(T):
        observations = random.normal(size=(B, 4)).astype(np.float32)
        whole = policy.record_packed(observations, state).record
        threshold = float(np.median(whole.certainty))
        result = policy.record_packed(observations, state, halt_certainty=threshold)
        record = result.record
        assert record.certainty.shape[1] == record.ticks.max()
        for row, ticks in enumerate(record.ticks.tolist()):
            assert (record.certainty[row, : ticks - 1] < threshold).all()
            assert ticks == K or record.certainty[row, ticks - 1] >= threshold
            assert np.isnan(record.post_activations[row, ticks:]).all()
            mine = record.row(row)
            assert (len(mine.value), mine.ticks) == (ticks, ticks)
            np.testing.assert_array_equal(mine.post_activations, whole.post_activations[row, :ticks])
        seen |= set(record.ticks.tolist())
        state = result.state
    assert len(seen) > 1


def test_the_certainty_is_over_legal_actions_and_of_numbers_there_is_none() -> None:
    policy = make("ctm", "masked")
    assert isinstance(policy.actions, Choices)
    masks = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1]], bool)
    observations = np.random.default_rng(5).normal(size=(B, 4)).astype(np.float32)
    record = policy.record_packed(observations, policy.initial_state(B), masks=masks).record
    probabilities = policy.actions.grouped(torch.from_numpy(record.logits)).softmax(-1).flatten(-2).numpy()
    legal = probabilities[..., [0, 1, 4, 5, 6, 7]]  # the choice of two options is padded
    assert (legal[~np.repeat(masks[:, None], K, 1)] == 0).all()
    assert (record.certainty[2] == 1).all()
    assert policy.record_packed(observations, policy.initial_state(B), masks=masks, halt_certainty=None)
    numbers = make("ctm", "numbers")
    assert np.isnan(numbers.record_packed(observations, numbers.initial_state(B)).record.certainty).all()


def test_one_observation_is_recorded_without_an_axis_of_rows() -> None:
    policy = make("own critic", "choices")
    observation, mask = np.ones(4, np.float32), np.ones(6, np.int8)
    state, generators = policy.initial_state(), [torch.Generator().manual_seed(2) for _ in range(2)]
    action, after = policy.act(observation, state, generator=generators[0], action_mask=mask)
    first = policy.record(observation, state, generator=generators[1], action_mask=mask)
    assert isinstance(first, RecordedAction)
    np.testing.assert_array_equal(first.action, action)
    torch.testing.assert_close(parts(first.state), parts(after), atol=1e-6, rtol=1e-5)
    assert first.record.post_activations.shape == (K, 17)
    assert np.isnan(first.record.value).all()  # the critic's own core had no state
    assert first.critic_state is None
    critic_state = policy.initial_critic_state()
    assert np.isfinite(
        policy.record(observation, state, critic_state=critic_state, action_mask=mask).record.value
    ).all()


def test_what_cannot_be_acted_cannot_be_recorded() -> None:
    policy, observations = make(), np.zeros((B, 4), np.float32)
    with pytest.raises(ValueError, match="halt_certainty needs a policy trained with train_random_ticks"):
        policy.record_packed(observations, policy.initial_state(B), halt_certainty=0.5)
    with pytest.raises(ValueError, match="num_ticks must be from 1 to 4, as trained, got 5"):
        make("random ticks").record_packed(observations, policy.initial_state(B), num_ticks=5)
    with pytest.raises(ValueError, match="halt_certainty must be from 0 to 1, got 2"):
        make("random ticks").record_packed(observations, policy.initial_state(B), halt_certainty=2)
    with pytest.raises(ValueError, match="trained with action masks"):
        make("ctm", "masked").record_packed(observations, policy.initial_state(B))


@pytest.mark.parametrize("name", ["ctm_cartpole", "ctm_acrobot_unet"])
def test_published_policies_are_recorded(name: str) -> None:
    agent = load_official(GOLDEN / f"{name}.pt").model
    assert isinstance(agent, ActorCritic)
    policy = Policy(agent)
    random, state = np.random.default_rng(6), policy.initial_state(2)
    for _ in range(3):
        observations = random.normal(size=(2, *policy.layout.shape)).astype(np.float32)
        result = policy.record_packed(observations, state, deterministic=True)
        chosen, state = policy.act_packed(observations, state, deterministic=True)
        np.testing.assert_array_equal(result.action, chosen)
        for part, other in zip(parts(result.state), parts(state), strict=True):
            torch.testing.assert_close(part, other, atol=1e-6, rtol=1e-6)
