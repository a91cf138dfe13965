"""A trained policy, ready to act: read from a run's checkpoint, without Ray."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctm_rl.checkpoints import store
from ctm_rl.checkpoints.best import find
from ctm_rl.checkpoints.published import OfficialModel, rebuild
from ctm_rl.checkpoints.schema import check_actions, check_layout, check_mapping, check_settings, outline, rebuild_model
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.config import PolicyConfig, check_own_encoders
from ctm_rl.inference.batched_actor import Actor, check_masks
from ctm_rl.inference.recorded_step import PolicyRecord, record_step
from ctm_rl.machine.state import AnyState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.action_masks import MASK, OBSERVATION, find_forbidden, read_masks
from ctm_rl.spaces.actions import Choices, is_masked, to_plain
from ctm_rl.trust import check_encoders

POLICY_ENTRY = "policy"
"""Key under which a checkpoint holds a policy: its ``config``, ``layout``, ``actions`` and ``weights``."""
OFFICIAL_ENTRY = "official"
"""Key under which an imported checkpoint holds its published ``args`` and ``weights`` instead."""


class RecordedAction(NamedTuple):
    """The actions of one step, and what happened inside the policy; see ``Policy.record``."""

    action: Any
    """As the environment takes it."""
    state: AnyState
    """The state for the next step."""
    record: PolicyRecord
    """What happened inside."""
    critic_state: AnyState | None
    """The state of a critic's own core for the next step; ``None``: it has none, or none was given."""


