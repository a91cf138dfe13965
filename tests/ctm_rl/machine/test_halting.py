"""Halting at a certainty against taking all ticks and cutting: the same answers, and less work."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ctm_rl.agents.evaluation import evaluate as evaluation
from ctm_rl.agents.evaluation.halting_curve import HALT_THRESHOLDS, Batch, check_can_halt_answers, halting_curve
from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.run_directory.directory import config_of, write_config
from ctm_rl.agents.runs.build_algorithm import fit_model
from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.cli.main import main
from ctm_rl.config import AnswerConfig
from ctm_rl.configs import load
from ctm_rl.engine.unrolled_neuron_models import NeuronModelsForward
from ctm_rl.errors import UserError
from ctm_rl.inference.load_model import MODEL_ENTRY, describe
from ctm_rl.metrics import at_tick
from ctm_rl.metrics.stopping import stopping_ticks
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, group

B, K = 13, 7
SMALL = AnswerConfig(
    num_neurons=19, history_length=3, num_ticks=K, nlm_hidden_dim=2, num_output_sync_neurons=4,
    num_action_sync_neurons=3, feature_dim=8, num_heads=2, num_classes=6, baseline_dim=9,
)  # fmt: skip
PARITY: dict[str, Any] = {"encoder": "parity", "positions": "rotational-1d", "num_groups": 5, "num_classes": 2}
DIGITS: dict[str, Any] = {"encoder": "digits", "ticks_per_input": 2, "num_answer_ticks": 3}
CASES: dict[str, dict[str, Any]] = {
    "parity": PARITY,
    "U-Net": {**PARITY, "synapse_depth": 3},
    "two blocks": {**PARITY, "num_synapse_blocks": 2, "is_nlm_deep": False},
    "long history": {**PARITY, "history_length": 16},
    "window": {**PARITY, "sync_window": True},
    "lstm": {**PARITY, "kind": "lstm"},
    "digits": DIGITS,
    "vectors": {"num_heads": 0, "num_action_sync_neurons": 0, "input_dim": 4},
}
cases = pytest.mark.parametrize("case", CASES)


def make(case: str, num_rows: int = B) -> tuple[ContinuousThoughtMachine, tuple[Tensor, ...]]:
    """A model that is more or less certain, and inputs."""
    torch.manual_seed(71)
    model = ContinuousThoughtMachine(dataclasses.replace(SMALL, **CASES[case])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("decay_rate"):
                parameter.uniform_(0.0, 1.0)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.6)
        model.head.weight.mul_(4.0)
    if model.config.encoder == "parity":
        return model, (torch.randint(0, 2, (num_rows, 5)).float() * 2 - 1,)
    if model.config.encoder == "digits":
        question = torch.tensor([[0, -1, 1], [1, -2, 1], [0, -2, 0]]).repeat(num_rows, 1)[:num_rows]
        return model, (torch.randn(num_rows, 2, 1, 16, 16), question)
    return model, (torch.randn(num_rows, 4),)


@cases
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_halting_equals_all_ticks_cut_by_their_certainties(case: str, share: float) -> None:
    model, inputs = make(case)
    with torch.no_grad():
        thought = model(*inputs)
    first = -model.config.num_answer_ticks or None
    certainties = thought.certainties[:, first:]
    threshold = float(certainties.flatten().quantile(share, interpolation="midpoint"))
    stops = stopping_ticks(certainties, torch.tensor([threshold], dtype=torch.float64))[:, 0]
    halted = model.think(*inputs, halt_certainty=threshold)
    num_shown = thought.certainties.shape[1] - certainties.shape[1]
    assert (halted.ticks == num_shown + stops + 1).all()
    assert share < 0.9 or len(halted.ticks.unique()) > 1
    torch.testing.assert_close(halted.predictions, at_tick(thought.predictions[..., first:], stops))
    torch.testing.assert_close(halted.certainty, at_tick(certainties, stops))


@cases
def test_without_a_threshold_every_row_takes_all_ticks(case: str) -> None:
    model, inputs = make(case)
    with torch.no_grad():
        thought = model(*inputs)
    halted = model.think(*inputs, halt_certainty=None)
    assert (halted.ticks == thought.certainties.shape[1]).all()
    torch.testing.assert_close(halted.predictions, thought.predictions[..., -1])


def test_more_ticks_may_be_taken_than_were_trained() -> None:
    model, inputs = make("parity")
    longer = ContinuousThoughtMachine(dataclasses.replace(model.config, num_ticks=K + 4)).eval()
    longer.load_state_dict(model.state_dict())
    halted = model.think(*inputs, halt_certainty=None, num_ticks=K + 4)
    with torch.no_grad():
        torch.testing.assert_close(halted.predictions, longer(*inputs).predictions[..., -1])


def test_halted_rows_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = make("parity")
    widths: list[int] = []
    run_tick = NeuronModelsForward.tick

    def tick_and_count(self: NeuronModelsForward) -> Tensor:
        widths.append(self.newest.shape[1])
        return run_tick(self)

    monkeypatch.setattr(NeuronModelsForward, "tick", tick_and_count)
    with torch.no_grad():
        threshold = float(model(*inputs).certainties.flatten().quantile(0.7, interpolation="midpoint"))
    widths.clear()
    halted = model.think(*inputs, halt_certainty=threshold)
    still_there = [int((halted.ticks > tick).sum()) for tick in range(len(widths))]
    assert all(width < count + max(1, B // 4) for width, count in zip(widths, still_there, strict=True))
    assert widths[-1] < B


def test_what_cannot_be_is_refused() -> None:
    model, inputs = make("parity")
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="halt_certainty must be from 0 to 1"):
            model.think(*inputs, halt_certainty=threshold)
    with pytest.raises(ValueError, match="num_ticks must be at least 1"):
        model.think(*inputs, halt_certainty=0.5, num_ticks=0)
    with pytest.raises(ValueError, match="evaluation mode"):
        model.train().think(*inputs, halt_certainty=0.5)
    asked, question = make("digits")
    with pytest.raises(ValueError, match="leave it out"):
        asked.think(*question, halt_certainty=0.5, num_ticks=3)


def test_a_curve_is_what_each_threshold_gives() -> None:
    model, (inputs,) = make("parity")
    targets = (inputs > 0).long()
    batches = [Batch(inputs[:8], None, targets[:8]), Batch(inputs[8:], None, targets[8:])]
    points = halting_curve(model, batches, (None, 0.3, 0.9))
    for point in points:
        halted = model.think(inputs, halt_certainty=point["threshold"])
        is_right = group(halted.predictions, model.config.num_groups).argmax(-1) == targets
        assert point["ticks_mean"] == pytest.approx(float(halted.ticks.double().mean()))
        assert point["accuracy"] == pytest.approx(float(is_right.double().mean()))
        assert point["accuracy_whole"] == pytest.approx(float(is_right.all(1).double().mean()))
        assert point["seconds_per_sample"] > 0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with an untrained model for parity."""
    experiment = load("parity")
    assert isinstance(experiment, AnsweringExperiment)
    model = fit_model(dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, num_ticks=K)))
    experiment = dataclasses.replace(experiment, model=model)
    write_config(tmp_path, config_of(experiment))
    torch.manual_seed(5)
    checkpoint.save(tmp_path, 4, {MODEL_ENTRY: describe(ContinuousThoughtMachine(model))})
    return tmp_path


