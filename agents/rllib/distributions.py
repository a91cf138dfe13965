"""Adapters between RLlib's own learners and runners and a policy: action distributions, packed observations."""

import functools
from typing import Any, cast

import torch
from ray.rllib.core.distribution.distribution import Distribution
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from torch import Tensor

from ctm_rl.errors import UserError
from ctm_rl.spaces.action_masks import MASK
from ctm_rl.spaces.actions import Actions, Choices, Numbers
from ctm_rl.spaces.observations import Layout

_MIXED_BOUNDS = (
    "RLlib's own algorithms need numbers that are all bounded or all unbounded; this environment's actions are mixed: "
    "use algorithm ppo."
)
_ALMOST_ONE = 1 - 1e-6
"""RLlib stores actions after squashing; in float32, nothing nearer to 1 has a finite inverse."""


class PolicyDistribution(Distribution):
    """A policy's action distribution with RLlib's interface.

    Bounded numbers are between -1 and 1; RLlib scales them to the environment's bounds.

    Args:
        logits: outputs of the policy head, [..., O].
        actions: the action space.
        is_deterministic: ``sample`` returns the most likely action.

    Raises:
        UserError: some of the numbers are bounded and some are not, which RLlib cannot scale.
    """

    def __init__(self, logits: Tensor, actions: Actions, *, is_deterministic: bool = False) -> None:
        super().__init__()
        if isinstance(actions, Numbers) and actions.has_mixed_bounds:
            raise UserError(_MIXED_BOUNDS)
        self._outputs = logits
        self._actions = actions
        self._is_deterministic = is_deterministic

    @classmethod
    def from_logits(cls, logits: Any, **kwargs: Any) -> "PolicyDistribution":
        """Creates the distribution from outputs [..., O]."""
        return cls(logits, **kwargs)

    @staticmethod
    def required_input_dim(space: Any, **kwargs: Any) -> int:
        """Number of outputs of the policy head."""
        return kwargs["actions"].num_outputs

    def sample(self, *, sample_shape: Any = None, **kwargs: Any) -> Any:
        """Draws actions, [..., *shape]."""
        flat = self._outputs.reshape(-1, self._outputs.shape[-1])
        drawn = self._actions.mode(flat) if self._is_deterministic else self._actions.sample(flat, None)
        drawn = drawn.unflatten(0, self._outputs.shape[:-1])
        if isinstance(self._actions, Choices):
            return self._shaped(drawn + self._starts(drawn) if any(self._actions.starts) else drawn)
        return self._shaped(torch.where(self._squashed(drawn), drawn.tanh(), drawn))

    def logp(self, value: Any, **kwargs: Any) -> Any:
        """Log-probabilities of actions [..., *shape]."""
        value = value.flatten(-len(self._actions.shape)) if self._actions.shape else value
        if isinstance(self._actions, Choices):
            value = value.long() - self._starts(value) if any(self._actions.starts) else value.long()
        else:
            inverse = value.clamp(-_ALMOST_ONE, _ALMOST_ONE).atanh()
            value = torch.where(self._squashed(value), inverse, value)
        return self._actions.score(self._outputs, value).logp

    def entropy(self, **kwargs: Any) -> Any:
        """Entropies, [...]."""
        anything = self._outputs.new_zeros((*self._outputs.shape[:-1], *self._actions.column_shape))
        anything = anything.long() if isinstance(self._actions, Choices) else anything
        return self._actions.score(self._outputs, anything).entropy

    def kl(self, other: Distribution, **kwargs: Any) -> Any:
        """KL divergence from another distribution of this class, [...]."""
        return self._actions.divergence(self._outputs, cast(PolicyDistribution, other)._outputs)

    def rsample(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported: samples are not differentiable."""
        raise NotImplementedError("samples of this distribution are not differentiable; use logp.")

    def to_deterministic(self) -> "PolicyDistribution":
        """The same distribution, whose samples are the most likely actions."""
        return PolicyDistribution(self._outputs, self._actions, is_deterministic=True)

    def _shaped(self, drawn: Tensor) -> Tensor:
        return drawn.unflatten(-1, self._actions.shape) if self._actions.shape else drawn

    def _starts(self, like: Tensor) -> Tensor:
        assert isinstance(self._actions, Choices)
        starts = self._actions.starts if self._actions.shape else self._actions.starts[0]
        return torch.as_tensor(starts, device=like.device)

    def _squashed(self, like: Tensor) -> Tensor:
        assert isinstance(self._actions, Numbers)
        return self._actions.is_squashed.to(like.device)


def distribution_of(actions: Actions) -> Any:
    """RLlib's distribution class for a policy's actions, or a callable in its place."""
    if isinstance(actions, Choices) and not actions.shape and not any(actions.starts):
        return TorchCategorical
    return _BoundDistribution(actions)


class _BoundDistribution:
    """``PolicyDistribution`` with its actions bound; a picklable object that is called like a class."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self.from_logits = functools.partial(PolicyDistribution, actions=actions)

    def __call__(self, logits: Tensor) -> PolicyDistribution:
        return PolicyDistribution(logits, self._actions)

    def required_input_dim(self, space: Any, **kwargs: Any) -> int:
        """Number of outputs of the policy head."""
        return self._actions.num_outputs


def check_stock_spaces(layout: Layout, actions: Actions) -> None:
    """Refuses spaces that RLlib's own runners and learners cannot handle.

    Raises:
        UserError: an observation contains text, or actions have mixed bounds.
    """
    if texts := [part for part in layout.parts if part.encoder == "text"]:
        way_out = f"leave {texts[0].name!r} out with model.encoder {texts[0].name}=skip, or " if texts[0].path else ""
        raise UserError(f"RLlib's own algorithms do not support text; {way_out}use algorithm ppo.")
    if isinstance(actions, Numbers) and actions.has_mixed_bounds:
        raise UserError(_MIXED_BOUNDS)


def mask_tensors(observations: Any) -> Tensor:
    """The masks in observations as RLlib batches them, as one tensor [B, T, O] of bool; see ``spaces.action_masks``."""
    return torch.cat([part.flatten(2) != 0 for part in _tensors_of(observations[MASK])], -1)


def _tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, in their order."""
    return [tensor for part in value for tensor in _tensors_of(part)] if isinstance(value, (tuple, list)) else [value]


def pack_tensors(layout: Layout, observations: Any) -> Tensor:
    """Packs observations as RLlib batches them, tensors [B, T, ...] in dictionaries and tuples, into [B, T, *shape].

    Raises:
        UserError: a part is text.
    """
    packed = []
    for part in layout.parts:
        if part.encoder == "text":
            raise UserError(f"RLlib's own algorithms do not support text, and {part} is text; use algorithm ppo.")
        tensor = part.find(observations)
        if part.starts:
            tensor = tensor - torch.as_tensor(part.starts, device=tensor.device).reshape(part.shape)
        packed.append(tensor.reshape(*tensor.shape[: tensor.ndim - len(part.shape)], *part.packed_shape))
    if len(packed) == 1:
        return packed[0]
    return torch.cat([tensor.flatten(2).float() for tensor in packed], -1)
