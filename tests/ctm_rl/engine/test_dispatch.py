"""Which path runs the ticks; that all paths are equal is tested with each of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctm_rl.config import AnswerConfig, PolicyConfig
from ctm_rl.engine import dispatch
from ctm_rl.engine.cuda_graph import CapturedAnswers, CapturedUnrolls
from ctm_rl.machine.halting import CoreTicking
from ctm_rl.models.actor_critic import ActorCritic, Unrolled
from ctm_rl.models.answering import ContinuousThoughtMachine
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import grid_layout, vector_layout

POLICY = PolicyConfig(
    num_neurons=13, history_length=4, num_ticks=2, nlm_hidden_dim=3, num_output_sync_neurons=4, feature_dim=6,
    head_dims=(5,), baseline_dim=7,
)  # fmt: skip
ANSWER = AnswerConfig(
    encoder="parity", positions="rotational-1d", num_neurons=13, history_length=4, num_ticks=3, nlm_hidden_dim=3,
    num_output_sync_neurons=4, num_action_sync_neurons=4, feature_dim=6, num_heads=2, num_groups=5, num_classes=2,
    input_dim=5, baseline_dim=7,
)  # fmt: skip
T, B = 5, 3
EPISODE_CASES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "learning", "unroll"),
    ({}, "several steps", "unroll"),
    ({}, "one step", "step_through"),
    ({}, "autocast", "step_through"),
    ({}, "grid", "unroll_inputs"),
    ({"is_state_carried": False}, "learning", "step_through"),
    ({"dropout": 0.1}, "learning", "step_through"),
    ({"use_nlm_norm": True}, "learning", "step_through"),
    ({"kind": "lstm"}, "learning", "unroll_baseline"),
    ({"kind": "lstm"}, "random ticks", "step_through"),
    ({"kind": "gru"}, "learning", "unroll_baseline"),
    ({"kind": "gru"}, "one step", "step_through"),
    ({"use_graph": True}, "learning", "captured"),
    ({"use_graph": True}, "several steps", "unroll"),
    ({"use_graph": True}, "random ticks", "unroll"),
    ({"use_graph": True}, "grid", "captured"),
]


def prepare(situation: str, changes: dict[str, Any]) -> tuple[ActorCritic, Callable[..., Unrolled]]:
    """A policy, and what unrolls it in a situation, from the functions that make its states."""
    layout = grid_layout(4, 3) if situation == "grid" else vector_layout(4)
    agent = ActorCritic(dataclasses.replace(POLICY, **changes), layout, Choices(sizes=(2,)))
    num_steps, num_rows = 1 if situation == "one step" else T, 400 if situation == "many rows" else B
    shape = num_steps, num_rows, *layout.shape
    observations = torch.zeros(shape, dtype=torch.uint8) if situation == "grid" else torch.randn(shape)
    is_first = torch.zeros(num_steps, num_rows, dtype=torch.bool)
    ticks = [1, 2, 1, 1, 2] if situation == "random ticks" else None

    def unroll(initial_state: Any, initial_critic_state: Any = lambda num_rows: None) -> Unrolled:
        with (
            torch.set_grad_enabled(situation not in ("several steps", "one step")),
            torch.autocast("cpu", torch.bfloat16, enabled=situation == "autocast"),
        ):
            state, critic_state = initial_state(num_rows), initial_critic_state(num_rows)
            return agent.unroll(observations, is_first, state, ticks, critic_state=critic_state)

    return agent, unroll


@pytest.mark.parametrize(("changes", "situation", "expected"), EPISODE_CASES, ids=str)
def test_episodes_take_the_first_path_that_applies(
    changes: dict[str, Any], situation: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def spy(name: str, run: Any) -> Any:
        return lambda *args, **kwargs: (taken.append(name), run(*args, **kwargs))[1]

    for name in ("step_through", "unroll", "unroll_inputs", "unroll_baseline"):
        monkeypatch.setattr(dispatch, name, spy(name, getattr(dispatch, name)))

    def captured(self: CapturedUnrolls, core: Any, *arguments: Any) -> Any:
        return spy("captured", dispatch.step_through)(core, *arguments, POLICY.num_ticks)

    monkeypatch.setattr(CapturedUnrolls, "run", captured)
    agent, unroll = prepare(situation, changes)
    unroll(agent.initial_state)
    assert taken[0] == expected
    assert set(taken) <= {expected, "step_through"}  # what stands in for a graph


@pytest.mark.parametrize(
    ("changes", "situation", "expected"),
    [
        ({}, "learning", True),
        ({}, "several steps", True),
        ({}, "one step", False),  # folding takes longer
        ({}, "autocast", False),
        ({}, "grid", True),
        ({}, "random ticks", True),
        ({}, "many rows", False),  # slower
        ({"is_state_carried": False}, "learning", False),
        ({"dropout": 0.1}, "learning", False),
        ({"num_neurons": 300}, "learning", False),  # slower
        ({"use_graph": True}, "learning", True),  # a CPU has no graphs
        ({"kind": "lstm"}, "learning", False),
        ({"kind": "mlp"}, "learning", False),
    ],
    ids=str,
)
def test_actor_and_critic_run_side_by_side_where_they_can(
    changes: dict[str, Any], situation: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, run = [], dispatch.unroll_side_by_side
    monkeypatch.setattr(dispatch, "unroll_side_by_side", lambda *given: (runs.append(1), run(*given))[1])
    agent, unroll = prepare(situation, {"critic": "own", **changes})
    generator = torch.get_rng_state()  # dropout draws the same again
    found = unroll(agent.initial_state, agent.initial_critic_state)
    assert runs == [1] * expected
    monkeypatch.setattr(dispatch, "can_run_side_by_side", lambda cores: False)
    torch.set_rng_state(generator)
    alone = unroll(agent.initial_state, agent.initial_critic_state)
    assert runs == [1] * expected
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize(
    ("changes", "is_fast"),
    [({}, True), ({"use_nlm_norm": True}, False), ({"sync_window": True}, False), ({"kind": "lstm"}, False)],
    ids=str,
)
def test_answers_take_one_node_or_sliding_buffers_where_the_engine_knows_the_core(
    changes: dict[str, Any], is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ContinuousThoughtMachine(dataclasses.replace(ANSWER, **changes)).eval()
    inputs = torch.randint(2, (B, 5)) * 2.0 - 1
    readings = model._readings_of(inputs, None)
    runs, think_fast = [], dispatch.think_fast
    monkeypatch.setattr(dispatch, "think_fast", lambda *arguments: (runs.append(1), think_fast(*arguments))[1])
    model(inputs)
    model(inputs, record=True)  # always tick by tick
    assert len(runs) == is_fast
    with torch.no_grad(), dispatch.answer_ticking(model.core, readings, B, "cpu") as ticking:
        assert isinstance(ticking, CoreTicking) is not is_fast


@pytest.mark.parametrize("has_graph", [False, True])
def test_a_model_runs_plainly_where_no_graph_is_captured(has_graph: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
            return 2 * inputs, None

    inputs = torch.ones(B)
    graph = torch.zeros(B)
    monkeypatch.setattr(CapturedAnswers, "run", lambda self, model, *given: (graph,) if has_graph else None)
    (plain,) = dispatch.ModelDispatch(use_graph=False).run(Model(), inputs)
    assert torch.equal(plain, 2 * inputs)
    (found,) = dispatch.ModelDispatch(use_graph=True).run(Model(), inputs)
    assert torch.equal(found, graph if has_graph else plain)
