"""The machine put to use as an agent: features of an observation in, policy and value out, one state per episode."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ctm_rl.baselines import LSTMCore
from ctm_rl.capture import CapturedUnrolls
from ctm_rl.config import PolicyConfig
from ctm_rl.core import CTMCore
from ctm_rl.encoders import build_observation_encoder
from ctm_rl.encoders.grid import GridEncoder
from ctm_rl.encoders.projection import project
from ctm_rl.heads import MLPHead
from ctm_rl.lstm_unroll import can_unroll_lstm, unroll_lstm
from ctm_rl.models import build_core
from ctm_rl.state import AnyState, CoreState, LSTMState
from ctm_rl.unroll import can_unroll, fold, step_through, unroll, unroll_inputs


class Unrolled(NamedTuple):
    """An agent's outputs over T environment steps of B environments."""

    logits: Float[Tensor, "T B A"]
    """Of the action distribution."""
    values: Float[Tensor, "T B"]
    """Estimated returns."""
    sync: Float[Tensor, "T B P"]
    """What the heads read: the output sync after the last tick of each step; for the LSTM its hidden state."""
    state: AnyState
    """The state after the last step, B rows."""


class ActorCritic(nn.Module):
    """Encoder, recurrent core, and separate heads for policy and value. Source: arXiv:2505.05522, section on RL.

    The features of an observation are the same for all K ticks of a step; the state lives as long as the episode.

    Args:
        config: all sizes and choices.
        observation_shape: shape of one observation.
        num_actions: A.
    """

    def __init__(self, config: PolicyConfig, observation_shape: tuple[int, ...], num_actions: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_observation_encoder(config.encoder, observation_shape, config.feature_dim)
        self.core = build_core(config, self.encoder.out_dim, config.kind, config.baseline_dim)
        self.policy = MLPHead(self.core.answer_dim, config.head_dims, num_actions, config.policy_gain)
        self.value = MLPHead(self.core.answer_dim, config.head_dims, 1)
        self._captured = CapturedUnrolls(config.num_ticks) if config.use_graph else None

    def initial_state(self, batch_size: int) -> AnyState:
        """The learned state of a fresh episode, ``batch_size`` equal rows, with gradient."""
        return self.core.initial_state(batch_size)

    def unroll(
        self, observations: Shaped[Tensor, "T B *obs"], is_first: Shaped[Tensor, "T B"], state: AnyState
    ) -> Unrolled:
        """Runs T environment steps of K ticks each.

        Args:
            observations: [T, B, ...]; integers are taken as they are by the grid encoder.
            is_first: whether a step starts a new episode (True or 1), [T, B]; its row of the state is then replaced by
                the start state before the step, whatever it held.
            state: the state before the first step, B rows; left as it was.

        Returns:
            Logits [T, B, A], values [T, B], what the heads read [T, B, P], and the state after the last step.
        """
        if self._can_project(observations):
            sync, state = self._unroll_projected(observations, is_first, state)
            return Unrolled(self.policy(sync), self.value(sync).squeeze(-1), sync, state)
        num_steps, batch_size = is_first.shape
        features = self.encoder(observations.flatten(0, 1)).unflatten(0, (num_steps, batch_size))
        is_worth_it = torch.is_grad_enabled() or num_steps > 1
        is_plain = self.config.is_state_carried and not torch.is_autocast_enabled(features.device.type)
        is_fast = is_worth_it and is_plain
        is_learning = torch.is_grad_enabled() and self.training
        captured = None
        if self._captured is not None and is_fast and is_learning:
            captured = self._captured.run(self.core, features, is_first.bool(), state)
        if captured is not None:
            sync, state = captured
        elif is_fast and can_unroll(self.core):
            assert isinstance(self.core, CTMCore)
            assert isinstance(state, CoreState)
            sync, state = unroll(self.core, features, is_first, state)
        elif is_fast and can_unroll_lstm(self.core):
            assert isinstance(self.core, LSTMCore)
            assert isinstance(state, LSTMState)
            sync, state = unroll_lstm(self.core, features, is_first, state, self.config.num_ticks)
        else:
            sync, state = step_through(
                self.core, features, is_first, state, self.config.num_ticks, self.config.is_state_carried
            )
        return Unrolled(self.policy(sync), self.value(sync).squeeze(-1), sync, state)

    def _can_project(self, observations: Tensor) -> bool:
        """Whether the synapse can be fed without forming the features, which is worth it for grids."""
        is_plain = self.config.is_state_carried and not torch.is_autocast_enabled(observations.device.type)
        is_plain = is_plain and (self._captured is None or not torch.is_grad_enabled())
        return is_plain and isinstance(self.encoder, GridEncoder) and can_unroll(self.core)

    def _unroll_projected(
        self, observations: Shaped[Tensor, "T B *obs"], is_first: Shaped[Tensor, "T B"], state: AnyState
    ) -> tuple[Float[Tensor, "T B P"], CoreState]:
        """What the heads read after each step, and the state after the last one."""
        assert isinstance(self.core, CTMCore)
        assert isinstance(state, CoreState)
        folded = fold(self.core)
        inputs = project(self.encoder, observations.flatten(0, 1), folded.features, folded.bias)
        return unroll_inputs(self.core, folded, inputs.unflatten(0, is_first.shape), is_first, state)

    def project_(self) -> None:
        """Brings decay rates back into their limits; call it after each optimiser step."""
        self.core.project_()
