"""Baselines with as many parameters as the machine."""

import dataclasses

import pytest
import torch

from ctm_rl.agents.learning_to_answer import fit_model
from ctm_rl.config import ThinkerConfig
from ctm_rl.configs.images import mnist
from ctm_rl.configs.parity import parity
from ctm_rl.configs.qa_mnist import qa_mnist
from ctm_rl.configs.sorting import sorting
from ctm_rl.matching import count_parameters, matched_thinker, nearest_width
from ctm_rl.models import build_model


@pytest.mark.parametrize(("target", "width"), [(1, 1), (9, 3), (12, 3), (13, 4), (10_000, 100), (10_101, 101)])
def test_the_nearest_width_is_found(target: int, width: int) -> None:
    assert nearest_width(lambda value: value * value, target) == width


def test_a_matched_baseline_is_nearer_than_its_neighbours() -> None:
    config = ThinkerConfig(encoder="resnet18-1", num_neurons=20, num_action_sync_neurons=4, feature_dim=8)

    def size(config: ThinkerConfig) -> int:
        return count_parameters(lambda: build_model(config))

    target = size(config)
    for kind in ("lstm", "ff"):
        matched = matched_thinker(config, kind)
        gap = abs(size(matched) - target)
        for step in (-1, 1):
            assert gap <= abs(size(dataclasses.replace(matched, baseline_dim=matched.baseline_dim + step)) - target)


@pytest.mark.parametrize("make", [parity, sorting, qa_mnist, mnist], ids=lambda make: make.__name__)
def test_the_lstm_of_an_experiment_has_the_parameters_of_its_machine(make: object) -> None:
    experiment = make()  # pyright: ignore[reportCallIssue]
    config = fit_model(experiment)
    with torch.device("meta"):
        machine, lstm = (
            count_parameters(lambda: build_model(dataclasses.replace(config, kind=kind)))  # noqa: B023
            for kind in ("ctm", "lstm")
        )
    assert lstm == pytest.approx(machine, rel=0.01)


def test_counting_moves_no_generator() -> None:
    before = torch.get_rng_state()
    count_parameters(lambda: torch.nn.Linear(3, 2))
    assert torch.equal(torch.get_rng_state(), before)
