"""The actor-critic: features of an observation in, policy and value out, one recurrent state per episode."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from ctm_rl.config import PolicyConfig
from ctm_rl.encoders import build_observation_encoder, normalised_vectors
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.encoders.projection import Projection, reads_grid
from ctm_rl.engine.dispatch import EpisodeDispatch
from ctm_rl.machine.core import Core, project_
from ctm_rl.machine.heads import GaussianHead, MLPHead
from ctm_rl.machine.state import AnyState
from ctm_rl.models.answering import build_core
from ctm_rl.models.baseline_width import settle_width
from ctm_rl.models.feed_forward import MLPCore
from ctm_rl.spaces.actions import Actions, Choices, Numbers
from ctm_rl.spaces.observations import Layout


class Unrolled(NamedTuple):
    """An agent's outputs over T environment steps of B environments."""

    logits: Float[Tensor, "T B A"]
    """Outputs of the policy head: logits of choices, those of illegal options without probability, or means and
    logarithms of standard deviations."""
    values: Float[Tensor, "T B"]
    """Estimated returns."""
    sync: Float[Tensor, "T B P"]
    """What the heads read: the output sync after the last tick of each step; for a baseline its hidden layer."""
    state: AnyState
    """The state after the last step, B rows."""
    critic_state: AnyState | None = None
    """That of a critic's own core; ``None``: it has none, or did not run."""


class ActorCritic(nn.Module):
    """Encoder, recurrent core, and separate heads for policy and value. Source: arXiv:2505.05522, section on RL.

    The features of an observation are the same for all K ticks of a step; the state lives as long as the episode. With
    ``critic`` own, the value head reads a second core on the same features, as in sb3-contrib's recurrent PPO; acting
    does not need it.

    Args:
        config: all sizes and choices; ``self.config`` has a baseline's width settled.
        layout: how an observation is packed, and which encoder reads each part.
        actions: the action space.
    """

    def __init__(self, config: PolicyConfig, layout: Layout, actions: Actions) -> None:
        super().__init__()
        config = settle_width(config, lambda other: ActorCritic(other, layout, actions))
        self.config = config
        self.layout = layout
        self.actions = actions
        self.encoder = build_observation_encoder(
            layout, config.feature_dim, config.encoder, is_normalised=config.normalize_observations
        )
        self.core = _build_core(config, self.encoder.out_dim)
        self.policy = _policy_head(config, self.core.answer_dim, actions)
        self.value = MLPHead(self.core.answer_dim, config.head_dims, 1)
        self.critic_core = _build_core(config, self.encoder.out_dim) if config.critic == "own" else None
        self._episodes = EpisodeDispatch(config)
        self._critic_episodes = EpisodeDispatch(config)

    def initial_state(self, batch_size: int) -> AnyState:
        """The learned state of a fresh episode, ``batch_size`` equal rows, with gradient."""
        return self.core.initial_state(batch_size)

    def initial_critic_state(self, batch_size: int) -> AnyState | None:
        """The same of a critic's own core; ``None``: there is none."""
        return None if self.critic_core is None else self.critic_core.initial_state(batch_size)

    def unroll(
        self,
        observations: Shaped[Tensor, "T B *obs"],
        is_first: Shaped[Tensor, "T B"],
        state: AnyState,
        ticks: Sequence[int] | None = None,
        masks: Bool[Tensor, "T B O"] | None = None,
        critic_state: AnyState | None = None,
    ) -> Unrolled:
        """Runs T environment steps of K ticks each, or of a given number of ticks for each step.

        Args:
            observations: packed as the layout says, [T, B, *layout.shape], of any number type.
            is_first: whether a step starts a new episode (True or 1), [T, B]; its row of the state is replaced by the
                start state before the step, whatever it held.
            state: the state before the first step, B rows; left as it was.
            ticks: how many ticks each step takes, the same in all rows, [T]; ``None``: K.
            masks: which options are legal, [T, B, O]; ``None``: all, or the logits do not matter.
            critic_state: as ``state``, of a critic's own core; ``None``: there is none, or the values do not matter,
                and are NaN.

        Returns:
            Logits [T, B, A], values [T, B], what the heads read [T, B, P], and the state after the last step. Logits
            and values may come from one node of the autograd graph, also with two cores: sum their losses for one
            backward pass.
        """
        shape = is_first.shape
        # no nested functions: their annotations would be evaluated at every step
        encode = partial(self._encode, observations, shape)
        project = partial(self._project, observations, shape) if reads_grid(self.encoder) else None
        if self.critic_core is None:
            sync, state = _run(self.core, self._episodes, encode, project, is_first, state, ticks)
            valued = sync.detach() if self.config.critic == "detached" else sync
            return Unrolled(self.choose(sync, masks), self.value(valued).squeeze(-1), sync, state)
        if critic_state is None:
            sync, state = _run(self.core, self._episodes, encode, project, is_first, state, ticks)
            logits = self.choose(sync, masks)
            return Unrolled(logits, logits.new_full(shape, torch.nan), sync, state)
        encode = cache(encode)  # once for both cores
        cores, states = (self.core, self.critic_core), (state, critic_state)
        both = self._episodes.run_side_by_side(cores, encode, project, is_first, states, ticks)
        if both is None:
            dispatches = self._episodes, self._critic_episodes
            both = [
                _run(core, episodes, encode, project, is_first, before, ticks)
                for core, episodes, before in zip(cores, dispatches, states, strict=True)
            ]
        (sync, state), (valued, critic_state) = both
        return Unrolled(self.choose(sync, masks), self.value(valued).squeeze(-1), sync, state, critic_state)

    def choose(
        self, sync: Float[Tensor, "*batch P"], masks: Bool[Tensor, "*batch O"] | None
    ) -> Float[Tensor, "*batch O"]:
        """Outputs of the policy head for what it reads; those of illegal options have no probability."""
        outputs = self.policy(sync)
        if masks is None:
            return outputs
        assert isinstance(self.actions, Choices)
        return self.actions.masked(outputs, masks)

    def _encode(self, observations: Shaped[Tensor, "T B *obs"], shape: torch.Size) -> Float[Tensor, "T B F"]:
        """The features of every step."""
        return self.encoder(observations.flatten(0, 1)).unflatten(0, shape)

    def _project(
        self,
        observations: Shaped[Tensor, "T B *obs"],
        shape: torch.Size,
        weight: Float[Tensor, "E F"],
        bias: Float[Tensor, " E"],
    ) -> Float[Tensor, "T B E"]:
        """The output of a dense layer on the features of every step."""
        return Projection(self.encoder, weight, bias)(observations.flatten(0, 1)).unflatten(0, shape)

    @torch.no_grad()
    def observed(
        self, observations: Shaped[Tensor, "B ..."], weights: Float[Tensor, " B"]
    ) -> list[tuple[RunningNormaliser, Tensor]]:
        """The running normalisers of vectors, each with the moments of a batch, to be summed over batches and applied.

        Args:
            observations: packed, [B, *layout.shape].
            weights: 1 for rows that count and 0 for others, [B].
        """
        vectors = normalised_vectors(self.encoder, observations)
        return [(normaliser, normaliser.moments(numbers, weights)) for normaliser, numbers in vectors]

    def project_(self) -> None:
        """Brings decay rates back into their limits; call it after each optimiser step."""
        project_(self)


