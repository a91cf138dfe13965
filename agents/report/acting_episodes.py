"""Episodes for a report: played together as ``evaluate`` plays them, some of them chosen, and their frames."""

import contextlib
import copy
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, features

from ctm_rl.agents.evaluation.frames import shrink
from ctm_rl.agents.evaluation.play import seeds_of_episodes
from ctm_rl.agents.evaluation.recorded_episode import RecordedStep, play_recorded_batch, replay_frames
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.report.document import Images
from ctm_rl.agents.rllib.finished_episodes import FinishedEpisode
from ctm_rl.inference.policy import Policy
from ctm_rl.inference.recorded_step import PolicyRecord

NUM_PLAYED = 16
"""Episodes that are played; those that are shown are chosen among them. At most 32, see ``play_recorded_batch``."""
MAX_STEPS = 1_000
"""Steps of an episode, at most."""
PLAY_SECONDS = 20.0
"""Seconds of this process after which episodes are cut."""
MAX_SHOWN_STEPS = 150
"""Steps of an episode that are shown, at most."""
MAX_PLACES = 400
"""Ticks of an episode that are shown, at most."""
FIGURE_BYTES = 2_500_000
"""What the moving figures of all episodes may take in the page, without frames."""
FRAME_BYTES = 1_900_000
"""What the frames of all episodes may take; a page holds them as text, which takes a third more."""
FRAME_SIDES = (240, 160, 100)
"""Longest side of a frame in pixels, at most; smaller ones where frames take too many bytes."""
_WORTHWHILE = 0.7
"""An image is compressed with loss if that takes less than this share of what it takes without."""
_HEAD = 2 / 3
"""Share of the steps shown that are an episode's first ones; the others are its last ones."""
_MATRIX_SIDE, _POINTS, _TRACES = 32, 512, 24
"""Sizes of figures of neurons, at most, for an estimate of what they take."""
_SMALL = 256
"""Numbers of an observation, at most, of which that of every step is kept."""


@dataclass
class Episode:
    """An episode that was played, with the thoughts of some of its steps."""

    number: int
    """Among the episodes that were played, from 0."""
    seed: int
    """Of the environment."""
    actions: list[Any] = field(default_factory=list)
    """As the environment took them."""
    rewards: list[float] = field(default_factory=list)
    """Of the environment."""
    logits: list[np.ndarray] = field(default_factory=list)
    """Of each step, after each of its ticks, [k, A]."""
    values: list[np.ndarray] = field(default_factory=list)
    """Of each step, after each of its ticks, [k]."""
    certainties: list[np.ndarray] = field(default_factory=list)
    """Of each step, after each of its ticks, [k]."""
    observations: dict[int, Any] = field(default_factory=dict)
    """What the policy saw, by the number of the step: of every step if it is small, otherwise of those shown."""
    shown: dict[int, PolicyRecord] = field(default_factory=dict)
    """What happened inside the policy, by the number of the step: its first steps and its last ones, in order."""
    is_terminated: bool = False
    """Whether the environment has ended it."""
    is_over: bool = False
    """Whether it was terminated, truncated by the environment, or cut."""
    is_cut: bool = False
    """Whether it was cut: it had more steps than are played here."""
    is_success: bool | None = None
    """Whether the environment calls it a success; ``None``: it says nothing."""

    @property
    def episode_return(self) -> float:
        """Sum of the rewards."""
        return float(sum(self.rewards))

    @property
    def finished(self) -> FinishedEpisode:
        """What an evaluation keeps of it."""
        return FinishedEpisode(self.episode_return, len(self.rewards), self.is_success)


class Played(NamedTuple):
    """Episodes that were played."""

    episodes: list[Episode]
    """In the order of their seeds."""
    notes: list[str]
    """What is missing."""


def play_episodes(
    policy: Policy, config: EnvConfig, *, seed: int, num_played: int = NUM_PLAYED, num_shown: int
) -> Played:
    """Plays the episodes that ``evaluate`` plays with this seed and as many episodes.

    Args:
        policy: the policy; its actions are sampled.
        config: the environment.
        seed: of evaluation.
        num_played: how many.
        num_shown: how many will be shown, of which each gets its share of the page.

    Raises:
        UserError: the environment cannot be made, does not fit the policy, or fails.
    """
    seeds = seeds_of_episodes(seed, num_played)
    episodes = [Episode(number, env_seed) for number, env_seed in enumerate(seeds)]
    limit = limit_of_steps(policy, num_shown)
    generator = torch.Generator().manual_seed(seed)
    # one step more: an environment with this very limit ends its episodes itself
    playing = play_recorded_batch(
        policy, config, seeds, deterministic=False, max_steps=MAX_STEPS + 1, render=False, generator=generator
    )
    is_small = int(np.prod(policy.layout.shape)) <= _SMALL
    deadline = time.process_time() + PLAY_SECONDS
    with contextlib.closing(playing):
        for row_steps in playing:
            for episode, step in zip(episodes, row_steps, strict=True):
                if step is not None:
                    _add(episode, step, limit, is_small=is_small)
            if time.process_time() > deadline:
                break
    for episode in episodes:
        episode.is_cut = not episode.is_over or (len(episode.rewards) > MAX_STEPS and not episode.is_terminated)
    return Played(episodes, _describe_cut(episodes))


