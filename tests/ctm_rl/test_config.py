"""Configurations refuse invalid sizes, in one line that describes what is allowed."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from ctm_rl.config import INPUT_ENCODERS, AnswerConfig, CoreConfig, PolicyConfig

ATTENDED: dict[str, Any] = {"num_action_sync_neurons": 4}
WRONG: list[tuple[type[CoreConfig], dict[str, Any], str]] = [
    (CoreConfig, {"num_ticks": 0}, "num_ticks must be at least 1, got 0."),
    (CoreConfig, {"num_neurons": -1}, "num_neurons must be at least 1, got -1."),
    (CoreConfig, {"max_decay_rate": float("nan")}, "max_decay_rate must be above 0, got nan."),
    (CoreConfig, {"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0."),
    (CoreConfig, {"nlm_dropout": -0.1}, "nlm_dropout must be at least 0 and below 1, got -0.1."),
    (CoreConfig, {"pairing": "nearest"}, "pairing must be one of first-last, last-first, random, random-pairing"),
    (CoreConfig, {"num_output_sync_neurons": 129}, "num_neurons must be at least .* = 129 for first-last pairing"),
    (CoreConfig, {"synapse_depth": 2, "num_neurons": 8, "num_output_sync_neurons": 2}, "at least 16 for a U-Net"),
    (CoreConfig, {"synapse_depth": 2, "num_synapse_blocks": 2}, "num_synapse_blocks only applies to synapse_depth 1"),
    (CoreConfig, {"num_output_sync_neurons": 0}, "num_output_sync_neurons must be at least 1, got 0."),
    (CoreConfig, {"start_decay_rate": 16.0}, "from 0 to max_decay_rate = 15.0, got 16.0."),
    (CoreConfig, {"start_decay_rate": float("nan")}, "start_decay_rate must be from 0 .* got nan."),
    (CoreConfig, {"num_self_pairs": 1}, "num_self_pairs only applies to random-pairing"),
    (CoreConfig, {"num_self_pairs": 17, "pairing": "random-pairing"}, "at most the number of pairs, 16, got 17"),
    (CoreConfig, {"max_decay_rate": 0.0}, "max_decay_rate must be above 0, got 0.0."),
    (AnswerConfig, {"encoder": "resnet9-1"}, "encoder must be one of resnet18-1"),
    (AnswerConfig, {"positions": "absolute"}, "positions must be one of none, fourier"),
    (AnswerConfig, {"kind": "ff"}, "kind must be one of ctm, lstm, gru, mlp; got 'ff'."),
    (AnswerConfig, {**ATTENDED, "kind": "mlp", "baseline_dim": 0}, "baseline_dim must be at least 1, got 0."),
    (AnswerConfig, {**ATTENDED, "feature_dim": 6}, "feature_dim must be a multiple of num_heads = 4, got 6."),
    (AnswerConfig, {**ATTENDED, "num_heads": 0}, "must be 0 without attention"),
    (AnswerConfig, {**ATTENDED, "num_heads": 0, "encoder": "parity"}, "set encoder to none, or num_heads above 0"),
    (AnswerConfig, {**ATTENDED, "encoder": "digits", "num_answer_ticks": -1}, "num_answer_ticks must be at least 0"),
    (
        AnswerConfig,
        {"vector_mean": (1.0, 2.0), "vector_std": (1.0, 2.0)},
        "vector_mean must have 3 numbers",
    ),
    (AnswerConfig, {"input_dim": 1, "vector_mean": (1.0,)}, "vector_mean and vector_std belong together"),
    (
        AnswerConfig,
        {"input_dim": 1, "vector_mean": (1.0,), "vector_std": (0.0,)},
        "vector_std must be above 0",
    ),
    (AnswerConfig, {**ATTENDED, "num_answer_ticks": 2}, "only apply to the digits encoder"),
    (AnswerConfig, {**ATTENDED, "positions": "fourier"}, "positions for the none encoder must be one of none; got"),
    (AnswerConfig, {**ATTENDED, "encoder": "parity", "positions": "rotational"}, "must be one of none, rotational-1d"),
    (AnswerConfig, {**ATTENDED, "encoder": "resnet18-1", "positions": "rotational-1d"}, "none, fourier, multi-f"),
    (
        PolicyConfig,
        {"encoder": "parity"},
        "encoder must be one of auto, control, plain, conv, patches, grid, categories, text",
    ),
    (PolicyConfig, {"kind": "ff"}, "kind must be one of ctm, lstm, gru, mlp; got 'ff'."),
    (PolicyConfig, {"kind": "lstm", "baseline_dim": 0}, "baseline_dim must be at least 1, got 0."),
    (PolicyConfig, {"kind": "mlp", "use_graph": True}, "use_graph has no effect with kind mlp"),
    (PolicyConfig, {"max_seq_len": 0}, "max_seq_len must be at least 1, got 0."),
    (PolicyConfig, {"head_dims": (64, 0)}, "head_dims must be at least 1, got 0."),
    (PolicyConfig, {"num_action_sync_neurons": 2}, "must be 0 for a policy"),
    (PolicyConfig, {"num_ticks": 2, "train_random_ticks": True, "min_num_ticks": 3}, "from 1 to num_ticks = 2, got 3."),
    (PolicyConfig, {"num_ticks": 2, "min_num_ticks": 2}, "min_num_ticks only applies with train_random_ticks"),
]


@pytest.mark.parametrize(("kind", "values", "message"), WRONG)
def test_invalid_sizes_are_refused_with_the_way_out(
    kind: type[CoreConfig], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        kind(**values)
    assert "\n" not in str(caught.value)


def test_a_config_cannot_be_changed_afterwards() -> None:
    config = CoreConfig()
    with pytest.raises(FrozenInstanceError):
        config.num_ticks = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("encoder", INPUT_ENCODERS)
@pytest.mark.parametrize("kind", ["ctm", "lstm", "gru", "mlp"])
def test_every_encoder_has_defaults_that_work(kind: Any, encoder: str) -> None:
    config = AnswerConfig(kind=kind, encoder=encoder, num_classes=10)
    assert config.num_action_sync_neurons == config.num_output_sync_neurons == 16
    assert config.num_answer_ticks == (1 if encoder == "digits" else 0)
    assert replace(config, num_ticks=3) == AnswerConfig(kind=kind, encoder=encoder, num_classes=10, num_ticks=3)


def test_the_query_takes_the_neurons_that_are_left() -> None:
    assert AnswerConfig(num_neurons=20).num_action_sync_neurons == 4
    assert AnswerConfig(num_neurons=20, pairing="random").num_action_sync_neurons == 16
    assert AnswerConfig(num_heads=0).num_action_sync_neurons == 0
    assert AnswerConfig(kind="lstm", baseline_dim=8).num_action_sync_neurons == 0
    with pytest.raises(ValueError, match=r"num_neurons must be at least .* = 17"):
        AnswerConfig(num_neurons=16)
