"""Models that answer: what holds for all of them."""

import dataclasses
from typing import Any

import pytest
import torch
from reference import certainty as slow_certainty
from torch import Tensor

from ctm_rl.config import AnswerConfig
from ctm_rl.machine.certainty import certainty
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, Thought, build_model
from ctm_rl.models.preprocessing import model_inputs

B, K = 3, 5
SMALL = AnswerConfig(
    num_neurons=18, history_length=3, num_ticks=K, nlm_hidden_dim=2, num_output_sync_neurons=4,
    num_action_sync_neurons=3, feature_dim=8, num_heads=2, num_classes=6, baseline_dim=7,
)  # fmt: skip
PARITY: dict[str, Any] = {"encoder": "parity", "positions": "rotational-1d", "num_groups": 9, "num_classes": 2}
DIGITS: dict[str, Any] = {"encoder": "digits", "ticks_per_input": 2, "num_answer_ticks": 3}
SORTING: dict[str, Any] = {"num_heads": 0, "num_action_sync_neurons": 0, "input_dim": 4, "num_classes": 5}
VARIANTS: dict[str, dict[str, Any]] = {
    "parity": PARITY,
    "parity window": {**PARITY, "sync_window": True},
    "parity lstm": {**PARITY, "kind": "lstm", "num_baseline_layers": 2},
    "parity gru": {**PARITY, "kind": "gru", "num_baseline_layers": 2},
    "parity mlp": {**PARITY, "kind": "mlp", "input_dim": 9},
    "image": {"encoder": "resnet18-1", "positions": "multi-fourier", "synapse_depth": 2},
    "image lstm": {"encoder": "resnet18-1", "positions": "rotational", "kind": "lstm"},
    "image mlp": {"encoder": "resnet18-1", "kind": "mlp"},
    "image conv mlp": {"encoder": "conv", "kind": "mlp"},
    "digits": DIGITS,
    "digits fourier": {**DIGITS, "positions": "fourier"},
    "digits lstm": {**DIGITS, "kind": "lstm"},
    "digits gru": {**DIGITS, "kind": "gru"},
    "digits mlp": {**DIGITS, "kind": "mlp"},
    "sorting": SORTING,
    "sorting mlp": {**SORTING, "kind": "mlp", "is_emitted": True},
}


def make(variant: str) -> tuple[ContinuousThoughtMachine | FeedForwardModel, tuple[Tensor, ...]]:
    """A model in evaluation mode, and a batch for it."""
    torch.manual_seed(11)
    model = build_model(dataclasses.replace(SMALL, **VARIANTS[variant])).eval()
    if variant.startswith("parity"):
        return model, (torch.randint(0, 2, (B, 9)) * 2.0 - 1,)
    if variant.startswith("image"):
        return model, (torch.randn(B, 3, 12, 12),)
    if variant.startswith("digits"):
        return model, (torch.randn(B, 2, 1, 16, 16), torch.tensor([[0, -1, 1], [1, -2, 1], [0, -2, 0]]))
    return model, (torch.randn(B, 4),)


def num_ticks(variant: str) -> int:
    if variant.endswith("mlp") and not variant.startswith("sorting"):
        return 1
    return 2 * 2 + 2 * 3 + 3 if variant.startswith("digits") else K


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_have_the_documented_shapes_and_certainties_follow_from_them(variant: str) -> None:
    model, inputs = make(variant)
    thought = model(*inputs)
    groups, classes = model.config.num_groups, model.config.num_classes
    assert thought.predictions.shape == (B, groups * classes, num_ticks(variant))
    assert thought.certainties.shape == (B, num_ticks(variant))
    for k in (0, -1):
        for row in range(B):
            logits = thought.predictions[row, :, k].detach().view(groups, classes)
            expected = sum(slow_certainty(group) for group in logits) / groups
            assert abs(float(thought.certainties[row, k].detach()) - expected) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_the_batch_are_independent(variant: str) -> None:
    model, inputs = make(variant)
    together = model(*inputs).predictions
    for row in range(B):
        alone = model(*(part[row : row + 1] for part in inputs)).predictions
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant: str) -> None:
    model, inputs = make(variant)
    model.train()
    model(*inputs).predictions.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_changes_neither_model_nor_generator(variant: str) -> None:
    model, inputs = make(variant)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    generator = torch.get_rng_state()
    first, second = model(*inputs), model(*inputs)
    assert torch.equal(first.predictions, second.predictions)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(vars(module) == attributes[name] for name, module in model.named_modules())


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.endswith("mlp")])
def test_recording_is_of_the_same_run_and_detached(variant: str) -> None:
    model, inputs = make(variant)
    plain, recorded = model(*inputs), model(*inputs, record=True)
    assert plain.recording is None
    # recording ticks one by one, the other path all at once
    torch.testing.assert_close(plain.predictions, recorded.predictions, atol=1e-6, rtol=1e-5)
    recording = recorded.recording
    assert recording is not None
    ticks = num_ticks(variant)
    assert all(part is None or not part.requires_grad for part in recording)
    assert recording.output_sync.shape[:2] == (ticks, B)
    head = model.head(recording.output_sync).permute(1, 2, 0)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(head, recorded.predictions)
    if model.config.kind == "ctm":
        assert recording.pre_activations is not None
        assert recording.pre_activations.shape == recording.post_activations.shape == (ticks, B, 18)
    if model.config.num_heads:
        assert recording.attention is not None
        num_looks = 4 if variant.startswith("digits") else ticks
        assert recording.attention.shape[:4] == (num_looks, B, 2, 1)
        torch.testing.assert_close(recording.attention.sum(-1), torch.ones(num_looks, B, 2, 1))


