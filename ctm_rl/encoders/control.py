"""Encoders of vectors, such as the observations of classic control."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.encoders.normaliser import RunningNormaliser


class PlainEncoder(nn.Module):
    """The numbers of an observation themselves, flat: how large they are is not lost, as in a norm of features.

    Args:
        observation_shape: shape of one observation.
        scale: numbers are divided by this; 255 for bytes.
        is_normalised: whether to subtract a running mean and to divide by a running standard deviation, which
            ``RunningNormaliser.observe_`` updates.
    """

    _format: Tensor

    def __init__(self, observation_shape: tuple[int, ...], scale: float = 1.0, *, is_normalised: bool = False) -> None:
        super().__init__()
        self.out_dim = math.prod(observation_shape)
        self._scale = scale
        self.normaliser = RunningNormaliser(self.out_dim) if is_normalised else None
        self.register_buffer("_format", torch.zeros(()), persistent=False)  # the number format of the policy

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N features"]:
        """Maps observations [N, ...] of any number type to features [N, out_dim]."""
        numbers = self.numbers(observations)
        return numbers if self.normaliser is None else self.normaliser(numbers)

    def numbers(self, observations: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N numbers"]:
        """Observations as flat vectors, scaled but not normalised."""
        numbers = observations.flatten(1).to(self._format.dtype)
        return numbers if self._scale == 1.0 else numbers / self._scale


class ControlEncoder(PlainEncoder):
    """The same numbers, then twice Linear, GLU, LayerNorm. Source: the published RL experiments of arXiv:2505.05522.

    Args:
        observation_shape: shape of one observation.
        feature_dim: F.
        scale: as of ``PlainEncoder``.
        is_normalised: as of ``PlainEncoder``.
    """

    def __init__(
        self, observation_shape: tuple[int, ...], feature_dim: int, scale: float = 1.0, *, is_normalised: bool = False
    ) -> None:
        super().__init__(observation_shape, scale, is_normalised=is_normalised)
        self.out_dim = feature_dim
        layers: list[nn.Module] = [nn.Flatten()]
        for width in (math.prod(observation_shape), feature_dim):
            layers += [nn.Linear(width, 2 * feature_dim), nn.GLU(), nn.LayerNorm(feature_dim)]
        self.layers = nn.Sequential(*layers)

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N features"]:
        """Maps observations [N, ...] of any number type to features [N, F]."""
        return self.layers(super().forward(observations))
