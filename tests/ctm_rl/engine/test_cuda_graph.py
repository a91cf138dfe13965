"""Captured unrolls and models: the function that is captured, and what happens without a GPU."""

import copy
import dataclasses
import logging
import pickle

import pytest
import torch
from torch import Tensor, nn

from ctm_rl.config import AnswerConfig, PolicyConfig
from ctm_rl.engine.cuda_graph import CapturedAnswers, CapturedUnrolls
from ctm_rl.machine.core import Core
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import build_model
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

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


def test_a_failed_capture_is_logged_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
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
        "the unroll is not captured as a graph (out of memory and more); it runs without one."
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


THINKER = AnswerConfig(
    encoder="parity", positions="rotational-1d", num_neurons=13, history_length=4, num_ticks=3, nlm_hidden_dim=3,
    num_output_sync_neurons=4, num_action_sync_neurons=4, feature_dim=6, num_heads=2, num_groups=5, num_classes=2,
    input_dim=5,
)  # fmt: skip


def test_what_is_captured_of_a_model_equals_it_in_value_and_gradient() -> None:
    torch.manual_seed(52)
    model = build_model(THINKER)
    sequences = torch.randint(2, (B, 5)) * 2.0 - 1
    modules = []

    def make_graph(module: nn.Module, arguments: tuple[Tensor, ...]) -> nn.Module:
        modules.append(module)
        return module

    graphs = CapturedAnswers(make_graph)
    expected = model(sequences)[:2]
    again, found = (graphs.run(model, sequences, make_graph_on="cpu") for _ in range(2))
    assert again is not None
    assert found is not None
    torch.testing.assert_close(again, expected)
    torch.testing.assert_close(found, expected)
    graphs.run(model, sequences[1:], make_graph_on="cpu")
    assert len(modules) == 2  # once for each shape
    parameters = list(model.parameters())
    losses = [predictions.square().sum() + certainties.sum() for predictions, certainties in (found, expected)]
    torch.testing.assert_close(*(torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses))


@pytest.mark.parametrize("what", ["cpu", "evaluation", "no gradient"])
def test_where_a_model_does_not_learn_on_a_gpu_nothing_is_captured(what: str, caplog: pytest.LogCaptureFixture) -> None:
    model = build_model(THINKER).train(what != "evaluation")
    graphs = CapturedAnswers(lambda module, arguments: pytest.fail("captured"))
    device = "cuda" if what == "cpu" else "cpu"
    with caplog.at_level(logging.WARNING), torch.set_grad_enabled(what != "no gradient"):
        assert graphs.run(model, torch.ones(B, 5), make_graph_on=device) is None
    assert not caplog.records  # it is as it should be


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("is_broken", [False, True])
def test_a_capture_leaves_random_numbers_and_running_statistics_alone(is_broken: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())

        def forward(self, inputs: Tensor) -> tuple[Tensor]:
            answers = self.layers(inputs)
            if is_broken:
                answers.sum().item()  # waits for the GPU, which a capture does not allow
            return (answers,)

    model, inputs, graphs = Model().cuda(), torch.randn(8, 4, device="cuda"), CapturedAnswers()
    found = graphs.run(model, inputs)
    assert (found is None) == is_broken
    buffers = [buffer.clone() for buffer in model.buffers()]
    assert int(buffers[2]) == (0 if is_broken else 1)  # batches counted: the replay's alone
    model(inputs)[0].sum().backward()  # still draws
    if found is not None:
        draws = []
        for _ in range(2):
            torch.cuda.manual_seed(53)
            again = graphs.run(model, inputs)
            assert again is not None
            draws.append(again[0].clone())
        torch.testing.assert_close(*draws, rtol=0, atol=0)
