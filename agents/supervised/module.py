"""A model that answers, as an RLModule: predictions and certainties of every tick for a batch of inputs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from ray.rllib.core.columns import Columns

from ctm_rl.agents.experiments.answering import LossKind
from ctm_rl.agents.rllib.plain_checkpoint import PlainlySavedModule, weights_of
from ctm_rl.config import AnswerConfig, is_own_encoder
from ctm_rl.describe_space import describe_space
from ctm_rl.engine.dispatch import ModelDispatch
from ctm_rl.errors import UserError
from ctm_rl.inference.load_model import MODEL_ENTRY, describe
from ctm_rl.models.answering import Thought, build_model
from ctm_rl.models.preprocessing import model_inputs
from ctm_rl.models.rebuild_config import rebuild_config

PREDICTIONS = "predictions"
CERTAINTIES = "certainties"
"""Keys of the outputs of ``forward_train``."""


class AnsweringModule(PlainlySavedModule):
    """A ``ContinuousThoughtMachine`` or a baseline, for supervised learning.

    The constructor's arguments are RLlib's. ``model_config`` holds the fields of ``AnswerConfig``, which must fit the
    spaces, see ``fit_answer_config``.
    """

    def setup(self) -> None:
        """Builds the model; RLlib calls this once, from the constructor."""
        super().setup()
        config = rebuild_config(AnswerConfig, self.model_config)
        self.model = build_model(config)
        self._dispatch = ModelDispatch(config.use_graph)

    def think(self, observations: Any) -> Thought:
        """Answers a batch of observations, [B, ...]."""
        inputs, question = model_inputs(self.model.config, observations)
        arguments = (inputs,) if question is None else (inputs, question)
        predictions, certainties = self._dispatch.run(self.model, *arguments)
        return Thought(predictions, certainties)

    def _describe(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """See ``PlainlySavedModule``: the model."""
        return {MODEL_ENTRY: {**describe(self.model), "weights": weights_of(self.model, weights, "model.")}}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Answers: predictions [B, G x C, K] and certainties [B, K]."""
        thought = self.think(batch[Columns.OBS])
        return {PREDICTIONS: thought.predictions, CERTAINTIES: thought.certainties}


def fit_answer_config(
    config: AnswerConfig, observation_space: gym.Space, action_space: gym.Space, loss: LossKind
) -> AnswerConfig:
    """Sets the fields that follow from a task's spaces: groups and classes of an answer, and the input size.

    Args:
        config: the model.
        observation_space: of one input.
        action_space: of one answer.
        loss: with ``order``, the answer is emitted over the ticks, with one more class for emitting nothing.

    Returns:
        The model with its groups, classes and input size set.

    Raises:
        UserError: the spaces are not supported, or the encoder does not read such inputs.
    """
    num_groups, num_classes = _count_answers(action_space)
    if loss == "order":
        if num_groups != num_classes:
            raise UserError(
                f"learning.loss order needs an answer that orders its elements, got {describe_space(action_space)}."
            )
        if config.num_ticks < num_groups:
            raise UserError(
                f"learning.loss order emits {num_groups} elements one by one: model.num_ticks must be at least that, "
                f"got {config.num_ticks}."
            )
        num_groups, num_classes = 1, num_groups + 1
    input_dim = _input_dim(config, observation_space)
    fitted: dict[str, Any] = {"num_groups": num_groups, "num_classes": num_classes, "input_dim": input_dim}
    if is_own_encoder(config.encoder):
        fitted["input_shape"] = _input_shape(observation_space)
    try:
        return dataclasses.replace(config, **fitted, is_emitted=loss == "order")
    except ValueError as error:
        raise UserError(f"model.{error}") from error


def _count_answers(space: gym.Space) -> tuple[int, int]:
    """Numbers of groups and of classes of an answer."""
    if isinstance(space, Discrete) and space.start == 0:
        return 1, int(space.n)
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and len(set(space.nvec.tolist())) == 1:
        return len(space.nvec), int(space.nvec[0])
    raise UserError(
        f"action space {describe_space(space)} is not supported: it must be Discrete, counted from 0, or MultiDiscrete "
        "with the same number of classes at each place."
    )


def _input_dim(config: AnswerConfig, space: gym.Space) -> int:
    """Channels of images, or size of vectors, that the encoder reads."""
    encoder = config.encoder
    if is_own_encoder(encoder):
        return _input_shape(space)[0]
    if encoder == "digits":
        if isinstance(space, Dict) and {"digits", "num_digits", "question"} <= set(space.spaces):
            return 1
        wanted = "digits, num_digits and a question"
    elif encoder in ("none", "parity"):
        if isinstance(space, Box) and len(space.shape) == 1:
            if encoder == "none" and config.num_heads:
                raise UserError("model.num_heads must be 0 with encoder none: a vector has no places to attend to.")
            return space.shape[0]
        wanted = "a vector"
    else:
        if isinstance(space, Box) and len(space.shape) == 3 and space.dtype == np.uint8:
            # The smaller of the first and the last axis is that of channels, as for images that a policy sees.
            *sides, channels = space.shape if space.shape[2] <= space.shape[0] else (*space.shape[1:], space.shape[0])
            if config.positions == "rotational" and sides[0] != sides[1]:
                raise UserError(
                    f"model.positions rotational needs square images, got observations {describe_space(space)}."
                )
            return channels
        wanted = "an image of bytes, [height, width, channels] or [channels, height, width]"
    raise UserError(
        f"model.encoder {encoder} reads {wanted}, got observations {describe_space(space)}; choose another."
    )


def _input_shape(space: gym.Space) -> tuple[int, ...]:
    """The shape of one input as an encoder of the user's gets it, see ``models.preprocessing.model_inputs``."""
    if not isinstance(space, Box) or not space.shape:
        raise UserError(
            f"an encoder of your own reads a Box with at least one axis, got observations {describe_space(space)}; a "
            "wrapper can turn them into one."
        )
    shape = tuple(map(int, space.shape))
    has_channels_last = len(shape) == 3 and space.dtype == np.uint8 and shape[2] <= shape[0]
    return (shape[2], *shape[:2]) if has_channels_last else shape
