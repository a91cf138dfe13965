"""Action spaces of a policy: independent choices, or numbers from a squashed Gaussian; how to sample and score them."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

_LOG_STD_LIMITS = (-5.0, 2.0)
_NO_CHANCE = -1e9
"""Logit that pads choices of unequal sizes; its probability is 0, and 0 times its logarithm is 0, not NaN."""
_ILLEGAL = -1e8
"""Logit of an option that a mask forbids. Where it forbids all of them, as after an episode's end, they are equally
likely, and the padding still has no probability."""


class Chosen(NamedTuple):
    """How a policy scores actions."""

    logp: Tensor
    """Log-probability of the action, [B, ...]."""
    entropy: Tensor
    """Entropy of the distribution, [B, ...]."""


def chosen(logits: Tensor, actions: Tensor) -> Chosen:
    """Log-probabilities of choices, and entropies of their distributions.

    Args:
        logits: of the choices, [..., A].
        actions: the index of each choice, [...].

    Returns:
        [...] each.
    """
    log_probabilities = logits.log_softmax(-1)
    logp = log_probabilities.gather(-1, actions[..., None]).squeeze(-1)
    return Chosen(logp, -(log_probabilities.exp() * log_probabilities).sum(-1))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One or several independent choices: Discrete, MultiDiscrete and MultiBinary.

    As columns, actions count from 0: int64 [...] for the one choice of a Discrete space, [..., N] otherwise.
    """

    sizes: tuple[int, ...]
    """Number of options of each of the N choices."""
    starts: tuple[int, ...] = ()
    """The environment's number of the first option of each; empty: 0."""
    shape: tuple[int, ...] = ()
    """Of one action in the environment; empty for a Discrete space."""
    dtype: str = "int64"
    """Of an action in the environment."""
    is_masked: bool = False
    """Whether every observation comes with a mask of the legal options, see ``spaces.action_masks``."""

    def __str__(self) -> str:
        """The text for messages."""
        counted = f"one of {self.sizes[0]}" if len(set(self.sizes)) == 1 else f"of {', '.join(map(str, self.sizes))}"
        masked = ", with action masks" if self.is_masked else ""
        return f"{len(self.sizes)} choice{'s' if len(self.sizes) > 1 else ''}, {counted}{masked}"

    @property
    def num_outputs(self) -> int:
        """Number of outputs of the policy head."""
        return sum(self.sizes)

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Of one action in a column."""
        return (len(self.sizes),) if self.shape else ()

    @property
    def column_dtype(self) -> np.dtype:
        """Of a column of actions."""
        return np.dtype(np.int64)

    def grouped(self, outputs: Float[Tensor, "*batch O"]) -> Float[Tensor, "*batch N S"]:
        """Logits of each choice, [..., N, S]; choices of fewer than S options are padded."""
        if len(set(self.sizes)) == 1:
            return outputs.unflatten(-1, (len(self.sizes), self.sizes[0]))
        padding = outputs.new_full((*outputs.shape[:-1], 1), _NO_CHANCE)
        return torch.cat((outputs, padding), -1)[..., self._index.to(outputs.device)]

    def masked(self, outputs: Float[Tensor, "*batch O"], masks: Bool[Tensor, "*batch O"]) -> Float[Tensor, "*batch O"]:
        """Outputs of the distribution over the legal options alone: the others have no probability and no gradient.

        ``pi(a) = exp(y_a) / sum_{b legal} exp(y_b)`` for each choice. Source: arXiv:2006.14171.
        """
        return outputs.masked_fill(~masks, _ILLEGAL)

    def count_legal(self, masks: Bool[Tensor, "*batch O"]) -> Int[Tensor, "*batch N"]:
        """Number of legal options of each choice."""
        return torch.stack([of_choice.sum(-1) for of_choice in masks.split(list(self.sizes), -1)], -1)

    def unpack_masks(self, packed: UInt8[Tensor, "*batch bytes"]) -> Bool[Tensor, "*batch O"]:
        """Inverse of ``action_masks.pack_masks``."""
        places = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
        bits = packed[..., None].bitwise_right_shift(places).bitwise_and(1)
        return bits.flatten(-2)[..., : self.num_outputs].bool()

    def sample(self, outputs: Float[Tensor, "B O"], generator: torch.Generator | None) -> Tensor:
        """Samples actions, [B, *column_shape]."""
        probabilities = self.grouped(outputs).softmax(-1)
        drawn = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        return drawn.view(len(outputs), *self.column_shape)

    def mode(self, outputs: Float[Tensor, "B O"]) -> Tensor:
        """The likeliest actions, [B, *column_shape]."""
        return self.grouped(outputs).argmax(-1).view(len(outputs), *self.column_shape)

    def score(self, outputs: Float[Tensor, "*batch O"], actions: Tensor) -> Chosen:
        """Log-probabilities of actions [*batch, *column_shape], and entropies, [*batch] each."""
        if not self.column_shape:
            return chosen(outputs, actions)
        each = chosen(self.grouped(outputs), actions)
        return Chosen(each.logp.sum(-1), each.entropy.sum(-1))

    def divergence(self, outputs: Float[Tensor, "*batch O"], others: Float[Tensor, "*batch O"]) -> Tensor:
        """Kullback-Leibler divergence of a policy's outputs from another's, [*batch]."""
        one, other = (self.grouped(logits).log_softmax(-1) for logits in (outputs, others))
        return (one.exp() * (one - other)).sum((-2, -1))

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Converts actions of a column, [B, *column_shape], to the environment's, [B, *shape]."""
        if any(self.starts):
            actions = actions + np.asarray(self.starts if self.shape else self.starts[0])
        return actions.reshape(len(actions), *self.shape).astype(self.dtype, copy=False)

    @cached_property
    def _index(self) -> Tensor:
        """Index of each choice's logits, [N, S]; the index after the last one pads."""
        index = torch.full((len(self.sizes), max(self.sizes)), self.num_outputs)
        start = 0
        for row, size in zip(index, self.sizes, strict=True):
            row[:size] = torch.arange(start, start + size)
            start += size
        return index


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Real numbers between bounds: a Box, sampled from a Gaussian that tanh squashes where both bounds are finite.

    The policy's outputs are N means, then N logarithms of standard deviations. As columns, actions are the samples
    before squashing, float32 [..., N], which lose nothing where tanh saturates. Log-probabilities and entropies are
    those of the squashed number between -1 and 1; the environment's own scale would add a constant.
    """

    low: tuple[float, ...]
    """Lower bound of each of the N numbers; may be -inf."""
    high: tuple[float, ...]
    """Upper bound of each; may be inf."""
    shape: tuple[int, ...]
    """Of one action in the environment."""
    dtype: str = "float32"
    """Of an action in the environment."""

    def __str__(self) -> str:
        """The text for messages."""
        return f"numbers of shape {self.shape} from {min(self.low):g} to {max(self.high):g}"

    @property
    def num_outputs(self) -> int:
        """Number of outputs of the policy head."""
        return 2 * len(self.low)

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Of one action in a column."""
        return (len(self.low),)

    @property
    def column_dtype(self) -> np.dtype:
        """Of a column of actions."""
        return np.dtype(np.float32)

    def sample(self, outputs: Float[Tensor, "B O"], generator: torch.Generator | None) -> Tensor:
        """Samples actions, before squashing, [B, N]."""
        shape = (*outputs.shape[:-1], len(self.low))
        return self.place(outputs, torch.randn(shape, generator=generator, dtype=outputs.dtype))

    def place(self, outputs: Float[Tensor, "B O"], noise: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The actions, before squashing, that standard Gaussian noise stands for."""
        mean, log_std = _moments(outputs)
        return mean + log_std.exp() * noise

    def mode(self, outputs: Float[Tensor, "B O"]) -> Tensor:
        """The means before squashing, [B, N], which are the medians after it."""
        return _moments(outputs)[0]

    def score(self, outputs: Float[Tensor, "*batch O"], actions: Float[Tensor, "*batch N"]) -> Chosen:
        """Log-probabilities of actions before squashing, [*batch, N], and entropies, [*batch] each."""
        mean, log_std = _moments(outputs)
        std = log_std.exp()
        is_squashed = self.is_squashed.to(outputs.device)
        half = 0.5 * math.log(2 * math.pi)
        logp = -0.5 * ((actions - mean) / std).square() - log_std - half
        logp = logp - torch.where(is_squashed, _log_slope(actions), 0.0)
        # the expectation of the slope's logarithm under the Gaussian, by Gauss-Hermite quadrature
        nodes, weights = (part.to(outputs) for part in self._quadrature)
        slopes = (_log_slope(mean[..., None] + std[..., None] * nodes) * weights).sum(-1)
        entropy = log_std + 0.5 + half + torch.where(is_squashed, slopes, 0.0)
        return Chosen(logp.sum(-1), entropy.sum(-1))

    def divergence(self, outputs: Float[Tensor, "*batch O"], others: Float[Tensor, "*batch O"]) -> Tensor:
        """Kullback-Leibler divergence of a policy's outputs from another's, [*batch]; squashing does not change it."""
        (mean, log_std), (other_mean, other_log_std) = _moments(outputs), _moments(others)
        variance, other_variance = (2 * log_std).exp(), (2 * other_log_std).exp()
        each = other_log_std - log_std + (variance + (mean - other_mean).square()) / (2 * other_variance) - 0.5
        return each.sum(-1)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Converts actions of a column, [B, N], to the environment's, [B, *shape]."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        is_squashed = self.is_squashed.numpy()
        with np.errstate(invalid="ignore"):
            squashed = low + (np.tanh(actions) + 1) * 0.5 * (high - low)
        inside = np.clip(np.where(is_squashed, squashed, actions), low, high)
        return inside.reshape(len(actions), *self.shape).astype(self.dtype, copy=False)

    @cached_property
    def is_squashed(self) -> Tensor:
        """Which numbers have two finite bounds, [N]."""
        return torch.tensor(np.isfinite(self.low) & np.isfinite(self.high))

    @cached_property
    def has_mixed_bounds(self) -> bool:
        """Whether some numbers have two finite bounds and others do not."""
        return bool(self.is_squashed.any()) and not bool(self.is_squashed.all())

    @cached_property
    def _quadrature(self) -> tuple[Tensor, Tensor]:
        """Nodes and weights for the expectation under a standard Gaussian, [33] each; enough for wide Gaussians too."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(33)
        return torch.tensor(nodes), torch.tensor(weights / weights.sum())


Actions = Choices | Numbers


def to_plain(actions: Actions) -> dict[str, Any]:
    """The action space in plain values, for a checkpoint; ``checkpoints.schema.check_actions`` is the inverse."""
    plain = {"kind": "choices" if isinstance(actions, Choices) else "numbers", **asdict(actions)}
    if not plain.get("is_masked", True):
        del plain["is_masked"]  # versions without masks read the others
    return plain


def is_masked(actions: Actions) -> bool:
    """Whether every observation comes with a mask of the legal actions."""
    return isinstance(actions, Choices) and actions.is_masked


def _moments(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Means and logarithms of standard deviations, [..., N] each."""
    mean, log_std = outputs.chunk(2, -1)
    return mean, log_std.clamp(*_LOG_STD_LIMITS)


def _log_slope(numbers: Tensor) -> Tensor:
    """Logarithm of the slope of tanh, without the cancellation of 1 - tanh^2."""
    return 2 * (math.log(2) - numbers - torch.nn.functional.softplus(-2 * numbers))
