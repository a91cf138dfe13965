"""The machine put to use as an agent: features of an observation in, policy and value out, one state per episode."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.config import PolicyConfig
from ctm_rl.encoders import build_observation_encoder, normalised_vectors
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.encoders.projection import project, reads_grid
from ctm_rl.engine.cuda_graph import CapturedUnrolls
from ctm_rl.engine.episode import can_unroll, fold, step_through, unroll, unroll_inputs
from ctm_rl.engine.episode_gru import can_unroll_gru, unroll_gru
from ctm_rl.engine.episode_lstm import can_unroll_lstm, unroll_lstm
from ctm_rl.machine.core import Core, CTMCore
from ctm_rl.machine.heads import GaussianHead, MLPHead
from ctm_rl.machine.recurrent_baselines import GRUCore, LSTMCore
from ctm_rl.machine.state import AnyState, CoreState, GRUState, LSTMState
from ctm_rl.models.answering import build_core
from ctm_rl.models.baseline_width import settle_width
from ctm_rl.models.feed_forward import MLPCore
from ctm_rl.spaces.actions import Actions, Numbers
from ctm_rl.spaces.observations import Layout


class Unrolled(NamedTuple):
    """An agent's outputs over T environment steps of B environments."""

    logits: Float[Tensor, "T B A"]
    """Outputs of the policy head: logits of choices, or means and logarithms of deviations."""
    values: Float[Tensor, "T B"]
    """Estimated returns."""
    sync: Float[Tensor, "T B P"]
    """What the heads read: the output sync after the last tick of each step; for a baseline its hidden layer."""
    state: AnyState
    """The state after the last step, B rows."""


