"""A trained policy, ready to act: read from a run's checkpoint, without ray."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctm_rl import checkpoint
from ctm_rl.acting import act_until_certain
from ctm_rl.agent import ActorCritic
from ctm_rl.checkpoint import CheckpointError
from ctm_rl.config import PolicyConfig
from ctm_rl.encoders.control import ControlEncoder
from ctm_rl.interop import OfficialModel, rebuild
from ctm_rl.state import AnyState

POLICY_ENTRY = "policy"
"""Where a checkpoint holds a policy: its ``config``, ``observation_shape``, ``num_actions`` and ``weights``."""
OFFICIAL_ENTRY = "official"
"""Where an imported checkpoint holds its published ``args`` and ``weights`` instead."""


class Policy:
    """Acts on observations, carrying its state from one to the next.

    Args:
        agent: the trained network; it is put into evaluation mode.
        observation_shape: shape of one observation.
        iteration: how long it was trained, in iterations; 0 for an imported one.

    Example:
        >>> policy = Policy.from_checkpoint("runs/a")  # doctest: +SKIP
        >>> state = policy.initial_state()
        >>> action, state = policy.act(observation, state)
    """

    def __init__(self, agent: ActorCritic, observation_shape: tuple[int, ...], iteration: int = 0) -> None:
        self.agent = agent.eval()
        self.observation_shape = observation_shape
        self.num_actions = agent.policy.layers[-1].out_features
        self.iteration = iteration
        self.ticks = np.zeros(0, np.int64)
        """How many ticks each row took in the last step, [B]."""

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> "Policy":
        """Reads a policy.

        Args:
            path: a run's directory (its newest checkpoint is taken) or one checkpoint in it.
            device: where it computes.

        Returns:
            The policy.

        Raises:
            UserError: there is no checkpoint, it is damaged, or holds no policy.
        """
        place = checkpoint.find(Path(path))
        return cls.from_state(place, checkpoint.load(place), device)

    @classmethod
    def from_state(cls, place: Path, state: Mapping[str, Any], device: str | torch.device = "cpu") -> "Policy":
        """Makes a policy of a checkpoint that has been read; see ``from_checkpoint``.

        Args:
            place: where the checkpoint lies.
            state: what it holds.
            device: where the policy computes.
        """
        official = official_of(place, state)
        if official is None:
            agent, observation_shape = _own(place, state)
        elif isinstance(official.model, ActorCritic):
            agent, observation_shape = official.model, _shape_of(official.model)
        else:
            raise CheckpointError(
                f"{place} holds a model for {official.task}, which answers and does not act; "
                "episodes are played by reinforcement learning policies only."
            )
        return cls(agent.to(device), observation_shape, checkpoint.iteration_of(place))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.agent.parameters()).device

    def initial_state(self, batch_size: int | None = None) -> AnyState:
        """The learned state that an episode begins with.

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
        observation: np.ndarray | Tensor,
        state: AnyState,
        *,
        is_first: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
        halt_certainty: float | None = None,
    ) -> tuple[Any, AnyState]:
        """Chooses actions for one step.

        Args:
            observation: one observation, or a batch of them [B, ...].
            state: as ``initial_state`` or the last call gave it, with as many rows; left as it was.
            is_first: which rows begin a new episode, [B]; their state starts afresh. ``None``: none does.
            deterministic: take the likeliest action instead of drawing one.
            generator: a generator on the CPU to draw from; ``None``: torch's own.
            halt_certainty: each row stops ticking once it is this certain (``1 - H(pi) / log A``), from 0 to 1; only of
                a policy trained with ``train_random_ticks``. ``None``: it takes all of its ticks.

        Returns:
            The action, an ``int`` for one observation and an array of whole numbers [B] for a batch, and the state
            for the next step.

        Raises:
            ValueError: the observation has the wrong shape, or the policy cannot halt.
        """
        batch = torch.as_tensor(observation, device=self.device)
        is_single = tuple(batch.shape) == self.observation_shape
        if not is_single and tuple(batch.shape[1:]) != self.observation_shape:
            raise ValueError(
                f"observation must have shape {self.observation_shape}, or this after a batch axis; "
                f"got {tuple(batch.shape)}."
            )
        batch = batch[None] if is_single else batch
        num_rows = len(state[0])
        if len(batch) != num_rows:
            raise ValueError(f"observation must have as many rows as the state, {num_rows}, got {len(batch)}.")
        if self.agent.config.encoder != "grid":
            batch = batch.to(next(self.agent.parameters()).dtype)
        fresh = torch.zeros(num_rows, dtype=torch.bool) if is_first is None else torch.as_tensor(is_first)
        logits, state = self._step(batch, fresh.to(self.device).reshape(num_rows), state, halt_certainty)
        if deterministic:
            actions = logits.argmax(-1)
        else:
            actions = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
        return (int(actions) if is_single else actions.numpy()), state

    def _step(
        self, batch: Tensor, is_first: Tensor, state: AnyState, halt_certainty: float | None
    ) -> tuple[Tensor, AnyState]:
        """Logits of one step, [B, A], on the CPU, and the state after it; notes the ticks it took."""
        if halt_certainty is None:
            unrolled = self.agent.unroll(batch[None], is_first[None], state)
            self.ticks = np.full(len(batch), self.agent.config.num_ticks)
            return unrolled.logits[0].float().cpu(), unrolled.state
        halted = act_until_certain(self.agent, batch, is_first.bool(), state, halt_certainty)
        self.ticks = halted.ticks.cpu().numpy()
        return halted.logits.float().cpu(), halted.state


def describe(agent: ActorCritic, observation_shape: tuple[int, ...]) -> dict[str, Any]:
    """What a checkpoint holds of a policy, under ``POLICY_ENTRY``.

    Args:
        agent: the network.
        observation_shape: shape of one observation.

    Returns:
        Its configuration, sizes and weights.
    """
    return {
        "config": dataclasses.asdict(agent.config),
        "observation_shape": tuple(observation_shape),
        "num_actions": agent.policy.layers[-1].out_features,
        "weights": dict(agent.state_dict()),
    }


def official_of(place: Path, state: Mapping[str, Any]) -> OfficialModel | None:
    """Rebuilds the published model that a checkpoint was imported from.

    Args:
        place: where the checkpoint lies.
        state: what it holds.

    Returns:
        The model; ``None`` for a checkpoint of our own.

    Raises:
        CheckpointError: the model cannot be rebuilt.
    """
    if OFFICIAL_ENTRY not in state:
        return None
    try:
        return rebuild(state[OFFICIAL_ENTRY]["weights"], state[OFFICIAL_ENTRY]["args"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {place} holds no model that this ctm-rl can rebuild: {error}.") from error


def _own(place: Path, state: Mapping[str, Any]) -> tuple[ActorCritic, tuple[int, ...]]:
    """Rebuilds the policy of a training run."""
    try:
        entry = state[POLICY_ENTRY]
        shape = tuple(entry["observation_shape"])
        agent = ActorCritic(PolicyConfig(**entry["config"]), shape, entry["num_actions"])
        agent.load_state_dict(entry["weights"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"checkpoint {place} holds no policy that this ctm-rl can rebuild: {reason}.") from error
    return agent, shape


def _shape_of(agent: ActorCritic) -> tuple[int, ...]:
    """The observation's shape, which a published checkpoint does not tell, from the sizes of the encoder."""
    encoder = agent.encoder
    if isinstance(encoder, ControlEncoder):
        return (next(encoder.parameters()).shape[1],)
    side = math.isqrt(encoder.position.num_embeddings)
    return (side, side, 3)
