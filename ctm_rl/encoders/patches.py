"""Encoder of large image observations."""

import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, nn

from ctm_rl.encoders.conv import MAX_PLACES, ImageAxes

_PATCH_CHANNELS, _CHANNELS = 24, 64
_PATCHES_PER_SIDE = 12
_MIN_PATCH, _MAX_PATCH = 2, 8
_LEAST_SIDE = 48
"""Images whose sides are at least this long are read by patches unless the user chooses otherwise."""


class PatchEncoder(nn.Module):
    """A convolution on patches that do not overlap, a 3x3 convolution with stride 2, then Linear and LayerNorm.

    Patches are chosen so that there are about 12 on each side; the last ones are filled up with zeros. With 84 x 84 x 3
    bytes this needs a fourteenth of the operations of three convolutions with stride 2, besides Linear.

    Args:
        observation_shape: [H, W], [H, W, C] or [C, H, W], see ``ImageAxes``.
        feature_dim: F.
        scale: numbers are divided by this; 255 for bytes.
    """

    def __init__(self, observation_shape: tuple[int, ...], feature_dim: int, scale: float = 255.0) -> None:
        super().__init__()
        self.out_dim = feature_dim
        self._axes = axes = ImageAxes.of(observation_shape, "patches")
        self._scale = scale
        lengths = axes.height, axes.width
        self._sides = sides = _patch_side(axes.height), _patch_side(axes.width)
        counts = [-(-length // side) for length, side in zip(lengths, sides, strict=True)]
        self._missing = [count * side - length for length, count, side in zip(lengths, counts, sides, strict=True)]
        self.patches = nn.Conv2d(axes.channels, _PATCH_CHANNELS, sides, stride=sides)
        self.convolution = nn.Conv2d(_PATCH_CHANNELS, _CHANNELS, 3, stride=2, padding=1)
        places = tuple((count + 1) // 2 for count in counts)
        pooled = tuple(min(count, MAX_PLACES) for count in places)
        self.pool = nn.Identity() if pooled == places else nn.AdaptiveAvgPool2d(pooled)
        self.features = nn.Sequential(
            nn.Linear(_CHANNELS * pooled[0] * pooled[1], feature_dim), nn.LayerNorm(feature_dim)
        )

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Tensor:
        """Maps images of bytes or numbers [N, ...] to features [N, F]."""
        images = self._axes.channels_first(observations)
        if any(self._missing):
            images = F.pad(images, (0, self._missing[1], 0, self._missing[0]))
        # Converted in the layout that they have in memory; the weights are scaled, and not the far larger images.
        weight = self.patches.weight / self._scale
        places = F.relu(F.conv2d(images.to(weight.dtype), weight, self.patches.bias, self._sides))
        places = self.pool(F.relu(self.convolution(places)))
        # By places and then channels: the layout in memory, which is not copied.
        return self.features(places.permute(0, 2, 3, 1).reshape(len(images), -1))


def is_large_image(shape: tuple[int, ...]) -> bool:
    """Whether an image is read by patches: both of its sides are long."""
    axes = ImageAxes.of(shape, "patches")
    return min(axes.height, axes.width) >= _LEAST_SIDE


def _patch_side(side: int) -> int:
    """The side of a patch."""
    return min(max(-(-side // _PATCHES_PER_SIDE), _MIN_PATCH), _MAX_PATCH)
