"""Baselines with as many parameters as the machine."""

import dataclasses

import pytest
import torch

from ctm_rl.agents.bench.task import task_of
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.runs.build_algorithm import fit_model
from ctm_rl.config import AnswerConfig, ModelKind, PolicyConfig
from ctm_rl.configs import load
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.models.answering import build_model
from ctm_rl.models.baseline_width import nearest_width, settle_width
from ctm_rl.spaces.actions import Choices
from ctm_rl.spaces.observations import vector_layout

BASELINES: tuple[ModelKind, ...] = ("lstm", "gru", "mlp")
MODEL = AnswerConfig(encoder="resnet18-1", num_neurons=20, num_action_sync_neurons=4, feature_dim=8)
POLICY = PolicyConfig(encoder="control", num_neurons=30, sync_window=True, feature_dim=9, head_dims=(8, 5))
baselines = pytest.mark.parametrize("kind", BASELINES)


def size_of(config: PolicyConfig | AnswerConfig) -> int:
    """Parameters of a whole network, with real values."""
    is_answering = isinstance(config, AnswerConfig)
    network = build_model(config) if is_answering else ActorCritic(config, vector_layout(4), Choices(sizes=(3,)))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("target", "width"), [(1, 1), (9, 3), (12, 3), (13, 4), (10_000, 100), (10_101, 101)])
def test_the_nearest_width_is_found(target: int, width: int) -> None:
    assert nearest_width(lambda value: value * value, target) == width


@baselines
@pytest.mark.parametrize("config", [MODEL, POLICY], ids=["answers", "acts"])
def test_a_baseline_without_a_width_is_nearer_than_its_neighbours(
    config: PolicyConfig | AnswerConfig, kind: ModelKind
) -> None:
    config = dataclasses.replace(config, kind=kind)
    if isinstance(config, AnswerConfig):
        found = build_model(config).config
    else:
        found = ActorCritic(config, vector_layout(4), Choices(sizes=(3,))).config
    assert found.baseline_dim is not None
    target = size_of(dataclasses.replace(config, kind="ctm"))
    gaps = [abs(size_of(dataclasses.replace(found, baseline_dim=found.baseline_dim + step)) - target)
            for step in (-1, 0, 1)]  # fmt: skip
    assert min(gaps) == gaps[1]


@baselines
@pytest.mark.parametrize(
    "name", ["cartpole", "cartpole-window", "acrobot", "parity", "parity-bandit", "sorting", "qa-mnist", "mnist"]
)
def test_the_baselines_of_an_experiment_have_the_parameters_of_its_machine(name: str, kind: ModelKind) -> None:
    experiment = load(name)
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, kind=kind))
    with torch.device("meta"):
        if isinstance(experiment, AnsweringExperiment):
            config = fit_model(experiment)
            machine, baseline = (build_model(one) for one in (dataclasses.replace(config, kind="ctm"), config))
        else:
            config, shape, num_actions = task_of(experiment)
            kinds = dataclasses.replace(config, kind="ctm"), config
            machine, baseline = (ActorCritic(one, shape, num_actions) for one in kinds)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (machine, baseline)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_a_width_that_was_given_is_kept_and_the_machine_needs_none() -> None:
    given = dataclasses.replace(MODEL, kind="lstm", baseline_dim=5)
    assert settle_width(given, build_model) == given
    assert settle_width(MODEL, build_model) == MODEL


@baselines
def test_finding_a_width_leaves_random_generators_alone(kind: ModelKind) -> None:
    before = torch.get_rng_state()
    settle_width(dataclasses.replace(MODEL, kind=kind), build_model)
    assert torch.equal(torch.get_rng_state(), before)
