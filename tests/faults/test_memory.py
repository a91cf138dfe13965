"""Memory is estimated before a run starts: what cannot fit is refused in one line that says what to change."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.runs import memory
from ctm_rl.agents.runs.memory import GB, available_bytes, check_memory, count_stored
from ctm_rl.configs import load
from ctm_rl.errors import UserError

IMAGE = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)


def cifar() -> Any:
    experiment = load("cifar10")
    assert isinstance(experiment, AnsweringExperiment)
    return experiment


def test_what_is_counted_is_what_a_pass_stores() -> None:
    config = dataclasses.replace(cifar().model, num_ticks=6, synapse_depth=1, encoder="resnet18-1")
    found = count_stored(config, IMAGE)
    assert found is not None
    from ctm_rl.models.answering import build_model

    model = build_model(config).train()
    assert found[0] == sum(parameter.numel() for parameter in model.parameters())
    sizes = [memory._stored_by(model, [torch.rand(num_rows, 3, 32, 32)]) for num_rows in (4, 9)]
    assert found[1] == pytest.approx((sizes[1] - sizes[0]) / 5, rel=0.05)
    more = count_stored(dataclasses.replace(config, num_ticks=9), IMAGE)
    assert more is not None
    # Three more ticks: of a neuron at least two numbers for each hidden unit and two more.
    assert more[1] - found[1] > 3 * 4 * config.num_neurons * (2 * config.nlm_hidden_dim + 2)


def test_a_batch_that_cannot_fit_is_refused_with_the_parts_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = cifar()
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * GB)
    with pytest.raises(UserError, match=r"512 samples x 50 ticks needs about \d+ GB .* has 4.0 GB free") as caught:
        check_memory(experiment, experiment.model, IMAGE)
    assert "\n" not in str(caught.value)
    assert "use --learning.num-accumulated 2," in str(caught.value)
    fitting = dataclasses.replace(experiment.learning, num_accumulated=2)
    check_memory(dataclasses.replace(experiment, learning=fitting), experiment.model, IMAGE)
    monkeypatch.setattr(memory, "available_bytes", lambda: GB // 20)
    with pytest.raises(UserError, match=r"lower --model\.num-ticks or --model\.num-neurons"):
        check_memory(experiment, experiment.model, IMAGE)
    gpu = dataclasses.replace(experiment, num_gpus_per_learner=1.0)
    check_memory(gpu, experiment.model, IMAGE)


def test_a_limit_of_the_control_group_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = available_bytes()
    (tmp_path / "memory.max").write_text("700000\n")
    (tmp_path / "memory.current").write_text("200000\n")
    assert available_bytes() == min(500_000, free or 500_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert (available_bytes() or 0) > 500_000 or free is None


def test_questions_in_parts_are_counted_too() -> None:
    question = load("qa-mnist")
    assert isinstance(question, AnsweringExperiment)
    observations = {
        "digits": torch.zeros(1, 2, 32, 32, 1, dtype=torch.uint8),
        "num_digits": torch.tensor([2]),
        "question": torch.tensor([[0, -1, 1]]),
    }
    found = count_stored(question.model, observations)
    assert found is not None
    assert found[1] > 4 * 32 * 32 * 2
