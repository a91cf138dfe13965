"""The one loop that steps environments with a policy, for rollouts and for evaluation."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from ctm_rl.agents.rllib.finished_episodes import CUT_SHORT
from ctm_rl.agents.rllib.spans import ENVIRONMENT, span
from ctm_rl.errors import EnvFault
from ctm_rl.spaces.action_masks import MASK, find_forbidden, read_masks
from ctm_rl.spaces.actions import Actions, Choices, is_masked
from ctm_rl.spaces.observations import Layout


class VectorStep(NamedTuple):
    """One step of all B environments of a vector."""

    is_valid: np.ndarray
    """Whether it is an environment step and not an autoreset step, [B]."""
    rewards: np.ndarray
    """Of the environment, [B]; 0 in autoreset steps."""
    is_last: np.ndarray
    """Whether an episode ended with it, terminated or truncated, [B]."""
    terminated: np.ndarray
    """As the environment returned it, [B]."""
    truncated: np.ndarray
    """As the environment returned it, [B]."""
    returns: np.ndarray
    """Sum of the episode's rewards up to and including this step, [B]."""
    lengths: np.ndarray
    """Environment steps of the episode so far, [B]."""
    infos: dict[str, Any]
    """As the environment returned them."""

    @property
    def is_whole(self) -> np.ndarray:
        """Whether an episode ended with it as the environment ends its episodes, and was not cut short, [B]."""
        # With autoreset in the same step, the infos are those of the next episode.
        infos = self.infos.get("final_info", self.infos)
        is_whole = self.is_last
        for key in CUT_SHORT:
            if (is_cut := infos.get(f"_{key}")) is not None:
                is_whole = is_whole & ~is_cut
        return is_whole


class VectorLoop:
    """Steps all environments of a vector together, and counts returns and lengths of their episodes.

    Where an environment resets in the step after an episode's last one, that step is an autoreset step: its action is
    ignored, its observation is the episode's final one.

    Args:
        env: the environments; ended ones must reset by themselves, in the same step or in the next.
        layout: how observations are packed.
        actions: the action space, which says whether observations come with action masks; ``None``: they do not.

    Raises:
        ValueError: ended environments do not reset by themselves.
    """

    masks: np.ndarray | None = None
    """With action masks: which options are legal in the next step, [B, O] of bool; in autoreset steps all."""

    def __init__(self, env: VectorEnv, layout: Layout, actions: Actions | None = None) -> None:
        # Read once: environments of one class share their metadata, and a later vector may have written there.
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            found = mode.value if isinstance(mode, AutoresetMode) else mode
            raise ValueError(
                f"the vector environment's autoreset_mode must be NextStep or SameStep, got {found}: "
                "environments have to start new episodes by themselves."
            )
        self.env = env
        self.resets_in_same_step = mode == AutoresetMode.SAME_STEP
        self._layout = layout
        self._sizes = actions.sizes if isinstance(actions, Choices) and is_masked(actions) else None

    def reset(self, seed: Any = None) -> None:
        """Begins new episodes in all environments.

        Args:
            seed: as ``VectorEnv.reset`` takes it.
        """
        num_envs = self.env.num_envs
        self.shown, self.infos = self.env.reset(seed=seed)
        """What the environments show before the next step, as they return it; and the infos of the last reset."""
        self.observations = self._pack(self.shown)
        """The same, packed, [B, *layout.shape]."""
        self.actions: Any = None
        """The last actions, as the environments took them, [B, ...]; ``None`` before the first step."""
        self._is_first = np.ones(num_envs, dtype=bool)
        self._is_valid = np.ones(num_envs, dtype=bool)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._read_masks(self.shown)

    @property
    def lengths(self) -> np.ndarray:
        """Environment steps of the episodes under way, [B]."""
        return self._lengths

    def steps(self, choose: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Iterator[VectorStep]:
        """Takes steps for as long as the caller goes on.

        Args:
            choose: returns the actions as the environments take them, [B, ...], for packed observations,
                [B, *layout.shape], and ``is_first``, [B].

        Yields:
            Every step after it was taken.
        """
        while True:
            is_valid = self._is_valid
            self.actions = choose(self.observations, self._is_first)
            with span(ENVIRONMENT):
                self.shown, rewards, terminated, truncated, infos = self.env.step(self.actions)
            is_last = (terminated | truncated) & is_valid
            rewards = np.where(is_valid, rewards, 0.0)
            returns, lengths = self._returns + rewards, self._lengths + is_valid
            self._returns, self._lengths = np.where(is_last, 0.0, returns), np.where(is_last, 0, lengths)
            if self.resets_in_same_step:
                self._is_first = is_last
            else:
                # An autoreset step follows an episode's end, and a new episode follows an autoreset step.
                self._is_first, self._is_valid = ~is_valid, ~is_last
            self.observations = self._pack(self.shown)
            self._read_masks(self.shown)
            yield VectorStep(is_valid, rewards, is_last, terminated, truncated, returns, lengths, infos)

    def _pack(self, observations: Any) -> np.ndarray:
        return self._layout.pack(observations, self.env.num_envs)

    def check_masks(self) -> None:
        """Refuses masks that leave an environment nothing to do, in the next step.

        Raises:
            EnvFault: a mask forbids every option.
        """
        if self.masks is None or self._sizes is None:
            return
        if (forbidden := find_forbidden(self.masks, self._sizes)) is not None:
            name = "" if self.env.spec is None else f" {self.env.spec.id}"
            step = self._lengths[forbidden.row] + 1
            raise EnvFault(
                f"environment{name} shows an {MASK} that {forbidden.describe(self._sizes)}, before step {step} of an "
                f"episode in row {forbidden.row}."
            )

    def _read_masks(self, observations: Any) -> None:
        """Reads the masks, if there are any; what an episode's last observation forbids does not matter."""
        if self._sizes is not None:
            masks = read_masks(observations[MASK], self._sizes, self.env.num_envs)
            self.masks = masks | ~self._is_valid[:, None]
