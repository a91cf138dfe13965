"""Plays episodes with a policy and records each step: what it saw, a frame, what it did, and all that it thought."""

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv

from ctm_rl.agents.evaluation.play import MAX_EPISODE_STEPS, Share, make_shares, one_thread
from ctm_rl.agents.evaluation.run_environment import changed_env
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.vector_loop import VectorLoop
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy
from ctm_rl.inference.recorded_step import PolicyRecord

_RENDERING = {"render_mode": "rgb_array"}
"""Arguments of an environment that returns its frames as arrays."""


class RecordedStep(NamedTuple):
    """One environment step of an episode."""

    observation: Any
    """What the policy saw, as the environment returned it."""
    frame: np.ndarray | None
    """What the observation shows, rendered before the action, [H, W, 3] of uint8; ``None``: not rendered."""
    action: Any
    """As the environment took it."""
    reward: float
    """What the environment returned for it."""
    is_terminated: bool
    """Whether the episode ended with it."""
    is_truncated: bool
    """Whether it was truncated with it, by the environment or after ``max_steps``."""
    ticks: PolicyRecord
    """What happened inside the policy, of each of the k ticks of the step: arrays [k, ...]."""
    ticks_used: int
    """k."""
    is_success: bool | None = None
    """After an episode's last step: whether it was a success; ``None``: the environment does not say."""


def play_recorded(
    policy: Policy,
    config: EnvConfig,
    seed: int,
    *,
    deterministic: bool,
    halt_certainty: float | None = None,
    num_ticks: int | None = None,
    max_steps: int = MAX_EPISODE_STEPS,
    render: bool,
    generator: torch.Generator | None,
) -> Iterator[RecordedStep]:
    """Plays one episode and yields each of its steps; the environment is made as ``evaluate`` makes it.

    With ``seeds_of_episodes(s, 1)[0]`` as the seed and a generator of seed s it is the episode that
    ``evaluate(episodes=1, seed=s)`` plays.

    Args:
        policy: the policy.
        config: the environment. A fault of it ends the episode with an error, whatever it tolerates.
        seed: of the episode.
        deterministic: take the most likely actions.
        halt_certainty: certainty at which the policy stops ticking; ``None``: it takes all of its ticks.
        num_ticks: number of ticks, at most; ``None``: as trained.
        max_steps: the episode is truncated after so many steps.
        render: whether the steps have frames.
        generator: to sample actions from; ``None``: torch's default.

    Yields:
        The steps, in order.

    Raises:
        UserError: the environment cannot be made, does not fit the policy, fails, or cannot be rendered.
    """
    episodes = play_recorded_batch(
        policy,
        config,
        [seed],
        deterministic=deterministic,
        halt_certainty=halt_certainty,
        num_ticks=num_ticks,
        max_steps=max_steps,
        render=render,
        generator=generator,
    )
    with contextlib.closing(episodes):
        for (step,) in episodes:
            assert step is not None
            yield step


def play_recorded_batch(
    policy: Policy,
    config: EnvConfig,
    seeds: Sequence[int],
    *,
    deterministic: bool,
    halt_certainty: float | None = None,
    num_ticks: int | None = None,
    max_steps: int = MAX_EPISODE_STEPS,
    render: bool,
    generator: torch.Generator | None,
) -> Generator[list[RecordedStep | None], None, None]:
    """Plays one episode for each seed, all of them together; arguments are those of ``play_recorded``.

    With ``seeds_of_episodes(s, n)``, n at most 32, and a generator of seed s, these are the episodes that
    ``evaluate(episodes=n, seed=s)`` plays.

    Yields:
        The next step of each episode, in the order of the seeds; ``None`` for episodes that have ended.
    """
    config = dataclasses.replace(config, tolerate_faults=False)
    make = _make_rendering if render else make_shares
    shares, vector = make(policy, config, len(seeds), max_steps)
    with contextlib.closing(vector):
        loop = VectorLoop(vector, policy.layout, policy.actions)
        for share, seed in zip(shares, seeds, strict=True):
            share.begin([seed])
        loop.reset()
        choosing = _Choosing(policy, loop, len(seeds), deterministic, halt_certainty, num_ticks, generator)
        steps = loop.steps(choosing.choose)
        is_playing = np.ones(len(seeds), bool)
        while is_playing.any():
            playing = np.flatnonzero(is_playing).tolist()
            seen = {row: copy.deepcopy(shares[row].observation) for row in playing}
            frames = {row: _frame_of(shares[row], config.id) if render else None for row in playing}
            taken = next(steps)
            is_playing &= ~taken.is_last
            row_steps: list[RecordedStep | None] = [None] * len(seeds)
            for row in playing:
                row_steps[row] = RecordedStep(
                    observation=seen[row],
                    frame=frames[row],
                    action=loop.actions[row],
                    reward=float(taken.rewards[row]),
                    is_terminated=bool(taken.terminated[row]),
                    is_truncated=bool(taken.truncated[row]),
                    ticks=choosing.record.row(row),
                    ticks_used=int(choosing.record.ticks[row]),
                    is_success=shares[row].is_success,
                )
            yield row_steps


