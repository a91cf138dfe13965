"""Neuron-level models: every neuron turns its own history into its next activation, with weights of its own."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.config import CoreConfig


class NeuronLinear(nn.Module):
    """D separate linear layers, one per neuron, sharing a learned temperature.

    ``y_d = (W_d norm(dropout(x_d)) + b_d) / temperature``; the norm is optional and its weights are shared by all
    neurons. Weights start uniform within gain / sqrt(in + out), biases at 0, the temperature at 1.
    Source: arXiv:2505.05522, section 3.3, with a gain of 1.
    """

    def __init__(
        self, num_neurons: int, input_dim: int, output_dim: int, use_norm: bool, dropout: float, gain: float = 1.0
    ) -> None:
        super().__init__()
        bound = gain / math.sqrt(input_dim + output_dim)
        self.weight = nn.Parameter(torch.empty(num_neurons, input_dim, output_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(num_neurons, output_dim))
        self.temperature = nn.Parameter(torch.ones(1))
        self.norm = nn.LayerNorm(input_dim) if use_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B D I"]) -> Float[Tensor, "B D O"]:
        """Applies neuron d's layer to row d of ``inputs``, [B, D, I]; returns [B, D, O]."""
        inputs = self.norm(self.dropout(inputs))
        return (torch.einsum("bdi,dio->bdo", inputs, self.weight) + self.bias) / self.temperature


class NeuronLevelModels(nn.Module):
    """g_d: pre-activation history of neuron d in, its post-activation out.

    Deep: ``Linear_d(M -> 2H), GLU, Linear_d(H -> 2), GLU``; shallow: ``Linear_d(M -> 2), GLU``.
    """

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        dropout = config.dropout if config.nlm_dropout is None else config.nlm_dropout
        hidden = [2 * config.nlm_hidden_dim] if config.is_nlm_deep else []
        input_dim = config.history_length
        self.layers = nn.ModuleList()
        for output_dim in (*hidden, 2):
            sizes = config.num_neurons, input_dim, output_dim
            self.layers.append(NeuronLinear(*sizes, config.use_nlm_norm, dropout, config.nlm_gain))
            input_dim = output_dim // 2  # the GLU halves it

    def forward(self, pre_history: Float[Tensor, "B D M"]) -> Float[Tensor, "B D"]:
        """Maps the last M pre-activations, newest last, [B, D, M], to post-activations, [B, D]."""
        outputs = pre_history
        for layer in self.layers:
            outputs = nn.functional.glu(layer(outputs), dim=-1)
        return outputs.squeeze(-1)
