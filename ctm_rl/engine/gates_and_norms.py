"""Gated linear units and layer norms with hand-written backward passes, over ticks that share their weights."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NORM_EPSILON = 1e-5
"""As in ``nn.LayerNorm``, whose default the synapse models use."""
_INPUT_ONLY, _WEIGHTS_ONLY = [True, False, False], [False, True, True]
"""Which of a norm's gradients are computed."""
_norm = torch.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward.default


def gate(halves: Sequence[Tensor], sigmoid: Tensor, out: Tensor) -> Tensor:
    """The gated linear unit ``a sigmoid(b)`` of two halves, into ``out``; its sigmoid into ``sigmoid``.

    ``GateBackward`` needs no more than these two results.
    """
    values, gate_inputs = halves
    return torch.mul(values, torch.sigmoid(gate_inputs, out=sigmoid), out=out)


class GateBackward:
    """The gradient of ``a sigmoid(b)`` with respect to a and b, written into the halves of a buffer.

    ``d_a = g sigmoid(b)`` and ``d_b = g a sigmoid(b) (1 - sigmoid(b))``, from the output of the forward pass,
    ``a sigmoid(b)``, and its sigmoid.

    Args:
        out: where both gradients are written, the halves along ``dim``.
        dim: the dimension.
    """

    def __init__(self, out: Tensor, dim: int) -> None:
        self._first, self._second = out.chunk(2, dim)

    def __call__(self, grad: Tensor, sigmoid: Tensor, output: Tensor) -> None:
        """Writes both from the gradient of the output, which is overwritten; all three are shaped as a half."""
        torch.mul(grad, sigmoid, out=self._first)
        grad.mul_(output)
        torch.addcmul(grad, grad, sigmoid, value=-1.0, out=self._second)


Norm = tuple[Tensor | None, Tensor | None]
"""Scale and shift of a layer norm, [W] each; None where they are folded into what follows."""


class NormsForward:
    """The forward pass of layer norms; stores the mean and the inverse standard deviation of every tick.

    Args:
        norms: scale and shift of each.
        is_recording: whether there will be a backward pass.
    """

    def __init__(self, norms: Sequence[Norm], is_recording: bool) -> None:
        self._norms = norms
        self._is_recording = is_recording
        self._means: list[list[Tensor]] = [[] for _ in norms]
        self._rstds: list[list[Tensor]] = [[] for _ in norms]

    def __call__(self, index: int, inputs: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        """The output of one norm."""
        scale, shift = self._norms[index]
        outputs, mean, rstd = _norm(inputs, inputs.shape[-1:], scale, shift, NORM_EPSILON)
        if self._is_recording:
            self._means[index].append(mean)
            self._rstds[index].append(rstd)
        return outputs

    def moments(self) -> list[list[Tensor]]:
        """The means of every norm, and the inverse standard deviations of every norm, [K, B, 1] each."""
        return [[torch.stack(ticks) for ticks in norms] for norms in (self._means, self._rstds)]


class NormsBackward:
    """The backward pass of ``NormsForward``.

    Args:
        norms: scale and shift of each.
        inputs: the inputs of each, [K, B, W], or [K, C, B, W] for several machines.
        moments: from ``NormsForward.moments``.
        has_weight_grads: whether ``grads`` is to be called; then no norm may be folded.
    """

    def __init__(
        self,
        norms: Sequence[Norm],
        inputs: Sequence[Float[Tensor, "K *rows _"]],
        moments: Sequence[Sequence[Tensor]],
        has_weight_grads: bool = True,
    ) -> None:
        self._norms, self._has_weight_grads = norms, has_weight_grads
        self._stacked = list(zip(inputs, *moments, strict=True))
        self._received: list[list[Tensor]] = [[] for _ in norms]
        # all that a tick needs of a norm, looked up at once
        self._parts = [
            (*(part.unbind(0) for part in stacked), stacked[0].shape[-1:], *norm)
            for stacked, norm in zip(self._stacked, norms, strict=True)
        ]

    def __call__(self, index: int, tick: int, grad: Tensor) -> Tensor:
        """The gradient of a norm's input; for ``grads`` that of its output is stored, and must not be overwritten."""
        if self._has_weight_grads:
            self._received[index].append(grad)
        inputs, means, rstds, shape, scale, shift = self._parts[index]
        return _norm_backward(grad, inputs[tick], shape, means[tick], rstds[tick], scale, shift, _INPUT_ONLY)[0]

    def grads(self) -> list[Tensor]:
        """The gradients of scale and shift of every norm, after the first tick."""
        grads: list[Tensor] = []
        for (scale, shift), parts, received in zip(self._norms, self._stacked, self._received, strict=True):
            assert scale is not None
            inputs, mean, rstd = (part.flatten(0, 1) for part in parts)
            grad = torch.cat(received[::-1])
            received.clear()
            grads += _norm_backward(grad, inputs, (len(scale),), mean, rstd, scale, shift, _WEIGHTS_ONLY)[1:]
        return grads

    def outputs(self, index: int) -> Float[Tensor, "K B W"]:
        """The outputs of a norm, computed again."""
        scale, shift = self._norms[index]
        assert scale is not None
        assert shift is not None
        return normalised(*self._stacked[index]).mul_(scale).add_(shift)


def normalised(inputs: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """A layer norm's output without scale and shift, from its input, mean and inverse standard deviation."""
    return (inputs - mean).mul_(rstd)
