"""Plays exact numbers of episodes with a policy: an even share in each environment, a seed for each episode."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.rllib.finished_episodes import FAULT, FinishedEpisode, read_success
from ctm_rl.agents.rllib.iteration import report
from ctm_rl.agents.rllib.spaces import check_masks, fit
from ctm_rl.agents.rllib.vector_loop import VectorLoop
from ctm_rl.config import PolicyConfig
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy
from ctm_rl.metrics import mean_interval, wilson_interval
from ctm_rl.spaces.actions import Actions
from ctm_rl.spaces.observations import Layout

MAX_ENVS = 32
"""Number of environments that are stepped together, at most."""
MAX_EPISODE_STEPS = 100_000
"""Steps of an episode, at most, unless another limit is given: an episode may have no end of its own."""
_SEED_FLOOR = 2**31
"""Lowest seed of evaluation; those of training are below."""


class PlayOptions(NamedTuple):
    """How actions are chosen."""

    deterministic: bool
    """Take the most likely actions."""
    seed: int
    """Seed for sampling actions."""
    halt_certainty: float | None
    """Certainty at which a row halts; ``None``: no halting."""
    num_ticks: int | None
    """Number of ticks of a row, at most; ``None``: as trained."""
    max_episode_steps: int
    """Steps after which an episode is truncated."""


def seeds_of_episodes(seed: int, num_episodes: int) -> list[int]:
    """Seeds of episodes that training never plays: the same for the same seed, the first ones for fewer episodes."""
    words = np.random.SeedSequence(seed).generate_state(num_episodes)
    return [_SEED_FLOOR + int(word) // 2 for word in words]


def play_all(
    policy: Policy,
    config: EnvConfig,
    seeds: list[int],
    options: PlayOptions,
    thresholds: Sequence[float | None] = (),
    observe: Callable[[Sequence[FinishedEpisode]], object] | None = None,
) -> dict[str, Any]:
    """Plays one episode for each seed, and again for each certainty of the halting curve.

    Args:
        policy: the policy; its state is its caller's.
        config: the environment, which is made for this call.
        seeds: of the episodes, see ``seeds_of_episodes``.
        options: how actions are chosen.
        thresholds: certainties of the halting curve.
        observe: is given the episodes, in the order of their seeds.

    Returns:
        The part of the result of ``evaluate`` that the episodes determine.

    Raises:
        UserError: the environment cannot be made, does not fit the policy, or fails.
    """
    shares, vector = make_shares(policy, config, min(len(seeds), MAX_ENVS), options.max_episode_steps)
    loop = VectorLoop(vector, policy.layout, policy.actions)
    started = time.perf_counter()
    try:
        with one_thread():
            episodes, ticks = _play(policy, shares, loop, seeds, options)
            seconds = time.perf_counter() - started
            halting = [
                _play_halting(policy, shares, loop, seeds, options._replace(halt_certainty=at)) for at in thresholds
            ]
    finally:
        vector.close()
    if observe is not None:
        observe(episodes)
    num_steps = sum(episode.length for episode in episodes)
    return {
        **summarise(episodes),
        "env_steps": num_steps,
        "seconds": round(seconds, 3),
        **_incidents(shares),
        **_ticks_taken(options, ticks / num_steps),
        **({"halting": halting} if halting else {}),
    }


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Has torch compute in one thread: the products of policies and small models are too small for several.

    Several threads take ten times as long on a busy machine.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def make_shares(
    policy: Policy, config: EnvConfig, num_envs: int, max_episode_steps: int
) -> tuple[list["Share"], SyncVectorEnv]:
    """Creates environments for exact numbers of episodes, one by one and as a vector.

    Args:
        policy: which they must fit.
        config: the environment.
        num_envs: how many.
        max_episode_steps: steps after which an episode is truncated.

    Raises:
        UserError: the environment cannot be made, or does not fit the policy.
    """
    shares = [Share(_make_fitting(config, policy), max_episode_steps) for _ in range(num_envs)]
    vector = SyncVectorEnv([lambda share=share: share for share in shares], autoreset_mode=AutoresetMode.SAME_STEP)
    return shares, vector


def summarise(episodes: Sequence[FinishedEpisode]) -> dict[str, Any]:
    """Means over episodes with their 95 % intervals; a success rate where the environment says what a success is."""
    returns = np.array([episode.episode_return for episode in episodes])
    successes = [episode.is_success for episode in episodes if episode.is_success is not None]
    rate = sum(successes) / max(1, len(successes))
    return {
        "episodes": len(episodes),
        "episode_return_mean": float(returns.mean()),
        "episode_return_interval": mean_interval(torch.from_numpy(returns)),
        "episode_return_std": float(returns.std()),
        "episode_return_min": float(returns.min()),
        "episode_return_max": float(returns.max()),
        "episode_length_mean": float(np.mean([episode.length for episode in episodes])),
        **({"success_rate": rate, "success_rate_interval": wilson_interval(rate, len(successes))} if successes else {}),
    }


def make_fitting(config: EnvConfig, model: PolicyConfig, layout: Layout, actions: Actions, name: str) -> gym.Env:
    """Creates an environment and checks that it fits a policy.

    Args:
        config: the environment.
        model: the policy's configuration.
        layout: what it sees.
        actions: what it does.
        name: what it is called in messages.

    Raises:
        UserError: the environment cannot be made, or has other spaces.
    """
    env = make_env(config)
    try:
        check_masks(actions, env.observation_space)
        fitted = fit(model, env.observation_space, env.action_space)
    except UserError as error:
        env.close()
        raise UserError(f"{name} cannot act on {config.id}: {error}") from error
    if fitted.layout != layout or fitted.actions != actions:
        env.close()
        difference = _difference(layout, actions, fitted.layout, fitted.actions)
        raise UserError(f"{name} was trained on other spaces than those of {config.id}: {difference}.")
    return env


def _make_fitting(config: EnvConfig, policy: Policy) -> gym.Env:
    """The same for a policy of a checkpoint."""
    return make_fitting(config, policy.agent.config, policy.layout, policy.actions, "the checkpoint's policy")


def _difference(layout: Layout, actions: Actions, env_layout: Layout, env_actions: Actions) -> str:
    """How an environment's spaces differ from the policy's."""
    if actions != env_actions:
        return f"it acts by {actions}, and the environment takes {env_actions}"
    for one, other in itertools.zip_longest(layout.parts, env_layout.parts):
        if one != other:
            return f"it sees {one}, and the environment shows {other}"
    raise AssertionError("they are the same")


class Share(gym.Wrapper[Any, Any, Any, Any]):
    """One environment's share of the episodes: plays one for each of its seeds, then stands still.

    Args:
        env: the environment; if it tolerates faults, an episode that one has ended is played again.
        max_steps: an episode is truncated after so many steps.

    Attributes:
        num_truncated: how many episodes were truncated so.
        num_faults: how many faults were tolerated.
        is_success: whether the last episode was a success; ``None``: the environment does not say.
        observation: the last one, as the environment returned it.
    """

    def __init__(self, env: gym.Env, max_steps: int) -> None:
        super().__init__(env)
        self._max_steps = max_steps
        self.num_truncated = self.num_faults = 0
        self._is_broken = False
        self.is_success: bool | None = None

    def begin(self, seeds: Iterable[int]) -> None:
        """Sets the seeds of the next episodes."""
        self._seeds = iter(seeds)
        self._is_broken = False

    def pop_broken(self) -> bool:
        """Whether the last episode was ended by a fault, and is played again."""
        is_broken, self._is_broken = self._is_broken, False
        return is_broken

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins the next episode; after the last one the last observation stays."""
        # Without a seed, an environment that has been recreated derives one from the last.
        following = None if self._is_broken else next(self._seeds, None)
        self._is_over = following is None and not self._is_broken
        self._num_steps = 0
        if not self._is_over:
            self.observation, info = self.env.reset(seed=following)
            self.num_faults += FAULT in info
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step, or none after the last episode."""
        if self._is_over:
            return self.observation, 0.0, False, False, {}
        self.observation, reward, is_terminated, is_truncated, info = self.env.step(action)
        self._num_steps += 1
        self._is_broken = FAULT in info
        self.num_faults += self._is_broken
        if self._num_steps == self._max_steps and not (is_terminated or is_truncated):
            self.num_truncated += 1
            is_truncated = True
        if is_terminated or is_truncated:
            self.is_success = read_success(info)
        return self.observation, reward, is_terminated, is_truncated, {}


def _play(
    policy: Policy, shares: Sequence[Share], loop: VectorLoop, seeds: list[int], options: PlayOptions
) -> tuple[list[FinishedEpisode], int]:
    """Plays one episode for each seed: environment i those of places i, i + n, i + 2 n, and so on.

    Returns:
        The episodes, in the order of the seeds, and how many ticks all their steps took.
    """
    num_envs, num_episodes = len(shares), len(seeds)
    for index, share in enumerate(shares):
        share.begin(seeds[index::num_envs])
    loop.reset()
    generator = torch.Generator().manual_seed(options.seed)
    state = policy.initial_state(num_envs)

    def choose(observations: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        nonlocal state
        actions, state = policy.act_packed(
            observations,
            state,
            is_first=is_first,
            deterministic=options.deterministic,
            generator=generator,
            halt_certainty=options.halt_certainty,
            num_ticks=options.num_ticks,
            masks=loop.masks,
        )
        return actions

    episodes: dict[int, FinishedEpisode] = {}
    episode_of = np.arange(num_envs)  # which episode each environment plays; after its last one: num_episodes or more
    num_ticks = 0
    steps = loop.steps(choose)
    while (is_playing := episode_of < num_episodes).any():
        report("evaluation episodes", len(episodes), num_episodes)
        taken = next(steps)
        num_ticks += int(policy.ticks[is_playing].sum())
        for row in np.flatnonzero(taken.is_last).tolist():
            if not shares[row].pop_broken():
                whole = float(taken.returns[row]), int(taken.lengths[row]), shares[row].is_success
                episodes[int(episode_of[row])] = FinishedEpisode(*whole)
                episode_of[row] += num_envs
    return [episodes[index] for index in range(num_episodes)], num_ticks


def _play_halting(
    policy: Policy, shares: Sequence[Share], loop: VectorLoop, seeds: list[int], options: PlayOptions
) -> dict[str, Any]:
    """Plays one episode for each seed with halting; returns a point of the halting curve."""
    started = time.perf_counter()
    episodes, num_ticks = _play(policy, shares, loop, seeds, options)
    num_steps = sum(episode.length for episode in episodes)
    return {
        "threshold": options.halt_certainty,
        "ticks_mean": num_ticks / num_steps,
        "episode_return_mean": float(np.mean([episode.episode_return for episode in episodes])),
        "episode_length_mean": float(np.mean([episode.length for episode in episodes])),
        "seconds_per_step": (time.perf_counter() - started) / num_steps,
    }


def _incidents(shares: Sequence[Share]) -> dict[str, int]:
    """How many episodes were truncated, and how many faults were tolerated, if any; halting curves included."""
    counts = {
        "episodes_truncated": sum(share.num_truncated for share in shares),
        "env_faults": sum(share.num_faults for share in shares),
    }
    return {name: count for name, count in counts.items() if count}


def _ticks_taken(options: PlayOptions, ticks_mean: float) -> dict[str, Any]:
    """Options and mean number of ticks, where rows may take fewer than all of them."""
    values = {"halt_certainty": options.halt_certainty, "num_ticks": options.num_ticks}
    given = {name: value for name, value in values.items() if value is not None}
    return {**given, "ticks_mean": ticks_mean} if given else {}
