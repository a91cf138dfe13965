"""Encoder of image observations."""

from jaxtyping import Shaped
from torch import Tensor, nn

_CHANNELS = (32, 64, 64)
_MAX_PLACES = 8


class ConvEncoder(nn.Module):
    """Three 3x3 convolutions with stride 2 and ReLU, pooled to at most 8 x 8 places, then Linear and LayerNorm.

    Args:
        observation_shape: [H, W], [H, W, C] or [C, H, W]; the smaller of the first and the last axis of three is C.
        feature_dim: F.
        scale: numbers are divided by this; 255 for bytes.
    """

    def __init__(self, observation_shape: tuple[int, ...], feature_dim: int, scale: float = 255.0) -> None:
        super().__init__()
        if len(observation_shape) not in (2, 3):
            raise ValueError(
                f"the conv encoder reads [height, width], [height, width, channels] or [channels, height, width], "
                f"got {observation_shape}."
            )
        self.out_dim = feature_dim
        self._scale = scale
        shape = observation_shape if len(observation_shape) == 3 else (*observation_shape, 1)
        self._shape = shape
        self._is_channels_first = shape[0] < shape[2]
        channels, *sides = shape if self._is_channels_first else (shape[2], *shape[:2])
        layers: list[nn.Module] = []
        for width in _CHANNELS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU()]
            channels, sides = width, [(side + 1) // 2 for side in sides]
        places = tuple(min(side, _MAX_PLACES) for side in sides)
        if list(places) != sides:
            layers.append(nn.AdaptiveAvgPool2d(places))
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * places[0] * places[1], feature_dim), nn.LayerNorm(feature_dim)
        )

    def forward(self, observations: Shaped[Tensor, "N ..."]) -> Tensor:
        """Maps images of bytes or numbers [N, ...] to features [N, F]."""
        images = observations.to(next(self.parameters()).dtype).reshape(len(observations), *self._shape)
        images = images if self._is_channels_first else images.permute(0, 3, 1, 2)
        return self.layers(images / self._scale)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can be an image: two long sides, and no or few channels."""
    if len(shape) == 2:
        return min(shape) >= _MAX_PLACES
    return len(shape) == 3 and min(shape[0], shape[2]) <= 16 and sorted(shape)[1] >= _MAX_PLACES