def replay_frames(
    policy: Policy, config: EnvConfig, seed: int, actions: Sequence[Any], observations: Mapping[int, Any]
) -> Iterator[tuple[int, np.ndarray]]:
    """Renders some steps of an episode that was recorded without frames, by taking its actions again.

    Args:
        policy: which the environment fits.
        config: the environment, as it was recorded.
        seed: of the episode.
        actions: which it took, one for each step.
        observations: what the policy saw in the steps that are rendered, by the number of the step.

    Yields:
        The number of each of these steps, in order, and its frame.

    Raises:
        UserError: the environment fails, cannot be rendered, or shows something else than when it was recorded.
    """
    config = dataclasses.replace(config, tolerate_faults=False)
    (share,), vector = _make_rendering(policy, config, 1, len(actions) + 1)
    with contextlib.closing(vector):
        share.begin([seed])
        share.reset()
        for number in range(max(observations, default=-1) + 1):
            if number in observations:
                recorded, shown = (policy.layout.pack_one(one) for one in (observations[number], share.observation))
                if not np.array_equal(recorded, shown, equal_nan=shown.dtype.kind == "f"):
                    raise UserError(
                        f"{config.id} has no frames: with the same seed and actions, it shows something else in step "
                        f"{number} than when the episode was recorded."
                    )
                yield number, _frame_of(share, config.id)
            share.step(actions[number])


class _Choosing:
    """Chooses actions and keeps the record of the last step.

    Args:
        policy: the policy.
        loop: which knows the action masks.
        num_rows: B.
        deterministic: as of ``play_recorded``, and so are the others.
        halt_certainty: see there.
        num_ticks: see there.
        generator: see there.
    """

    record: PolicyRecord

    def __init__(
        self,
        policy: Policy,
        loop: VectorLoop,
        num_rows: int,
        deterministic: bool,
        halt_certainty: float | None,
        num_ticks: int | None,
        generator: torch.Generator | None,
    ) -> None:
        self._policy, self._loop = policy, loop
        self._options: dict[str, Any] = {
            "deterministic": deterministic,
            "halt_certainty": halt_certainty,
            "num_ticks": num_ticks,
            "generator": generator,
        }
        self._state = policy.initial_state(num_rows)
        self._critic_state = policy.initial_critic_state(num_rows)

    def choose(self, observations: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """The actions for packed observations, as ``VectorLoop.steps`` wants them."""
        with one_thread():
            recorded = self._policy.record_packed(
                observations,
                self._state,
                critic_state=self._critic_state,
                is_first=is_first,
                masks=self._loop.masks,
                **self._options,
            )
        self._state, self._critic_state, self.record = recorded.state, recorded.critic_state, recorded.record
        return recorded.action


def _make_rendering(
    policy: Policy, config: EnvConfig, num_envs: int, max_steps: int
) -> tuple[list[Share], SyncVectorEnv]:
    """Creates environments that render arrays, if they can; see ``make_shares``."""
    with warnings.catch_warnings(), contextlib.suppress(UserError):
        warnings.simplefilter("ignore")  # Gymnasium warns of modes that an environment does not list
        return make_shares(policy, changed_env(config, _RENDERING), num_envs, max_steps)
    return make_shares(policy, config, num_envs, max_steps)  # it may render without being asked for a mode


def _frame_of(env: gym.Env, name: str) -> np.ndarray:
    """Renders an environment.

    Raises:
        UserError: it fails, or returns no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame: Any = env.render()
    except Exception as error:  # an environment may raise anything
        reason = " ".join(str(error).split())[:200]  # none for most environments that render nothing
        raise UserError(
            f"{name} cannot be rendered: render() raised {type(error).__name__}{reason and f' ({reason})'}."
        ) from error
    if frame is None:
        raise UserError(f"{name} cannot be rendered: render() returned None with render_mode rgb_array.")
    image = np.asarray(frame)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
        raise UserError(
            f"{name} cannot be rendered: render() must return an array [height, width, 3] of uint8, "
            f"and returned {type(frame).__name__} of shape {image.shape}, {image.dtype}."
        )
    return image[..., :3].copy()  # some environments draw into the same array again
