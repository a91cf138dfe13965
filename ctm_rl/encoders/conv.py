"""Encoder of small image observations, and the axes of images."""

from typing import NamedTuple

from jaxtyping import Shaped
from torch import Tensor, nn

_CHANNELS = (32, 64, 64)
MAX_PLACES = 8
"""Places on each side, at most, that the last layer of an image encoder reads."""


class ImageAxes(NamedTuple):
    """The axes of an image; of three, the smaller of the first and the last axis are the channels."""

    channels: int
    height: int
    width: int
    is_channels_first: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], encoder: str) -> "ImageAxes":
        """The axes of a shape.

        Args:
            shape: [H, W], [H, W, C] or [C, H, W].
            encoder: for the message.

        Raises:
            ValueError: it is another shape.
        """
        if len(shape) not in (2, 3):
            raise ValueError(
                f"the {encoder} encoder reads [height, width], [height, width, channels] or [channels, height, width], "
                f"got {shape}."
            )
        if len(shape) == 2:
            return cls(1, *shape, is_channels_first=False)
        if shape[0] < shape[2]:
            return cls(*shape, is_channels_first=True)
        return cls(shape[2], *shape[:2], is_channels_first=False)

    def channels_first(self, images: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "N C H W"]:
        """Views images [N, ...] as [N, C, H, W]."""
        if self.is_channels_first:
            return images.reshape(len(images), self.channels, self.height, self.width)
        return images.reshape(len(images), self.height, self.width, self.channels).permute(0, 3, 1, 2)


class ConvEncoder(nn.Module):
    """Three 3x3 convolutions with stride 2 and ReLU, pooled to at most 8 x 8 places, then Linear and LayerNorm.

    Args:
        observation_shape: [H, W], [H, W, C] or [C, H, W], see ``ImageAxes``.
        feature_dim: F.
        scale: numbers are divided by this; 255 for bytes.
    """

    def __init__(self, observation_shape: tuple[int, ...], feature_dim: int, scale: float = 255.0) -> None:
        super().__init__()
        self._axes = axes = ImageAxes.of(observation_shape, "conv")
        self.out_dim = feature_dim
        self._scale = scale
        channels, sides = axes.channels, [axes.height, axes.width]
        layers: list[nn.Module] = []
        for width in _CHANNELS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU()]
            channels, sides = width, [(side + 1) // 2 for side in sides]
        places = tuple(min(side, MAX_PLACES) for side in sides)
        if list(places) != sides:
            layers.append(nn.AdaptiveAvgPool2d(places))
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * places[0] * places[1], feature_dim), nn.LayerNorm(feature_dim)
        )

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Tensor:
        """Maps images of bytes or numbers [N, ...] to features [N, F]."""
        images = self._axes.channels_first(observations.to(next(self.parameters()).dtype))
        return self.layers(images / self._scale)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can be an image: two long sides, and no or few channels."""
    if len(shape) == 2:
        return min(shape) >= MAX_PLACES
    return len(shape) == 3 and min(shape[0], shape[2]) <= 16 and sorted(shape)[1] >= MAX_PLACES