class ActorCritic(nn.Module):
    """Encoder, recurrent core, and separate heads for policy and value. Source: arXiv:2505.05522, section on RL.

    The features of an observation are the same for all K ticks of a step; the state lives as long as the episode.

    Args:
        config: all sizes and choices; ``self.config`` has a baseline's width settled.
        layout: how an observation is packed, and what reads its parts.
        actions: what can be done.
    """

    def __init__(self, config: PolicyConfig, layout: Layout, actions: Actions) -> None:
        super().__init__()
        config = settle_width(config, lambda other: ActorCritic(other, layout, actions))
        self.config = config
        self.layout = layout
        self.actions = actions
        self.encoder = build_observation_encoder(
            layout, config.feature_dim, is_normalised=config.normalize_observations
        )
        self.core = _build_core(config, self.encoder.out_dim)
        self.policy = _policy_head(config, self.core.answer_dim, actions)
        self.value = MLPHead(self.core.answer_dim, config.head_dims, 1)
        self._captured = CapturedUnrolls(config.num_ticks) if config.use_graph else None

    def initial_state(self, batch_size: int) -> AnyState:
        """The learned state of a fresh episode, ``batch_size`` equal rows, with gradient."""
        return self.core.initial_state(batch_size)

    def unroll(
        self,
        observations: Shaped[Tensor, "T B *obs"],
        is_first: Shaped[Tensor, "T B"],
        state: AnyState,
        ticks: Sequence[int] | None = None,
    ) -> Unrolled:
        """Runs T environment steps of K ticks each, or of a number of its own for each step.

        Args:
            observations: packed as the layout says, [T, B, *layout.shape], of any number type.
            is_first: whether a step starts a new episode (True or 1), [T, B]; its row of the state is then replaced by
                the start state before the step, whatever it held.
            state: the state before the first step, B rows; left as it was.
            ticks: how many ticks each step takes, the same in all rows, [T]; ``None``: K.

        Returns:
            Logits [T, B, A], values [T, B], what the heads read [T, B, P], and the state after the last step.
        """
        if self._can_project(observations):
            sync, state = self._unroll_projected(observations, is_first, state, ticks)
            return Unrolled(self.policy(sync), self.value(sync).squeeze(-1), sync, state)
        num_steps, batch_size = is_first.shape
        features = self.encoder(observations.flatten(0, 1)).unflatten(0, (num_steps, batch_size))
        sync, state = self._recur(features, is_first, state, ticks)
        return Unrolled(self.policy(sync), self.value(sync).squeeze(-1), sync, state)

    def _recur(
        self,
        features: Float[Tensor, "T B F"],
        is_first: Shaped[Tensor, "T B"],
        state: AnyState,
        ticks: Sequence[int] | None,
    ) -> tuple[Float[Tensor, "T B P"], AnyState]:
        """What the heads read after each step, and the state after the last one, by the fastest way there is."""
        if isinstance(self.core, MLPCore):
            return self.core(features), state
        num_steps = len(features)
        is_worth_it = torch.is_grad_enabled() or num_steps > 1
        is_plain = self.config.is_state_carried and not torch.is_autocast_enabled(features.device.type)
        is_fast = is_worth_it and is_plain
        each = self.config.num_ticks if ticks is None else ticks
        is_learning = torch.is_grad_enabled() and self.training
        if self._captured is not None and is_fast and is_learning and ticks is None:
            captured = self._captured.run(self.core, features, is_first.bool(), state)
            if captured is not None:
                return captured
        if is_fast and can_unroll(self.core):
            assert isinstance(self.core, CTMCore)
            assert isinstance(state, CoreState)
            return unroll(self.core, features, is_first, state, each)
        if is_fast and ticks is None and can_unroll_lstm(self.core):
            assert isinstance(self.core, LSTMCore)
            assert isinstance(state, LSTMState)
            return unroll_lstm(self.core, features, is_first, state, self.config.num_ticks)
        if is_fast and ticks is None and can_unroll_gru(self.core):
            assert isinstance(self.core, GRUCore)
            assert isinstance(state, GRUState)
            return unroll_gru(self.core, features, is_first, state, self.config.num_ticks)
        return step_through(self.core, features, is_first, state, each, self.config.is_state_carried)

    @torch.no_grad()
    def observed(
        self, observations: Shaped[Tensor, "B ..."], weights: Float[Tensor, " B"]
    ) -> list[tuple[RunningNormaliser, Tensor]]:
        """The running normalisers of vectors, each with the moments of what was observed, to be added up and handed on.

        Args:
            observations: packed, [B, *layout.shape].
            weights: 1 for what counts and 0 for what does not, [B].
        """
        vectors = normalised_vectors(self.encoder, observations)
        return [(normaliser, normaliser.moments(numbers, weights)) for normaliser, numbers in vectors]

    def _can_project(self, observations: Tensor) -> bool:
        """Whether the synapse can be fed without forming the features, which is worth it for grids."""
        is_plain = self.config.is_state_carried and not torch.is_autocast_enabled(observations.device.type)
        is_plain = is_plain and (self._captured is None or not torch.is_grad_enabled())
        return is_plain and reads_grid(self.encoder) and can_unroll(self.core)

    def _unroll_projected(
        self,
        observations: Shaped[Tensor, "T B *obs"],
        is_first: Shaped[Tensor, "T B"],
        state: AnyState,
        ticks: Sequence[int] | None,
    ) -> tuple[Float[Tensor, "T B P"], CoreState]:
        """What the heads read after each step, and the state after the last one."""
        assert isinstance(self.core, CTMCore)
        assert isinstance(state, CoreState)
        folded = fold(self.core)
        inputs = project(self.encoder, observations.flatten(0, 1), folded.features, folded.bias)
        return unroll_inputs(self.core, folded, inputs.unflatten(0, is_first.shape), is_first, state, ticks)

    def project_(self) -> None:
        """Brings decay rates back into their limits; call it after each optimiser step."""
        self.core.project_()


def _policy_head(config: PolicyConfig, answer_dim: int, actions: Actions) -> MLPHead | GaussianHead:
    """The head of the policy: as many outputs as the actions' distribution takes."""
    gain = config.policy_gain if config.kind == "ctm" else 1.0
    if isinstance(actions, Numbers) and config.action_std == "free":
        num_actions = actions.num_outputs // 2
        return GaussianHead(MLPHead(answer_dim, config.head_dims, num_actions, gain), num_actions)
    return MLPHead(answer_dim, config.head_dims, actions.num_outputs, gain)


def _build_core(config: PolicyConfig, num_features: int) -> Core[Any] | MLPCore:
    """What stands between features and heads."""
    if config.kind == "mlp":
        assert config.baseline_dim is not None
        return MLPCore(num_features, config.baseline_dim)
    return build_core(config, num_features, config.kind, config.baseline_dim)
