"""The sections of a report on a policy: episodes to watch, and how it decides."""

import contextlib
import dataclasses

from minigrid.minigrid_env import MiniGridEnv

from ctm_rl.agents.evaluation.names import name_actions
from ctm_rl.agents.evaluation.silent_pygame import silent_pygame
from ctm_rl.agents.experiments.acting import ActingExperiment, EnvConfig
from ctm_rl.agents.experiments.validation import scale_of_rewards
from ctm_rl.agents.report.acting_decisions import decision_figures, fit_scale, halting_figures
from ctm_rl.agents.report.acting_episodes import (
    FRAME_BYTES,
    NUM_PLAYED,
    Episode,
    Frames,
    choose_episodes,
    compress_frames,
    frames_of,
    play_episodes,
)
from ctm_rl.agents.report.acting_player import Player, episode_sample, neurons_of
from ctm_rl.agents.report.document import Figure, Section
from ctm_rl.agents.report.neurons import NeuronLayout, lay_out, neuron_summary, wiring_of
from ctm_rl.agents.rllib.environment import make_env
from ctm_rl.errors import UserError
from ctm_rl.inference.policy import Policy

NUM_EPISODES = 4
"""Episodes that are shown, unless another number is given."""
MAX_EPISODES = 32
"""Episodes that are shown, at most."""


def acting_sections(
    policy: Policy, experiment: ActingExperiment, *, num_episodes: int = NUM_EPISODES, seed: int
) -> tuple[list[Section], list[str]]:
    """The sections on a policy.

    The episodes are those of ``ctm-rl evaluate`` with this seed and as many episodes; the best one, the worst one and
    some between them are shown.

    Args:
        policy: the policy.
        experiment: names the environment and the units of values.
        num_episodes: how many episodes are shown.
        seed: of evaluation.

    Returns:
        The sections, and what is missing, in a line each.

    Raises:
        UserError: the environment cannot be made, does not fit the policy, or fails.
    """
    if num_episodes < 1:
        raise UserError(f"a report shows at least 1 episode, got {num_episodes}.")
    num_shown = min(num_episodes, MAX_EPISODES)
    env = experiment.env
    num_played = max(NUM_PLAYED, num_shown)
    episodes, notes = play_episodes(policy, env, seed=seed, num_played=num_played, num_shown=num_shown)
    chosen = choose_episodes(episodes, num_shown)
    frames, reason = _frames(policy, env, [episode for episode, _ in chosen])
    notes += reason
    neurons = [neurons_of(episode, wiring_of(policy.agent)) for episode, _ in chosen]
    player = _player(policy, experiment, lay_out(neurons))
    if player.scale is None:
        player = dataclasses.replace(player, fitted_scale=fit_scale(player.gamma, episodes))
    section = Section(
        name="episodes",
        title="Episodes",
        text=_describe_shown(episodes, [episode for episode, _ in chosen]),
        samples=[episode_sample(player, episode, rank, frames.get(episode.number)) for episode, rank in chosen],
    )
    halting, reason = halting_figures(player, env, [episode.seed for episode in episodes], seed)
    notes += reason
    figures: list[Figure] = [*decision_figures(player, episodes), *halting, *neuron_summary(neurons)]
    text = (
        f"Over all steps of {len(episodes)} episodes with sampled actions, from seed {seed}: the same that "
        f"ctm-rl evaluate --episodes {len(episodes)} --seed {seed} plays."
    )
    return [section, Section(name="decisions", title="How it decides", text=text, figures=figures)], notes


def _player(policy: Policy, experiment: ActingExperiment, layout: NeuronLayout | None) -> Player:
    """What all episodes have in common."""
    with contextlib.closing(make_env(experiment.env)) as env:
        names = name_actions(env, experiment.env.id, policy.actions)
        is_minigrid = isinstance(env.unwrapped, MiniGridEnv)
    return Player(
        policy=policy,
        env_id=experiment.env.id,
        action_names=names,
        gamma=experiment.ppo.gamma,
        is_minigrid=is_minigrid,
        scale=value_scale(policy, experiment),
        wiring=wiring_of(policy.agent),
        layout=layout,
    )


def value_scale(policy: Policy, experiment: ActingExperiment) -> float | None:
    """What rewards are multiplied by to be in the units of a policy's values.

    Returns:
        The factor; ``None``: it is not known, because rewards were divided by a running standard deviation, or the
        policy was trained elsewhere.
    """
    ppo = experiment.ppo
    if ppo.normalize_rewards or policy.iteration == 0:
        return None
    return scale_of_rewards(ppo.reward_scale, ppo.gamma, is_normalised=False)


def _frames(policy: Policy, env: EnvConfig, episodes: list[Episode]) -> tuple[dict[int, Frames], list[str]]:
    """Frames of episodes by their number, and a note if there are none."""
    found: dict[int, Frames] = {}
    for episode in episodes:
        try:
            with silent_pygame():
                images = frames_of(policy, env, episode)
        except UserError as error:
            return {}, [f"The episodes have no frames: {error}"]
        found[episode.number] = compress_frames(images, FRAME_BYTES / len(episodes))
    return found, []


def _describe_shown(episodes: list[Episode], shown: list[Episode]) -> str:
    """What the section shows, and what of long episodes is left out."""
    which = "the best one, the worst one, and others between them by rank"
    if len({episode.episode_return for episode in episodes}) == 1:
        which = "all have the same return"
    text = (
        f"{len(shown)} of {len(episodes)} episodes that were played for this page: {which}. The slider goes through "
        "all ticks of all steps."
    )
    long = [episode for episode in shown if len(episode.shown) < len(episode.rewards)]
    if long:
        limit = max(len(episode.shown) for episode in long)
        text += (
            f"\n\nOf episodes with more than {limit} steps, the slider stops at the first and the last ones, {limit} "
            "in all; charts over steps have all of them."
        )
    return text
