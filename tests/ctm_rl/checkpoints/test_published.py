"""Published checkpoints: what a file may hold, what is refused, and the errors of wrong files."""

import argparse
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import GOLDEN

from ctm_rl.checkpoints.published import load_official
from ctm_rl.config import PolicyConfig


def read(name: str) -> dict[str, Any]:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(GOLDEN / f"{name}.pt", weights_only=True)


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploded",)


def test_a_file_that_would_execute_code_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**read("ctm_sort"), "surprise": Bomb()}, "bomb.pt")
    with pytest.raises(ValueError, match="refused: it holds more than weights and plain settings"):
        load_official("bomb.pt")
    assert not (tmp_path / "exploded").exists()


def test_random_generators_and_curves_of_a_real_checkpoint_are_discarded_unread(tmp_path: Path) -> None:
    extra = {
        "numpy_rng_state": np.random.RandomState(1).get_state(),
        "random_rng_state": random.Random(1).getstate(),
        "torch_rng_state": torch.get_rng_state(),
        "train_losses": [np.float64(1.5), 2.5],
        "train_accuracies": [np.arange(3.0), np.arange(4, dtype=np.float32)],
        "scheduler_state_dict": {"base_lrs": [1e-4]},
    }
    torch.save({**read("ctm_sort"), **extra}, tmp_path / "real.pt")
    assert load_official(tmp_path / "real.pt").task == "sort"


def test_names_of_compiled_parts_are_restored_on_export(tmp_path: Path) -> None:
    checkpoint = read("ctm_sort")
    weights = {
        name.replace("synapses.", "synapses._orig_mod."): w for name, w in checkpoint["model_state_dict"].items()
    }
    torch.save({**checkpoint, "model_state_dict": weights}, tmp_path / "compiled.pt")
    exported = load_official(tmp_path / "compiled.pt").to_official_state_dict()
    assert list(exported) == list(weights)


def test_decay_rates_are_projected_at_load(tmp_path: Path) -> None:
    checkpoint = read("ctm_sort")
    checkpoint["model_state_dict"]["decay_params_out"][:2] = torch.tensor([-3.0, 99.0])
    torch.save(checkpoint, tmp_path / "outside.pt")
    exported = load_official(tmp_path / "outside.pt").to_official_state_dict()
    assert exported["decay_params_out"][:2].tolist() == [0.0, 15.0]


def test_export_returns_the_current_parameters() -> None:
    official = load_official(GOLDEN / "ctm_parity_random.pt")
    with torch.no_grad():
        for parameter in official.model.parameters():
            parameter.zero_()
    exported = official.to_official_state_dict()
    trained = [name for name in exported if "indices" not in name]
    assert all(bool((exported[name] == 0).all()) for name in trained)


def without(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in checkpoint.items() if key != name}


def with_args(checkpoint: dict[str, Any], **changes: Any) -> dict[str, Any]:
    settings = {**vars(checkpoint["args"]), **changes}
    return {**checkpoint, "args": argparse.Namespace(**{k: v for k, v in settings.items() if v is not None})}


WRONG = {
    "no args": (lambda c: without(c, "args"), "needs the entries model_state_dict and args"),
    "no weights": (lambda c: without(c, "model_state_dict"), "needs the entries model_state_dict and args"),
    "no task": (lambda c: with_args(c, N_to_sort=None), "name no known task"),
    "size missing": (lambda c: with_args(c, d_model=None), "lack 'd_model'"),
    "size wrong": (lambda c: with_args(c, d_model=48), "which its args do not allow"),
    "pairing unknown": (lambda c: with_args(c, neuron_select_type="nearest"), "unknown neuron_select_type 'nearest'"),
    "kind unknown": (lambda c: with_args(c, model="gru"), "unknown kind of model 'gru'"),
    "deeper than saved": (lambda c: with_args(c, synapse_depth=3), "the checkpoint lacks 'synapses.first_projection"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    torch.save(change(read("ctm_sort")), tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=message):
        load_official(tmp_path / "wrong.pt")


def test_a_missing_file_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint file"):
        load_official(tmp_path / "nowhere.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"not a PyTorch checkpoint|refused"):
        load_official(tmp_path / "text.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="not a published checkpoint"):
        load_official(tmp_path / "tensor.pt")


@pytest.mark.parametrize(("name", "expected"), [("ctm_cartpole", False), ("lstm_cartpole", True)])
def test_only_the_machine_restarts_at_every_step_when_its_trace_is_not_continuous(
    name: str, expected: bool, tmp_path: Path
) -> None:
    torch.save(with_args(read(name), continuous_state_trace=False), tmp_path / "afresh.pt")
    config = load_official(tmp_path / "afresh.pt").model.config
    assert isinstance(config, PolicyConfig)
    assert config.is_state_carried is expected


def test_the_lookahead_of_the_maze_curriculum_is_the_published_one(tmp_path: Path) -> None:
    torch.save(with_args(read("ctm_maze"), cirriculum_lookahead=1), tmp_path / "short.pt")
    short, usual = load_official(tmp_path / "short.pt"), load_official(GOLDEN / "ctm_maze.pt")
    torch.manual_seed(1)
    thought, targets = usual.model(torch.randn(2, 3, 19, 19)), torch.randint(0, 5, (2, 12))
    assert not torch.equal(short.loss(thought, targets), usual.loss(thought, targets))
