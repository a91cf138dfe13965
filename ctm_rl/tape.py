"""The tape of an unroll: what its ticks leave behind, and the backward pass that reads it from the end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.scan import Restarts

_glu = torch.ops.aten.glu
_glu_backward = torch.ops.aten.glu_backward
_norm = torch.ops.aten.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward


NORM_EPSILON = 1e-5
"""As in ``nn.LayerNorm``, whose default the synapse's blocks use."""


class Tape(NamedTuple):
    """What the ticks leave for the backward pass; L ticks, B rows, D neurons, O outputs of an NLM's first layer."""

    dense: list[Float[Tensor, "L B E"]]
    """What the dense layer of each block gave."""
    gated: list[Float[Tensor, "L B D"]]
    """The same after the gate."""
    normed: list[Float[Tensor, "L B D"]]
    """The same after the norm, without its scale and shift."""
    mean: list[Float[Tensor, "L B 1"]]
    """Of what is normed."""
    rstd: list[Float[Tensor, "L B 1"]]
    """One over its deviation."""
    neural: list[Float[Tensor, "L D O B"]]
    """What each layer of the neuron-level models gave."""
    hidden: Float[Tensor, "D H L B"]
    """The first of these after the gate; empty for shallow models."""
    places: Float[Tensor, "D ML B"]
    """The buffer of pre-activations: the history before the first tick, then one place a tick."""
    activations: Float[Tensor, "L1 D B"]
    """z before the first tick, and after each."""
    overwritten: list[Float[Tensor, "D M r"]]
    """For each step at which rows restart: what stood in their window."""

    @staticmethod
    def blank(
        inputs: Tensor, history: Tensor, post_activation: Tensor, num_ticks: int, has_second: bool, nlm: list[Tensor]
    ) -> "Tape":
        """Makes room for all ticks, and puts the start in its place."""
        num_steps, batch_size, width = inputs.shape
        num_neurons, length, _ = history.shape
        total = num_steps * num_ticks
        new = inputs.new_empty
        blocks = range(2 if has_second else 1)
        tape = Tape(
            dense=[new(total, batch_size, width) for _ in blocks],
            gated=[new(total, batch_size, num_neurons) for _ in blocks],
            normed=[new(total, batch_size, num_neurons) for _ in blocks],
            mean=[new(total, batch_size, 1) for _ in blocks],
            rstd=[new(total, batch_size, 1) for _ in blocks],
            neural=[new(total, num_neurons, weight.shape[1], batch_size) for weight in nlm[::2]],
            hidden=new(num_neurons, nlm[0].shape[1] // 2, total if len(nlm) > 2 else 0, batch_size),
            places=new(num_neurons, length + total, batch_size),
            activations=new(total + 1, num_neurons, batch_size),
            overwritten=[],
        )
        tape.places[:, :length] = history
        tape.activations[0] = post_activation
        return tape

    def tensors(self) -> list[Tensor]:
        """All of it in a row, for autograd to keep; :func:`split` takes it apart again."""
        many = (*self.dense, *self.gated, *self.normed, *self.mean, *self.rstd, *self.neural)
        return [*many, self.hidden, self.places, self.activations, *self.overwritten]

    def norm(self, block: int, tick: int) -> None:
        """Gates and normalises what the dense layer of a block gave."""
        gated = _glu.out(self.dense[block][tick], -1, out=self.gated[block][tick])
        outputs = self.normed[block][tick], self.mean[block][tick], self.rstd[block][tick]
        _norm.out(gated, gated.shape[1:], None, None, NORM_EPSILON, out0=outputs[0], out1=outputs[1], out2=outputs[2])

    def unnorm(self, block: int, tick: int, grad: Tensor, out: Tensor) -> None:
        """The gradient of the dense layer's output from that of the norm's."""
        gated = self.gated[block][tick]
        statistics = self.mean[block][tick], self.rstd[block][tick]
        d_gated, _, _ = _norm_backward(grad, gated, gated.shape[1:], *statistics, None, None, [True, False, False])
        _glu_backward.grad_input(d_gated, self.dense[block][tick], -1, grad_input=out)

    def rewind(
        self,
        grads: tuple[Tensor, ...],
        start_history: Tensor,
        start_activation: Tensor,
        recurrent: Tensor,
        second: Tensor | None,
        scale: Tensor,
        nlm: list[Tensor],
        restarts: Restarts,
        num_ticks: int,
    ) -> tuple[Tensor | None, ...]:
        """The backward pass; leaves the tape as it was."""
        d_activations, d_history, d_last = grads
        total, batch_size, width = self.dense[0].shape
        num_neurons, length = start_history.shape
        is_deep = len(nlm) > 2
        # windows get back what restarts have overwritten, which must not show on the tape
        places, overwritten = (self.places.clone() if self.overwritten else self.places), [*self.overwritten]
        d_dense = [torch.empty_like(dense) for dense in self.dense]
        d_pre = torch.empty_like(self.activations[1:])
        d_first = torch.empty_like(self.neural[0][0])
        d_second_layer = self.hidden.new_empty(num_neurons, 2, self.hidden.shape[2], batch_size)
        d_weight = torch.zeros_like(nlm[0], memory_format=torch.contiguous_format)
        d_bias = torch.zeros_like(d_first)
        d_start_history, d_start_activation = torch.zeros_like(start_history), torch.zeros_like(start_activation)
        transposed = [weight.transpose(1, 2).contiguous() for weight in nlm[::2]]
        recurrent_t = recurrent.T.contiguous()
        d_normed = torch.empty_like(self.normed[0][0])
        window_grads = _WindowGrads(d_history)
        d_z, window = d_last, d_history
        for tick in reversed(range(total)):
            d_z = d_z + d_activations[tick]
            grad = d_z.unsqueeze(1)
            if is_deep:
                _glu_backward.grad_input(grad, self.neural[1][tick], 1, grad_input=d_second_layer[:, :, tick])
                grad = torch.bmm(transposed[1], d_second_layer[:, :, tick])
            _glu_backward.grad_input(grad, self.neural[0][tick], 1, grad_input=d_first)
            d_bias += d_first
            d_weight.baddbmm_(d_first, places[:, tick + 1 : tick + 1 + length].transpose(1, 2))
            window = window_grads.step(transposed[0], d_first)
            d_pre[tick] = window[:, -1]
            torch.mul(d_pre[tick].T, scale, out=d_normed)
            grad = d_normed
            if second is not None:
                self.unnorm(1, tick, grad, d_dense[1][tick])
                grad = d_dense[1][tick] @ second
            self.unnorm(0, tick, grad, d_dense[0][tick])
            d_z = torch.mm(recurrent_t, d_dense[0][tick].T)
            rows = restarts[tick // num_ticks] if tick % num_ticks == 0 else None
            if rows is not None:
                d_start_history[:, 1:] += window[:, :-1, rows].sum(-1)
                window[:, :-1, rows] = 0.0
                d_start_activation += d_z[:, rows].sum(-1)
                d_z.index_fill_(1, rows, 0.0)
                places[:, tick : tick + length, rows] = overwritten.pop()
        d_before = torch.zeros_like(window)
        d_before[:, 1:] = window[:, :-1]
        flat = d_dense[0].view(-1, width)
        read = self.activations[:-1].transpose(1, 2).contiguous()  # [L, B, D]
        for step, rows in enumerate(restarts):
            if rows is not None:
                read[step * num_ticks, rows] = start_activation
        d_recurrent = flat.T @ read.view(-1, num_neurons)
        d_inputs = d_dense[0].view(-1, num_ticks, batch_size, width).sum(1)
        d_second, d_second_bias = None, None
        if second is not None:
            flat = d_dense[1].view(-1, width)
            d_second, d_second_bias = flat.T @ self.normed[0].view(-1, num_neurons), flat.sum(0)
        d_scale, d_shift = (d_pre * self.normed[-1].transpose(1, 2)).sum((0, 2)), d_pre.sum((0, 2))
        d_nlm = [d_weight, d_bias.sum(-1, keepdim=True)]
        if is_deep:
            flat = d_second_layer.flatten(2)
            d_nlm += [torch.bmm(flat, self.hidden.flatten(2).transpose(1, 2)), flat.sum(-1, keepdim=True)]
        dense_grads = d_recurrent, d_second, d_second_bias, d_scale, d_shift
        return d_inputs, d_before, d_z, d_start_history, d_start_activation, *dense_grads, *d_nlm, None, None


def split(tensors: Sequence[Tensor], num_blocks: int, num_layers: int) -> list[Any]:
    """The fields of a tape from its tensors in a row."""
    fields: list[Any] = []
    rest = list(tensors)
    for count in (*[num_blocks] * 5, num_layers):
        fields.append(rest[:count])
        rest = rest[count:]
    return [*fields, *rest[:3], rest[3:]]


class _WindowGrads:
    """The gradient of the M places of the window, which slides back by one place a tick.

    Two buffers take turns. Each is a block of M x B for every neuron, after B zeros: read B numbers earlier, a block
    appears shifted by one place, with the last place of the neuron before it (done with, set to zero) as its first. So
    the shift costs no copy.
    """

    def __init__(self, final: Float[Tensor, "D M B"]) -> None:
        self._shape = final.shape
        self._num_rows = final.shape[2]
        self._blocks = [final.new_zeros(self._num_rows + final.numel()) for _ in range(2)]
        self._which = 0
        self._is_first = True
        self._window(0).copy_(final)

    def step(self, weight: Float[Tensor, "D M O"], grad: Float[Tensor, "D O B"]) -> Float[Tensor, "D M B"]:
        """Adds one tick's share and moves on; gives the gradients of that tick's window, its own place last."""
        if self._is_first:
            # after the last tick the window stands where that tick saw it
            before = self._window(self._which)
            self._is_first = False
        else:
            self._window(self._which)[:, -1] = 0.0
            before = self._blocks[self._which][: -self._num_rows].view(self._shape)
        self._which = 1 - self._which
        return torch.baddbmm(before, weight, grad, out=self._window(self._which))

    def _window(self, which: int) -> Tensor:
        return self._blocks[which][self._num_rows :].view(self._shape)
