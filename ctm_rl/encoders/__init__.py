"""Encoders: from inputs or observations to features; each has ``out_dim``, the number of channels it returns.

Imports ``spaces``; imported by ``models``, ``inference`` and ``agents``.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from ctm_rl.config import RESNETS, AnswerConfig, encoders_by_part, is_own_encoder
from ctm_rl.encoders.categories import CategoriesEncoder
from ctm_rl.encoders.control import ControlEncoder, PlainEncoder
from ctm_rl.encoders.conv import ConvEncoder
from ctm_rl.encoders.digits import DigitEncoder
from ctm_rl.encoders.grid import GridEncoder
from ctm_rl.encoders.image import ImageEncoder, ShallowWide
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.encoders.own import OwnEncoder
from ctm_rl.encoders.parity import ParityEncoder
from ctm_rl.encoders.patches import PatchEncoder
from ctm_rl.encoders.text import TextEncoder
from ctm_rl.spaces.observations import Layout, Part


class IdentityEncoder(nn.Module):
    """Passes the input on."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.out_dim = input_dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the input unchanged."""
        return inputs


InputEncoder = ImageEncoder | ShallowWide | ParityEncoder | DigitEncoder | IdentityEncoder | OwnEncoder
PartEncoder = PlainEncoder | ConvEncoder | PatchEncoder | GridEncoder | CategoriesEncoder | TextEncoder | OwnEncoder


class PartsEncoder(nn.Module):
    """Several encoders, each for its part of a packed observation; their features are concatenated.

    Args:
        layout: the parts.
        feature_dim: F of each of them.
        own: encoders of the user's, by the names of the parts that they read in the place of ours.
        is_normalised: for vectors; see ``ControlEncoder``.
    """

    def __init__(
        self, layout: Layout, feature_dim: int, own: Mapping[str, str] | None = None, *, is_normalised: bool = False
    ) -> None:
        super().__init__()
        own = own or {}
        self.parts = nn.ModuleList(
            _build_part(part, feature_dim, own.get(part.name), is_normalised) for part in layout.parts
        )
        self._encoders = cast(list[PartEncoder], list(self.parts))
        self.out_dim = sum(part.out_dim for part in self._encoders)
        self._sizes = [part.size for part in layout.parts]
        self._shapes = [part.packed_shape for part in layout.parts]

    def forward(self, observations: Shaped[Tensor, "N size"]) -> Tensor:
        """Maps packed observations [N, size] to features [N, out_dim]."""
        return torch.cat([encoder(piece) for encoder, piece in self.pieces(observations)], -1)

    def pieces(self, observations: Shaped[Tensor, "N size"]) -> list[tuple[PartEncoder, Tensor]]:
        """Each part's encoder with the part of packed observations that it reads."""
        pieces: Any = observations.split(self._sizes, -1)
        shaped = [piece.unflatten(-1, shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return list(zip(self._encoders, shaped, strict=True))


ObservationEncoder = PartEncoder | PartsEncoder


def build_input_encoder(config: AnswerConfig) -> InputEncoder:
    """The encoder that ``config.encoder`` names, for data that is attended to: [B, ...] to [B, C, places].

    Raises:
        ValueError: it is one of the user's, and ``config.input_shape``, which it is made for, is not set.
    """
    if is_own_encoder(config.encoder):
        if not config.input_shape:
            raise ValueError(f"input_shape must be set with encoder {config.encoder}, such as (3, 32, 32).")
        part = Part(encoder="conv" if len(config.input_shape) == 3 else "control", shape=config.input_shape)
        return OwnEncoder(config.encoder, part, config.feature_dim, has_places=None if config.kind == "mlp" else True)
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


def build_observation_encoder(
    layout: Layout, feature_dim: int, encoder: str = "auto", *, is_normalised: bool = False
) -> ObservationEncoder:
    """The encoder of observations packed by ``layout``: [N, *layout.shape] to [N, out_dim].

    Args:
        layout: the parts, each with the encoder of ours that reads it.
        feature_dim: F of each part.
        encoder: ``PolicyConfig.encoder``, of which only the user's own encoders matter here: for a part, or under no
            name for all of the observation.
        is_normalised: for vectors; see ``ControlEncoder``.
    """
    own = {part: name for part, name in encoders_by_part(encoder).items() if is_own_encoder(name)}
    first, *others = layout.parts
    if not others:
        return _build_part(first, feature_dim, own.get("", own.get(first.name)), is_normalised)
    if "" in own:
        return OwnEncoder(own[""], layout, feature_dim)
    return PartsEncoder(layout, feature_dim, own, is_normalised=is_normalised)


def normalised_vectors(
    encoder: ObservationEncoder, observations: Shaped[Tensor, "N ..."]
) -> list[tuple[RunningNormaliser, Tensor]]:
    """The running normalisers of an encoder, each with the vectors it would normalise, [N, numbers]."""
    pieces = encoder.pieces(observations) if isinstance(encoder, PartsEncoder) else [(encoder, observations)]
    return [
        (part.normaliser, part.numbers(piece))
        for part, piece in pieces
        if isinstance(part, (PlainEncoder, OwnEncoder)) and part.normaliser is not None
    ]


def _build_part(part: Part, feature_dim: int, own: str | None, is_normalised: bool) -> PartEncoder:
    """The encoder of one part, the user's if there is one."""
    if own is not None:
        return OwnEncoder(own, part, feature_dim, is_normalised=is_normalised)
    builders: dict[str, Callable[[], PartEncoder]] = {
        "control": lambda: ControlEncoder(part.packed_shape, feature_dim, part.scale, is_normalised=is_normalised),
        "plain": lambda: PlainEncoder(part.packed_shape, part.scale, is_normalised=is_normalised),
        "conv": lambda: ConvEncoder(part.packed_shape, feature_dim, part.scale),
        "patches": lambda: PatchEncoder(part.packed_shape, feature_dim, part.scale),
        "grid": lambda: GridEncoder(part.packed_shape, feature_dim, part.sizes),
        "categories": lambda: CategoriesEncoder(part.sizes, feature_dim),
        "text": lambda: TextEncoder(feature_dim),
    }
    return builders[part.encoder]()
