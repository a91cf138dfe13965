"""The synapse's first dense layer, which reads features and post-activations, with a hand-written backward pass."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ctm_rl.machine.attention import AttentionReading, ConstantReading, Reading


class InputWeights(NamedTuple):
    """The first dense layer in the form that the ticks need; E outputs, V attended values.

    Without dropout, the output projection of attention is folded into the layer, and ``constants`` are finished
    contributions to its output, bias included. With dropout in between, ``out`` and its bias are applied first, and
    ``constants`` are features.
    """

    recurrent: Float[Tensor, "E D"]
    """The post-activations' half."""
    bias: Float[Tensor, " E"]
    """Its bias, for ticks that attend or drop."""
    mix: Float[Tensor, "E F"] | None
    """The features' half; None where nothing is attended to and nothing dropped."""
    out: Float[Tensor, "F F"] | None
    """Output projection of attention, where it cannot be folded."""
    out_bias: Float[Tensor, " F"] | None
    """Its bias."""
    constants: Float[Tensor, "C B W"] | None
    """Inputs of the ticks that do not attend."""


def fold_input(
    readings: Sequence[Reading], of_features: Tensor, recurrent: Tensor, bias: Tensor, is_dropping: bool
) -> tuple[InputWeights, list[int | None]]:
    """The first dense layer, and which constant each tick reads."""
    places: dict[int, int] = {}
    constants: list[Tensor] = []
    indices: list[int | None] = []
    previous: Reading | None = None
    reader = None
    for reading in readings:
        if isinstance(reading, AttentionReading):
            reader = reading.reader
            indices.append(None)
        elif isinstance(reading, ConstantReading):
            if reading is not previous:
                places[id(reading)] = len(constants)
                constants.append(reading.features.to(bias.dtype))
            indices.append(places[id(reading)])
        previous = reading
    stacked = torch.stack(constants) if constants else None
    if is_dropping:
        out = (None, None) if reader is None else (reader.out.weight, reader.out.bias)
        return InputWeights(recurrent, bias, of_features, *out, stacked), indices
    if stacked is not None:
        stacked = nn.functional.linear(stacked, of_features, bias)
    if reader is None:
        return InputWeights(recurrent, bias, None, None, None, stacked), indices
    mix, mixed_bias = of_features @ reader.out.weight, torch.addmv(bias, of_features, reader.out.bias)
    return InputWeights(recurrent, mixed_bias, mix, None, None, stacked), indices


