"""The way back over a recorded sweep: hand-written, tick by tick, with the weight gradients summed at the end.

The gradients of the dense layers' weights are one product each over all ticks, since ticks share their weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ctm_rl.scan import Restarts
from ctm_rl.sweep import SweepWeights, Tape

_norm_backward = torch.ops.aten.native_layer_norm_backward


class Rewind:
    """Runs back over the ticks of a tape, which stays as it was.

    Args:
        weights: what the ticks ran with.
        tape: what they left.
        d_history: gradient of the history after the last tick, [D, M, B].
    """

    def __init__(self, weights: SweepWeights, tape: Tape, d_history: Float[Tensor, "D M B"]) -> None:
        self._weights = weights
        self._tape = tape
        num_neurons, self._length, num_rows = d_history.shape
        self._total = len(tape.last_gate)
        # windows get back what restarts have overwritten, which must not show on the tape
        self._places = tape.places.clone() if len(tape.kept) else tape.places
        self._num_kept = len(tape.kept)
        new = d_history.new_empty
        self._d_dense = [new(*gated.shape[:2], 2 * num_neurons) for gated in tape.gated]
        self._d_pre = torch.empty_like(tape.gated[0])
        self._d_normed = torch.empty_like(tape.gated[0][0])
        self._d_first_nlm = torch.zeros_like(weights.first_nlm, memory_format=torch.contiguous_format)
        self._d_first = new(num_neurons, weights.first_nlm.shape[1], num_rows)
        self._d_first_sum = torch.zeros_like(self._d_first)
        self._d_last = self._d_first
        self._d_start_activation = torch.zeros_like(weights.start_activation)
        self._recurrent = weights.recurrent.T.contiguous()
        self._ring = _HistoryGrads(weights.first_nlm, d_history, self._total)
        if weights.second_nlm is not None:
            self._d_last = new(num_neurons, 2, num_rows)
            self._d_last_sum = torch.zeros_like(self._d_last)
            self._d_second_nlm = torch.zeros_like(weights.second_nlm, memory_format=torch.contiguous_format)
            self._second_nlm = _SmallTransposedProduct(weights.second_nlm, num_rows)
            self._hidden_gate_grad = _GateGrad(self._d_first, 1)
        self._last_gate_grad = _GateGrad(self._d_last.transpose(0, 1), 0)
        self._dense_gate_grads = [[_GateGrad(tick, 1) for tick in ticks.unbind(0)] for ticks in self._d_dense]

    def run(
        self,
        d_activations: Float[Tensor, "L S B"],
        neurons: Tensor,
        d_last: Float[Tensor, "D B"],
        restarts: Restarts,
        num_ticks: int,
    ) -> Float[Tensor, "D B"]:
        """Runs back through all ticks.

        Args:
            d_activations: gradient of the synchronised neurons' z after every tick.
            neurons: which these are, [S].
            d_last: gradient of z after the last tick.
            restarts: which rows started an episode before each step.
            num_ticks: K.

        Returns:
            The gradient of z before the first tick.
        """
        d_z = d_last.clone()
        for tick in reversed(range(self._total)):
            d_z.index_add_(0, neurons, d_activations[tick])
            d_z = self._tick(tick, d_z)
            rows = restarts[tick // num_ticks] if tick % num_ticks == 0 else ()
            for row in reversed(rows):
                self._restart(tick, row, d_z)
        return d_z

    def _tick(self, tick: int, d_z: Tensor) -> Tensor:
        """From the gradient of z after a tick to that of z before it."""
        weights, tape = self._weights, self._tape
        self._last_gate_grad(d_z[None], tape.last_gate[tick][None], tape.activations[tick + 1][None])
        if weights.second_nlm is not None:
            hidden = tape.hidden[tick]
            self._d_last_sum += self._d_last
            self._d_second_nlm.baddbmm_(self._d_last, hidden.transpose(1, 2))
            self._hidden_gate_grad(self._second_nlm(self._d_last), tape.hidden_gate[tick], hidden)
        self._d_first_sum += self._d_first
        window = self._places[:, tick + 1 : tick + 1 + self._length]
        self._d_first_nlm.baddbmm_(self._d_first, window.transpose(1, 2))
        d_pre = self._d_pre[tick]
        d_pre.copy_(self._ring.step(tick, self._d_first).T)
        grad = torch.mul(d_pre, weights.scale, out=self._d_normed)
        if weights.second is not None:
            grad = torch.mm(self._unnorm(1, tick, grad), weights.second)
        return torch.mm(self._recurrent, self._unnorm(0, tick, grad).T)

    def _unnorm(self, block: int, tick: int, grad: Tensor) -> Float[Tensor, "B E"]:
        """The gradient of a dense layer's output from that of the norm's."""
        tape = self._tape
        gated = tape.gated[block][tick]
        statistics = tape.means[block][tick], tape.rstds[block][tick]
        d_gated, _, _ = _norm_backward(grad, gated, gated.shape[1:], *statistics, None, None, [True, False, False])
        self._dense_gate_grads[block][tick](d_gated, tape.gates[block][tick], gated)
        return self._d_dense[block][tick]

    def _restart(self, tick: int, row: int, d_z: Tensor) -> None:
        """What lies before a restart gets no gradient; the learned start gets it."""
        self._ring.restart(tick, row)
        self._d_start_activation += d_z[:, row]
        d_z[:, row] = 0.0
        self._num_kept -= 1
        self._places[:, tick : tick + self._length, row] = self._tape.kept[self._num_kept]

    def weight_grads(self, restarts: Restarts, num_ticks: int) -> tuple[Tensor | None, ...]:
        """The gradients of all weights but those of the synchronisation, in their order."""
        weights, tape = self._weights, self._tape
        read = tape.activations[:-1].transpose(1, 2).contiguous()  # [L, B, D]
        for step, rows in enumerate(restarts):
            for row in rows:
                read[step * num_ticks, row] = weights.start_activation
        d_recurrent = self._d_dense[0].flatten(0, 1).T @ read.flatten(0, 1)
        d_second, d_second_bias = None, None
        if weights.second is not None:
            flat = self._d_dense[1].flatten(0, 1)
            d_second, d_second_bias = flat.T @ tape.normed(0).flatten(0, 1), flat.sum(0)
        d_scale, d_shift = tape.normed(-1).mul_(self._d_pre).sum((0, 1)), self._d_pre.sum((0, 1))
        d_second_nlm, d_second_nlm_bias = None, None
        if weights.second_nlm is not None:
            d_second_nlm, d_second_nlm_bias = self._d_second_nlm, self._d_last_sum.sum(-1)
        dense = d_recurrent, d_scale, d_shift, d_second, d_second_bias
        nlm = self._d_first_nlm, self._d_first_sum.sum(-1), d_second_nlm, d_second_nlm_bias
        return self._ring.d_start(), self._d_start_activation, *dense, *nlm

    def d_inputs(self, num_ticks: int) -> Float[Tensor, "T B E"]:
        """The gradient of what the features send in, the same for all ticks of a step."""
        return self._d_dense[0].unflatten(0, (-1, num_ticks)).sum(1)

    def d_history(self) -> Float[Tensor, "D M B"]:
        """The gradient of the history before the first tick."""
        return self._ring.d_history()


class _GateGrad:
    """The gradient of ``a sigmoid(b)`` with respect to a and b, into the halves of a buffer.

    ``d_a = g sigmoid(b)`` and ``d_b = g a sigmoid(b) (1 - sigmoid(b))``, of which the forward pass kept the output,
    ``a sigmoid(b)``, and the sigmoid.

    Args:
        out: where both go, the halves along ``dim``.
        dim: the dimension.
    """

    def __init__(self, out: Tensor, dim: int) -> None:
        self._first, self._second = out.chunk(2, dim)

    def __call__(self, grad: Tensor, gate: Tensor, output: Tensor) -> None:
        """Writes both, from the gradient of the output; all three are shaped as a half."""
        torch.mul(grad, gate, out=self._first)
        product = grad * output
        torch.addcmul(product, product, gate, value=-1.0, out=self._second)


class _HistoryGrads:
    """The gradient of the M places that a tick's window covers.

    Place p of the buffer has slot p mod M of a ring, so that nothing moves when the window slides back by one place:
    the weights turn instead, read from two copies laid end to end.
    """

    def __init__(self, weight: Float[Tensor, "D O M"], final: Float[Tensor, "D M B"], total: int) -> None:
        self._length = final.shape[1]
        transposed = weight.transpose(1, 2)
        self._weights = torch.cat((transposed, transposed), 1).contiguous()
        self._ring = final.roll(total % self._length, 1)  # slot of place p, of which the first is ``total``
        self._starts = final.new_zeros(self._length, *final.shape[:2])
        self._is_first = True

    def step(self, tick: int, grad: Float[Tensor, "D O B"]) -> Float[Tensor, "D B"]:
        """Adds one tick's share; gives the gradient of that tick's own place, which is then complete."""
        if not self._is_first:
            self._ring[:, (tick + 1) % self._length].zero_()  # until now the slot of the place M later
        self._is_first = False
        begin = (-tick - 1) % self._length
        self._ring.baddbmm_(self._weights[:, begin : begin + self._length], grad)
        return self._ring[:, tick % self._length]

    def restart(self, tick: int, row: int) -> None:
        """Hands what the window before ``tick`` got in one row to the start history."""
        self._ring[:, tick % self._length, row] = 0.0
        self._starts[tick % self._length] += self._ring[:, :, row]
        self._ring[:, :, row] = 0.0

    def d_start(self) -> Float[Tensor, "D M"]:
        """The gradient of the start history."""
        return torch.stack([start.roll(-turn, 1) for turn, start in enumerate(self._starts.unbind(0))]).sum(0)

    def d_history(self) -> Float[Tensor, "D M B"]:
        """The gradient of the history before tick 0, of which the oldest place is in nobody's window."""
        history = self._ring.clone()
        history[:, 0] = 0.0
        return history


class _SmallTransposedProduct:
    """``W_d^T g_d`` for every neuron d, for a W of two rows.

    Args:
        weight: W, [D, 2, H].
        num_rows: B.
    """

    def __init__(self, weight: Float[Tensor, "D 2 H"], num_rows: int) -> None:
        self._columns = [column[..., None] for column in weight.unbind(1)]  # [D, H, 1] each
        self._out = weight.new_empty(weight.shape[0], weight.shape[2], num_rows)

    def __call__(self, grad: Float[Tensor, "D 2 B"]) -> Float[Tensor, "D H B"]:
        """Gives the product, in a buffer that the next call uses again."""
        torch.mul(self._columns[0], grad[:, :1], out=self._out)
        return self._out.addcmul_(self._columns[1], grad[:, 1:])
