"""Synapse models: where neurons mix; features and post-activations in, one pre-activation per neuron out."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.config import MIN_UNET_WIDTH, CoreConfig


class BlockSynapse(nn.Module):
    """Blocks of Linear, GLU, LayerNorm in a row, dropout before the first.

    Source: arXiv:2505.05522; one block in the supervised experiments, two in reinforcement learning.
    """

    def __init__(self, input_dim: int, num_neurons: int, num_blocks: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for width in [input_dim] + [num_neurons] * (num_blocks - 1):
            layers += [nn.Linear(width, 2 * num_neurons), nn.GLU(), nn.LayerNorm(num_neurons)]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B D"]:
        """Maps features and post-activations, [B, I], to pre-activations, [B, D]."""
        return self.layers(inputs)


class UNetSynapse(nn.Module):
    """A U-Net over the neurons: from D down to 16 units in ``depth`` evenly spaced widths, and back with skips.

    Source: arXiv:2505.05522, section 3.2.
    """

    def __init__(self, input_dim: int, num_neurons: int, depth: int, dropout: float) -> None:
        super().__init__()
        widths = [int(width) for width in np.linspace(num_neurons, MIN_UNET_WIDTH, depth)]
        self.first = nn.Sequential(nn.Linear(input_dim, widths[0]), nn.LayerNorm(widths[0]), nn.SiLU())
        self.down = nn.ModuleList(_step(wide, narrow, dropout) for wide, narrow in pairwise(widths))
        self.up = nn.ModuleList(_step(narrow, wide, dropout) for wide, narrow in pairwise(widths))
        self.skip_norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[:-1])

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B D"]:
        """Maps features and post-activations, [B, I], to pre-activations, [B, D]."""
        levels = [self.first(inputs)]
        for down in self.down:
            levels.append(down(levels[-1]))
        outputs = levels.pop()
        for up, norm in zip(reversed(self.up), reversed(self.skip_norms), strict=True):
            outputs = norm(up(outputs) + levels.pop())
        return outputs


def _step(input_dim: int, output_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(input_dim, output_dim), nn.LayerNorm(output_dim), nn.SiLU())


def make_synapse(config: CoreConfig, num_features: int) -> BlockSynapse | UNetSynapse:
    """The synapse that ``config`` asks for, reading ``num_features`` features beside the D post-activations."""
    input_dim = num_features + config.num_neurons
    if config.synapse_depth == 1:
        return BlockSynapse(input_dim, config.num_neurons, config.num_synapse_blocks, config.dropout)
    return UNetSynapse(input_dim, config.num_neurons, config.synapse_depth, config.dropout)
