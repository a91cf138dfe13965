"""A trained policy, ready to act: read from a run's checkpoint, without Ray."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctm_rl.checkpoints import store as checkpoint
from ctm_rl.checkpoints.published import OfficialModel, rebuild
from ctm_rl.checkpoints.schema import check_actions, check_layout, check_mapping, check_settings, outline, rebuild_model
from ctm_rl.checkpoints.store import CheckpointError
from ctm_rl.config import PolicyConfig
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.machine.state import AnyState
from ctm_rl.models.actor_critic import ActorCritic
from ctm_rl.spaces.actions import to_plain

POLICY_ENTRY = "policy"
"""Key under which a checkpoint holds a policy: its ``config``, ``layout``, ``actions`` and ``weights``."""
OFFICIAL_ENTRY = "official"
"""Key under which an imported checkpoint holds its published ``args`` and ``weights`` instead."""


class Policy:
    """Chooses actions for observations, with a state that is carried from step to step.

    Args:
        agent: the trained network; it is put into evaluation mode.
        iteration: number of training iterations so far; 0 for an imported policy, or one from a checkpoint of RLlib.

    Example:
        >>> policy = Policy.from_checkpoint("runs/a")  # doctest: +SKIP
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
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> "Policy":
        """Reads a policy from disk.

        Args:
            path: a run's directory (its newest checkpoint is taken), one checkpoint in it, or a checkpoint of RLlib
                that ``Algorithm.save_to_path`` or ``save`` has made with one of our modules.
            device: where the policy computes.

        Returns:
            The policy.

        Raises:
            UserError: there is no checkpoint, it is damaged, or holds no policy.
        """
        return checkpoint.read_newest(Path(path), lambda place, state: cls.from_state(place, state, device))

    @classmethod
    def from_state(cls, place: Path, state: Mapping[str, Any], device: str | torch.device = "cpu") -> "Policy":
        """Makes a policy from the content of a checkpoint; see ``from_checkpoint``.

        Args:
            place: path of the checkpoint.
            state: its content.
            device: where the policy computes.
        """
        official = official_of(place, state)
        if official is None:
            agent = _own(place, state)
        elif isinstance(official.model, ActorCritic):
            agent = official.model
        else:
            raise CheckpointError(
                f"{place} holds a model for {official.task}, which answers and does not act; "
                "episodes are played by reinforcement learning policies only."
            )
        return cls(agent.to(device), checkpoint.iteration_of(place))

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
    ) -> tuple[Any, AnyState]:
        """Chooses actions for one step.

        Args:
            observation: one observation as the environment returns it (an array, a number, a dictionary, ...), or a
                batch of them as a vector environment returns it.
            state: as ``initial_state`` or the last call returned it, with as many rows; left as it was.
            is_first: which rows begin a new episode, [B]; they take the start state. ``None``: none.
            deterministic: take the likeliest action instead of sampling.
            generator: a CPU generator to sample from; ``None``: torch's default.
            halt_certainty: each row stops ticking once it is this certain (``1 - H(pi) / log A``), from 0 to 1; only of
                a policy trained with ``train_random_ticks``. ``None``: it takes all of its ticks.
            num_ticks: for such a policy: the number of ticks, or the most ticks where rows halt. ``None``: as trained.

        Returns:
            The action as the environment takes it: for one observation an ``int`` (Discrete) or an array, for a batch
            an array [B, ...]; and the state for the next step.

        Raises:
            ValueError: the observation has a wrong shape or not as many rows as the state, or the policy cannot halt or
                take so many ticks.
        """
        num_rows = len(state[0])
        if self.layout.is_batched(observation):
            packed = self.layout.pack(observation, num_rows)
        elif num_rows == 1:
            packed = self.layout.pack_one(observation)[None]
        else:
            raise ValueError(f"observation must have as many rows as the state, {num_rows}, got a single one.")
        actions, state = self.act_packed(
            packed,
            state,
            is_first=is_first,
            deterministic=deterministic,
            generator=generator,
            halt_certainty=halt_certainty,
            num_ticks=num_ticks,
        )
        if self.layout.is_batched(observation):
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
    ) -> tuple[np.ndarray, AnyState]:
        """As ``act``, for a batch of packed observations, [B, *layout.shape]; returns actions [B, ...]."""
        batch = torch.as_tensor(packed, device=self.device)
        num_rows = len(batch)
        fresh = torch.zeros(num_rows, dtype=torch.bool) if is_first is None else torch.as_tensor(is_first)
        is_fresh = fresh.to(self.device).reshape(num_rows).bool()
        acted = self._actor.act(batch, is_fresh, state, halt_certainty, num_ticks)
        self.ticks = acted.ticks.cpu().numpy()
        outputs = acted.logits.float().cpu()
        actions = self.actions.mode(outputs) if deterministic else self.actions.sample(outputs, generator)
        return self.actions.to_env(actions.numpy()), acted.state


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
    with checkpoint.rebuilding("model", place):
        entry = check_mapping(OFFICIAL_ENTRY, state[OFFICIAL_ENTRY], keys=("args", "weights"))
        return rebuild(entry["weights"], entry["args"])


def outline_policy(entry: object) -> ActorCritic:
    """The policy that a checkpoint's entry describes, without memory for its weights.

    Raises:
        ValueError: the entry describes none, or its weights cannot be those of its configuration.
    """
    config, build, weights = _described(entry)
    return outline(build, config, weights)


def _own(place: Path, state: Mapping[str, Any]) -> ActorCritic:
    """Rebuilds the policy of a training run."""
    with checkpoint.rebuilding("policy", place):
        if POLICY_ENTRY not in state:
            raise ValueError("it has no such entry; load_model loads a model that answers")
        config, build, weights = _described(state[POLICY_ENTRY])
        return rebuild_model(build, config, weights)


def _described(entry: object) -> tuple[PolicyConfig, Callable[[], ActorCritic], object]:
    """What a checkpoint's entry describes: the configuration, what builds the policy, and its weights."""
    parts = check_mapping(POLICY_ENTRY, entry, keys=("config", "layout", "actions", "weights"))
    layout, actions = check_layout(parts["layout"]), check_actions(parts["actions"])
    config = check_settings(PolicyConfig, parts["config"], "config")
    return config, lambda: ActorCritic(config, layout, actions), parts["weights"]
