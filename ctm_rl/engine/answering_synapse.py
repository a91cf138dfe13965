"""Synapse models run by hand, tick by tick: what they leave for the way back, and the way back itself.

The first dense layer is not part of it: whoever runs the ticks multiplies features and post-activations in. Since ticks
share their weights, the way back gathers gradients over all ticks and multiplies once a layer at its end.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.engine.episode_backward import GateGrad
from ctm_rl.engine.episode_forward import NORM_EPSILON
from ctm_rl.machine.synapse import BlockSynapse, UNetSynapse

_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_silu = torch.ops.aten.silu.out
_silu_backward = torch.ops.aten.silu_backward.default
_INPUT_ONLY, _WEIGHTS_ONLY = [True, False, False], [False, True, True]

Masks = Sequence[Float[Tensor, "K B _"] | None]
"""Factors of dropout before each dense layer but the first; None where nothing is dropped."""


class MixingPlan(NamedTuple):
    """What a synapse looks like, beside its weights."""

    is_unet: bool
    """A U-Net, or blocks in a row."""
    num_dense: int
    """Dense layers beside the first."""

    def pick(self) -> tuple["type[BlockMixing] | type[UNetMixing]", "type[BlockUnmixing] | type[UNetUnmixing]"]:
        """Who runs it, there and back."""
        return (UNetMixing, UNetUnmixing) if self.is_unet else (BlockMixing, BlockUnmixing)


class Mixing(Protocol):
    """A synapse on its way there."""

    def first(self, tick: int) -> Float[Tensor, "B E"]:
        """Where the output of the first dense layer is to be written."""
        ...

    def run(self, tick: int) -> Float[Tensor, "B D"]:
        """The pre-activations of a tick."""
        ...

    def keep(self, num_rows: int) -> None:
        """Goes on with fewer rows, where nothing is recorded."""
        ...

    def tape(self) -> list[Tensor]:
        """What the way back needs."""
        ...


class Unmixing(Protocol):
    """A synapse on its way back."""

    d_first: Float[Tensor, "K B E"]
    """Gradient of the first dense layer's output, of every tick gone back over."""

    def run(self, tick: int, grad: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """From the gradient of the pre-activations to that of the first dense layer's output."""
        ...

    def grads(self) -> list[Tensor]:
        """The gradients of the weights, after the last tick."""
        ...


def mixing_weights(synapse: BlockSynapse | UNetSynapse) -> tuple[nn.Linear, MixingPlan, list[Tensor]]:
    """The first dense layer, the plan, and all other weights: (weight, bias) of dense layers, then (scale, shift)."""
    parts = list(synapse.modules())
    first, *dense = [part for part in parts if isinstance(part, nn.Linear)]
    norms = [part for part in parts if isinstance(part, nn.LayerNorm)]
    weights = [weight for part in (*dense, *norms) for weight in (part.weight, part.bias)]
    return first, MixingPlan(isinstance(synapse, UNetSynapse), len(dense)), weights


def _pairs_of(weights: Sequence[Tensor], num_dense: int) -> tuple[list[tuple[Tensor, ...]], list[tuple[Tensor, ...]]]:
    """Dense layers and norms, a weight and a bias each."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    return pairs[:num_dense], pairs[num_dense:]


class _Norms:
    """Norms on their way there; keeps what they saw and found."""

    def __init__(self, norms: Sequence[tuple[Tensor, ...]], is_recording: bool) -> None:
        self._norms = [((len(scale),), scale, shift, NORM_EPSILON) for scale, shift in norms]
        self._is_recording = is_recording
        self._means: list[list[Tensor]] = [[] for _ in norms]
        self._rstds: list[list[Tensor]] = [[] for _ in norms]

    def __call__(self, index: int, inputs: Tensor) -> Tensor:
        """The output of one norm."""
        outputs, mean, rstd = torch.native_layer_norm(inputs, *self._norms[index])
        if self._is_recording:
            self._means[index].append(mean)
            self._rstds[index].append(rstd)
        return outputs

    def tape(self) -> list[Tensor]:
        """Means, then one over each deviation, [K, B, 1] for every norm."""
        return [torch.stack(ticks) for ticks in (*self._means, *self._rstds)]


class _NormGrads:
    """Norms on their way back.

    Args:
        norms: scale and shift of each.
        inputs: what each of them saw, [K, B, W].
        tape: what ``_Norms`` kept.
    """

    def __init__(
        self, norms: Sequence[tuple[Tensor, ...]], inputs: Sequence[Float[Tensor, "K B _"]], tape: Sequence[Tensor]
    ) -> None:
        self._norms = norms
        self._stacked = list(zip(inputs, tape[: len(norms)], tape[len(norms) :], strict=True))
        self._ticks = [tuple(part.unbind(0) for part in norm) for norm in self._stacked]
        self._received: list[list[Tensor]] = [[] for _ in norms]

    def __call__(self, index: int, tick: int, grad: Tensor) -> Tensor:
        """The gradient of a norm's input; keeps that of its output, which must stay as it is."""
        self._received[index].append(grad)
        inputs, means, rstds = self._ticks[index]
        scale, shift = self._norms[index]
        return _norm_backward(grad, inputs[tick], (len(scale),), means[tick], rstds[tick], scale, shift, _INPUT_ONLY)[0]

    def grads(self) -> list[Tensor]:
        """The gradients of scale and shift of every norm."""
        grads: list[Tensor] = []
        for (scale, shift), parts, received in zip(self._norms, self._stacked, self._received, strict=True):
            inputs, mean, rstd = (part.flatten(0, 1) for part in parts)
            grad = torch.cat(received[::-1])
            received.clear()
            grads += _norm_backward(grad, inputs, (len(scale),), mean, rstd, scale, shift, _WEIGHTS_ONLY)[1:]
        return grads

    def outputs(self, index: int) -> Float[Tensor, "K B W"]:
        """What a norm gave."""
        inputs, mean, rstd = self._stacked[index]
        scale, shift = self._norms[index]
        return (inputs - mean).mul_(rstd).mul_(scale).add_(shift)


def _cut(buffers: Sequence[Sequence[Tensor]], num_rows: int) -> list[Sequence[Tensor]]:
    """The first rows of buffers that all ticks share."""
    return [[ticks[0][:num_rows]] * len(ticks) for ticks in buffers]


def _dropped(inputs: Tensor, mask: Tensor | None, tick: int) -> Tensor:
    return inputs if mask is None else inputs * mask[tick]


class BlockMixing:
    """Blocks of dense layer, gate and norm; see ``Mixing``.

    Args:
        plan: what it looks like.
        weights: as ``mixing_weights`` gives them.
        masks: unused; blocks are dropped from before the first dense layer only.
        shape: K, B and E, the width of the first dense layer's output.
        is_recording: whether there is to be a way back.
    """

    def __init__(
        self, plan: MixingPlan, weights: Sequence[Tensor], masks: Masks, shape: tuple[int, int, int], is_recording: bool
    ) -> None:
        self._dense, norms = _pairs_of(weights, plan.num_dense)
        self._norms = _Norms(norms, is_recording)
        num_ticks, num_rows, width = shape
        room = num_ticks if is_recording else 1
        new = weights[-1].new_empty
        self._buffers = [new(room, num_rows, width // 2) for _ in range(2 * len(norms))]
        ticks = [part.unbind(0) if is_recording else [part[0]] * num_ticks for part in self._buffers]
        self._gated, self._gates = ticks[: len(norms)], ticks[len(norms) :]
        self._dense_out = new(num_rows, width)
        self._values, self._gate_inputs = self._dense_out.chunk(2, 1)

    def first(self, tick: int) -> Tensor:
        """See ``Mixing``."""
        return self._dense_out

    def run(self, tick: int) -> Tensor:
        """See ``Mixing``."""
        outputs = self._gate(0, tick)
        for block, (weight, bias) in enumerate(self._dense, 1):
            torch.addmm(bias, outputs, weight.T, out=self._dense_out)
            outputs = self._gate(block, tick)
        return outputs

    def _gate(self, block: int, tick: int) -> Tensor:
        gate = torch.sigmoid(self._gate_inputs, out=self._gates[block][tick])
        return self._norms(block, torch.mul(self._values, gate, out=self._gated[block][tick]))

    def keep(self, num_rows: int) -> None:
        """See ``Mixing``."""
        self._gated, self._gates = _cut(self._gated, num_rows), _cut(self._gates, num_rows)
        self._dense_out = self._dense_out[:num_rows]
        self._values, self._gate_inputs = self._dense_out.chunk(2, 1)

    def tape(self) -> list[Tensor]:
        """See ``Mixing``."""
        return [*self._buffers, *self._norms.tape()]


class BlockUnmixing:
    """The way back of ``BlockMixing``; see ``Unmixing``."""

    def __init__(self, plan: MixingPlan, weights: Sequence[Tensor], masks: Masks, tape: Sequence[Tensor]) -> None:
        self._dense, norms = _pairs_of(weights, plan.num_dense)
        gated, gates, rest = tape[: len(norms)], tape[len(norms) : 2 * len(norms)], tape[2 * len(norms) :]
        self._norms = _NormGrads(norms, gated, rest)
        self._gated, self._gates = ([part.unbind(0) for part in parts] for parts in (gated, gates))
        num_ticks, num_rows, width = gated[0].shape
        self._d_dense = [gated[0].new_empty(num_ticks, num_rows, 2 * width) for _ in norms]
        self._d_dense_ticks = [part.unbind(0) for part in self._d_dense]
        self._gate_grads = [[GateGrad(part, 1) for part in ticks] for ticks in self._d_dense_ticks]
        self.d_first = self._d_dense[0]

    def run(self, tick: int, grad: Tensor) -> Tensor:
        """See ``Unmixing``."""
        for block in reversed(range(len(self._gated))):
            d_gated = self._norms(block, tick, grad)
            self._gate_grads[block][tick](d_gated, self._gates[block][tick], self._gated[block][tick])
            if block:
                grad = torch.mm(self._d_dense_ticks[block][tick], self._dense[block - 1][0])
        return self._d_dense_ticks[0][tick]

    def grads(self) -> list[Tensor]:
        """See ``Unmixing``."""
        dense: list[Tensor] = []
        for block, grad in enumerate(self._d_dense[1:]):
            flat = grad.flatten(0, 1)
            dense += [flat.T @ self._norms.outputs(block).flatten(0, 1), flat.sum(0)]
        return [*dense, *self._norms.grads()]


class UNetMixing:
    """A U-Net; see ``Mixing``, and ``BlockMixing`` for the arguments.

    Dense layers are numbered down, then up as stored (from the widest); the norm behind each follows the first layer's;
    the skips' norms come last.
    """

    def __init__(
        self, plan: MixingPlan, weights: Sequence[Tensor], masks: Masks, shape: tuple[int, int, int], is_recording: bool
    ) -> None:
        self._dense, norms = _pairs_of(weights, plan.num_dense)
        self._num_levels = plan.num_dense // 2
        self._masks = masks
        self._norms = _Norms(norms, is_recording)
        self._transposed = [(weight.T.contiguous(), bias) for weight, bias in self._dense]
        num_ticks, num_rows, width = shape
        room = num_ticks if is_recording else 1
        skips = [weight.shape[1] for weight, _ in self._dense[: self._num_levels]]
        widths = [width, *(len(bias) for _, bias in self._dense)]
        new = weights[-1].new_empty
        self._norm_inputs = [new(room, num_rows, width) for width in (*widths, *skips)]
        # what rises is added to a skip, and not needed again
        self._silus = [
            new(room if index <= self._num_levels else 1, num_rows, width) for index, width in enumerate(widths)
        ]
        self._lists: list[list[Tensor]] = [[] for _ in (*widths, *skips)]
        self._is_recording = is_recording
        self._ticks, self._silu_ticks = (
            [part.unbind(0) if len(part) == num_ticks else [part[0]] * num_ticks for part in parts]
            for parts in (self._norm_inputs, self._silus)
        )

    def first(self, tick: int) -> Tensor:
        """See ``Mixing``."""
        return self._ticks[0][tick]

    def run(self, tick: int) -> Tensor:
        """See ``Mixing``."""
        num_levels, ticks = self._num_levels, self._ticks
        levels = [self._activate(0, tick)]
        for dense in range(num_levels):
            levels.append(self._step(dense, tick, levels[-1]))
        outputs = levels.pop()
        for level in reversed(range(num_levels)):
            risen = self._step(num_levels + level, tick, outputs)
            index = 1 + 2 * num_levels + level
            outputs = self._keep(index, self._norms(index, torch.add(risen, levels[level], out=ticks[index][tick])))
        return outputs

    def _step(self, dense: int, tick: int, inputs: Tensor) -> Tensor:
        weight, bias = self._transposed[dense]
        torch.addmm(bias, _dropped(inputs, self._masks[dense], tick), weight, out=self._ticks[dense + 1][tick])
        return self._activate(dense + 1, tick)

    def _activate(self, index: int, tick: int) -> Tensor:
        normed = self._keep(index, self._norms(index, self._ticks[index][tick]))
        return _silu(normed, out=self._silu_ticks[index][tick])

    def keep(self, num_rows: int) -> None:
        """See ``Mixing``."""
        self._ticks, self._silu_ticks = _cut(self._ticks, num_rows), _cut(self._silu_ticks, num_rows)

    def _keep(self, index: int, normed: Tensor) -> Tensor:
        if self._is_recording:
            self._lists[index].append(normed)
        return normed

    def tape(self) -> list[Tensor]:
        """See ``Mixing``; what norms saw, what they gave, and what came out of each activation."""
        normed = [torch.stack(ticks) for ticks in self._lists]
        return [*self._norm_inputs, *normed, *self._silus[: self._num_levels + 1], *self._norms.tape()]


class UNetUnmixing:
    """The way back of ``UNetMixing``; see ``Unmixing``."""

    def __init__(self, plan: MixingPlan, weights: Sequence[Tensor], masks: Masks, tape: Sequence[Tensor]) -> None:
        self._dense, norms = _pairs_of(weights, plan.num_dense)
        self._num_levels = plan.num_dense // 2
        self._masks = masks
        count, num_active = len(norms), plan.num_dense + 1
        num_kept = 2 * count + self._num_levels + 1
        self._normed, self._silus = tape[count : 2 * count], tape[2 * count : num_kept]
        self._norms = _NormGrads(norms, tape[:count], tape[num_kept:])
        self._normed_ticks = [part.unbind(0) for part in self._normed[:num_active]]
        self._d_dense: list[list[Tensor]] = [[] for _ in range(num_active)]
        self.d_first = torch.empty_like(tape[0])
        self._d_first_ticks = self.d_first.unbind(0)

    def run(self, tick: int, grad: Tensor) -> Tensor:
        """See ``Unmixing``."""
        num_levels = self._num_levels
        skipped = []
        for level in range(num_levels):  # the widest was the last on the way up
            grad = self._norms(1 + 2 * num_levels + level, tick, grad)
            skipped.append(grad)
            grad = self._step(num_levels + level, tick, grad)
        for level in reversed(range(num_levels)):
            grad = self._step(level, tick, grad, skipped[level])
        return self._d_first_ticks[tick].copy_(self._deactivate(0, tick, grad))

    def _step(self, dense: int, tick: int, grad: Tensor, skipped: Tensor | None = None) -> Tensor:
        d_dense = self._deactivate(dense + 1, tick, grad)
        self._d_dense[dense + 1].append(d_dense)
        weight, mask = self._dense[dense][0], self._masks[dense]
        if mask is not None:
            product = torch.mm(d_dense, weight).mul_(mask[tick])
            return product if skipped is None else product.add_(skipped)
        return torch.mm(d_dense, weight) if skipped is None else torch.addmm(skipped, d_dense, weight)

    def _deactivate(self, index: int, tick: int, grad: Tensor) -> Tensor:
        normed = self._normed_ticks[index][tick]
        return self._norms(index, tick, _silu_backward(grad, normed))

    def grads(self) -> list[Tensor]:
        """See ``Unmixing``."""
        num_levels = self._num_levels
        dense: list[Tensor] = []
        for index in range(2 * num_levels):
            is_last_up = index == 2 * num_levels - 1  # it reads the lowest level, as nothing has risen yet
            source = num_levels if is_last_up else index if index < num_levels else index + num_levels + 2
            inputs = self._silus[source] if source <= num_levels else self._normed[source]
            mask = self._masks[index]
            inputs = inputs if mask is None else inputs * mask
            flat = torch.cat(self._d_dense[index + 1][::-1])
            self._d_dense[index + 1].clear()
            dense += [flat.T @ inputs.flatten(0, 1), flat.sum(0)]
        return [*dense, *self._norms.grads()]