def limit_of_steps(policy: Policy, num_shown: int) -> int:
    """How many steps of an episode are shown: as many as fit the page, at least a few."""
    config = policy.agent.config
    per_tick = 2 * (2 * _TRACES + _MATRIX_SIDE**2 + min(config.num_neurons, _POINTS) + policy.actions.num_outputs)
    if config.kind == "ctm" and config.num_output_sync_neurons < _MATRIX_SIDE:
        per_tick -= 2 * (_MATRIX_SIDE**2 - config.num_output_sync_neurons**2)
    places = min(MAX_PLACES, FIGURE_BYTES * 3 / 4 / max(1, num_shown) / per_tick)
    return max(8, min(MAX_SHOWN_STEPS, int(places / config.num_ticks)))


def _add(episode: Episode, step: RecordedStep, limit: int, *, is_small: bool) -> None:
    """Adds a step; of long episodes, the thoughts of steps in the middle are forgotten."""
    number = len(episode.rewards)
    episode.actions.append(step.action)
    episode.rewards.append(step.reward)
    # a copy: what is handed in are parts of arrays of all episodes
    ticks = copy.deepcopy(step.ticks)
    episode.logits.append(ticks.logits)
    episode.values.append(ticks.value)
    episode.certainties.append(ticks.certainty)
    episode.shown[number] = ticks
    episode.observations[number] = step.observation
    head = round(limit * _HEAD)
    if number >= limit:
        forgotten = number - limit + head
        episode.shown.pop(forgotten)
        if not is_small:
            episode.observations.pop(forgotten)
    episode.is_terminated = step.is_terminated
    episode.is_over = step.is_terminated or step.is_truncated
    episode.is_success = step.is_success


def _describe_cut(episodes: Sequence[Episode]) -> list[str]:
    """A note if episodes were cut."""
    cut = [episode for episode in episodes if episode.is_cut]
    if not cut:
        return []
    longest = max(len(episode.rewards) for episode in cut)
    return [
        f"{len(cut)} of {len(episodes)} episodes were cut after {longest} steps: longer ones take too long for a "
        "report; their returns are those until then."
    ]


def choose_episodes(episodes: Sequence[Episode], count: int) -> list[tuple[Episode, str]]:
    """Chooses the best episode, the worst one, and others evenly between them by rank.

    Args:
        episodes: those that were played.
        count: how many.

    Returns:
        The episodes, the best one first, each with what it is; nothing where all have the same result.
    """
    ranked = sorted(episodes, key=lambda one: (*_rank(one), one.number))
    ranks = [_rank(episode) for episode in ranked]
    # the first of each result, then the others: equal ones look alike
    different = [place for place, rank in enumerate(ranks) if ranks.index(rank) == place]
    evenly = np.linspace(0, len(different) - 1, min(count, len(different))).round().astype(int)
    places = {different[index] for index in evenly.tolist()}
    others = [place for place in range(len(ranked)) if place not in different]
    places |= set(others[: count - len(places)])
    if len(different) == 1:
        return [(ranked[place], "") for place in sorted(places)]
    names = {0: "best", ranks.index(ranks[-1]): "worst"}
    return [(ranked[place], names.get(place, f"rank {place + 1}")) for place in sorted(places)]


def _rank(episode: Episode) -> tuple[int, float]:
    """What episodes are sorted by, the best one first: successes, then returns."""
    return -int(episode.is_success or 0), -episode.episode_return


class Frames(NamedTuple):
    """Images of the steps shown of an episode, compressed."""

    images: Images
    """Different images."""
    places: np.ndarray
    """Which image each of the steps shows, [n]."""
    side: int
    """Longest side of an image in pixels."""


def frames_of(policy: Policy, config: EnvConfig, episode: Episode) -> list[np.ndarray]:
    """Renders the steps that are shown of an episode.

    Raises:
        UserError: the environment cannot be rendered, or does not repeat itself.
    """
    shown = {number: episode.observations[number] for number in episode.shown}
    frames = replay_frames(policy, config, episode.seed, episode.actions, shown)
    return [shrink(frame, FRAME_SIDES[0]) for _, frame in frames]


def compress_frames(frames: Sequence[np.ndarray], max_bytes: float) -> Frames:
    """Compresses frames, smaller ones where they would take too many bytes.

    Args:
        frames: [H, W, 3] of uint8 each; those of another size than the first one are scaled to its.
        max_bytes: what they may take, if that can be.

    Returns:
        The frames.
    """
    size = frames[0].shape[:2]
    frames = [frame if frame.shape[:2] == size else _resized(frame, size) for frame in frames]
    for side in FRAME_SIDES[:-1]:
        compressed = compress([shrink(frame, side) for frame in frames])
        if sum(map(len, compressed.images.files)) <= max_bytes:
            return compressed
    return compress([shrink(frame, FRAME_SIDES[-1]) for frame in frames])


def compress(images: Sequence[np.ndarray]) -> Frames:
    """Compresses images; equal ones are kept once."""
    files: list[bytes] = []
    places: dict[bytes, int] = {}
    index = []
    for image in images:
        key = image.tobytes()
        if key not in places:
            places[key] = len(files)
            files.append(_encoded(Image.fromarray(image)))
        index.append(places[key])
    mime = "image/webp" if features.check("webp") else "image/png"
    return Frames(Images(mime=mime, files=files), np.array(index, np.int32), max(images[0].shape[:2]))


def _encoded(image: Image.Image) -> bytes:
    """An image as a file: without loss, unless that takes much more bytes, as photographs do."""
    if not features.check("webp"):
        return _saved(image, format="PNG", optimize=True)
    exact = _saved(image, format="WEBP", lossless=True, quality=50, method=2)
    similar = _saved(image, format="WEBP", quality=75, method=2)
    return similar if len(similar) < _WORTHWHILE * len(exact) else exact


def _saved(image: Image.Image, **options: Any) -> bytes:
    """An image as a file, with options of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _resized(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """An image of another height and width."""
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
