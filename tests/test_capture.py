"""Captured unrolls, as far as that goes without a GPU: the function that is captured, and what happens without one."""

import copy
import dataclasses
import logging
import pickle

import pytest
import torch
from torch import Tensor, nn

from ctm_rl.actions import Choices
from ctm_rl.agent import ActorCritic
from ctm_rl.capture import CapturedUnrolls
from ctm_rl.config import PolicyConfig
from ctm_rl.core import Core
from ctm_rl.layout import vector_layout

CONFIG = PolicyConfig(
    num_neurons=13, history_length=4, num_ticks=2, nlm_hidden_dim=3, num_output_sync_neurons=4, feature_dim=6,
    head_dims=(5,), baseline_dim=7, encoder="control",
)  # fmt: skip
T, B = 7, 3


def make(config: PolicyConfig) -> tuple[ActorCritic, Tensor, Tensor]:
    torch.manual_seed(51)
    return ActorCritic(config, vector_layout(4), Choices(sizes=(2,))), torch.randn(T, B, 4), torch.rand(T, B) < 0.3


def core_of(agent: ActorCritic) -> Core:
    assert isinstance(agent.core, Core)
    return agent.core


@pytest.mark.parametrize("changes", [{}, {"sync_window": True}, {"kind": "lstm"}, {"kind": "gru"}], ids=str)
def test_what_is_captured_equals_the_unroll_in_value_and_gradient(changes: dict) -> None:
    agent, observations, is_first = make(dataclasses.replace(CONFIG, **changes))
    captured_shapes = []

    def make_graph(module: nn.Module, arguments: tuple[Tensor, ...]) -> nn.Module:
        captured_shapes.append(arguments[0].shape)
        return module

    state = agent.initial_state(B)
    expected = agent.unroll(observations, is_first, state)
    graphs = CapturedUnrolls(CONFIG.num_ticks, make_graph)
    features = agent.encoder(observations.flatten(0, 1)).unflatten(0, (T, B))
    again, found = (graphs.run(core_of(agent), features, is_first, state, make_graph_on="cpu") for _ in range(2))
    assert found is not None
    assert again is not None
    torch.testing.assert_close(found[0], expected.sync)
    torch.testing.assert_close(found[1], expected.state)
    torch.testing.assert_close(found[0], again[0], rtol=0, atol=0)
    assert captured_shapes == [features.shape]  # once
    parameters = [value for name, value in agent.named_parameters() if name.startswith("core.")]
    syncs = found[0], expected.sync
    gradients = [torch.autograd.grad(sync.square().sum(), parameters, retain_graph=True) for sync in syncs]
    torch.testing.assert_close(*gradients)


def test_without_a_gpu_the_log_says_so_once_and_nothing_changes(caplog: pytest.LogCaptureFixture) -> None:
    agent, observations, is_first = make(dataclasses.replace(CONFIG, use_graph=True))
    plain, _, _ = make(CONFIG)
    with caplog.at_level(logging.WARNING):
        agent.unroll(observations, is_first, agent.initial_state(B))
        found = agent.unroll(observations, is_first, agent.initial_state(B))
    expected = plain.unroll(observations, is_first, plain.initial_state(B))
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)
    (record,) = caplog.records
    assert "not captured as a graph (graphs are captured on cuda, and this policy computes on cpu)" in record.message


def test_a_capture_that_fails_is_told_and_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    def fail(module: nn.Module, arguments: tuple[Tensor, ...]) -> nn.Module:
        tries.append(1)
        raise RuntimeError("out of memory\nand more")

    agent, observations, is_first = make(CONFIG)
    features = agent.encoder(observations.flatten(0, 1)).unflatten(0, (T, B))
    graphs = CapturedUnrolls(CONFIG.num_ticks, fail)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert graphs.run(core_of(agent), features, is_first, agent.initial_state(B), make_graph_on="cpu") is None
    assert tries == [1]
    assert [record.message for record in caplog.records] == [
        "the unroll is not captured as a graph (out of memory and more); it runs as without."
    ]


def test_graphs_are_left_behind_by_copies_and_journeys() -> None:
    agent, observations, is_first = make(CONFIG)
    graphs = CapturedUnrolls(CONFIG.num_ticks, lambda module, arguments: module)
    features = agent.encoder(observations.flatten(0, 1)).unflatten(0, (T, B))
    graphs.run(core_of(agent), features, is_first, agent.initial_state(B), make_graph_on="cpu")
    assert graphs._graphs
    assert not copy.deepcopy(graphs)._graphs
    fresh = CapturedUnrolls(CONFIG.num_ticks)
    assert not pickle.loads(pickle.dumps(fresh))._graphs
