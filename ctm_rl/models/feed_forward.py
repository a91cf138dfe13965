"""Feed-forward baselines: one hidden layer on the encoder's features, without ticks and without memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ctm_rl.encoders.digits import DigitEncoder, QuestionEncoder
from ctm_rl.machine.state import NoState

MAP_SIDE = 4
"""A small encoder's map is averaged over this many by this many parts of the image."""


class MLPCore(nn.Module):
    """A hidden layer in place of a policy's recurrent core; it has no memory from step to step.

    Args:
        num_features: size of an observation's features.
        hidden_dim: D, width of the layer.
    """

    def __init__(self, num_features: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, hidden_dim)
        self.answer_dim = hidden_dim

    def initial_state(self, batch_size: int) -> NoState:
        """A state of ``batch_size`` rows without content."""
        return NoState(self.hidden.weight.new_empty(batch_size, 0))

    def forward(self, features: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch D"]:
        """Maps features to what the heads read."""
        return self.hidden(features).relu()


class FeedForward(nn.Module):
    """The encoder's features, flattened, then one hidden layer.

    Source: the baselines of arXiv:2505.05522, which average a ResNet's map over all its places (``map_side`` 1).

    Args:
        encoder: maps images to [B, C, H, W], or other inputs to [B, ...].
        num_features: number of flattened features; of a map, C x map_side x map_side.
        hidden_dim: width of the hidden layer.
        output_dim: size of the answer.
        dropout: before the last layer, while training.
        map_side: a map is averaged over this many by this many parts.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_features: int,
        hidden_dim: int,
        output_dim: int,
        dropout: float,
        map_side: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Linear(num_features, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_dim, output_dim)
        self._map_side = map_side

    def forward(self, inputs: Float[Tensor, "B ..."]) -> Float[Tensor, "B O"]:
        """Maps inputs to logits, [B, O]."""
        features = self.encoder(inputs)
        features = _average(features, self._map_side) if features.dim() == 4 else features.flatten(1)
        return self.head(self.dropout(self.hidden(features).relu()))


class QuestionFeedForward(nn.Module):
    """Any number of digits and parts of a question: a layer on each with its place, then one on their mean.

    Args:
        feature_dim: F, channels of the digits' encoder and size of a part of a question.
        hidden_dim: D, width of both layers.
        output_dim: size of the answer.
        dropout: before the last layer, while training.
    """

    def __init__(self, feature_dim: int, hidden_dim: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.encoder = DigitEncoder(feature_dim)
        self.question = QuestionEncoder(feature_dim)
        self.digit = nn.Linear(feature_dim * (MAP_SIDE**2 + 1), hidden_dim)
        self.part = nn.Linear(feature_dim * 2, hidden_dim)
        self.hidden = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_dim, output_dim)

    def forward(self, digits: Float[Tensor, "B N I H W"], question: Int[Tensor, "B Q"]) -> Float[Tensor, "B O"]:
        """Maps digits and the question to logits, [B, O]."""
        maps = self.encoder(digits.flatten(0, 1))
        digit_features = self.digit(self._with_place(_average(maps, MAP_SIDE).unflatten(0, digits.shape[:2])))
        part_features = self.part(self._with_place(self.question(question)))
        mean = torch.cat((digit_features, part_features), 1).relu().mean(1)
        return self.head(self.dropout(self.hidden(mean).relu()))

    def _with_place(self, parts: Float[Tensor, "B N C"]) -> Float[Tensor, "B N E"]:
        """Each part, concatenated with the sinusoid of its place."""
        places = self.question.index[: parts.shape[1]]
        return torch.cat((parts, places.expand(len(parts), -1, -1)), -1)


def _average(maps: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B E"]:
    """Means over ``side`` x ``side`` parts of a map, flattened."""
    if side == 1:
        return maps.flatten(2).mean(-1)
    return nn.functional.adaptive_avg_pool2d(maps, side).flatten(1)
