"""Answers to observations: the same from every form of them, equal to the scores, and never silently wrong."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answering_paths import SMALL

from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.inference.load_model import MODEL_ENTRY, describe, load_model
from ctm_rl.metrics import emissions
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model
from ctm_rl.models.preprocessing import NOTHING, model_inputs

N, SIDE = 7, 12
IMAGE: dict[str, Any] = {"encoder": "conv", "pixel_mean": (0.2, 0.3, 0.4), "pixel_std": (0.3, 0.3, 0.5)}
GREY: dict[str, Any] = {"encoder": "conv", "input_dim": 1, "pixel_mean": (0.1307,), "pixel_std": (0.3081,)}
PARITY: dict[str, Any] = {"encoder": "parity", "num_groups": 9, "num_classes": 2, "input_dim": 9}
VECTOR: dict[str, Any] = {"num_heads": 0, "num_action_sync_neurons": 0, "input_dim": 4}
DIGITS: dict[str, Any] = {"encoder": "digits", "input_dim": 1, "ticks_per_input": 2, "num_answer_ticks": 3}
ORDER: dict[str, Any] = {**VECTOR, "num_classes": 5, "is_emitted": True}


def make(**case: Any) -> ContinuousThoughtMachine | FeedForwardModel:
    """A model whose answers depend on its input, in evaluation mode."""
    torch.manual_seed(3)
    model = build_model(dataclasses.replace(SMALL, **case)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        model.project_()
    return model


def loaded(place: Path, **case: Any) -> ContinuousThoughtMachine | FeedForwardModel:
    """The same model, read from a checkpoint."""
    checkpoint.save(place, 1, {MODEL_ENTRY: describe(make(**case))})
    return load_model(place)


def images(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(256, size=(N, SIDE, SIDE, channels)).astype(np.uint8)


def question(num_rows: int = N, num_digits: int = 2, num_operations: int = 1) -> dict[str, np.ndarray]:
    """Observations as QAMnist makes them, padded to three digits and two operations."""
    rng = np.random.default_rng(num_digits)
    asked = np.full((num_rows, 5), NOTHING)
    asked[:, : 2 * num_operations + 1 : 2] = rng.integers(num_digits, size=(num_rows, num_operations + 1))
    asked[:, 1 : 2 * num_operations : 2] = -1
    digits = rng.integers(256, size=(num_rows, 3, 16, 16, 1)).astype(np.uint8)
    return {"digits": digits, "num_digits": np.full(num_rows, num_digits), "question": asked}


def test_images_are_answered_alike_in_every_form_that_shows_bytes(tmp_path: Path) -> None:
    model, shown = loaded(tmp_path, **IMAGE), images()
    inputs, _ = model_inputs(model.config, torch.from_numpy(shown))
    logits = model.forward(inputs).predictions
    expected = model.answer(shown)
    assert len({str(row) for row in expected.probabilities}) == N
    first = np.ascontiguousarray(shown.transpose(0, 3, 1, 2))
    for form in (first, torch.from_numpy(shown), torch.from_numpy(first), shown.astype(np.int64), shown.tolist()):
        np.testing.assert_array_equal(model.answer(form).probabilities, expected.probabilities)
        torch.testing.assert_close(model(form).predictions, logits, rtol=0, atol=0)  # the model itself takes them too
    for row in (shown[2], first[2]):
        one = model.answer(row)
        assert one.classes.shape == (1,)
        np.testing.assert_allclose(one.probabilities[0], expected.probabilities[2], rtol=1e-4)
    torch.testing.assert_close(model(inputs).predictions, logits, rtol=0, atol=0)


HALVES: dict[str, Any] = {"encoder": "conv"}  # from -1 to 1
UNIT: dict[str, Any] = {**GREY, "pixel_mean": (0.0,), "pixel_std": (1.0,)}  # from 0 to 1


@pytest.mark.parametrize("case", [IMAGE, GREY, HALVES, UNIT], ids=["channels", "grey", "halves", "unit"])
def test_images_that_were_scaled_otherwise_are_refused(case: dict[str, Any], tmp_path: Path) -> None:
    model = loaded(tmp_path, **case)
    shown = torch.from_numpy(images(model.config.input_dim))
    first = shown.movedim(-1, 1)
    right, _ = model_inputs(model.config, shown)
    # as people write it: bytes as floats, from 0 to 1, from -1 to 1, standardised; and other axes
    wrong = [first.float(), shown.float(), right.movedim(1, -1), right[0], right[:, :1].repeat(1, 2, 1, 1)]
    wrong += [(first / 255 - 0.45) / 0.2, first.float() / 255, first / 127.5 - 1]
    wrong = [inputs for inputs in wrong if inputs.shape != right.shape or not torch.allclose(inputs, right, atol=1e-5)]
    assert len(wrong) >= 7
    for inputs in wrong:
        with pytest.raises(ValueError, match=r"^the model takes images (\[batch, |scaled as in training)") as refused:
            model(inputs)
        assert "\n" not in str(refused.value)
        with pytest.raises(ValueError, match=r"^the model answers images of bytes, 0 to 255, as the environment shows"):
            model.answer(inputs)
    # and what is right is not, be it bright, or changed a little
    bright, _ = model_inputs(model.config, shown // 4 + 190)
    for inputs in (right, bright, right * 0.9 + 0.1 * right.flip(-1)):
        torch.testing.assert_close(model(inputs).predictions, model.forward(inputs).predictions)


@pytest.mark.parametrize(
    ("case", "shown", "message"),
    [
        (GREY, np.zeros((N, SIDE, SIDE), np.uint8), r"height, width, 1\] or channels first.*; got uint8 of shape \[7,"),
        (
            IMAGE,
            np.zeros((N, SIDE, SIDE, 4), np.uint8),
            r"height, width, 3\] or .*; got uint8 of shape \[7, 12, 12, 4\]",
        ),
        (IMAGE, np.full((SIDE, SIDE, 3), 256), r"got int64 of shape \[12, 12, 3\] with other numbers"),
        (IMAGE, {"image": 1}, "an observation must be numbers, or numbers by name, got dict"),
        (PARITY, np.zeros((N, 9)), "sequences of -1 and 1 .* of length 9; got numbers from 0 to 0"),
        (PARITY, np.ones((N, 8)), r"of length 9, one or a batch of them; got float64 of shape \[7, 8\]"),
        (VECTOR, [[np.nan] * 4], "vectors of finite numbers .* of length 4; got numbers from nan to nan"),
        (VECTOR, np.ones((2, N, 4)), r"got float64 of shape \[2, 7, 4\]"),
        (DIGITS, question()["digits"], "a dictionary with digits, num_digits, question; got no dictionary"),
        (DIGITS, {"digits": 0}, "got the entries digits"),
        (DIGITS, {**question(), "num_digits": np.ones(3)}, "must have as many rows, got .*float64 of shape .3."),
    ],
)
def test_what_no_environment_shows_is_refused_in_one_line(case: dict[str, Any], shown: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        make(**case).answer(shown)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("case", "shown"),
    [
        (IMAGE, images()),
        (PARITY, 1.0 - 2 * np.random.default_rng(1).integers(2, size=(N, 9))),
        ({**PARITY, "kind": "lstm", "baseline_dim": 8}, np.ones((N, 9), np.int64)),
        (VECTOR, np.random.default_rng(2).normal(size=(N, 4))),
        (DIGITS, question()),
    ],
    ids=["images", "parity", "lstm", "vectors", "questions"],
)
def test_the_record_shows_how_each_answer_came_about(case: dict[str, Any], shown: Any) -> None:
    model = make(**case)
    plain, recorded = model.answer(shown), model.answer(shown, record=True)
    record = recorded.record
    assert plain.record is None
    assert record is not None
    np.testing.assert_array_equal(recorded.classes, plain.classes)
    np.testing.assert_allclose(recorded.probabilities, plain.probabilities, atol=1e-5)
    num_ticks, offset = record.certainty.shape[1], record.post_activations.shape[1] - record.certainty.shape[1]
    assert offset == (2 * 5 if case is DIGITS else 0)  # two digits and three parts of the question, two ticks each
    rows = np.arange(N)
    np.testing.assert_array_equal(plain.ticks - 1 - offset, record.certainty.argmax(1))
    np.testing.assert_allclose(record.probabilities[rows, plain.ticks - 1 - offset], recorded.probabilities, rtol=1e-5)
    np.testing.assert_allclose(recorded.certainty, record.certainty.max(1))
    np.testing.assert_array_equal(plain.probabilities.argmax(-1), plain.classes)
    assert record.probabilities.shape[:2] == (N, num_ticks)
    if record.attention is not None:
        places = {"conv": (3, 3), "digits": (4, 4), "parity": (9,)}[model.config.encoder]
        assert record.attention.shape[2:] == (model.config.num_heads, *places)
        np.testing.assert_allclose(record.attention.reshape(*record.attention.shape[:3], -1).sum(-1), 1, rtol=1e-4)
    assert (record.attention is None) == (case is VECTOR)


@pytest.mark.parametrize(
    ("case", "shown"), [(PARITY, 1.0 - 2 * np.random.default_rng(6).integers(2, size=(N, 9))), (DIGITS, question())]
)
def test_halting_rows_answer_alike_with_and_without_a_record(case: dict[str, Any], shown: Any) -> None:
    model = make(**case)
    every = model.answer(shown, record=True).record
    assert every is not None

    def stops(threshold: float) -> list[int]:
        first = every.post_activations.shape[1] - every.certainty.shape[1] + 1
        return [
            first + next((k for k, one in enumerate(row) if one >= threshold), len(row) - 1) for row in every.certainty
        ]

    # between two certainties, so that rounding decides nothing
    values = np.unique(every.certainty)
    threshold = float(max((values[1:] + values[:-1]) / 2, key=lambda value: len(set(stops(value)))))
    halted, recorded = (model.answer(shown, halt_certainty=threshold, record=record) for record in (False, True))
    assert halted.ticks.tolist() == recorded.ticks.tolist() == stops(threshold)
    np.testing.assert_array_equal(halted.classes, recorded.classes)
    np.testing.assert_allclose(halted.certainty, recorded.certainty, atol=1e-5)
    assert len(set(halted.ticks.tolist())) > 1


def test_questions_of_different_lengths_are_answered_in_one_batch() -> None:
    model = make(**DIGITS)
    parts = [question(3, 2, 1), question(2, 3, 2), question(4, 1, 1)]
    mixed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.random.default_rng(0).permutation(9)
    answer = model.answer({name: part[order] for name, part in mixed.items()})
    each = [model.answer({name: part[row] for name, part in mixed.items()}) for row in order]
    np.testing.assert_array_equal(answer.ticks, np.concatenate([one.ticks for one in each]))
    np.testing.assert_allclose(answer.probabilities, np.concatenate([one.probabilities for one in each]), atol=1e-5)
    with pytest.raises(ValueError, match="record needs questions with equally many digits and operations"):
        model.answer(mixed, record=True)


def test_an_order_is_what_was_emitted_over_the_ticks() -> None:
    model, shown = make(**ORDER), np.random.default_rng(4).normal(size=(N, 4)).astype(np.float32)
    answer = model.answer(shown, record=True)
    predictions = model.forward(torch.from_numpy(shown)).predictions
    indices, ticks, counts = emissions(predictions)
    assert counts.max() > 0
    for row in range(N):
        count = min(int(counts[row]), 4)
        assert answer.classes[row].tolist() == [*indices[row, :count].tolist(), *[-1] * (4 - count)]
        assert answer.ticks[row] == (int(ticks[row, count - 1]) + 1 if count else 0)
        assert (answer.probabilities[row, :count].argmax(-1) == answer.classes[row, :count]).all()
        assert (answer.probabilities[row, count:] == 0).all()
    with pytest.raises(ValueError, match="halt_certainty needs an answer at every tick"):
        model.answer(shown, halt_certainty=0.5)


def test_options_that_a_model_does_not_have_are_refused() -> None:
    shown = np.ones((N, 9))
    model = make(**PARITY)
    assert model.answer(shown, num_ticks=2, record=True).record.certainty.shape == (N, 2)  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(ValueError, match="halt_certainty must be from 0 to 1, got 2"):
        model.answer(shown, halt_certainty=2)
    with pytest.raises(ValueError, match=r"in evaluation mode: call model\.eval"):
        make(**PARITY).train().answer(shown)
    feed_forward = make(**PARITY, kind="mlp", baseline_dim=5)
    assert feed_forward.answer(shown).ticks.tolist() == [1] * N
    for name, value in (("num_ticks", 2), ("record", True), ("halt_certainty", 0.5)):
        with pytest.raises(ValueError, match=r"needs? a model with ticks, which kind mlp does not have"):
            feed_forward.answer(shown, **{name: value})  # pyright: ignore[reportArgumentType]
