"""Encoders: from what a task shows to features; each with ``out_dim``, the channels it gives."""

from typing import Any

from torch import Tensor, nn

from ctm_rl.config import OBSERVATION_ENCODERS, RESNETS, ThinkerConfig, check_choice
from ctm_rl.encoders.control import ControlEncoder
from ctm_rl.encoders.digits import DigitEncoder
from ctm_rl.encoders.grid import GridEncoder
from ctm_rl.encoders.image import ImageEncoder, ShallowWide
from ctm_rl.encoders.parity import ParityEncoder


class IdentityEncoder(nn.Module):
    """Takes the input as it comes."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.out_dim = input_dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the input unchanged."""
        return inputs


InputEncoder = ImageEncoder | ShallowWide | ParityEncoder | DigitEncoder | IdentityEncoder
ObservationEncoder = ControlEncoder | GridEncoder


def build_input_encoder(config: ThinkerConfig) -> InputEncoder:
    """The encoder that ``config.encoder`` names, for data that attention looks at: [B, ...] to [B, C, places]."""
    if config.encoder in RESNETS:
        return ImageEncoder(config.encoder, config.input_dim)
    builders: dict[str, Any] = {
        "shallow-wide": lambda: ShallowWide(config.input_dim),
        "parity": lambda: ParityEncoder(config.feature_dim),
        "conv": lambda: DigitEncoder(config.feature_dim, config.input_dim),
        "digits": lambda: DigitEncoder(config.feature_dim),
        "none": lambda: IdentityEncoder(config.input_dim),
    }
    return builders[config.encoder]()


def build_observation_encoder(name: str, observation_shape: tuple[int, ...], feature_dim: int) -> ObservationEncoder:
    """The encoder called ``name``, for observations of an environment: [N, ...] to [N, out_dim]."""
    check_choice("encoder", name, OBSERVATION_ENCODERS)
    if name == "grid":
        return GridEncoder(observation_shape, feature_dim)
    return ControlEncoder(observation_shape, feature_dim)