def test_evaluation_reports_ticks_accuracy_and_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = evaluation.evaluate(run, episodes=7, halt_certainty=0.0)
    assert (quick["ticks_mean"], quick["halt_certainty"]) == (1.0, 0.0)
    assert quick["accuracy"] == pytest.approx(quick["accuracy_by_tick"][0])
    assert main(["evaluate", str(run), "--episodes", "7", "--halt-curve", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    points = result["halting"]
    assert [point["threshold"] for point in points] == list(HALT_THRESHOLDS)
    assert points[0]["ticks_mean"] == K
    assert points[0]["accuracy_whole"] == pytest.approx(result["accuracy_whole_last"])
    assert main(["evaluate", str(run), "--episodes", "7", "--num-ticks", "1"]) == 2
    assert "for a model that answers, --json prints accuracy_by_tick" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--episodes", "7", "--halt-certainty", "1.5"]) == 2
    assert "halt_certainty must be from 0 to 1" in capsys.readouterr().err


def test_models_with_nothing_to_halt_are_refused() -> None:
    model, _ = make("vectors")
    with pytest.raises(UserError, match="spreads its answer"):
        check_can_halt_answers(model, "order")
    with pytest.raises(UserError, match="which kind mlp does not have"):
        check_can_halt_answers(
            FeedForwardModel(AnswerConfig(kind="mlp", encoder="resnet18-1", num_action_sync_neurons=1)), "classes"
        )