class InputForward:
    """The forward pass of the first dense layer, tick by tick.

    Args:
        weights: folded.
        constants: which constant each tick reads; None: it attends.
        mask: dropout factors for features and z, [K, B, F + D], or None.
        is_recording: whether there will be a backward pass.
    """

    def __init__(
        self,
        weights: InputWeights,
        constants: Sequence[int | None],
        mask: Float[Tensor, "K B FD"] | None,
        is_recording: bool,
    ) -> None:
        self._weights, self._constants = weights, constants
        self._recurrent = weights.recurrent.T.contiguous()
        self._mix = None if weights.mix is None else weights.mix.T.contiguous()
        self._masks = (
            None if mask is None else mask.split((mask.shape[2] - len(self._recurrent), len(self._recurrent)), 2)
        )
        self._features: list[Tensor] = []
        self._is_recording = is_recording

    def run(
        self,
        tick: int,
        attended: Float[Tensor, "B V"] | None,
        activation: Float[Tensor, "D B"],
        out: Float[Tensor, "B E"],
    ) -> None:
        """Writes the layer's output into ``out``."""
        weights, below, constant = self._weights, activation.T, self._constants[tick]
        if self._masks is not None:
            features = self._features_of(constant, attended) * self._masks[0][tick]
            if self._is_recording:
                self._features.append(features)
            assert self._mix is not None
            torch.addmm(weights.bias, features, self._mix, out=out)
            out.addmm_(below * self._masks[1][tick], self._recurrent)
        elif constant is not None:
            assert weights.constants is not None
            torch.addmm(weights.constants[constant], below, self._recurrent, out=out)
        else:
            assert attended is not None
            assert self._mix is not None
            torch.addmm(weights.bias, attended, self._mix, out=out)
            out.addmm_(below, self._recurrent)

    def _features_of(self, constant: int | None, attended: Tensor | None) -> Tensor:
        """The features before dropout."""
        weights = self._weights
        if constant is not None:
            assert weights.constants is not None
            return weights.constants[constant]
        assert attended is not None
        assert weights.out is not None
        assert weights.out_bias is not None
        return torch.addmm(weights.out_bias, attended, weights.out.T)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone, where nothing is dropped."""
        if self._weights.constants is not None:
            self._weights = self._weights._replace(constants=self._weights.constants.index_select(1, rows))

    def tape(self) -> list[Tensor]:
        """What the backward pass needs: the features after dropout, where there is any."""
        return [torch.stack(self._features)] if self._features else []


class InputBackward:
    """The backward pass of ``InputForward``.

    Args:
        weights: folded.
        constants: which constant each tick reads.
        mask: dropout factors.
        tape: from the forward pass.
    """

    def __init__(
        self,
        weights: InputWeights,
        constants: Sequence[int | None],
        mask: Float[Tensor, "K B FD"] | None,
        tape: Sequence[Tensor],
    ) -> None:
        self._weights, self._constants = weights, constants
        num_neurons = weights.recurrent.shape[1]
        self._masks = None if mask is None else mask.split((mask.shape[2] - num_neurons, num_neurons), 2)
        self._recurrent = weights.recurrent.T.contiguous()
        self._features = tape[0] if tape else None
        # with dropout, the gradient of the features: it goes to constants, or through the output projection
        self._d_features = None if self._features is None else torch.empty_like(self._features)

    def run(
        self, tick: int, d_out: Float[Tensor, "B E"], d_attended: Float[Tensor, "B V"] | None
    ) -> Float[Tensor, "D B"]:
        """From the gradient of the output to that of z; writes that of the attended values into ``d_attended``."""
        weights = self._weights
        d_z = torch.mm(self._recurrent, d_out.T)
        if self._masks is not None and self._d_features is not None:
            assert weights.mix is not None
            d_features = torch.mm(d_out, weights.mix, out=self._d_features[tick]).mul_(self._masks[0][tick])
            if d_attended is not None:
                assert weights.out is not None
                torch.mm(d_features, weights.out, out=d_attended)
            return d_z.mul_(self._masks[1][tick].T)
        if d_attended is not None:
            assert weights.mix is not None
            torch.mm(d_out, weights.mix, out=d_attended)
        return d_z

    def grads(
        self,
        d_out: Float[Tensor, "K B E"],
        activations: Float[Tensor, "K D B"],
        attended: Float[Tensor, "G B V"] | None,
    ) -> InputWeights:
        """The gradients of the weights.

        Args:
            d_out: gradient of the layer's output at every tick.
            activations: z before every tick.
            attended: the result of every read.
        """
        weights = self._weights
        flat = d_out.flatten(0, 1)
        below = activations.transpose(1, 2)
        below = below.contiguous() if self._masks is None else below * self._masks[1]
        d_recurrent = flat.T @ below.flatten(0, 1)
        reads = [tick for tick, constant in enumerate(self._constants) if constant is None]
        if self._features is not None and self._d_features is not None:
            d_mix, d_bias = flat.T @ self._features.flatten(0, 1), flat.sum(0)
            d_read_features = self._d_features[reads].flatten(0, 1)
            d_projection = None if attended is None else d_read_features.T @ attended.flatten(0, 1)
            d_projection_bias = None if attended is None else d_read_features.sum(0)
            d_constants = self._by_constant(self._d_features)
            return InputWeights(d_recurrent, d_bias, d_mix, d_projection, d_projection_bias, d_constants)
        of_reads = d_out if len(reads) == len(d_out) else d_out[reads]
        of_reads = of_reads.flatten(0, 1)
        d_mix = None if weights.mix is None or attended is None else of_reads.T @ attended.flatten(0, 1)
        return InputWeights(d_recurrent, of_reads.sum(0), d_mix, None, None, self._by_constant(d_out))

    def _by_constant(self, grads: Float[Tensor, "K B W"]) -> Float[Tensor, "C B W"] | None:
        """The gradient of each constant, over its ticks."""
        if self._weights.constants is None:
            return None
        total = torch.zeros_like(self._weights.constants)
        for index, part in enumerate(total.unbind(0)):
            ticks = [tick for tick, constant in enumerate(self._constants) if constant == index]
            torch.sum(grads[ticks[0] : ticks[-1] + 1], 0, out=part)  # the ticks of a constant follow each other
        return total
