"""Trained models that answer, from a run's checkpoint, without Ray."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ctm_rl.checkpoints import schema, store
from ctm_rl.checkpoints.best import find
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.config import AnswerConfig, check_own_encoders
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel, build_model
from ctm_rl.models.preprocessing import check_observations, check_scaled, is_scaled, model_inputs
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
        path: a run's directory, one checkpoint in it, ``zoo:NAME``, or a checkpoint of RLlib that
            ``Algorithm.save_to_path`` or ``save`` has made with one of our modules.
        device: where the model computes.
        checkpoint: of a run: best, last, or the number of an iteration; ``None``: the last one.
        trust: whether an encoder may be imported from the current folder although no run of this user on this machine
            has named it.

    Returns:
        The model, in evaluation mode. ``model.answer(observations)`` takes what the environment shows; so does
        ``model(observations)``, which returns the logits of all ticks and refuses images that were scaled otherwise
        than in training.

    Raises:
        CheckpointError: there is no usable checkpoint, or it holds no such model.
        CodeError: its encoder is not trusted.
    """
    place = find(Path(path), checkpoint)
    model = store.read_newest(place, lambda place, state: rebuild_model(place, state, trust=trust)).to(device)
    model.register_forward_pre_hook(_prepare, with_kwargs=True)
    return model


def _prepare(
    model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of a loaded model: observations become inputs, and inputs are checked."""
    assert isinstance(model, ContinuousThoughtMachine | FeedForwardModel)
    names = dict(zip(("inputs", "question"), arguments, strict=False)) | named
    inputs = names.get("inputs")
    if is_scaled(inputs, model.config):
        check_scaled(model.config, inputs)
    else:
        device = next(model.parameters()).device
        inputs, question = model_inputs(model.config, check_observations(model.config, inputs, device))
        names |= {"inputs": inputs} if question is None else {"inputs": inputs, "question": question}
    return (), names


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
