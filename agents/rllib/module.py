"""A policy as a stateful RLModule, for our PPO and for RLlib's own algorithms."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import (
    TARGET_NETWORK_ACTION_DIST_INPUTS,
    InferenceOnlyAPI,
    TargetNetworkAPI,
    ValueFunctionAPI,
)
from torch import Tensor, nn

from ctm_rl.agents.rllib.distributions import distribution_of, mask_tensors, pack_tensors
from ctm_rl.agents.rllib.plain_checkpoint import PlainlySavedModule, weights_of
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.config import PolicyConfig
from ctm_rl.encoders.normaliser import RunningNormaliser
from ctm_rl.inference.policy import POLICY_ENTRY, describe
from ctm_rl.machine.state import AnyState
from ctm_rl.models.actor_critic import ActorCritic, Unrolled
from ctm_rl.models.rebuild_config import rebuild_config
from ctm_rl.spaces.actions import Choices, is_masked

NUM_STEPS = "num_steps"
"""Field of the state: environment steps taken so far in the episode; 0 marks its beginning."""
IS_FIRST = "is_first"
"""Optional column that marks the first steps of episodes, [B, T], instead of ``num_steps``."""
TICKS = "ticks"
"""Optional column with the number of ticks of each step, [B, T], equal in all rows."""
ACTION_MASKS = "action_mask_bits"
"""Column of our own runners with the masks of the legal actions, as bits, [B, T, bytes]."""

_CRITIC = "critic_"
"""Before the names of the fields of the state of a critic's own core."""

ADDED_BY_RLLIB = frozenset({"vf_share_layers"})
"""Keys that PPO and APPO add to every ``model_config``; they have no meaning here."""


