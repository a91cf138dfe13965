"""The arithmetic floor: the multiply-adds that a policy needs, and the best rate of matrix products on this machine."""

import math
import time
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ctm_rl.config import MIN_UNET_WIDTH, PolicyConfig, is_own_encoder
from ctm_rl.encoders import build_observation_encoder
from ctm_rl.encoders.grid import EMBEDDING_DIM
from ctm_rl.errors import UserError
from ctm_rl.machine.pairing import num_pairs
from ctm_rl.spaces.actions import Actions
from ctm_rl.spaces.observations import Layout

FORWARD_AND_BACKWARD = 3
"""The forward product, and one of the same size for the gradient of each of its two factors."""
_SHAPES = ((512, 512, 512), (1024, 1024, 1024), (6400, 128, 256), (6400, 256, 256), (256, 6400, 128))
"""Rows, inner size and columns of the products that are measured: square ones, and tall ones of a whole minibatch."""
_NUM_GATES = {"lstm": 4, "gru": 3, "mlp": 1}


class MultiplyAdds(NamedTuple):
    """Multiply-adds of the forward pass of one environment step, by part; dense products only."""

    encoder: int
    """Observation to features, once."""
    features: int
    """Products of the core with the features alone, once: they are the same for all ticks of a step."""
    recurrent: int
    """Products of the core with its own state, in all ticks."""
    neurons: int
    """Neuron-level models, in all ticks."""
    sync: int
    """Products of the neuron pairs in all ticks, and their weighted sum."""
    heads: int
    """Policy and value heads, once."""

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self)


def count(config: PolicyConfig, layout: Layout, actions: Actions) -> MultiplyAdds:
    """Counts one environment step of a policy.

    Args:
        config: the policy; its encoder and, of a baseline, its width must be set.
        layout: of observations; one vector or one grid.
        actions: of the environment.

    Returns:
        Multiply-adds of the forward pass.

    Raises:
        UserError: observations have several parts, or are images, categories or texts.
    """
    read_as = {part.encoder for part in layout.parts}
    if len(layout.parts) > 1 or not read_as <= {"control", "plain", "grid"}:
        raise UserError(f"the bench counts policies on a vector or a grid; this one has encoder {config.encoder!r}.")
    encoder, num_features = _encoder(config, layout)
    num_ticks, neurons, sync = config.num_ticks, 0, 0
    if config.kind != "ctm":
        if config.baseline_dim is None:
            raise ValueError("baseline_dim must be set to count multiply-adds, got None; settle_width computes it.")
        answer_dim, num_gates = config.baseline_dim, _NUM_GATES[config.kind]
        features = num_features * num_gates * answer_dim
        recurrent = 0 if config.kind == "mlp" else num_ticks * answer_dim * num_gates * answer_dim
    else:
        pairs = num_pairs(config.pairing, config.num_output_sync_neurons)
        answer_dim = pairs + config.use_first_order * config.num_neurons
        features, recurrent = _synapse(config, num_features)
        neurons = num_ticks * _neurons(config)
        # One product for each pair and tick; then the weighted sum over the window, once, or a decay in each tick.
        sync = pairs * num_ticks + answer_dim * (config.history_length if config.sync_window else num_ticks)
        if config.critic == "own":
            features, recurrent, neurons, sync = 2 * features, 2 * recurrent, 2 * neurons, 2 * sync
    return MultiplyAdds(encoder, features, recurrent, neurons, sync, _heads(config, answer_dim, actions.num_outputs))


def _encoder(config: PolicyConfig, layout: Layout) -> tuple[int, int]:
    """The encoder, and the number of its features; one of the user's is counted by running it on zeros."""
    if is_own_encoder(config.encoder):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            encoder = build_observation_encoder(layout, config.feature_dim, config.encoder).eval()
            with FlopCounterMode(display=False) as counter:
                encoder(torch.zeros(1, *layout.shape))
        return counter.get_total_flops() // 2, encoder.out_dim
    if config.encoder == "plain":
        return 0, math.prod(layout.shape)
    width, is_grid = config.feature_dim, config.encoder == "grid"
    num_cells = math.prod(layout.shape[:2]) if is_grid else 1
    input_dim = 4 * EMBEDDING_DIM if is_grid else math.prod(layout.shape)
    return num_cells * (input_dim + width) * 2 * width, num_cells * width


def _synapse(config: PolicyConfig, num_features: int) -> tuple[int, int]:
    """The synapse model: products with the features, once, and all others, in all ticks."""
    num_neurons = config.num_neurons
    if config.synapse_depth == 1:
        first, rest = 2 * num_neurons, (config.num_synapse_blocks - 1) * num_neurons * 2 * num_neurons
    else:
        widths = [int(width) for width in np.linspace(num_neurons, MIN_UNET_WIDTH, config.synapse_depth)]
        first = widths[0]
        rest = 2 * sum(wide * narrow for wide, narrow in pairwise(widths))
    return num_features * first, config.num_ticks * (num_neurons * first + rest)


def _neurons(config: PolicyConfig) -> int:
    """The neuron-level models of all neurons in one tick."""
    hidden, length = config.nlm_hidden_dim, config.history_length
    return config.num_neurons * (length * 2 * hidden + hidden * 2 if config.is_nlm_deep else length * 2)


def _heads(config: PolicyConfig, answer_dim: int, num_actions: int) -> int:
    """The policy head and the value head."""
    widths = (answer_dim, *config.head_dims)
    hidden = sum(one * two for one, two in pairwise(widths))
    return 2 * hidden + widths[-1] * (num_actions + 1)


def gflop(parts: MultiplyAdds, num_env_steps: int) -> float:
    """Floating-point operations, in 10^9, of forward and backward passes; a multiply-add is two of them."""
    return 2e-9 * parts.total * num_env_steps * FORWARD_AND_BACKWARD


def matrix_rate(device: torch.device, seconds: float = 0.5) -> float:
    """Measures how fast this process multiplies matrices, with the threads it has now.

    Args:
        device: where the matrices are.
        seconds: how long to measure, all shapes together.

    Returns:
        The best rate of several shapes, in GFLOP/s.
    """
    best = 0.0
    for rows, inner, columns in _SHAPES:
        left = torch.randn(rows, inner, device=device)
        right = torch.randn(inner, columns, device=device)
        out = torch.empty(rows, columns, device=device)
        deadline = time.perf_counter() + seconds / len(_SHAPES)
        torch.mm(left, right, out=out)
        ended = 0.0
        while ended <= deadline:
            started = now(device)
            torch.mm(left, right, out=out)
            ended = now(device)
            best = max(best, 2e-9 * rows * inner * columns / (ended - started))
    return best


def now(device: torch.device) -> float:
    """The time, in seconds, when a device has finished all that it was given: a GPU works on after a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