def test_several_ticks_per_input_equal_repeated_inputs() -> None:
    model, (digits, question) = make("digits")
    once = model(digits, question)
    repeated = build_model(dataclasses.replace(model.config, ticks_per_input=1)).eval()
    repeated.load_state_dict(model.state_dict())
    again = repeated(digits.repeat_interleave(2, 1), question.repeat_interleave(2, 1))
    torch.testing.assert_close(once.predictions, again.predictions)


def test_dropout_acts_in_training_and_only_there() -> None:
    torch.manual_seed(12)
    model = build_model(dataclasses.replace(SMALL, **PARITY, dropout=0.3))
    inputs = torch.ones(B, 9)
    assert not torch.equal(model(inputs).predictions, model(inputs).predictions)
    model.eval()
    assert torch.equal(model(inputs).predictions, model(inputs).predictions)


def test_certainty_is_0_for_uniform_and_1_for_sure() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, :, 2] = 1e3
    torch.testing.assert_close(certainty(logits), torch.tensor([0.0, 1.0]))


def test_a_question_without_its_encoder_is_refused() -> None:
    model, inputs = make("parity")
    with pytest.raises(ValueError, match="must be given with the digits encoder"):
        model(*inputs, torch.tensor([[0, -1, 1]] * B))
    model, (digits, _) = make("digits")
    with pytest.raises(ValueError, match="must be given with the digits encoder"):
        model(digits)


def test_a_feed_forward_network_depends_on_places_and_the_order_of_digits_and_question() -> None:
    for variant, part in (("parity mlp", 0), ("image conv mlp", 0), ("digits mlp", 0), ("digits mlp", 1)):
        model, inputs = make(variant)
        turned = [value.flip(-1 if variant != "digits mlp" else 1) if index == part else value
                  for index, value in enumerate(inputs)]  # fmt: skip
        assert not torch.allclose(model(*inputs).predictions, model(*turned).predictions, atol=1e-4)


def test_a_feed_forward_network_answers_at_a_single_tick() -> None:
    model, inputs = make("image mlp")
    assert isinstance(model, FeedForwardModel)
    assert isinstance(model(*inputs), Thought)
    with pytest.raises(ValueError, match="kind mlp does not tick"):
        ContinuousThoughtMachine(model.config)
    with pytest.raises(ValueError, match="needs kind mlp"):
        FeedForwardModel(dataclasses.replace(SMALL, **PARITY))


INPUTS: dict[str, tuple[torch.Tensor, ...]] = {
    "conv": (torch.zeros(2, 3, 8, 8),),
    "parity": (torch.ones(2, 3),),
    "digits": (torch.zeros(2, 1, 1, 8, 8), torch.zeros(2, 1, dtype=torch.long)),
    "none": (torch.zeros(2, 3),),
    "resnet18-1": (torch.zeros(2, 3, 8, 8),),
}


@pytest.mark.parametrize("encoder", INPUTS)
def test_a_model_of_an_encoder_and_defaults_answers(encoder: str) -> None:
    model = build_model(AnswerConfig(encoder=encoder, num_classes=10)).eval()
    assert model(*INPUTS[encoder]).predictions.shape[:2] == (2, 10)


def test_vectors_are_shifted_and_scaled_place_by_place() -> None:
    config = AnswerConfig(num_heads=0, input_dim=2, vector_mean=(1.0, -2.0), vector_std=(2.0, 0.5))
    inputs, question = model_inputs(config, torch.tensor([[3.0, -2.0], [1, 1]], dtype=torch.float64))
    assert question is None
    assert inputs.tolist() == [[1.0, 0.0], [0.0, 6.0]]
    assert inputs.dtype == torch.float32
