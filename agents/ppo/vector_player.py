"""Plays a vector of environments in lock step and writes down what happened, column by column."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from ctm_rl.agents.ppo.reward_normaliser import RewardNormaliser
from ctm_rl.agents.ppo.rollout import RolloutFragment
from ctm_rl.agents.rllib.episodes import FinishedEpisode, seeds_of_envs
from ctm_rl.inference.actor import Actor


class VectorPlayer:
    """Plays all environments of a vector, one step of all at a time, and keeps count of their episodes.

    Args:
        env: the environments; ended ones must reset by themselves, in the same step or in the next.
        stepper: acts, in one row for each environment.
        generator: where actions are drawn from.
        normaliser: divides the rewards for the learner; ``None``: they stay as they are. Returns stay raw either way.

    Raises:
        ValueError: ended environments do not reset by themselves.
    """

    def __init__(
        self,
        env: VectorEnv,
        stepper: Actor,
        generator: torch.Generator,
        normaliser: RewardNormaliser | None = None,
    ) -> None:
        # Read once: environments of one class share their metadata, and a later vector may have written there.
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            said = mode.value if isinstance(mode, AutoresetMode) else mode
            raise ValueError(
                f"the vector environment's autoreset_mode must be NextStep or SameStep, got {said}: "
                "environments have to start new episodes by themselves."
            )
        self.env = env
        self.stepper = stepper
        self.generator = generator
        self.normaliser = normaliser
        self._resets_in_same_step = mode == AutoresetMode.SAME_STEP
        self._layout, self._actions = stepper.agent.layout, stepper.agent.actions
        self._finished: list[FinishedEpisode] = []

    def reset(self, seed: int | None, position: int) -> None:
        """Begins new episodes in all environments.

        Args:
            seed: of the runner; ``None``: any.
            position: where in the run this is; the environments' seeds depend on it.
        """
        num_envs = self.env.num_envs
        self._observations = self._pack(self.env.reset(seed=self._seeds(seed, position))[0])
        self._is_first = np.ones(num_envs, dtype=bool)
        self._is_hole = np.zeros(num_envs, dtype=bool)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self.stepper.reset(num_envs)
        if self.normaliser is not None:
            self.normaliser.restart()

    def play(self, num_steps: int, *, explore: bool = True, ticks: Sequence[int] | None = None) -> RolloutFragment:
        """Takes T steps in every environment.

        Args:
            num_steps: T.
            explore: draw the actions; ``False``: take the likeliest.
            ticks: how many ticks each step takes, [T], recorded; ``None``: as many as configured.

        Returns:
            The fragment.
        """
        shape = self.env.num_envs, num_steps
        observations = np.empty((*shape, *self._layout.shape), self._layout.dtype)
        actions = np.empty((*shape, *self._actions.column_shape), self._actions.column_dtype)
        logp, values, rewards, next_values = (np.zeros(shape, np.float32) for _ in range(4))
        is_first, is_valid, is_last, is_terminated = (np.zeros(shape, bool) for _ in range(4))
        finals = np.zeros(shape, np.float32)
        state = {
            name: part.detach().cpu().numpy().copy()
            for name, part in self.stepper.state._asdict().items()
            if part is not None
        }
        for step in range(num_steps):
            observations[:, step], is_first[:, step] = self._observations, self._is_first
            is_valid[:, step] = ~self._is_hole
            seen_now, begins = self._to_torch(self._observations, self._is_first)
            outputs, step_values = self.stepper.step(seen_now, begins, None if ticks is None else ticks[step])
            chosen, chosen_logp = self._choose(outputs, explore)
            actions[:, step], logp[:, step] = chosen, chosen_logp
            values[:, step] = step_values.cpu().numpy()
            seen, gained, terminated, truncated, infos = self.env.step(self._actions.to_env(chosen))
            is_last[:, step] = ended = (terminated | truncated) & ~self._is_hole
            is_terminated[:, step] = terminated
            rewards[:, step] = self._count(gained, ended)
            if self._resets_in_same_step:
                is_cut = truncated & ~terminated
                if is_cut.any():
                    finals[is_cut, step] = self._peek(infos["final_obs"], np.flatnonzero(is_cut))
                self._is_first = ended
            else:
                # What comes after an end is a hole, and what comes after a hole is a new episode.
                self._is_first, self._is_hole = self._is_hole, ended
            self._observations = self._pack(seen)
        next_values[:, :-1] = values[:, 1:]
        next_values[:, -1] = self.stepper.peek(*self._to_torch(self._observations)).cpu().numpy()
        if self._resets_in_same_step:
            # The next observation is of another episode; the final one was looked at on the way.
            next_values[is_last] = finals[is_last]
        next_values[is_terminated | ~is_valid] = 0.0
        return RolloutFragment(
            observations=observations,
            actions=actions,
            logp=logp,
            values=values,
            rewards=rewards,
            next_values=next_values,
            is_first=is_first,
            is_valid=is_valid,
            is_last=is_last,
            ticks=None if ticks is None else np.tile(np.asarray(ticks, np.int64), (len(actions), 1)),
            state=state,
        )

    def pop_finished(self) -> list[FinishedEpisode]:
        """The episodes that have ended since the last call, in their order."""
        finished, self._finished = self._finished, []
        return finished

    def _seeds(self, seed: int | None, position: int) -> Any:
        """Seeds as the vector takes them: one for each single environment, or one for a class of its own."""
        if seed is None:
            return None
        seeds = seeds_of_envs(seed, position, self.env.num_envs)
        return seeds if isinstance(self.env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)) else seeds[0]

    def _choose(self, outputs: Tensor, explore: bool) -> tuple[np.ndarray, np.ndarray]:
        """Actions for a column, and their log-probabilities, [B]."""
        outputs = outputs.cpu()
        actions = self._actions.sample(outputs, self.generator) if explore else self._actions.mode(outputs)
        return actions.numpy(), self._actions.score(outputs, actions).logp.numpy()

    def _count(self, gained: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """Adds a step to the episodes' returns and lengths; gives its rewards as the learner is to have them."""
        is_step = ~self._is_hole
        gained = np.where(is_step, gained, 0.0)
        self._returns += gained
        self._lengths += is_step
        if ended.any():
            done = zip(self._returns[ended].tolist(), self._lengths[ended].tolist(), strict=True)
            self._finished += [FinishedEpisode(*episode) for episode in done]
            self._returns[ended], self._lengths[ended] = 0.0, 0
        return gained if self.normaliser is None else self.normaliser(gained, self._is_first, is_step)

    def _peek(self, finals: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Values of the final observations of the rows that were cut off."""
        packed = np.stack([self._layout.pack_one(finals[row]) for row in rows])
        observations, index = self._to_torch(packed, rows)
        return self.stepper.peek(observations, index).cpu().numpy()

    def _pack(self, observations: Any) -> np.ndarray:
        """What the environments show, [B, *layout.shape]."""
        return self._layout.pack(observations, self.env.num_envs)

    def _to_torch(self, *arrays: np.ndarray) -> list[Tensor]:
        """Arrays as tensors where the policy computes."""
        return [torch.from_numpy(array).to(self.stepper.device) for array in arrays]
