"""From observations to the inputs of a model that answers: bytes become numbers, questions lose their padding."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ctm_rl.config import AnswerConfig

NOTHING = -3
"""Marks the end of a question in its padded array."""

Observations = Tensor | Mapping[str, Tensor]
"""An observation of B rows: one tensor, or several by name."""


def model_inputs(config: AnswerConfig, observations: Observations) -> tuple[Tensor, Int[Tensor, "B N"] | None]:
    """Makes the inputs of a model from a batch of observations.

    Args:
        config: of the model.
        observations: images [B, H, W, C] of bytes; vectors [B, F]; or a question: ``digits`` [B, N, H, W, 1] of bytes,
            of which the first ``num_digits`` [B] count, and ``question`` [B, Q], ended by ``NOTHING``.

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


def pixels(config: AnswerConfig, images: UInt8[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    """Images of bytes as numbers, shifted and scaled channel by channel, channels first."""
    mean, std = (torch.tensor(values, device=images.device) for values in (config.pixel_mean, config.pixel_std))
    # (x / 255 - mean) / std as one product and one sum
    scale, shift = 1.0 / (255.0 * std), mean / std
    return (images.float() * scale - shift).movedim(-1, -3).contiguous()


def vectors(config: AnswerConfig, numbers: Tensor) -> Float[Tensor, "B ..."]:
    """Vectors or sequences as float32, shifted and scaled place by place where the model has been told how."""
    if not config.vector_mean:
        return numbers.float()
    mean, std = (torch.tensor(values, device=numbers.device) for values in (config.vector_mean, config.vector_std))
    return (numbers.float() - mean) / std


def _same(counts: Tensor, what: str) -> int:
    """The count, which must be the same in all rows."""
    low, high = (int(value) for value in counts.aminmax())
    if low != high:
        raise ValueError(f"all rows of a batch must have the same number of {what}, got {low} to {high}.")
    return low
