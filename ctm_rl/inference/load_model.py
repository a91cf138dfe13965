"""Trained models that answer, from a run's checkpoint, without Ray."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.config import AnswerConfig
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model
from ctm_rl.models.rebuild_config import rebuild_config

MODEL_ENTRY = "model"
"""Key under which a checkpoint holds the model of a run that learned to answer."""


def load_model(path: str | Path, device: str | torch.device = "cpu") -> ContinuousThoughtMachine | FeedForwardModel:
    """Loads the model of a run that learned to answer.

    Args:
        path: a run's directory (its newest checkpoint is taken) or one checkpoint in it.
        device: where the model computes.

    Returns:
        The model, in evaluation mode. ``models.preprocessing.model_inputs`` makes its inputs from observations.

    Raises:
        CheckpointError: there is no usable checkpoint, or it holds no such model.
    """
    place = checkpoint.find(Path(path))
    state = checkpoint.load(place)
    if MODEL_ENTRY not in state:
        raise CheckpointError(f"{place} holds no model that answers; Policy.from_checkpoint loads one that acts.")
    return rebuild_model(place, state).to(device)


def rebuild_model(place: Path, state: Mapping[str, Any]) -> ContinuousThoughtMachine | FeedForwardModel:
    """Rebuilds the model that a checkpoint's state describes; see ``load_model``."""
    with checkpoint.rebuilding("model", place):
        entry = state[MODEL_ENTRY]
        model = build_model(rebuild_config(AnswerConfig, entry["config"]))
        model.load_state_dict(entry["weights"])
        return model.eval()


def describe(model: ContinuousThoughtMachine | FeedForwardModel) -> dict[str, Any]:
    """The content of a checkpoint under ``MODEL_ENTRY``: configuration and weights."""
    return {"config": dataclasses.asdict(model.config), "weights": dict(model.state_dict())}
