"""The machine as an RLModule, without a running Ray."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Graph, Sequence, Space
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import update_target_network
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from ctm_rl import PolicyConfig
from ctm_rl.agents import CTMModule
from ctm_rl.agents.rllib.module import ADDED_BY_RLLIB, NUM_STEPS
from ctm_rl.models.rebuild_config import rebuild_config

# RLlib calls parts of itself that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

NUM_ROWS, NUM_STEPS_LONG, OBSERVATION_DIM, NUM_ACTIONS = 5, 7, 4, 3
VECTOR = Box(-1.0, 1.0, (OBSERVATION_DIM,), np.float32)
SMALL = PolicyConfig(
    num_neurons=11,
    history_length=6,
    num_ticks=2,
    nlm_hidden_dim=2,
    num_output_sync_neurons=4,
    feature_dim=9,
    head_dims=(8, 5),
    baseline_dim=10,
    max_seq_len=13,
)
CONFIGS = {
    "ctm": SMALL,
    "window": dataclasses.replace(SMALL, sync_window=True),
    "lstm": dataclasses.replace(SMALL, kind="lstm"),
    "gru": dataclasses.replace(SMALL, kind="gru"),
    "mlp": dataclasses.replace(SMALL, kind="mlp"),
    "own": dataclasses.replace(SMALL, kind="lstm", critic="own"),
}
kinds = pytest.mark.parametrize("kind", CONFIGS)


def make_module(
    kind: str = "ctm", observation_space: Space = VECTOR, inference_only: bool = False, **changes: Any
) -> CTMModule:
    torch.manual_seed(3)
    spec = RLModuleSpec(
        module_class=CTMModule,
        observation_space=observation_space,
        action_space=Discrete(NUM_ACTIONS),
        inference_only=inference_only,
        model_config={**dataclasses.asdict(CONFIGS[kind]), **changes},
    )
    module = spec.build()
    assert isinstance(module, CTMModule)
    with torch.no_grad():  # at 0 a decay rate forgets nothing, and tests would not see it
        for name, parameter in module.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.1, 0.9)
    return module


def fresh_states(module: CTMModule, num_rows: int = NUM_ROWS) -> dict[str, Tensor]:
    return {name: torch.stack([value] * num_rows) for name, value in module.get_initial_state().items()}


def make_batch(module: CTMModule, seed: int = 5, num_rows: int = NUM_ROWS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(num_rows, NUM_STEPS_LONG, OBSERVATION_DIM, generator=generator)
    return {Columns.OBS: observations, Columns.STATE_IN: fresh_states(module, num_rows)}


def loss_of(outputs: dict[str, Tensor]) -> Tensor:
    return outputs[Columns.ACTION_DIST_INPUTS].square().mean() + outputs[Columns.EMBEDDINGS].square().mean()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ctm", {"pre_history": (11, 6), "post_activation": (11,), "alpha": (10,), "beta": (10,)}),
        (
            "window",
            {"pre_history": (11, 6), "post_activation": (11,), "alpha": (10,), "beta": (10,), "post_history": (4, 6)},
        ),
        ("lstm", {"hidden": (1, 10), "cell": (1, 10)}),
        ("gru", {"hidden": (1, 10)}),
        ("mlp", {"nothing": (0,)}),
        ("own", {"hidden": (1, 10), "cell": (1, 10), "critic_hidden": (1, 10), "critic_cell": (1, 10)}),
    ],
)
def test_the_state_has_these_entries_and_the_steps_taken(kind: str, expected: dict[str, tuple[int, ...]]) -> None:
    module = make_module(kind)
    shapes = {name: tuple(value.shape) for name, value in module.get_initial_state().items()}
    assert shapes == {**expected, NUM_STEPS: ()}
    assert not any(value.requires_grad for value in module.get_initial_state().values())
    assert module.is_stateful()
    out = module.forward_inference(make_batch(module))[Columns.STATE_OUT]
    assert {name: tuple(value.shape[1:]) for name, value in out.items()} == shapes
    assert out[NUM_STEPS].tolist() == [NUM_STEPS_LONG] * NUM_ROWS


@kinds
def test_many_steps_at_once_equal_single_steps(kind: str) -> None:
    module = make_module(kind)
    batch = make_batch(module)
    at_once = module.forward_inference(batch)
    state, logits = batch[Columns.STATE_IN], []
    for step in range(NUM_STEPS_LONG):
        one = module.forward_exploration({Columns.OBS: batch[Columns.OBS][:, step : step + 1], Columns.STATE_IN: state})
        logits.append(one[Columns.ACTION_DIST_INPUTS])
        state = one[Columns.STATE_OUT]
    torch.testing.assert_close(torch.cat(logits, 1), at_once[Columns.ACTION_DIST_INPUTS])
    torch.testing.assert_close(state, at_once[Columns.STATE_OUT])


@kinds
def test_a_row_without_steps_starts_afresh_whatever_its_state_holds(kind: str) -> None:
    module = make_module(kind)
    batch = make_batch(module)
    used = module.forward_inference(make_batch(module, seed=6))[Columns.STATE_OUT]
    for name, value in used.items():
        if name != NUM_STEPS:
            value[2] = torch.nan
    used[NUM_STEPS][2] = 0
    mixed = module.forward_train({Columns.OBS: batch[Columns.OBS], Columns.STATE_IN: used})
    fresh = module.forward_train(batch)
    for name in (Columns.ACTION_DIST_INPUTS, Columns.EMBEDDINGS):
        torch.testing.assert_close(mixed[name][2], fresh[name][2])
        assert torch.isclose(mixed[name][1], fresh[name][1]).all() == (kind == "mlp")
    loss_of(mixed).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


@kinds
def test_start_values_get_gradient_from_fresh_rows_and_zeros_from_others(kind: str) -> None:
    module = make_module(kind)
    batch = make_batch(module)
    starts = {name: value for name, value in module.named_parameters() if ".start_" in name}
    assert len(starts) == {"gru": 1, "mlp": 0, "own": 4}.get(kind, 2)
    loss_of(module.forward_train(batch)).backward()
    assert all(value.grad is not None and (value.grad != 0).any() for value in starts.values())
    module.zero_grad()
    batch[Columns.STATE_IN][NUM_STEPS] += 4
    loss_of(module.forward_train(batch)).backward()
    # Zeros, not None: learners that average their gradients wait for every parameter.
    assert all(value.grad is not None and not value.grad.any() for value in starts.values())
    assert all(parameter.grad is not None for parameter in module.parameters())


@kinds
def test_padding_at_the_end_changes_nothing_before_it(kind: str) -> None:
    module = make_module(kind)
    batch = make_batch(module)
    padded = {**batch, Columns.OBS: batch[Columns.OBS].clone()}
    padded[Columns.OBS][:, 4:] = 0
    for name in (Columns.ACTION_DIST_INPUTS, Columns.EMBEDDINGS):
        torch.testing.assert_close(
            module.forward_train(padded)[name][:, :4], module.forward_train(batch)[name][:, :4], rtol=0, atol=0
        )


@kinds
def test_values_of_the_loss_are_those_of_the_same_pass(kind: str) -> None:
    module = make_module(kind)
    batch = make_batch(module)
    embeddings = module.forward_train(batch)[Columns.EMBEDDINGS]
    assert module.compute_values(batch, embeddings=embeddings) is embeddings
    assert embeddings.shape == (NUM_ROWS, NUM_STEPS_LONG)
    torch.testing.assert_close(module.compute_values(batch), embeddings)


def test_forward_changes_no_parameter_and_draws_nothing() -> None:
    module = make_module()
    batch = make_batch(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = {name: value.clone() for name, value in batch[Columns.STATE_IN].items()}
    drawn = torch.get_rng_state()
    module.forward_exploration(batch)
    module.forward_train(batch)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(batch[Columns.STATE_IN], given, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_rows_do_not_touch_each_other() -> None:
    module = make_module()
    batch = make_batch(module)
    before = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    batch[Columns.OBS][1] += 1
    after = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    others = [0, 2, 3, 4]
    torch.testing.assert_close(after[others], before[others])
    assert not torch.isclose(after[1], before[1]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.int16])
def test_vectors_of_other_numbers_are_read_as_floats(dtype: type) -> None:
    module = make_module(observation_space=Box(-9, 9, (OBSERVATION_DIM,), dtype))
    batch = make_batch(module)
    batch[Columns.OBS] = torch.from_numpy(batch[Columns.OBS].mul(5).round().numpy().astype(dtype))
    expected = module.forward_inference({**batch, Columns.OBS: batch[Columns.OBS].float()})
    torch.testing.assert_close(module.forward_inference(batch), expected)


@pytest.mark.parametrize("encoder", ["auto", "grid"])
def test_a_minigrid_view_goes_to_the_grid_encoder(encoder: str) -> None:
    module = make_module(observation_space=Box(0, 255, (7, 7, 3), np.uint8), encoder=encoder)
    assert module.agent.config.encoder == "grid"
    cells = torch.randint(0, 3, (2, 4, 7, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    out = module.forward_inference({Columns.OBS: cells, Columns.STATE_IN: fresh_states(module, 2)})
    assert out[Columns.ACTION_DIST_INPUTS].shape == (2, 4, NUM_ACTIONS)


def test_the_configuration_survives_a_journey_through_lists_and_rllib() -> None:
    carried = {**dataclasses.asdict(SMALL), "head_dims": [8, 5], "vf_share_layers": False}
    assert rebuild_config(PolicyConfig, carried, ADDED_BY_RLLIB) == SMALL
    assert rebuild_config(PolicyConfig, None) == PolicyConfig()
    module = make_module()
    module_config = module.model_config
    assert isinstance(module_config, dict)
    assert module_config["max_seq_len"] == 13


def test_the_configuration_tells_the_width_that_was_found() -> None:
    module = make_module("gru", baseline_dim=None)
    module_config = module.model_config
    assert isinstance(module_config, dict)
    assert module_config["baseline_dim"] == module.agent.core.answer_dim


def test_max_seq_len_is_there_for_rllib_when_the_user_leaves_it_out() -> None:
    spec = RLModuleSpec(module_class=CTMModule, observation_space=VECTOR, action_space=Discrete(2), model_config={})
    module_config = spec.build().model_config
    assert isinstance(module_config, dict)
    assert module_config["max_seq_len"] == PolicyConfig().max_seq_len


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neurons": 5, "layers": 2}, r"unknown fields: neurons, layers; allowed: num_neurons, .*kind"),
        ({"num_ticks": 0}, "num_ticks must be at least 1, got 0"),
        ({"pairing": "near"}, r"pairing must be one of first-last, .*; got 'near'"),
        (
            {"encoder": "grid"},
            r"space Box of shape \(4,\), float32 from .* is not supported by encoder grid",
        ),
    ],
)
def test_a_wrong_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_module(**changes)


@pytest.mark.parametrize(
    "space", [Sequence(VECTOR), Graph(VECTOR, None), Box(0.0, 1.0, (0,), np.float32), Dict({"a": Sequence(VECTOR)})]
)
def test_an_observation_space_that_nothing_reads_is_refused(space: Space) -> None:
    with pytest.raises(ValueError, match=r"observation.* is not supported: it must be Box, Discrete, .* a wrapper can"):
        make_module(observation_space=space)


@pytest.mark.parametrize("space", [Dict({"a": VECTOR}), Sequence(VECTOR), Box(0, 3, (2,), np.int64)])
def test_an_action_space_that_nothing_acts_in_is_refused(space: Space) -> None:
    spec = RLModuleSpec(
        module_class=CTMModule,
        observation_space=VECTOR,
        action_space=space,
        model_config=dataclasses.asdict(SMALL),
    )
    with pytest.raises(ValueError, match="not supported: it must be Discrete, MultiDiscrete, MultiB"):
        spec.build()


def test_the_target_follows_the_agent_and_keeps_its_pairs() -> None:
    module = make_module(pairing="random")
    module.make_target_networks()
    batch = make_batch(module)
    acted = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(module.forward_target(batch)[TARGET_NETWORK_ACTION_DIST_INPUTS], acted)
    target = module.target_agent
    assert not any(parameter.requires_grad for parameter in target.parameters())
    pairs = dict(target.named_buffers())["core.output_sync.left"].clone()
    with torch.no_grad():
        for parameter in module.agent.parameters():
            parameter.add_(0.1)
    for leader, follower in module.get_target_network_pairs():
        update_target_network(main_net=leader, target_net=follower, tau=0.95)
    assert torch.equal(dict(target.named_buffers())["core.output_sync.left"], pairs)
    for parameter, follower in zip(module.agent.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(follower, parameter - 0.005)


def test_environment_runners_get_all_they_need_to_act_and_no_target() -> None:
    learner_module = make_module()
    learner_module.make_target_networks()
    runner_module = make_module(inference_only=True)
    weights = learner_module.get_state(inference_only=True)
    assert not any(name.startswith("target_agent") for name in weights)
    runner_module.set_state(weights)
    batch = make_batch(learner_module)
    torch.testing.assert_close(
        runner_module.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS],
        learner_module.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS],
    )
