"""From observations to the inputs of a model that answers: checks, bytes to numbers, questions without padding."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ctm_rl.config import RESNETS, AnswerConfig

NOTHING = -3
"""Marks the end of a question in its padded array."""
QUESTION_PARTS = ("digits", "num_digits", "question")
"""Names of the arrays in an observation of digits with a question."""
IMAGE_ENCODERS = (*RESNETS, "shallow-wide", "conv")
"""Encoders that read images of bytes."""

_ROUNDING = 0.02
"""What rounding changes a byte by, at most, when it is scaled and scaled back."""

Observations = Tensor | Mapping[str, Tensor]
"""An observation of B rows: one tensor, or several by name."""


def model_inputs(config: AnswerConfig, observations: Observations) -> tuple[Tensor, Int[Tensor, "B N"] | None]:
    """Makes the inputs of a model from a batch of observations, which ``check_observations`` has or could have made.

    Args:
        config: of the model.
        observations: images of bytes, channels last [B, H, W, C] or first [B, C, H, W]; vectors [B, F]; or a question:
            ``digits`` [B, N, H, W, 1] of bytes, of which the first ``num_digits`` [B] count, and ``question`` [B, Q],
            ended by ``NOTHING``.

    Returns:
        The inputs [B, ...], and the question or None: what ``ContinuousThoughtMachine`` takes.

    Raises:
        ValueError: the rows have different numbers of digits or operations, so that they would end at different ticks.
    """
    if isinstance(observations, Mapping):
        num_digits = _same(observations["num_digits"], "digits")
        length = _same((observations["question"] != NOTHING).sum(1), "parts of the question")
        digits = observations["digits"][:, :num_digits]
        images = pixels(config, digits.flatten(0, 1)).unflatten(0, digits.shape[:2])
        return images, observations["question"][:, :length]
    if observations.dtype == torch.uint8 and observations.dim() == 4:
        return pixels(config, observations), None
    return vectors(config, observations), None


def pixels(config: AnswerConfig, images: UInt8[Tensor, "B ..."]) -> Float[Tensor, "B C H W"]:
    """Images of bytes as numbers, shifted and scaled channel by channel, channels first."""
    mean, std = (torch.tensor(values, device=images.device) for values in (config.pixel_mean, config.pixel_std))
    # (x / 255 - mean) / std as one product and one sum
    scale, shift = 1.0 / (255.0 * std), mean / std
    if not _has_channels_last(config, images.shape):
        images = images.movedim(-3, -1)
    return (images.float() * scale - shift).movedim(-1, -3).contiguous()


def vectors(config: AnswerConfig, numbers: Tensor) -> Float[Tensor, "B ..."]:
    """Vectors or sequences as float32, shifted and scaled place by place where the model has been told how."""
    if not config.vector_mean:
        return numbers.float()
    mean, std = (torch.tensor(values, device=numbers.device) for values in (config.vector_mean, config.vector_std))
    return (numbers.float() - mean) / std


def check_observations(config: AnswerConfig, observations: Any, device: torch.device) -> Observations:
    """Turns what an environment shows into a batch of tensors, and refuses anything that it cannot have shown.

    Args:
        config: of the model.
        observations: one observation or a batch of them: arrays, tensors or nested lists, or such by name. Images are
            bytes, with channels last or first; sequences for the parity encoder are -1 and 1.
        device: where the tensors go.

    Returns:
        The batch, as ``model_inputs`` takes it; one observation counts as a batch of one.

    Raises:
        ValueError: one line that says what the model expects and what it got.
    """
    if config.encoder == "digits":
        return _check_question(config, observations, device)
    given = _to_tensor(observations, device)
    if config.encoder in IMAGE_ENCODERS:
        return _check_images(config, given, 3)
    if config.encoder in ("parity", "none"):
        return _check_vectors(config, given)
    # an encoder of the user's own: images of bytes are the only observations whose batch axis is known
    return given[None] if given.dtype == torch.uint8 and given.dim() == 3 else given


def rows_of_equal_length(observations: Observations) -> list[tuple[Tensor, Observations]]:
    """The rows of a batch that end at the same tick, with their indices: all, but for questions of different lengths.

    Args:
        observations: from ``check_observations``.

    Returns:
        Indices of rows and their observations, as often as there are different lengths.
    """
    if not isinstance(observations, Mapping):
        return [(torch.arange(len(observations)), observations)]
    lengths = torch.stack((observations["num_digits"], (observations["question"] != NOTHING).sum(1)), 1)
    kinds, kind = lengths.unique(dim=0, return_inverse=True)
    groups = [(kind == index).nonzero()[:, 0] for index in range(len(kinds))]
    return [(rows, {name: part[rows] for name, part in observations.items()}) for rows in groups]


def is_scaled(inputs: object, config: AnswerConfig) -> TypeGuard[Tensor]:
    """Whether these are images of real numbers, which ``check_scaled`` checks; observations are bytes."""
    return isinstance(inputs, Tensor) and inputs.is_floating_point() and config.encoder in (*IMAGE_ENCODERS, "digits")


def check_scaled(config: AnswerConfig, inputs: Tensor) -> None:
    """Refuses images that were not shifted and scaled as in training: other axes, or other numbers.

    Args:
        config: of the model.
        inputs: images [B, C, H, W], or digits [B, N, 1, H, W].

    Raises:
        ValueError: one line that says what the model expects.
    """
    num_axes = 5 if config.encoder == "digits" else 4
    if inputs.dim() != num_axes or inputs.shape[-3] != config.input_dim:
        digits = "digits, " if config.encoder == "digits" else ""
        raise ValueError(
            f"the model takes images [batch, {digits}{config.input_dim}, height, width], got "
            f"{_described(inputs)}; model.answer(observations) takes images of bytes as the environment shows them."
        )
    mean, std = (
        torch.tensor(values, device=inputs.device)[:, None, None] for values in (config.pixel_mean, config.pixel_std)
    )
    levels = (inputs * std + mean) * 255  # those of the bytes, if they were scaled as in training
    if not inputs.numel() or _are_bytes(levels):
        return
    low, high = (float(value) for value in inputs.aminmax())
    is_outside = bool(levels.min() < -1 or levels.max() > 256)
    # Without a dark pixel they were divided by 255 and not shifted, or are bytes in another scale.
    is_unshifted = bool((mean > 0).all()) and low >= 0 and high <= 1
    if is_outside or is_unshifted or any(map(_are_bytes, (inputs * 255, inputs * 127.5 + 127.5))):
        darkest, brightest = float((-mean / std).min()), float(((1 - mean) / std).max())
        raise ValueError(
            "the model takes images scaled as in training, (x / 255 - pixel_mean) / pixel_std, to between "
            f"{darkest:.4g} and {brightest:.4g}; got other numbers, from {low:.4g} to {high:.4g}. "
            "model.answer(observations) takes images of bytes as the environment shows them, and model.forward(inputs) "
            "any numbers."
        )


def _are_bytes(levels: Tensor) -> bool:
    """Whether these are whole numbers from 0 to 255, but for rounding."""
    return bool(((levels - levels.round()).abs() < _ROUNDING).all() and levels.min() > -0.5 and levels.max() < 255.5)


def _check_images(config: AnswerConfig, images: Tensor, num_axes: int) -> Tensor:
    """Checks images of bytes, one observation of ``num_axes`` axes or a batch of them; returns a batch."""
    leading = "[" + "number of digits, " * (num_axes - 3)
    expected = (
        f"images of bytes, 0 to 255, as the environment shows them: {leading}height, width, {config.input_dim}]"
        f"{' or channels first' if num_axes == 3 else ''}, or a batch of these"
    )
    if images.is_floating_point():
        raise ValueError(f"the model answers {expected}; got {_described(images)}, numbers that may have been scaled.")
    if images.dtype != torch.uint8:
        if images.dtype == torch.bool or (
            images.numel() and not 0 <= images.long().min() <= images.long().max() <= 255
        ):
            raise ValueError(f"the model answers {expected}; got {_described(images)} with other numbers.")
        images = images.to(torch.uint8)
    if images.dim() not in (num_axes, num_axes + 1) or config.input_dim not in (images.shape[-1], images.shape[-3]):
        raise ValueError(f"the model answers {expected}; got {_described(images)}.")
    return images if images.dim() > num_axes else images[None]


def _check_vectors(config: AnswerConfig, vectors: Tensor) -> Tensor:
    """Checks vectors of numbers, one or a batch; returns a batch."""
    is_parity = config.encoder == "parity"
    # published models of parity have no size of their own for the input
    sizes = {config.input_dim, config.num_groups} if is_parity else {config.input_dim}
    what = "sequences of -1 and 1" if is_parity else "vectors of finite numbers"
    expected = f"{what} as the environment shows them, of length {' or '.join(map(str, sorted(sizes)))}"
    if vectors.dim() not in (1, 2) or vectors.shape[-1] not in sizes:
        raise ValueError(f"the model answers {expected}, one or a batch of them; got {_described(vectors)}.")
    vectors = vectors.float() if vectors.dim() > 1 else vectors.float()[None]
    if not (vectors.abs() == 1 if is_parity else vectors.isfinite()).all():
        low, high = (float(value) for value in vectors.aminmax())
        raise ValueError(f"the model answers {expected}; got numbers from {low:g} to {high:g}.")
    return vectors


def _check_question(config: AnswerConfig, observations: Any, device: torch.device) -> Mapping[str, Tensor]:
    """Checks digits with their question, one observation or a batch; returns a batch."""
    if not isinstance(observations, Mapping) or not set(QUESTION_PARTS) <= observations.keys():
        got = (
            f"the entries {', '.join(map(str, observations))}" if isinstance(observations, Mapping) else "no dictionary"
        )
        raise ValueError(
            "the model answers questions as the environment shows them, a dictionary with "
            f"{', '.join(QUESTION_PARTS)}; got {got}."
        )
    digits, num_digits, question = (_to_tensor(observations[name], device) for name in QUESTION_PARTS)
    is_one = question.dim() == 1
    digits = _check_images(config, digits, 4)
    question = question[None] if is_one else question
    num_digits = num_digits.reshape(1) if is_one else num_digits
    if question.dim() != 2 or num_digits.shape != question.shape[:1] or len(digits) != len(question):
        raise ValueError(
            "digits, num_digits and question must have as many rows, got "
            f"{', '.join(_described(part) for part in (digits, num_digits, question))}."
        )
    return dict(zip(QUESTION_PARTS, (digits, num_digits.long(), question.long()), strict=True))


def _has_channels_last(config: AnswerConfig, shape: tuple[int, ...]) -> bool:
    """Whether the last axis of images is that of channels, and not the third last one."""
    return shape[-1] == config.input_dim or shape[-3] != config.input_dim


def _to_tensor(observations: Any, device: torch.device) -> Tensor:
    """An array, a tensor, or nested lists of numbers as a tensor."""
    if isinstance(observations, Tensor):
        return observations.to(device)
    try:
        # arrays that cannot be written to, of which PyTorch warns, are copied
        return torch.from_numpy(np.require(np.asarray(observations), requirements=("C", "W"))).to(device)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"an observation must be numbers, or numbers by name, got {type(observations).__name__}."
        ) from error


def _described(given: Tensor) -> str:
    """Type and shape for a message."""
    return f"{str(given.dtype).removeprefix('torch.')} of shape {list(given.shape)}"


def _same(counts: Tensor, what: str) -> int:
    """The count, which must be the same in all rows."""
    low, high = (int(value) for value in counts.aminmax())
    if low != high:
        raise ValueError(f"all rows of a batch must have the same number of {what}, got {low} to {high}.")
    return low
