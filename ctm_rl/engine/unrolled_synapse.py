"""Synapse models over many ticks: forward tick by tick, with hand-written backward passes.

The first dense layer is not part of them: the caller writes its output, from features and post-activations, before each
tick. Since ticks share their weights, the backward passes collect gradients over the ticks and multiply once per layer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ctm_rl.engine.gates_and_norms import GateBackward, Norm, NormsBackward, NormsForward, gate, normalised
from ctm_rl.machine.synapse import BlockSynapse, UNetSynapse

_silu = torch.ops.aten.silu.out
_silu_backward = torch.ops.aten.silu_backward.default

Masks = Sequence[Float[Tensor, "K B _"] | None]
"""Dropout factors before each dense layer but the first; None where nothing is dropped."""
Pairs = list[tuple[Tensor, Tensor]]
"""A weight and a bias, or a scale and a shift, for each layer."""


class SynapsePlan(NamedTuple):
    """The structure of a synapse model, beside its weights."""

    is_unet: bool
    """A U-Net, or blocks in sequence."""
    num_dense: int
    """Dense layers beside the first."""

    def split(self, weights: Sequence[Tensor]) -> tuple[Pairs, Pairs]:
        """Dense layers and norms, a pair each, from ``synapse_weights``."""
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        return pairs[: self.num_dense], pairs[self.num_dense :]

    def forward(
        self, weights: Sequence[Tensor], masks: Masks, shape: tuple[int, int, int], is_recording: bool
    ) -> "BlockSynapseForward | UNetSynapseForward":
        """The forward pass of K ticks over B rows.

        Args:
            weights: from ``synapse_weights``.
            masks: dropout factors; blocks are dropped from before the first dense layer only.
            shape: K, B and E, the width of the first dense layer's output.
            is_recording: whether there will be a backward pass.
        """
        dense, norms = self.split(weights)
        if self.is_unet:
            return UNetSynapseForward(dense, norms, masks, shape, is_recording)
        return BlockSynapseForward(dense, norms, shape, is_recording, weights[-1])

    def backward(
        self, weights: Sequence[Tensor], masks: Masks, tape: Any
    ) -> "BlockSynapseBackward | UNetSynapseBackward":
        """The backward pass of ``forward``, whose ``tape`` it is given."""
        dense, norms = self.split(weights)
        if self.is_unet:
            return UNetSynapseBackward(dense, norms, masks, tape)
        return BlockSynapseBackward(dense, norms, tape)


def synapse_weights(synapse: BlockSynapse | UNetSynapse) -> tuple[nn.Linear, SynapsePlan, list[Tensor]]:
    """The first dense layer, the plan, and all other weights: (weight, bias) of dense layers, then (scale, shift)."""
    parts = list(synapse.modules())
    first, *dense = [part for part in parts if isinstance(part, nn.Linear)]
    norms = [part for part in parts if isinstance(part, nn.LayerNorm)]
    weights = [weight for part in (*dense, *norms) for weight in (part.weight, part.bias)]
    return first, SynapsePlan(isinstance(synapse, UNetSynapse), len(dense)), weights


def _first_rows(buffers: Sequence[Sequence[Tensor]], num_rows: int) -> list[Sequence[Tensor]]:
    """The first rows of buffers that all ticks share."""
    return [[ticks[0][:num_rows]] * len(ticks) for ticks in buffers]


class BlockTape(NamedTuple):
    """What the backward pass of blocks needs of L ticks, one entry for each block."""

    gated: list[Float[Tensor, "L *C B D"]]
    """Output of the gate."""
    gates: list[Float[Tensor, "L *C B D"]]
    """Sigmoid of the gate."""
    means: list[Float[Tensor, "L *C B 1"]]
    """Mean of the gate's output over the neurons, for the norm."""
    rstds: list[Float[Tensor, "L *C B 1"]]
    """Inverse standard deviation."""

    def normalised(self, block: int, ticks: slice) -> Float[Tensor, "l *C B D"]:
        """The output of a block's norm in some ticks, without its scale and shift."""
        return normalised(self.gated[block][ticks], self.means[block][ticks], self.rstds[block][ticks])


