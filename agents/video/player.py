"""Plays episodes of a run's policy for an audience: one step after the other, with frames and what it thought."""

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch

from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.evaluation.names import name_actions
from ctm_rl.agents.evaluation.play import seeds_of_episodes
from ctm_rl.agents.evaluation.recorded_episode import RecordedStep, play_recorded
from ctm_rl.agents.evaluation.run_environment import changed_env
from ctm_rl.agents.evaluation.silent_pygame import silent_pygame
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.settings import MAX_SEED
from ctm_rl.agents.experiments.validation import check_number
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.agents.run_directory.directory import check_is_run
from ctm_rl.agents.run_directory.trust import check_trusted, env_claims
from ctm_rl.checkpoints.best import find, run_of
from ctm_rl.errors import UserError, user_errors
from ctm_rl.inference.batched_actor import check_can_halt, check_can_take
from ctm_rl.inference.policy import Policy
from ctm_rl.machine.halting import check_halt_certainty
from ctm_rl.spaces.actions import Actions, Choices

MIN_FPS, MAX_FPS = 0.1, 1000.0
"""Frames per second that files and screens can show."""
_FPS = 30.0
"""Frames per second of an environment that does not say how many."""


class PlayerOptions(NamedTuple):
    """How episodes are played."""

    episodes: int = 1
    """How many, at most."""
    steps: int | None = None
    """Steps of all episodes together, at most; ``None``: any number."""
    seed: int = 0
    """The same seed plays the same episodes, the first one as ``evaluate`` plays one episode."""
    deterministic: bool = False
    """Take the most likely actions."""
    halt_certainty: float | None = None
    """Certainty at which a step's ticks end; ``None``: no halting."""
    num_ticks: int | None = None
    """Number of ticks of a step, at most; ``None``: as trained."""
    fps: float | None = None
    """Steps per second; ``None``: as the environment says."""

    def check(self) -> None:
        """Refuses values that are out of range.

        Raises:
            ValueError: one line with the value and its limit.
        """
        check_number("episodes", self.episodes, at_least=1)
        if self.steps is not None:
            check_number("steps", self.steps, at_least=1)
        check_number("seed", self.seed, at_least=0, at_most=MAX_SEED)
        if self.fps is not None:
            check_number("fps", self.fps, at_least=MIN_FPS, at_most=MAX_FPS)
        check_halt_certainty(self.halt_certainty)


class Shown(NamedTuple):
    """One step, and where it is."""

    episode: int
    """From 1."""
    step: int
    """In its episode, from 1."""
    episode_return: float
    """Sum of the episode's rewards, this step's included."""
    recorded: RecordedStep


class Player(NamedTuple):
    """A policy and its environment, ready to play."""

    policy: Policy
    env: EnvConfig
    name: str
    """Of the experiment."""
    options: PlayerOptions
    fps: float
    """Steps per second."""
    action_names: tuple[str, ...]
    """Of the options of a single choice, or of numbers; empty: there are several choices."""

    def play(self, *, render: bool) -> Generator[Shown, None, None]:
        """Plays the episodes, one after the other.

        Args:
            render: whether steps have frames.

        Yields:
            Every step, after it was taken.

        Raises:
            UserError: the environment cannot be made, does not fit the policy, fails, or cannot be rendered.
        """
        options = self.options
        generator = torch.Generator().manual_seed(options.seed)
        remaining = options.steps
        for episode, seed in enumerate(seeds_of_episodes(options.seed, options.episodes), 1):
            steps = play_recorded(
                self.policy,
                self.env,
                seed,
                deterministic=options.deterministic,
                halt_certainty=options.halt_certainty,
                num_ticks=options.num_ticks,
                render=render,
                generator=generator,
                **({} if remaining is None else {"max_steps": remaining}),
            )
            episode_return, step = 0.0, 0
            for step, recorded in enumerate(steps, 1):
                episode_return += recorded.reward
                yield Shown(episode, step, episode_return, recorded)
            if remaining is not None:
                remaining -= step
                if remaining < 1:
                    return


def load_player(
    run_dir: Path,
    options: PlayerOptions,
    *,
    checkpoint: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Player:
    """Reads the policy of a run, and what is known of its environment.

    Args:
        run_dir: a run's directory, or one checkpoint in it.
        options: how episodes are played.
        checkpoint: as of ``evaluate``, and so are the others.
        env_kwargs: see there.
        trust: see there.

    Raises:
        UserError: there is no such run, it has no usable checkpoint, or answers, its environment is not trusted or
            cannot be made, or a value is not allowed.
    """
    with user_errors():
        options.check()
    run = run_of(run_dir)
    check_is_run(run)
    _, trained, experiment = load_trained(run, find(run_dir, checkpoint), torch.device("cpu"), trust=trust)
    if not isinstance(trained, Policy):
        raise UserError(
            f"{run} answers single samples and plays no episodes; ctm-rl report {run} shows how it thinks about them."
        )
    assert isinstance(experiment, ActingExperiment)
    check_trusted(env_claims(experiment.env, replaced=env_kwargs or {}), run, is_trusted=trust)
    with user_errors():
        check_can_take(trained.agent, options.num_ticks)
        if options.halt_certainty is not None:
            check_can_halt(trained.agent)
    return make_player(trained, changed_env(experiment.env, env_kwargs), experiment.name, options)


def make_player(policy: Policy, config: EnvConfig, name: str, options: PlayerOptions) -> Player:
    """A player of a policy.

    Raises:
        UserError: the environment cannot be made.
    """
    with silent_pygame(), contextlib.closing(make_env(config)) as env:
        fps = options.fps or (env.metadata or {}).get("render_fps")
        if not (isinstance(fps, (int, float)) and MIN_FPS <= fps <= MAX_FPS):
            fps = _FPS
        return Player(policy, config, name, options, float(fps), _flat_names(env, config.id, policy.actions))


def _flat_names(env: gym.Env, env_id: str, actions: Actions) -> tuple[str, ...]:
    """Names of the options of a single choice, or of numbers; empty: there are several choices."""
    names = name_actions(env, env_id, actions)
    if isinstance(actions, Choices):
        return tuple(names[0]) if len(names) == 1 else ()
    return tuple(name for (name,) in names)
