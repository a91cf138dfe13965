"""Trained models that answer, from a run's checkpoint, without Ray."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ctm_rl.checkpoints import schema, store
from ctm_rl.checkpoints.best import find
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.config import AnswerConfig, check_own_encoders
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model
from ctm_rl.trust import check_encoders

MODEL_ENTRY = "model"
"""Key under which a checkpoint holds the model of a run that learned to answer."""


def load_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    checkpoint: str | int | None = None,
    trust: bool = False,
) -> ContinuousThoughtMachine | FeedForwardModel:
    """Loads the model of a run that learned to answer.

    Args:
        path: a run's directory or one checkpoint in it.
        device: where the model computes.
        checkpoint: of a run: best, last, or the number of an iteration; ``None``: the last one.
        trust: whether an encoder may be imported from the current folder although no run of this user on this machine
            has named it.

    Returns:
        The model, in evaluation mode. ``models.preprocessing.model_inputs`` makes its inputs from observations.

    Raises:
        CheckpointError: there is no usable checkpoint, or it holds no such model.
        CodeError: its encoder is not trusted.
    """
    place = find(Path(path), checkpoint)
    return store.read_newest(place, lambda place, state: rebuild_model(place, state, trust=trust)).to(device)


def rebuild_model(
    place: Path, state: Mapping[str, Any], *, trust: bool = False
) -> ContinuousThoughtMachine | FeedForwardModel:
    """Rebuilds the model that a checkpoint's state describes; see ``load_model``."""
    if MODEL_ENTRY not in state:
        raise CheckpointError(f"{place} holds no model that answers; Policy.from_checkpoint loads one that acts.")
    with store.rebuilding("model", place):
        config, weights = _described(state[MODEL_ENTRY])
        check_encoders(config, place, is_trusted=trust)
        return schema.rebuild_model(lambda: build_model(config), config, weights).eval()


def outline_model(entry: object, wanted: AnswerConfig) -> ContinuousThoughtMachine | FeedForwardModel:
    """The model that a checkpoint's entry describes, without memory for its weights.

    Args:
        entry: of the checkpoint.
        wanted: the model of the run; the entry's must have the same encoder.

    Raises:
        ValueError: the entry describes none, or its weights cannot be those of its configuration.
    """
    config, weights = _described(entry)
    check_own_encoders(config, wanted)
    return schema.outline(lambda: build_model(config), config, weights)


def _described(entry: object) -> tuple[AnswerConfig, object]:
    """What a checkpoint's entry describes: the configuration of the model and its weights."""
    parts = schema.check_mapping(MODEL_ENTRY, entry, keys=("config", "weights"))
    return schema.check_settings(AnswerConfig, parts["config"], "config"), parts["weights"]


def describe(model: ContinuousThoughtMachine | FeedForwardModel) -> dict[str, Any]:
    """The content of a checkpoint under ``MODEL_ENTRY``: configuration and weights."""
    return {"config": dataclasses.asdict(model.config), "weights": dict(model.state_dict())}
