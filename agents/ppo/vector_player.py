"""Plays a vector of environments in lockstep and records what happened, column by column."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from ray.rllib.core.columns import Columns
from torch import Tensor

from ctm_rl.agents.ppo.episode_callbacks import EpisodeCallbacks
from ctm_rl.agents.ppo.exploration_noise import CorrelatedNoise
from ctm_rl.agents.ppo.reward_normaliser import RewardNormaliser
from ctm_rl.agents.ppo.rollout import RolloutFragment
from ctm_rl.agents.rllib.divergence import explain_samples, largest_of
from ctm_rl.agents.rllib.finished_episodes import RAW_RETURN, SUCCESS, FinishedEpisode, read_success, seeds_of_envs
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.agents.rllib.module import fields_of
from ctm_rl.agents.rllib.spans import POLICY, span
from ctm_rl.agents.rllib.vector_loop import VectorLoop, VectorStep
from ctm_rl.errors import Diverged
from ctm_rl.inference.batched_actor import Actor
from ctm_rl.spaces.action_masks import pack_masks
from ctm_rl.spaces.actions import Numbers


class VectorPlayer:
    """Plays all environments of a vector together and records fragments for the learners.

    Args:
        env: the environments, as ``agents.rllib.vector_loop.VectorLoop`` takes them.
        actor: the policy, one row for each environment.
        generator: draws the actions.
        normaliser: divides the rewards for the learner; ``None``: they stay as they are. Returns stay raw either way.
        callbacks: called with the episodes; ``None``: nobody is.
        noise: explores with it, where actions are numbers; ``None``: the noise of every step is independent.
    """

    def __init__(
        self,
        env: VectorEnv,
        actor: Actor,
        generator: torch.Generator,
        normaliser: RewardNormaliser | None = None,
        callbacks: EpisodeCallbacks | None = None,
        noise: CorrelatedNoise | None = None,
    ) -> None:
        self.actor = actor
        self._env = env
        self._generator = generator
        self._normaliser = normaliser
        self._callbacks = callbacks
        self._noise = noise
        self._layout, self._actions = actor.agent.layout, actor.agent.actions
        self._loop = VectorLoop(env, self._layout, self._actions)
        self._finished: list[FinishedEpisode] = []

    def reset(self, seed: int | None, position: int) -> None:
        """Begins new episodes in all environments.

        Args:
            seed: of the runner; ``None``: random.
            position: where in the run this is; the environments' seeds depend on it.
        """
        if self._callbacks is not None:
            self._callbacks.begin()
        self._loop.reset(self._seeds(seed, position))
        if self._callbacks is not None:
            self._callbacks.start(self._loop)
        self.actor.reset(self._env.num_envs)
        if self._normaliser is not None:
            self._normaliser.restart()

    def play(self, num_steps: int, *, explore: bool = True, ticks: Sequence[int] | None = None) -> RolloutFragment:
        """Takes T steps in every environment.

        Args:
            num_steps: T.
            explore: draw the actions; ``False``: take the likeliest.
            ticks: how many ticks each step takes, [T], recorded; ``None``: as many as configured.

        Returns:
            The fragment.

        Raises:
            Diverged: the policy's outputs are not finite; the environments have not been stepped with them.
            EnvFault: an action mask forbids every action.
        """
        if self._noise is not None and not explore:
            self._noise.restart()
        self._device = self.actor.device  # once for all steps: reading it visits the policy's modules
        shape = self._env.num_envs, num_steps
        observations = np.empty((*shape, *self._layout.shape), self._layout.dtype)
        actions = np.empty((*shape, *self._actions.column_shape), self._actions.column_dtype)
        logp, values, rewards, next_values, final_values = (np.zeros(shape, np.float32) for _ in range(5))
        is_first, is_valid, is_last, is_terminated = (np.zeros(shape, bool) for _ in range(4))
        masks: list[np.ndarray] = []
        held = fields_of(self.actor.state, self.actor.critic_state)
        state = {name: part.detach().cpu().numpy().copy() for name, part in held.items()}

        def choose(observed: np.ndarray, begins: np.ndarray) -> np.ndarray:
            observations[:, step], is_first[:, step] = observed, begins
            num_ticks = None if ticks is None else ticks[step]
            inputs, is_fresh = self._to_torch(observed, begins)
            legal = None
            if self._loop.masks is not None:
                self._loop.check_masks()
                masks.append(pack_masks(self._loop.masks))
                (legal,) = self._to_torch(self._loop.masks)
            with span(POLICY):
                outputs, estimates = self.actor.step(inputs, is_fresh, num_ticks, legal)
                outputs = outputs.cpu()
            if not np.isfinite(outputs.numpy()).all():
                raise Diverged(self._explain(observed))
            chosen, logp[:, step] = self._choose(outputs, explore, begins)
            actions[:, step], values[:, step] = chosen, estimates.cpu().numpy()
            return self._actions.to_env(chosen)

        steps = self._loop.steps(choose)
        for step in range(num_steps):
            report("steps", step, num_steps)
            taken = next(steps)
            is_valid[:, step], is_last[:, step] = taken.is_valid, taken.is_last
            is_terminated[:, step] = taken.terminated
            rewards[:, step] = self._normalise(taken, is_first[:, step])
            self._finished += _finished_episodes(taken)
            if self._callbacks is not None:
                self._callbacks.step(self._loop, taken)
            if self._loop.resets_in_same_step:
                self._value_final_observations(taken, final_values[:, step])
        next_values[:, :-1] = values[:, 1:]
        next_values[:, -1] = self.actor.peek(*self._to_torch(self._loop.observations)).cpu().numpy()
        if self._loop.resets_in_same_step:
            # The next observation belongs to another episode.
            next_values[is_last] = final_values[is_last]
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
            masks=np.stack(masks, 1) if masks else None,
            state=state,
        )

    @property
    def longest_episode(self) -> int:
        """Environment steps of the longest episode under way."""
        return int(self._loop.lengths.max())

    def pop_finished(self) -> list[FinishedEpisode]:
        """The whole episodes that have ended since the last call, in their order."""
        finished, self._finished = self._finished, []
        return finished

    def _seeds(self, seed: int | None, position: int) -> Any:
        """Seeds as the vector takes them: one for each single environment, or one for a vector class of its own."""
        if seed is None:
            return None
        seeds = seeds_of_envs(seed, position, self._env.num_envs)
        return seeds if isinstance(self._env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)) else seeds[0]

    def _normalise(self, taken: VectorStep, is_first: np.ndarray) -> np.ndarray:
        """Rewards for the learner, [B]."""
        return taken.rewards if self._normaliser is None else self._normaliser(taken.rewards, is_first, taken.is_valid)

    def _choose(self, outputs: Tensor, explore: bool, is_first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions for a column, and their log-probabilities, [B]."""
        if explore and self._noise is not None:
            actions = self._explore(outputs, self._noise, is_first)
        else:
            actions = self._actions.sample(outputs, self._generator) if explore else self._actions.mode(outputs)
        return actions.numpy(), self._actions.score(outputs, actions).logp.numpy()

    def _explore(self, outputs: Tensor, noise: CorrelatedNoise, is_first: np.ndarray) -> Tensor:
        """Actions with correlated noise."""
        assert isinstance(self._actions, Numbers)
        return self._actions.place(outputs, noise.draw(torch.from_numpy(is_first), self._actions.column_shape[0]))

    def _explain(self, observed: np.ndarray) -> str:
        """Explains in one line why the policy's outputs for these observations are not finite."""
        largest = float(largest_of(list(self.actor.agent.parameters())))
        cause = explain_samples({Columns.OBS: observed}, ("environment",), self._layout)
        return f"the policy's outputs are not finite: {cause or f'its weights reach {largest:.3g}; lower --ppo.lr.'}"

    def _value_final_observations(self, taken: VectorStep, values: np.ndarray) -> None:
        """Writes the values of the final observations of truncated episodes into ``values``, [B]."""
        rows = np.flatnonzero(taken.truncated & ~taken.terminated)
        if len(rows):
            packed = np.stack([self._layout.pack_one(taken.infos["final_obs"][row]) for row in rows])
            values[rows] = self.actor.peek(*self._to_torch(packed, rows)).cpu().numpy()

    def _to_torch(self, *arrays: np.ndarray) -> list[Tensor]:
        """Arrays as tensors on the policy's device."""
        return [torch.from_numpy(array).to(self._device) for array in arrays]


def _finished_episodes(taken: VectorStep) -> list[FinishedEpisode]:
    """The whole episodes that ended with a step, in the order of their environments."""
    if not taken.is_last.any():
        return []
    ended, returns = taken.is_whole, taken.returns
    infos = taken.infos.get("final_info", taken.infos)
    if RAW_RETURN in infos:
        returns = np.where(infos[f"_{RAW_RETURN}"], infos[RAW_RETURN], returns)
    done = zip(returns[ended].tolist(), taken.lengths[ended].tolist(), _successes(infos, ended), strict=True)
    return [FinishedEpisode(*episode) for episode in done]


def _successes(infos: dict[str, Any], ended: np.ndarray) -> list[bool | None]:
    """Whether the episodes that ended were successes, as far as their environments say so."""
    values, has_value = infos.get(SUCCESS), infos.get(f"_{SUCCESS}")
    if values is None or has_value is None:
        return [None] * int(ended.sum())
    found = zip(np.asarray(values)[ended], np.asarray(has_value)[ended], strict=True)
    return [read_success({SUCCESS: value}) if is_there else None for value, is_there in found]
