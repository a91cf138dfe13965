"""Encoder of MiniGrid's symbolic view: object, colour, state and position of every cell."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

EMBEDDING_DIM = 8
SIZES = (11, 6, 3)
"""Objects, colours and states as published; the state of a full view may also be a direction, the fourth."""


class GridEncoder(nn.Module):
    """Four embeddings for each cell, then twice Linear, GLU, LayerNorm; the features of all cells are concatenated.

    Source: the published RL experiments of arXiv:2505.05522.

    Args:
        observation_shape: (height, width, 3).
        feature_dim: F, features of each cell.
        sizes: number of objects, colours and states.
    """

    def __init__(self, observation_shape: tuple[int, ...], feature_dim: int, sizes: tuple[int, ...] = SIZES) -> None:
        super().__init__()
        if len(observation_shape) != 3 or observation_shape[2] != 3:
            raise ValueError(
                f"the grid encoder reads [height, width, 3] (object, colour, state), got {observation_shape}."
            )
        num_cells = observation_shape[0] * observation_shape[1]
        self.sizes = sizes
        self.out_dim = num_cells * feature_dim
        self.object, self.color, self.state = (nn.Embedding(size, EMBEDDING_DIM) for size in sizes)
        self.position = nn.Embedding(num_cells, EMBEDDING_DIM)
        layers: list[nn.Module] = []
        for width in (4 * EMBEDDING_DIM, feature_dim):
            layers += [nn.Linear(width, 2 * feature_dim), nn.GLU(), nn.LayerNorm(feature_dim)]
        self.layers = nn.Sequential(*layers)

    def forward(self, observations: Shaped[Tensor, "N H W 3"]) -> Float[Tensor, "N cells_F"]:
        """Maps grids [N, H, W, 3] of integers to features [N, H x W x F], cell after cell."""
        cells = observations.flatten(1, 2).long()  # [N, H x W, 3]
        objects, colors, states = cells.unbind(-1)
        places = self.position.weight.expand(len(cells), -1, -1)
        embedded = torch.cat((self.object(objects), self.color(colors), self.state(states), places), -1)
        return self.layers(embedded).flatten(1)

    def code(self, cells: Int[Tensor, "Q 3"]) -> Float[Tensor, "cells Q F"]:
        """Features of each of these kinds of cells (object, colour, state) at every place."""
        objects, colors, states = cells.unbind(-1)
        kinds = torch.cat((self.object(objects), self.color(colors), self.state(states)), -1)
        places = self.position.weight
        kinds, places = kinds.expand(len(places), -1, -1), places[:, None].expand(-1, len(kinds), -1)
        return self.layers(torch.cat((kinds, places), -1))
