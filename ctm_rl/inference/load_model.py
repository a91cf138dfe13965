"""Trained models that answer, from a run's checkpoint, without Ray."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ctm_rl.checkpoints import schema, store
from ctm_rl.checkpoints.best import find
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.config import AnswerConfig
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model

MODEL_ENTRY = "model"
"""Key under which a checkpoint holds the model of a run that learned to answer."""


def load_model(
    path: str | Path, device: str | torch.device = "cpu", *, checkpoint: str | int | None = None
) -> ContinuousThoughtMachine | FeedForwardModel:
    """Loads the model of a run that learned to answer.

    Args:
        path: a run's directory or one checkpoint in it.
        device: where the model computes.
        checkpoint: of a run: best, last, or the number of an iteration; ``None``: the last one.

    Returns:
        The model, in evaluation mode. ``models.preprocessing.model_inputs`` makes its inputs from observations.

    Raises:
        CheckpointError: there is no usable checkpoint, or it holds no such model.
    """
    return store.read_newest(find(Path(path), checkpoint), rebuild_model).to(device)


def rebuild_model(place: Path, state: Mapping[str, Any]) -> ContinuousThoughtMachine | FeedForwardModel:
    """Rebuilds the model that a checkpoint's state describes; see ``load_model``."""
    if MODEL_ENTRY not in state:
        raise CheckpointError(f"{place} holds no model that answers; Policy.from_checkpoint loads one that acts.")
    with store.rebuilding("model", place):
        config, weights = _described(state[MODEL_ENTRY])
        return schema.rebuild_model(lambda: build_model(config), config, weights).eval()


def outline_model(entry: object) -> ContinuousThoughtMachine | FeedForwardModel:
    """The model that a checkpoint's entry describes, without memory for its weights.

    Raises:
        ValueError: the entry describes none, or its weights cannot be those of its configuration.
    """
    config, weights = _described(entry)
    return schema.outline(lambda: build_model(config), config, weights)


def _described(entry: object) -> tuple[AnswerConfig, object]:
    """What a checkpoint's entry describes: the configuration of the model and its weights."""
    parts = schema.check_mapping(MODEL_ENTRY, entry, keys=("config", "weights"))
    return schema.check_settings(AnswerConfig, parts["config"], "config"), parts["weights"]


def describe(model: ContinuousThoughtMachine | FeedForwardModel) -> dict[str, Any]:
    """The content of a checkpoint under ``MODEL_ENTRY``: configuration and weights."""
    return {"config": dataclasses.asdict(model.config), "weights": dict(model.state_dict())}