class BlockSynapseForward:
    """Blocks of dense layer, gate and norm; of one machine, or of C side by side (``engine.episode_forward``).

    Args:
        dense: weight and bias of every dense layer but the first, [E, D] and [E], or [C, E, D] and [C, E].
        norms: scale and shift of every norm.
        shape: K, C if there are several, B and E, the width of the first dense layer's output.
        is_recording: whether there will be a backward pass.
        like: a tensor of the type and on the device of all others.
    """

    def __init__(
        self, dense: Pairs, norms: Sequence[Norm], shape: tuple[int, ...], is_recording: bool, like: Tensor
    ) -> None:
        self._dense = [(weight.mT, bias if weight.dim() == 2 else bias[:, None]) for weight, bias in dense]
        self._norms = NormsForward(norms, is_recording)
        num_ticks, *rows, width = shape
        self._add_product = torch.addmm if len(rows) == 1 else torch.baddbmm
        room = num_ticks if is_recording else 1
        self._buffers = [like.new_empty(room, *rows, width // 2) for _ in range(2 * len(norms))]
        ticks = [part.unbind(0) if is_recording else [part[0]] * num_ticks for part in self._buffers]
        self._gated, self._gates = ticks[: len(norms)], ticks[len(norms) :]
        self._dense_out = like.new_empty(*rows, width)
        self._halves = self._dense_out.chunk(2, -1)

    def first(self, tick: int) -> Float[Tensor, "*C B E"]:
        """Where the output of the first dense layer must be written."""
        return self._dense_out

    def run(self, tick: int) -> Float[Tensor, "*C B D"]:
        """The pre-activations of a tick."""
        outputs = self._gate_and_norm(0, tick)
        for block, (weight, bias) in enumerate(self._dense, 1):
            self._add_product(bias, outputs, weight, out=self._dense_out)
            outputs = self._gate_and_norm(block, tick)
        return outputs

    def _gate_and_norm(self, block: int, tick: int) -> Tensor:
        return self._norms(block, gate(self._halves, self._gates[block][tick], self._gated[block][tick]))

    def keep(self, num_rows: int) -> None:
        """Continues with fewer rows of a single machine, where nothing is recorded."""
        self._gated, self._gates = _first_rows(self._gated, num_rows), _first_rows(self._gates, num_rows)
        self._dense_out = self._dense_out[:num_rows]
        self._halves = self._dense_out.chunk(2, 1)

    def tape(self) -> BlockTape:
        """What the backward pass needs."""
        num_blocks = len(self._gated)
        return BlockTape(self._buffers[:num_blocks], self._buffers[num_blocks:], *self._norms.moments())


class BlockSynapseBackward:
    """The backward pass of ``BlockSynapseForward``, from the last tick to the first.

    Args:
        dense: as in the forward pass.
        norms: as in the forward pass.
        tape: from the forward pass.
        room: for how many ticks gradients are stored; None: for all ticks.
        has_norm_grads: whether ``grads`` is to be called; otherwise norms may be folded.
    """

    def __init__(
        self, dense: Pairs, norms: Sequence[Norm], tape: BlockTape, room: int | None = None, has_norm_grads: bool = True
    ) -> None:
        self._norms = NormsBackward(norms, tape.gated, tape[2:], has_norm_grads)
        num_ticks, *rows, width = tape.gated[0].shape
        self._product = torch.mm if len(rows) == 1 else torch.bmm
        room = num_ticks if room is None else room
        self.d_dense = [tape.gated[0].new_empty(room, *rows, 2 * width) for _ in norms]
        """Gradients of the outputs of all dense layers, [room, *C, B, E] each."""
        ticks = [[part.unbind(0) for part in parts] for parts in (*tape[:2], self.d_dense)]
        gate_grads = [[GateBackward(part, -1) for part in parts] for parts in ticks[2]]
        weights = [None, *(weight for weight, _ in dense)]  # the caller has the first layer's
        blocks = zip(range(len(norms)), *ticks[:2], gate_grads, ticks[2], weights, strict=True)
        self._blocks = list(blocks)[::-1]
        self.d_first = self.d_dense[0]
        """Gradient of the first dense layer's output at every tick that has been run, [room, *C, B, E]."""

    def run(self, tick: int, grad: Float[Tensor, "*C B D"], slot: int | None = None) -> Float[Tensor, "*C B E"]:
        """From the gradient of the pre-activations to that of the first dense layer's output.

        ``slot``: where gradients are stored, if not at ``tick``.
        """
        slot = tick if slot is None else slot
        for block, gated, gates, gate_grads, d_dense, weight in self._blocks:
            gate_grads[slot](self._norms(block, tick, grad), gates[tick], gated[tick])
            grad = d_dense[slot] if weight is None else self._product(d_dense[slot], weight)
        return grad

    def grads(self) -> list[Tensor]:
        """The gradients of the weights, after the first tick; of a single machine."""
        dense: list[Tensor] = []
        for block, grad in enumerate(self.d_dense[1:]):
            flat = grad.flatten(0, 1)
            dense += [flat.T @ self._norms.outputs(block).flatten(0, 1), flat.sum(0)]
        return [*dense, *self._norms.grads()]


class UNetSynapseForward:
    """A U-Net; see ``BlockSynapseForward``.

    Dense layers are numbered down, then up as stored (from the widest); the norm behind each follows the first layer's;
    the norms of the skips come last.

    Args:
        dense: weight and bias of every dense layer but the first.
        norms: scale and shift of every norm.
        masks: dropout factors before each of these dense layers.
        shape: K, B and E, the width of the first dense layer's output.
        is_recording: whether there will be a backward pass.
    """

    def __init__(
        self, dense: Pairs, norms: Pairs, masks: Masks, shape: tuple[int, int, int], is_recording: bool
    ) -> None:
        self._num_levels = len(dense) // 2
        self._masks = masks
        self._norms = NormsForward(norms, is_recording)
        self._dense = [(weight.T.contiguous(), bias) for weight, bias in dense]
        num_ticks, num_rows, width = shape
        room = num_ticks if is_recording else 1
        skips = [weight.shape[1] for weight, _ in dense[: self._num_levels]]
        widths = [width, *(len(bias) for _, bias in dense)]
        new = norms[0][0].new_empty
        self._norm_inputs = [new(room, num_rows, width) for width in (*widths, *skips)]
        # outputs on the way up are added to a skip, and not needed again
        self._silus = [
            new(room if index <= self._num_levels else 1, num_rows, width) for index, width in enumerate(widths)
        ]
        self._norm_outputs: list[list[Tensor]] = [[] for _ in (*widths, *skips)]
        self._is_recording = is_recording
        self._ticks, self._silu_ticks = (
            [part.unbind(0) if len(part) == num_ticks else [part[0]] * num_ticks for part in parts]
            for parts in (self._norm_inputs, self._silus)
        )

    def first(self, tick: int) -> Tensor:
        """See ``BlockSynapseForward``."""
        return self._ticks[0][tick]

    def run(self, tick: int) -> Tensor:
        """See ``BlockSynapseForward``."""
        num_levels = self._num_levels
        levels = [self._activate(0, tick)]
        for dense in range(num_levels):
            levels.append(self._step(dense, tick, levels[-1]))
        outputs = levels.pop()
        for level in reversed(range(num_levels)):
            risen = self._step(num_levels + level, tick, outputs)
            outputs = self._norm(1 + 2 * num_levels + level, tick, risen, levels[level])
        return outputs

    def _step(self, dense: int, tick: int, inputs: Tensor) -> Tensor:
        weight, bias = self._dense[dense]
        mask = self._masks[dense]
        inputs = inputs if mask is None else inputs * mask[tick]
        torch.addmm(bias, inputs, weight, out=self._ticks[dense + 1][tick])
        return self._activate(dense + 1, tick)

    def _activate(self, index: int, tick: int) -> Tensor:
        return _silu(self._norm(index, tick), out=self._silu_ticks[index][tick])

    def _norm(self, index: int, tick: int, *skip: Tensor) -> Tensor:
        """The output of a norm; of that of a skip, both tensors whose sum it takes are given."""
        inputs = self._ticks[index][tick]
        if skip:
            torch.add(*skip, out=inputs)
        outputs = self._norms(index, inputs)
        if self._is_recording:
            self._norm_outputs[index].append(outputs)
        return outputs

    def keep(self, num_rows: int) -> None:
        """See ``BlockSynapseForward``."""
        self._ticks, self._silu_ticks = _first_rows(self._ticks, num_rows), _first_rows(self._silu_ticks, num_rows)

    def tape(self) -> list[list[Tensor]]:
        """See ``BlockSynapseForward``; inputs of the norms, their outputs, outputs of the activations, moments."""
        outputs = [torch.stack(ticks) for ticks in self._norm_outputs]
        return [self._norm_inputs, outputs, self._silus[: self._num_levels + 1], *self._norms.moments()]


class UNetSynapseBackward:
    """The backward pass of ``UNetSynapseForward``; see ``BlockSynapseBackward``.

    Args:
        dense: as in the forward pass.
        norms: as in the forward pass.
        masks: as in the forward pass.
        tape: from the forward pass.
    """

    def __init__(self, dense: Pairs, norms: Pairs, masks: Masks, tape: Sequence[Sequence[Tensor]]) -> None:
        self._weights = [weight for weight, _ in dense]
        self._num_levels = len(dense) // 2
        self._masks = masks
        num_active = len(dense) + 1
        norm_inputs, self._norm_outputs, self._silus, *moments = tape
        self._norms = NormsBackward(norms, norm_inputs, moments)
        self._norm_output_ticks = [part.unbind(0) for part in self._norm_outputs[:num_active]]
        self._d_dense: list[list[Tensor]] = [[] for _ in range(num_active)]
        self.d_first = torch.empty_like(norm_inputs[0])
        self._d_first_ticks = self.d_first.unbind(0)

    def run(self, tick: int, grad: Tensor) -> Tensor:
        """See ``BlockSynapseBackward``."""
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
        weight, mask = self._weights[dense], self._masks[dense]
        if mask is not None:
            product = torch.mm(d_dense, weight).mul_(mask[tick])
            return product if skipped is None else product.add_(skipped)
        return torch.mm(d_dense, weight) if skipped is None else torch.addmm(skipped, d_dense, weight)

    def _deactivate(self, index: int, tick: int, grad: Tensor) -> Tensor:
        return self._norms(index, tick, _silu_backward(grad, self._norm_output_ticks[index][tick]))

    def grads(self) -> list[Tensor]:
        """See ``BlockSynapseBackward``."""
        num_levels = self._num_levels
        dense: list[Tensor] = []
        for index in range(2 * num_levels):
            is_lowest_up = index == 2 * num_levels - 1  # it reads the lowest level, below all skips
            source = num_levels if is_lowest_up else index if index < num_levels else index + num_levels + 2
            inputs = self._silus[source] if source <= num_levels else self._norm_outputs[source]
            mask = self._masks[index]
            inputs = inputs if mask is None else inputs * mask
            flat = torch.cat(self._d_dense[index + 1][::-1])
            self._d_dense[index + 1].clear()
            dense += [flat.T @ inputs.flatten(0, 1), flat.sum(0)]
        return [*dense, *self._norms.grads()]
