"""The machine straight from the equations: plain loops over rows, neurons, pairs and ticks; slow, obvious, float64.

Written from arXiv:2505.05522, not from the code under test, whose weights it only reads.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctm_rl.machine.core import CTMCore
from ctm_rl.machine.neuron_models import NeuronLinear
from ctm_rl.machine.state import AnyState
from ctm_rl.machine.synapse import BlockSynapse, UNetSynapse


def assert_same_state(one: AnyState, two: AnyState) -> None:
    """Equal to the last bit, field by field."""
    for name, before, after in zip(one._fields, one, two, strict=True):
        if before is None or after is None:
            assert before is after, name
        else:
            assert torch.equal(before, after), name


def parts(state: AnyState) -> list[Tensor]:
    """The fields of a state that are there."""
    return [part for part in state if part is not None]


def glu(values: Tensor) -> Tensor:
    """First half times the sigmoid of the second."""
    half = len(values) // 2
    return values[:half] * (1 / (1 + torch.exp(-values[half:])))


def layer_norm(values: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    """Mean 0, variance 1 (biased), then the layer's own scale and shift."""
    centred = values - values.mean()
    return centred / torch.sqrt((centred**2).mean() + layer.eps) * layer.weight + layer.bias


def linear(values: Tensor, layer: torch.nn.Linear) -> Tensor:
    """W x + b, one output at a time."""
    return torch.stack([(row * values).sum() for row in layer.weight]) + layer.bias


def silu(values: Tensor) -> Tensor:
    """Sigmoid-weighted: x sigmoid(x)."""
    return values / (1 + torch.exp(-values))


def synapse(values: Tensor, model: BlockSynapse | UNetSynapse) -> Tensor:
    """Blocks in a row, or down and up again with skips."""
    if isinstance(model, BlockSynapse):
        layers = list(model.layers)[1:]
        for dense, _, norm in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
            values = layer_norm(glu(linear(values, dense)), norm)  # pyright: ignore[reportArgumentType]
        return values
    first, down, up, norms = model.first, list(model.down), list(model.up), list(model.skip_norms)
    levels = [silu(layer_norm(linear(values, first[0]), first[1]))]  # pyright: ignore[reportArgumentType]
    for step in down:
        levels.append(silu(layer_norm(linear(levels[-1], step[1]), step[2])))  # pyright: ignore
    values = levels[-1]
    for level in range(len(up) - 1, -1, -1):
        risen = silu(layer_norm(linear(values, up[level][1]), up[level][2]))  # pyright: ignore
        values = layer_norm(risen + levels[level], norms[level])  # pyright: ignore[reportArgumentType]
    return values


def neuron(history: Tensor, d: int, layers: Sequence[NeuronLinear]) -> Tensor:
    """Neuron d's own model on its own history [M]."""
    values = history
    for layer in layers:
        if isinstance(layer.norm, torch.nn.LayerNorm):
            values = layer_norm(values, layer.norm)
        sums = torch.stack([(layer.weight[d, :, o] * values).sum() for o in range(layer.weight.shape[2])])
        values = glu((sums + layer.bias[d]) / layer.temperature)
    return values.squeeze()


def sync(activations: Sequence[Tensor], left: int, right: int, rate: Tensor) -> Tensor:
    """sum_k e^(-r age_k) z_left z_right / sqrt(sum_k e^(-r age_k)) over all given ticks; newest last."""
    weights = [torch.exp(-rate * (len(activations) - 1 - k)) for k in range(len(activations))]
    total = torch.stack([w * z[left] * z[right] for w, z in zip(weights, activations, strict=True)]).sum()
    return total / torch.sqrt(torch.stack(weights).sum())


def run_row(core: CTMCore, read: Callable[[Tensor, int], Tensor], num_ticks: int) -> dict[str, list[Tensor]]:
    """One row from the learned start through ``num_ticks`` ticks.

    Args:
        core: whose weights to use.
        read: from the action sync [Q] and the tick's number to the features [F].
        num_ticks: how many ticks.

    Returns:
        Of every tick: pre_activation [D], post_activation [D], action_sync [Q], output_sync [P].
    """
    window = core.config.history_length if core.config.sync_window else None
    history = [core.start_pre_history[:, m] for m in range(core.config.history_length)]
    if window is None:
        activations = [core.start_post_activation]
    else:
        activations = [core.start_post_history[:, m] for m in range(window)]
    layers = list(core.nlm.layers)
    out: dict[str, list[Tensor]] = {
        "pre_activation": [], "post_activation": [], "action_sync": [], "output_sync": []
    }  # fmt: skip

    def read_sync(module: torch.nn.Module) -> Tensor:
        seen = activations if window is None else activations[-window:]
        left, right, rates = (getattr(module, name) for name in ("left", "right", "decay_rate"))
        left, right = left.tolist(), right.tolist()
        # a neuron without a partner is read as if its partner's z were always 1
        with_ones = [torch.cat((z, torch.ones(1, dtype=z.dtype))) for z in seen]
        right += [len(seen[0])] * (len(left) - len(right))
        return torch.stack([sync(with_ones, i, j, rate) for i, j, rate in zip(left, right, rates, strict=True)])

    for k in range(num_ticks):
        query = torch.zeros(0) if core.action_sync is None else read_sync(core.action_sync)
        features = read(query, k)
        pre_activation = synapse(torch.cat((features, activations[-1])), core.synapse)
        history = [*history[1:], pre_activation]
        stacked = torch.stack(history, -1)  # [D, M]
        activations.append(torch.stack([neuron(stacked[d], d, layers) for d in range(len(stacked))]))  # pyright: ignore
        out["pre_activation"].append(pre_activation)
        out["post_activation"].append(activations[-1])
        out["action_sync"].append(query)
        out["output_sync"].append(read_sync(core.output_sync))
    return out


def certainty(logits: Tensor) -> float:
    """1 - H / log C of one distribution [C]."""
    probabilities = torch.softmax(logits.double(), 0)
    entropy = -sum(float(p) * math.log(float(p)) for p in probabilities if p > 0)
    return 1 - entropy / math.log(len(probabilities))
