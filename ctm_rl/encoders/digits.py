"""Encoders of questions about digits: of the images, and of the parts of the question."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MAX_INDEX = 50


class DigitEncoder(nn.Module):
    """Twice 3x3 convolution, BatchNorm, ReLU and 2x2 max-pooling. Source: arXiv:2505.05522, Q&A-MNIST.

    Args:
        feature_dim: F, channels of the result.
        input_dim: I, channels of an image.
    """

    def __init__(self, feature_dim: int, input_dim: int = 1) -> None:
        super().__init__()
        self.out_dim = feature_dim
        layers: list[nn.Module] = []
        for channels in (input_dim, feature_dim):
            layers += [
                nn.Conv2d(channels, feature_dim, 3, padding=1),
                nn.BatchNorm2d(feature_dim),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "N I H W"]) -> Float[Tensor, "N F h w"]:
        """Maps images [N, I, H, W] to maps [N, F, H / 4, W / 4]."""
        return self.layers(images)


class QuestionEncoder(nn.Module):
    """Maps an index to a fixed sinusoid, and an operator to a learned vector. Source: arXiv:2505.05522, Q&A-MNIST.

    Args:
        feature_dim: F.
    """

    index: Float[Tensor, "50 F"]

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        place = torch.arange(MAX_INDEX)[:, None]
        channel = torch.arange(feature_dim)
        angle = place * torch.exp((channel - channel % 2) * (-math.log(10000.0) / feature_dim))
        self.register_buffer("index", torch.where(channel % 2 == 0, angle.sin(), angle.cos()))
        self.operator = nn.Embedding(2, feature_dim)

    def forward(self, question: Int[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
        """Maps parts [B, N] to vectors [B, N, F]; from 0 on they are indices, -1 and -2 are the operators + and -."""
        is_operator = question < 0
        operators = self.operator((-question - 1).clamp(min=0))
        indices = self.index[question.clamp(min=0)]
        return torch.where(is_operator[..., None], operators, indices)
