"""Heads: small networks that turn what the machine represents into an answer."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, orthogonal weights of gain 1, biases 0.

    Source: the published reinforcement learning experiments of arXiv:2505.05522.

    Args:
        input_dim: P, size of what is read.
        hidden_dims: width of each hidden layer; may be empty.
        output_dim: size of the answer.
    """

    def __init__(self, input_dim: int, hidden_dims: tuple[int, ...], output_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((input_dim, *hidden_dims, output_dim)):
            linear = nn.Linear(width_in, width_out)
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch O"]:
        """Maps [..., P] to [..., output_dim]."""
        return self.layers(inputs)