def _run(
    core: Core[Any] | MLPCore,
    episodes: EpisodeDispatch,
    encode: Callable[[], Tensor],
    project: Callable[[Tensor, Tensor], Tensor] | None,
    is_first: Shaped[Tensor, "T B"],
    state: AnyState,
    ticks: Sequence[int] | None,
) -> tuple[Float[Tensor, "T B P"], AnyState]:
    """Runs a core over T environment steps; see ``EpisodeDispatch.run``."""
    if isinstance(core, MLPCore):
        return core(encode()), state
    return episodes.run(core, encode, project, is_first, state, ticks)


def _policy_head(config: PolicyConfig, answer_dim: int, actions: Actions) -> MLPHead | GaussianHead:
    """The policy head: as many outputs as the distribution of the actions has parameters."""
    gain = config.policy_gain if config.kind == "ctm" else 1.0
    if isinstance(actions, Numbers) and config.action_std == "free":
        num_actions = actions.num_outputs // 2
        return GaussianHead(MLPHead(answer_dim, config.head_dims, num_actions, gain), num_actions)
    return MLPHead(answer_dim, config.head_dims, actions.num_outputs, gain)


def _build_core(config: PolicyConfig, num_features: int) -> Core[Any] | MLPCore:
    """The core between features and heads."""
    if config.kind == "mlp":
        assert config.baseline_dim is not None
        return MLPCore(num_features, config.baseline_dim)
    return build_core(config, num_features, config.kind, config.baseline_dim)
