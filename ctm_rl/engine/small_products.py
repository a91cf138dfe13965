"""Batched products so small that torch's own are slow: a matrix for every neuron, with two rows or few entries."""

import torch
from jaxtyping import Float
from torch import Tensor

_SMALLEST_PRODUCT = 400
"""torch sums batched products of fewer multiplications than this in plain loops; elementwise is faster."""


class SmallProduct:
    """``W_d x_d + b_d`` for every neuron d, by the method that is faster for these sizes.

    Args:
        weight: W, [D, O, I].
        bias: b, [D, O].
        num_rows: B.
    """

    def __init__(self, weight: Float[Tensor, "D O I"], bias: Float[Tensor, "D O"], num_rows: int) -> None:
        num_neurons, num_outputs, num_inputs = weight.shape
        self._weight = weight
        self._bias = bias[..., None].expand(-1, -1, num_rows)
        self._terms: Tensor | None = None
        if num_outputs * num_inputs * num_rows < _SMALLEST_PRODUCT:
            self._terms = weight.new_empty(num_neurons, num_outputs, num_inputs, num_rows)
            self._weight = weight[..., None].contiguous()

    def __call__(self, inputs: Float[Tensor, "D I B"], out: Float[Tensor, "D O B"]) -> Float[Tensor, "D O B"]:
        """Writes the outputs into ``out``."""
        if self._terms is None:
            return torch.baddbmm(self._bias, self._weight, inputs, out=out)
        torch.mul(self._weight, inputs[:, None], out=self._terms)
        return torch.sum(self._terms, 2, out=out).add_(self._bias)


class SmallTransposedProduct:
    """``W_d^T g_d`` for every neuron d, for a W of two rows.

    Args:
        weight: W, [D, 2, H].
        grad: the buffer that holds g at every call, [D, 2, B].
    """

    def __init__(self, weight: Float[Tensor, "D 2 H"], grad: Float[Tensor, "D 2 B"]) -> None:
        self._first, self._second = (column[..., None] for column in weight.unbind(1))  # [D, H, 1]
        self._first_grad, self._second_grad = grad.split(1, 1)
        self._out = weight.new_empty(weight.shape[0], weight.shape[2], grad.shape[2])

    def __call__(self) -> Float[Tensor, "D H B"]:
        """Returns the product, in a buffer that the next call overwrites."""
        torch.mul(self._first, self._first_grad, out=self._out)
        return self._out.addcmul_(self._second, self._second_grad)