class CTMModule(PlainlySavedModule, ValueFunctionAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """A policy with a value function, for PPO, APPO, IMPALA and other algorithms with the same needs.

    The state is ``{pre_history, post_activation, alpha, beta, num_steps}``, with ``sync_window`` also
    ``post_history``; for the LSTM ``{hidden, cell, num_steps}``, for the GRU ``{hidden, num_steps}``, and for the
    feed-forward network ``{nothing, num_steps}``, where nothing is an empty row; with a critic of its own also the same
    fields with ``critic_`` before their names. RLlib passes states as arrays, which
    carry no gradient; where ``num_steps`` is 0 the module therefore replaces the state by its own learned start values,
    so that these are trained by RLlib's own learners too.

    Args of the constructor are RLlib's. ``model_config`` holds the fields of ``PolicyConfig``; observations and
    actions must be of spaces that ``ctm_rl.agents.rllib.spaces.fit`` supports, texts excepted. With an ``action_mask``
    in a Dict observation, the action distribution is that over the legal actions.

    Example:
        >>> from dataclasses import asdict
        >>> from ray.rllib.core.rl_module.rl_module import RLModuleSpec
        >>> from ctm_rl import PolicyConfig
        >>> spec = RLModuleSpec(module_class=CTMModule, model_config=asdict(PolicyConfig(num_ticks=2)))
    """

    def setup(self) -> None:
        """Builds the agent; RLlib calls this once, from the constructor."""
        super().setup()
        requested = rebuild_config(PolicyConfig, self.model_config, ADDED_BY_RLLIB)
        config, layout, actions = fit(requested, self.observation_space, self.action_space)
        self.agent = ActorCritic(config, layout, actions)
        self.action_dist_cls = distribution_of(actions)
        # RLlib's connectors read max_seq_len here.
        self.model_config = dataclasses.asdict(self.agent.config)
        self._state_type = type(self.agent.initial_state(1))

    def get_initial_state(self) -> dict[str, Tensor]:
        """Returns the start state of one episode, without batch axis and gradient."""
        state = fields_of(self.agent.initial_state(1), self.agent.initial_critic_state(1))
        return {**{name: value[0].detach() for name, value in state.items()}, NUM_STEPS: torch.tensor(0)}

    def get_non_inference_attributes(self) -> list[str]:
        """Returns attributes that inference does not need: the target network."""
        return ["target_agent"]

    def make_target_networks(self) -> None:
        """Copies the current agent, without gradient."""
        target: Any = make_target_network(self.agent)
        self.target_agent: ActorCritic = target

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Returns the parameters of agent and target, without buffers: averaging would round the pairs' indices."""
        return [(nn.ParameterList(self.agent.parameters()), nn.ParameterList(self.target_agent.parameters()))]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns the target network's action distribution, [B, T, A]."""
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: self._unroll(self.target_agent, batch).logits.transpose(0, 1)}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Estimates the returns.

        Args:
            batch: observations [B, T, ...] and the state before them.
            embeddings: from ``forward_train``: the values themselves, so that the loss needs no second forward
                pass.

        Returns:
            Values, [B, T].
        """
        return self._unroll(self.agent, batch).values.transpose(0, 1) if embeddings is None else embeddings

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Inference: action distribution [B, T, A] and the state after the last step."""
        unrolled = self._unroll(self.agent, batch)
        num_steps = batch[Columns.STATE_IN][NUM_STEPS] + unrolled.logits.shape[0]
        return {
            Columns.ACTION_DIST_INPUTS: unrolled.logits.transpose(0, 1),
            Columns.STATE_OUT: {**fields_of(unrolled.state, unrolled.critic_state), NUM_STEPS: num_steps},
        }

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Training: action distribution [B, T, A] and values [B, T], from one forward pass."""
        if self.agent.config.train_random_ticks and TICKS not in batch:
            raise ValueError("train_random_ticks needs RecurrentPPO, whose fragments record the ticks of every step.")
        unrolled = self._unroll(self.agent, batch)
        return {
            Columns.ACTION_DIST_INPUTS: unrolled.logits.transpose(0, 1),
            Columns.EMBEDDINGS: unrolled.values.transpose(0, 1),
        }

    def observed(self, batch: dict[str, Any]) -> list[tuple[RunningNormaliser, Tensor]]:
        """The running normalisers of vectors, each with the moments of the observations of RLlib's batch [B, T, ...].

        Steps that RLlib has appended, and padding, do not count.
        """
        if not self.agent.config.normalize_observations:
            return []
        observations = pack_tensors(self.agent.layout, batch[Columns.OBS])
        counts = batch.get(Columns.LOSS_MASK)
        weights = observations.new_ones(observations.shape[:2], dtype=torch.float32) if counts is None else counts
        return self.agent.observed(observations.flatten(0, 1), weights.flatten().float())

    def _describe(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """See ``PlainlySavedModule``: the policy."""
        return {POLICY_ENTRY: {**describe(self.agent), "weights": weights_of(self.agent, weights, "agent.")}}

    def _unroll(self, agent: ActorCritic, batch: dict[str, Any]) -> Unrolled:
        """Runs an agent over a batch of sequences [B, T, ...]; in the result, time is the first axis."""
        # our own runners pack observations
        observations = batch[Columns.OBS] if IS_FIRST in batch else pack_tensors(agent.layout, batch[Columns.OBS])
        observations = observations.transpose(0, 1)
        state = dict(batch[Columns.STATE_IN])
        num_steps = state.pop(NUM_STEPS, None)
        if IS_FIRST in batch:
            is_first = batch[IS_FIRST].transpose(0, 1)
        else:
            assert num_steps is not None
            # RLlib starts a new sequence at every episode's start, so that only its first step can begin one.
            is_first = torch.zeros(observations.shape[:2], dtype=torch.bool, device=observations.device)
            is_first[0] = num_steps == 0
        critic = {name.removeprefix(_CRITIC): state.pop(name) for name in list(state) if name.startswith(_CRITIC)}
        before, critic_before = self._state_type(**state), self._state_type(**critic) if critic else None
        return agent.unroll(observations, is_first, before, _ticks_of(batch), _masks_of(agent, batch), critic_before)


def _masks_of(agent: ActorCritic, batch: dict[str, Any]) -> Tensor | None:
    """Which actions are legal, [T, B, O]; ``None``: observations come without masks."""
    if not isinstance(agent.actions, Choices) or not is_masked(agent.actions):
        return None
    own = agent.actions.unpack_masks(batch[ACTION_MASKS]) if IS_FIRST in batch else mask_tensors(batch[Columns.OBS])
    return own.transpose(0, 1)


def _ticks_of(batch: dict[str, Any]) -> list[int] | None:
    """Number of ticks of each step, [T], the same in all rows; ``None``: all ticks."""
    if TICKS not in batch:
        return None
    ticks = batch[TICKS].cpu()
    if not (ticks == ticks[:1]).all():
        raise ValueError("the rows of a batch must take the same number of ticks at each step.")
    return ticks[0].tolist()


def fields_of(state: AnyState, critic_state: AnyState | None = None) -> dict[str, Tensor]:
    """The fields of a state that are not ``None``, and those of a critic's own."""
    fields = {name: value for name, value in state._asdict().items() if value is not None}
    if critic_state is None:
        return fields
    return {**fields, **{f"{_CRITIC}{name}": value for name, value in fields_of(critic_state).items()}}
