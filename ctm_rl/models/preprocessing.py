"""From what an environment shows to what a model reads: bytes become numbers, questions lose their padding."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ctm_rl.config import AnswerConfig

NOTHING = -3
"""Stands in a question where it has ended."""

Shown = Tensor | Mapping[str, Tensor]
"""An observation of B rows: one tensor, or several by name."""


def model_inputs(config: AnswerConfig, shown: Shown) -> tuple[Tensor, Int[Tensor, "B N"] | None]:
    """Makes a model's inputs of a batch of observations.

    Args:
        config: of the model.
        shown: pictures [B, H, W, C] of bytes; vectors [B, F]; or a question: ``digits`` [B, N, H, W, 1] of bytes, with
            how many of them count in ``num_digits`` [B], and ``question`` [B, Q], ended by ``NOTHING``.

    Returns:
        The inputs [B, ...], and the question or None: what ``ContinuousThoughtMachine`` takes.

    Raises:
        ValueError: the rows of a batch have different numbers of digits or of operations, which would end at different
            ticks.
    """
    if isinstance(shown, Mapping):
        num_digits = _same(shown["num_digits"], "digits")
        length = _same((shown["question"] != NOTHING).sum(1), "parts of the question")
        digits = shown["digits"][:, :num_digits]
        pictures = pixels(config, digits.flatten(0, 1)).unflatten(0, digits.shape[:2])
        return pictures, shown["question"][:, :length]
    if shown.dtype == torch.uint8 and shown.dim() == 4:
        return pixels(config, shown), None
    return shown.float(), None


def pixels(config: AnswerConfig, pictures: UInt8[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    """Bytes as numbers, shifted and scaled channel by channel, channels first."""
    mean, std = (torch.tensor(values, device=pictures.device) for values in (config.pixel_mean, config.pixel_std))
    # (x / 255 - mean) / std in one product and one sum
    scale, shift = 1.0 / (255.0 * std), mean / std
    return (pictures.float() * scale - shift).movedim(-1, -3).contiguous()


def _same(counts: Tensor, what: str) -> int:
    """The number that all rows have."""
    low, high = (int(value) for value in counts.aminmax())
    if low != high:
        raise ValueError(f"all rows of a batch must have the same number of {what}, got {low} to {high}.")
    return low
