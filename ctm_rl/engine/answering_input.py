"""The synapse's first dense layer, where what was seen and the post-activations enter, run by hand there and back."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class EntryWeights(NamedTuple):
    """The first dense layer as the ticks want it; E outputs, V values from a look.

    Without dropout, what lies between a look and the layer is folded into it, and ``constants`` are its finished share,
    bias included. With dropout in between, ``out`` and its bias come first, and ``constants`` are features.
    """

    recurrent: Float[Tensor, "E D"]
    """The post-activations' half."""
    bias: Float[Tensor, " E"]
    """Its bias, for ticks that look or drop."""
    mix: Float[Tensor, "E F"] | None
    """The features' half; None where nothing is looked at and nothing dropped."""
    out: Float[Tensor, "F F"] | None
    """From what was seen to features, where it cannot be folded."""
    out_bias: Float[Tensor, " F"] | None
    """Its bias."""
    constants: Float[Tensor, "C B W"] | None
    """What comes in at ticks without a look."""


class Entry:
    """The first dense layer on its way there.

    Args:
        weights: folded.
        constants: at each tick, which constant comes in; None: a look.
        mask: factors of dropout for features and z, [K, B, F + D], or None.
        shape: K and B.
        is_recording: whether there is to be a way back.
    """

    def __init__(
        self,
        weights: EntryWeights,
        constants: Sequence[int | None],
        mask: Float[Tensor, "K B FD"] | None,
        shape: tuple[int, int],
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
        self, tick: int, seen: Float[Tensor, "B V"] | None, activation: Float[Tensor, "D B"], out: Float[Tensor, "B E"]
    ) -> None:
        """Writes the layer's output into ``out``."""
        weights, below, constant = self._weights, activation.T, self._constants[tick]
        if self._masks is not None:
            features = self._features_of(constant, seen) * self._masks[0][tick]
            if self._is_recording:
                self._features.append(features)
            assert self._mix is not None
            torch.addmm(weights.bias, features, self._mix, out=out)
            out.addmm_(below * self._masks[1][tick], self._recurrent)
        elif constant is not None:
            assert weights.constants is not None
            torch.addmm(weights.constants[constant], below, self._recurrent, out=out)
        else:
            assert seen is not None
            assert self._mix is not None
            torch.addmm(weights.bias, seen, self._mix, out=out)
            out.addmm_(below, self._recurrent)

    def _features_of(self, constant: int | None, seen: Tensor | None) -> Tensor:
        """What is dropped from."""
        weights = self._weights
        if constant is not None:
            assert weights.constants is not None
            return weights.constants[constant]
        assert seen is not None
        assert weights.out is not None
        assert weights.out_bias is not None
        return torch.addmm(weights.out_bias, seen, weights.out.T)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Goes on with these rows alone, where nothing is dropped."""
        if self._weights.constants is not None:
            self._weights = self._weights._replace(constants=self._weights.constants.index_select(1, rows))

    def tape(self) -> list[Tensor]:
        """What the way back needs: the features that came through, where some were dropped."""
        return [torch.stack(self._features)] if self._features else []


class EntryBack:
    """The way back of ``Entry``; see there for the arguments.

    Args:
        weights: folded.
        constants: at each tick, which constant came in.
        mask: factors of dropout.
        tape: what the way there left.
    """

    def __init__(
        self,
        weights: EntryWeights,
        constants: Sequence[int | None],
        mask: Float[Tensor, "K B FD"] | None,
        tape: Sequence[Tensor],
    ) -> None:
        self._weights, self._constants = weights, constants
        num_neurons = weights.recurrent.shape[1]
        self._masks = None if mask is None else mask.split((mask.shape[2] - num_neurons, num_neurons), 2)
        self._recurrent = weights.recurrent.T.contiguous()
        self._features = tape[0] if tape else None
        # where features were dropped from, their gradient: it goes to constants, or through the output projection
        self._d_features = None if self._features is None else torch.empty_like(self._features)

    def run(self, tick: int, d_out: Float[Tensor, "B E"], d_seen: Float[Tensor, "B V"] | None) -> Float[Tensor, "D B"]:
        """From the gradient of the layer's output to that of z; writes that of what was seen into ``d_seen``."""
        weights = self._weights
        d_z = torch.mm(self._recurrent, d_out.T)
        if self._masks is not None and self._d_features is not None:
            assert weights.mix is not None
            d_features = torch.mm(d_out, weights.mix, out=self._d_features[tick]).mul_(self._masks[0][tick])
            if d_seen is not None:
                assert weights.out is not None
                torch.mm(d_features, weights.out, out=d_seen)
            return d_z.mul_(self._masks[1][tick].T)
        if d_seen is not None:
            assert weights.mix is not None
            torch.mm(d_out, weights.mix, out=d_seen)
        return d_z

    def grads(
        self,
        d_out: Float[Tensor, "K B E"],
        activations: Float[Tensor, "K D B"],
        seen: Float[Tensor, "G B V"] | None,
    ) -> list[Tensor | None]:
        """The gradients of the weights, in their order.

        Args:
            d_out: gradient of the layer's output at every tick.
            activations: z before every tick.
            seen: what every look gave.
        """
        weights = self._weights
        flat = d_out.flatten(0, 1)
        below = activations.transpose(1, 2)
        below = below.contiguous() if self._masks is None else below * self._masks[1]
        d_recurrent = flat.T @ below.flatten(0, 1)
        looks = [tick for tick, constant in enumerate(self._constants) if constant is None]
        if self._features is not None and self._d_features is not None:
            d_mix, d_bias = flat.T @ self._features.flatten(0, 1), flat.sum(0)
            d_seen_features = self._d_features[looks].flatten(0, 1)
            d_projection = None if seen is None else d_seen_features.T @ seen.flatten(0, 1)
            d_projection_bias = None if seen is None else d_seen_features.sum(0)
            return [d_recurrent, d_bias, d_mix, d_projection, d_projection_bias, self._by_constant(self._d_features)]
        of_looks = d_out if len(looks) == len(d_out) else d_out[looks]
        of_looks = of_looks.flatten(0, 1)
        d_mix = None if weights.mix is None or seen is None else of_looks.T @ seen.flatten(0, 1)
        return [d_recurrent, of_looks.sum(0), d_mix, None, None, self._by_constant(d_out)]

    def _by_constant(self, grads: Float[Tensor, "K B W"]) -> Float[Tensor, "C B W"] | None:
        """The gradient of each constant, over its ticks."""
        if self._weights.constants is None:
            return None
        total = torch.zeros_like(self._weights.constants)
        for index, part in enumerate(total.unbind(0)):
            ticks = [tick for tick, constant in enumerate(self._constants) if constant == index]
            torch.sum(grads[ticks[0] : ticks[-1] + 1], 0, out=part)  # the ticks of a constant follow each other
        return total