class Policy:
    """Chooses actions for observations, with a state that is carried from step to step.

    Args:
        agent: the trained network; it is put into evaluation mode.
        iteration: number of training iterations so far; 0 for an imported policy, or one from a checkpoint of RLlib.

    Example:
        >>> policy = Policy.from_checkpoint("runs/a", checkpoint="best")  # doctest: +SKIP
        >>> state = policy.initial_state()
        >>> action, state = policy.act(observation, state)
    """

    def __init__(self, agent: ActorCritic, iteration: int = 0) -> None:
        self._actor = Actor(agent.eval())
        self.layout = agent.layout
        self.actions = agent.actions
        self.iteration = iteration
        self.ticks = np.zeros(0, np.int64)
        """Number of ticks each row took in the last step, [B]."""

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        *,
        checkpoint: str | int | None = None,
        trust: bool = False,
    ) -> "Policy":
        """Reads a policy from disk.

        Args:
            path: a run's directory, one checkpoint in it, ``zoo:NAME``, or a checkpoint of RLlib that
                ``Algorithm.save_to_path`` or ``save`` has made with one of our modules.
            device: where the policy computes.
            checkpoint: of a run: best, last, or the number of an iteration; ``None``: the last one.
            trust: whether an encoder may be imported from the current folder although no run of this user on this
                machine has named it.

        Returns:
            The policy.

        Raises:
            UserError: there is no checkpoint, it is damaged, holds no policy, or its encoder is not trusted.
        """
        return store.read_newest(
            find(Path(path), checkpoint), lambda place, state: cls.from_state(place, state, device, trust=trust)
        )

    @classmethod
    def from_state(
        cls, place: Path, state: Mapping[str, Any], device: str | torch.device = "cpu", *, trust: bool = False
    ) -> "Policy":
        """Makes a policy from the content of a checkpoint; see ``from_checkpoint``.

        Args:
            place: path of the checkpoint.
            state: its content.
            device: where the policy computes.
            trust: as of ``from_checkpoint``.
        """
        official = official_of(place, state)
        if official is None:
            agent = _own(place, state, trust=trust)
        elif isinstance(official.model, ActorCritic):
            agent = official.model
        else:
            raise CheckpointError(
                f"{place} holds a model for {official.task}, which answers and does not act; "
                "episodes are played by reinforcement learning policies only."
            )
        return cls(agent.to(device), store.iteration_of(place))

    @property
    def agent(self) -> ActorCritic:
        """The trained network."""
        return self._actor.agent

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.agent.parameters()).device

    def initial_state(self, batch_size: int | None = None) -> AnyState:
        """The learned state with which an episode begins.

        Args:
            batch_size: rows, one for each environment; ``None``: one, for single observations.

        Returns:
            The state; all its tensors have a batch axis.
        """
        with torch.no_grad():
            return self.agent.initial_state(1 if batch_size is None else batch_size)

    def initial_critic_state(self, batch_size: int | None = None) -> AnyState | None:
        """The same of a critic with a core of its own, for ``record``; ``None``: it has none."""
        with torch.no_grad():
            return self.agent.initial_critic_state(1 if batch_size is None else batch_size)

    @torch.no_grad()
    def act(
        self,
        observation: Any,
        state: AnyState,
        *,
        is_first: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        halt_certainty: float | None = None,
        num_ticks: int | None = None,
        action_mask: Any = None,
    ) -> tuple[Any, AnyState]:
        """Chooses actions for one step.

        Args:
            observation: one observation as the environment returns it (an array, a number, a dictionary, ...), or a
                batch of them as a vector environment returns it. A policy that was trained with action masks reads the
                mask from it (a dictionary's ``action_mask``), unless ``action_mask`` is given.
            state: as ``initial_state`` or the last call returned it, with as many rows; left as it was.
            is_first: which rows begin a new episode, [B]; they take the start state. ``None``: none.
            deterministic: take the likeliest action instead of sampling.
            generator: a CPU generator to sample from; ``None``: torch's default.
            halt_certainty: each row stops ticking once it is this certain (``1 - H(pi) / log A``), from 0 to 1; only of
                a policy trained with ``train_random_ticks``. ``None``: it takes all of its ticks.
            num_ticks: for such a policy: the number of ticks, or the most ticks where rows halt. ``None``: as trained.
            action_mask: 1 for each legal option and 0 for the others, as ``action_masks()`` of the environment returns
                them, for a batch one row for each observation; with any policy whose actions are chosen. In a batch, a
                row without a legal action, as after an episode's end, gets any action.

        Returns:
            The action as the environment takes it: for one observation an ``int`` (Discrete) or an array, for a batch
            an array [B, ...]; and the state for the next step.

        Raises:
            ValueError: the observation or the mask has a wrong shape or not as many rows as the state, the mask is
                missing or forbids every action, or the policy cannot halt or take so many ticks.
        """
        packed, masks, is_batched = self._read(observation, len(state[0]), action_mask)
        actions, state = self.act_packed(
            packed,
            state,
            is_first=is_first,
            deterministic=deterministic,
            generator=generator,
            halt_certainty=halt_certainty,
            num_ticks=num_ticks,
            masks=masks,
        )
        if is_batched:
            return actions, state
        return (actions[0] if self.actions.shape else int(actions[0])), state

    @torch.no_grad()
    def act_packed(
        self,
        packed: np.ndarray,
        state: AnyState,
        *,
        is_first: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        halt_certainty: float | None = None,
        num_ticks: int | None = None,
        masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, AnyState]:
        """As ``act``, for a batch of packed observations, [B, *layout.shape], and masks, [B, O] of bool.

        Returns:
            Actions, [B, ...], and the state for the next step.
        """
        batch = torch.as_tensor(packed, device=self.device)
        num_rows = len(batch)
        fresh = torch.zeros(num_rows, dtype=torch.bool) if is_first is None else torch.as_tensor(is_first)
        is_fresh = fresh.to(self.device).reshape(num_rows).bool()
        legal = None if masks is None else torch.as_tensor(masks, device=self.device)
        acted = self._actor.act(batch, is_fresh, state, halt_certainty, num_ticks, legal)
        self.ticks = acted.ticks.cpu().numpy()
        outputs = acted.logits.float().cpu()
        actions = self.actions.mode(outputs) if deterministic else self.actions.sample(outputs, generator)
        return self.actions.to_env(actions.numpy()), acted.state

    def record(
        self,
        observation: Any,
        state: AnyState,
        *,
        critic_state: AnyState | None = None,
        is_first: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        halt_certainty: float | None = None,
        num_ticks: int | None = None,
        action_mask: Any = None,
    ) -> RecordedAction:
        """Chooses actions for one step as ``act`` does, and records what happens at every tick; several times slower.

        Args:
            observation: as of ``act``.
            state: as of ``act``; the states of both are the same, and may be mixed.
            critic_state: only for values of a policy whose critic has a core of its own (``model.critic`` own): what
                ``initial_critic_state`` or the last call returned. ``None``: such values are NaN.
            is_first: as of ``act``.
            deterministic: as of ``act``.
            generator: as of ``act``.
            halt_certainty: as of ``act``.
            num_ticks: as of ``act``.
            action_mask: as of ``act``.

        Returns:
            The action, the state for the next step, the record, and the critic's state for the next step. Of one
            observation, the arrays of the record have no axis of rows.

        Raises:
            ValueError: as of ``act``.
        """
        packed, masks, is_batched = self._read(observation, len(state[0]), action_mask)
        recorded = self.record_packed(
            packed,
            state,
            critic_state=critic_state,
            is_first=is_first,
            deterministic=deterministic,
            generator=generator,
            halt_certainty=halt_certainty,
            num_ticks=num_ticks,
            masks=masks,
        )
        if is_batched:
            return recorded
        action = recorded.action[0] if self.actions.shape else int(recorded.action[0])
        return recorded._replace(action=action, record=recorded.record.row(0))

    @torch.no_grad()
    def record_packed(
        self,
        packed: np.ndarray,
        state: AnyState,
        *,
        critic_state: AnyState | None = None,
        is_first: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        halt_certainty: float | None = None,
        num_ticks: int | None = None,
        masks: np.ndarray | None = None,
    ) -> RecordedAction:
        """As ``record``, for a batch of packed observations, [B, *layout.shape], and masks, [B, O] of bool."""
        batch = torch.as_tensor(packed, device=self.device)
        fresh = torch.zeros(len(batch), dtype=torch.bool) if is_first is None else torch.as_tensor(is_first)
        legal = None if masks is None else torch.as_tensor(masks, device=self.device)
        is_fresh = fresh.to(self.device).reshape(len(batch)).bool()
        step = record_step(self.agent, batch, is_fresh, state, critic_state, halt_certainty, num_ticks, legal)
        self.ticks = step.record.ticks
        outputs = step.logits.float().cpu()
        actions = self.actions.mode(outputs) if deterministic else self.actions.sample(outputs, generator)
        return RecordedAction(self.actions.to_env(actions.numpy()), step.state, step.record, step.critic_state)

    def _read(self, observation: Any, num_rows: int, action_mask: Any) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Packs one observation or a batch of them, with its masks, and tells whether it is a batch."""
        if is_masked(self.actions) and not isinstance(observation, Mapping):
            observation = {OBSERVATION: observation}  # as it is beside the mask of a method
        is_batched = self.layout.is_batched(observation)
        if is_batched:
            packed = self.layout.pack(observation, num_rows)
        elif num_rows == 1:
            packed = self.layout.pack_one(observation)[None]
        else:
            raise ValueError(f"observation must have as many rows as the state, {num_rows}, got a single one.")
        return packed, self._read_masks(observation, action_mask, num_rows, is_batched=is_batched), is_batched

    def _read_masks(self, observation: Any, action_mask: Any, num_rows: int, *, is_batched: bool) -> np.ndarray | None:
        """The masks of an observation or of a batch of them, [B, O]; ``None``: there are none."""
        if action_mask is None and is_masked(self.actions):
            action_mask = observation.get(MASK)
        check_masks(self.agent, action_mask)
        if action_mask is None:
            return None
        assert isinstance(self.actions, Choices)
        masks = read_masks(action_mask, self.actions.sizes, num_rows)
        if not is_batched and (forbidden := find_forbidden(masks, self.actions.sizes)) is not None:
            raise ValueError(f"{MASK} {forbidden.describe(self.actions.sizes)}: there is nothing to choose from.")
        return masks


def describe(agent: ActorCritic) -> dict[str, Any]:
    """The content of a checkpoint under ``POLICY_ENTRY``: configuration, spaces and weights."""
    return {
        "config": dataclasses.asdict(agent.config),
        "layout": agent.layout.to_plain(),
        "actions": to_plain(agent.actions),
        "weights": dict(agent.state_dict()),
    }


def official_of(place: Path, state: Mapping[str, Any]) -> OfficialModel | None:
    """Rebuilds the published model that a checkpoint was imported from.

    Args:
        place: path of the checkpoint.
        state: its content.

    Returns:
        The model; ``None`` for a checkpoint of our own.

    Raises:
        CheckpointError: the model cannot be rebuilt.
    """
    if OFFICIAL_ENTRY not in state:
        return None
    with store.rebuilding("model", place):
        entry = check_mapping(OFFICIAL_ENTRY, state[OFFICIAL_ENTRY], keys=("args", "weights"))
        return rebuild(entry["weights"], entry["args"])


def outline_policy(entry: object, wanted: PolicyConfig) -> ActorCritic:
    """The policy that a checkpoint's entry describes, without memory for its weights.

    Args:
        entry: of the checkpoint.
        wanted: the policy of the run; encoders of the user's in the entry must be among its.

    Raises:
        ValueError: the entry describes none, or its weights cannot be those of its configuration.
    """
    config, build, weights = _described(entry)
    check_own_encoders(config, wanted)
    return outline(build, config, weights)


def _own(place: Path, state: Mapping[str, Any], *, trust: bool) -> ActorCritic:
    """Rebuilds the policy of a training run."""
    with store.rebuilding("policy", place):
        if POLICY_ENTRY not in state:
            raise ValueError("it has no such entry; load_model loads a model that answers")
        config, build, weights = _described(state[POLICY_ENTRY])
        check_encoders(config, place, is_trusted=trust)
        return rebuild_model(build, config, weights)


def _described(entry: object) -> tuple[PolicyConfig, Callable[[], ActorCritic], object]:
    """What a checkpoint's entry describes: the configuration, what builds the policy, and its weights."""
    parts = check_mapping(POLICY_ENTRY, entry, keys=("config", "layout", "actions", "weights"))
    layout, actions = check_layout(parts["layout"]), check_actions(parts["actions"])
    config = check_settings(PolicyConfig, parts["config"], "config")
    return config, lambda: ActorCritic(config, layout, actions), parts["weights"]
