"""Experiments for own data and tasks: what is found out, which model is chosen, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import random_images

from ctm_rl.agents.experiments.serialise import from_json, to_json
from ctm_rl.agents.runs.build_algorithm import fit_model
from ctm_rl.configs import for_data, for_task
from ctm_rl.errors import UserError


def save(folder: Path, **arrays: Any) -> str:
    """Writes an npz file; returns its path."""
    np.savez(folder / "my set.npz", **arrays)
    return str(folder / "my set.npz")


def test_sizes_classes_and_statistics_of_images_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(120, 8, 8, 3) // 4
    save(tmp_path, x=images, y=["a", "b", "c"] * 40)
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    experiment = for_data("my set.npz", report=lines.append)
    (line,) = lines
    assert line.startswith(
        "data: 120 images of 8 x 8 x 3, 3 classes, 24 held out (split off, the same in every run); pixel mean 0.12"
    )
    assert experiment.name == "my-set"
    assert experiment.env.kwargs == {
        "path": str(tmp_path / "my set.npz"),
        "classes": ["a", "b", "c"],
        "shape": [8, 8, 3],
    }
    model = experiment.model
    assert (model.encoder, model.input_dim) == ("conv", 3)
    assert model.pixel_mean == pytest.approx((images / 255).mean((0, 1, 2)), abs=0.01)
    assert model.pixel_std == pytest.approx((images / 255).std((0, 1, 2)), abs=0.01)
    assert experiment.held_out.num_samples == 24
    assert fit_model(experiment) == dataclasses.replace(model, num_classes=3)
    assert from_json(to_json(experiment)) == experiment


def test_vectors_are_normalised_by_the_model(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal((5, -100), (0.1, 30), (300, 2))
    lines: list[str] = []
    experiment = for_data(
        save(tmp_path, x_train=x, y_train=x[:, 0] > 5, x_test=x[:7], y_test=x[:7, 0] > 5), report=lines.append
    )
    assert lines == ["data: 307 vectors of 2, 2 classes, 7 held out"]
    assert (experiment.model.encoder, experiment.model.num_heads) == ("none", 0)
    assert experiment.model.vector_mean == pytest.approx((5, -100), rel=0.1)
    assert experiment.model.vector_std == pytest.approx((0.1, 30), rel=0.2)
    assert fit_model(experiment).num_classes == 2


def test_sequences_of_symbols_are_read_place_by_place(tmp_path: Path) -> None:
    symbols = np.where(np.random.default_rng(0).random((40, 6)) < 0.5, -1, 1)
    lines: list[str] = []
    experiment = for_data(save(tmp_path, x=symbols, y=symbols[:, :2]), report=lines.append)
    assert lines == ["data: 40 sequences of -1 and 1 of 6, 2 classes, 8 held out (split off, the same in every run)"]
    assert experiment.model.encoder == "parity"
    assert fit_model(experiment).num_groups == 2


def test_resized_images_are_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    path = save(tmp_path, x=random_images(20, 100, 50, 1), y=[0, 1] * 10)
    assert for_data(path, report=lines.append).env.kwargs["shape"] == [64, 32, 1]
    assert "20 images of 64 x 32 x 1 (made of 100 x 50), 2 classes" in lines[0]
    assert for_data(path, size=16).env.kwargs["shape"] == [16, 16, 1]


MODELS: dict[str, tuple[dict[str, Any], str, str, int]] = {
    "own_tasks:Brackets": ({}, "brackets", "parity", 1),
    "own_tasks:Larger": ({}, "larger", "none", 3),
    "own_tasks:OwnSign-v0": ({}, "ownsign-v0", "none", 1),
    "ctm_rl.envs:ctm_rl/Parity-v0": ({"length": 5}, "ctm_rl-parity-v0", "parity", 5),
    "ctm_rl.envs:ctm_rl/Maze-v0": ({"size": 9, "route_length": 7}, "ctm_rl-maze-v0", "conv", 7),
    "ctm_rl.envs:ctm_rl/QAMnist-v0": ({}, "ctm_rl-qamnist-v0", "digits", 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_model_of_a_task_follows_from_its_inputs(name: str) -> None:
    arguments, called, encoder, num_groups = MODELS[name]
    experiment = for_task(name, **arguments)
    assert (experiment.name, experiment.model.encoder) == (called, encoder)
    assert (experiment.env.id, experiment.env.kwargs) == (name, arguments)
    assert fit_model(experiment).num_groups == num_groups
    assert from_json(to_json(experiment)) == experiment


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no class": ("own_tasks:Bracket", {}, "--task own_tasks:Bracket: own_tasks has no Bracket; it has .*, Brackets,"),
    "no module": ("nowhere:Brackets", {}, "there is no module nowhere in this folder"),
    "no environment": ("Nowhere-v0", {}, "doesn't exist"),
    "arguments": ("own_tasks:Brackets", {"size": 3}, "unexpected keyword argument 'size'"),
    "inputs": ("own_tasks:Box3", {}, r"must be images of bytes .* they are \[2, 2, 2\] of type float32"),
    "error": ("own_tasks:Larger", {"wrong": "raises"}, "no such word.*KeyError in own_tasks.py, line"),
    "two of a name": (
        "own_tasks:Sign",
        {},
        "it is a class and a registered environment: name that as own_tasks:Sign-",
    ),
    "no target": ("CartPole-v1", {}, r"its reset returns no info\[\"target\"\]"),
    "outside": ("own_tasks:Larger", {"wrong": "class"}, r"info\[\"target\"\] of own_tasks:Larger must be an answer in"),
    "shape": (
        "own_tasks:Larger",
        {"wrong": "shape"},
        r"must be \[3\] of float32, its observation space, got \[2\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_task_that_cannot_be_learned_is_refused_in_one_line(case: str) -> None:
    name, arguments, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        fit_model(for_task(name, **arguments))
    assert "\n" not in str(caught.value)
