"""Heads: small networks that turn what the machine represents into an answer."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

START_LOG_STD = -0.5
"""Log standard deviation of Box actions before training: explores, but rarely saturates tanh."""


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, orthogonal weights, biases 0.

    Source: the published reinforcement learning experiments of arXiv:2505.05522.

    Args:
        input_dim: P, size of what is read.
        hidden_dims: width of each hidden layer; may be empty.
        output_dim: size of the answer.
        last_gain: scale of the last layer's weights; that of the others is 1.
    """

    def __init__(self, input_dim: int, hidden_dims: tuple[int, ...], output_dim: int, last_gain: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [*pairwise((input_dim, *hidden_dims, output_dim))]
        for width_in, width_out in widths:
            linear = nn.Linear(width_in, width_out)
            nn.init.orthogonal_(linear.weight, gain=last_gain if len(layers) == 2 * len(widths) - 2 else 1.0)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch O"]:
        """Maps [..., P] to [..., output_dim]."""
        return self.layers(inputs)


class GaussianHead(nn.Module):
    """Means from an ``MLPHead``; the logarithms of the standard deviations are parameters of their own.

    Args:
        means: maps to the N means.
        num_actions: N.
    """

    def __init__(self, means: MLPHead, num_actions: int) -> None:
        super().__init__()
        self.means = means
        self.log_std = nn.Parameter(torch.full((num_actions,), START_LOG_STD))

    def forward(self, inputs: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch O"]:
        """Maps [..., P] to [..., 2 N]: the means, then the logarithms of the standard deviations."""
        means = self.means(inputs)
        return torch.cat((means, self.log_std.to(means.dtype).expand_as(means)), -1)
