"""The episode player: what a policy saw, thought and did in each step of one episode, as the figures of a sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctm_rl.agents.evaluation.names import name_numbers
from ctm_rl.agents.report.acting_episodes import Episode, Frames, compress
from ctm_rl.agents.report.document import Bars, Figure, Line, Lines, Matrix, Picture, Readout, Sample
from ctm_rl.agents.report.neurons import NeuronLayout, NeuronRecord, Wiring, neuron_figures
from ctm_rl.agents.rllib.spaces import MINIGRID_SHAPE
from ctm_rl.inference.policy import Policy
from ctm_rl.spaces.actions import Choices, Numbers
from ctm_rl.spaces.observations import Part

MAX_OPTIONS = 24
"""Options of actions whose probabilities are shown, at most: the likeliest ones."""
MAX_LINES = 8
"""Numbers of an observation that are lines; more are a heat map."""
MAX_ROWS = 64
"""Numbers of an observation that are rows of a heat map, at most."""
FORGOTTEN = 0.05
"""The largest discount of what followed an episode that was truncated and would be missing in a sum of rewards."""
_TILE = 24
"""Pixels of a cell of MiniGrid."""
_UPWARDS = 3
"""MiniGrid's direction of an agent that looks up."""
_PIXEL_ART = 64
"""Longest side of images that are enlarged without smoothing."""


@dataclass(frozen=True)
class Player:
    """What all episodes of a report have in common."""

    policy: Policy
    """The policy."""
    env_id: str
    """Of the environment."""
    action_names: list[list[str]]
    """Of the options of each choice, or of each number in a list of its own; see ``evaluation.names``."""
    gamma: float
    """Discount for each step."""
    is_minigrid: bool
    """Whether it is MiniGrid, whose cells have pictures."""
    scale: float | None
    """What rewards are multiplied by to be in the units of values; ``None``: not known."""
    fitted_scale: float | None = None
    """Where it is not known, the factor of rewards that fits best, see ``fit_scale``; ``None``: none does."""
    wiring: Wiring | None = None
    """Which neurons the machine reads; ``None``: a baseline."""
    layout: NeuronLayout | None = None
    """Where neurons are in the plane; ``None``: each episode places its own."""

    @property
    def value_factor(self) -> float | None:
        """What rewards are multiplied by beside values: the known factor, or the fitted one; ``None``: neither."""
        return self.fitted_scale if self.scale is None else self.scale


def neurons_of(episode: Episode, wiring: Wiring | None) -> NeuronRecord:
    """The neurons over all ticks of the steps shown of an episode."""
    records = list(episode.shown.values())
    columns = {
        name: None if getattr(records[0], name) is None else np.concatenate([getattr(one, name) for one in records])
        for name in ("post_activations", "pre_activations", "output_sync", "action_sync")
    }
    return NeuronRecord(**columns, wiring=wiring)  # pyright: ignore[reportArgumentType] - only the optional are None


def episode_sample(player: Player, episode: Episode, rank: str, frames: Frames | None) -> Sample:
    """The figures of one episode.

    Args:
        player: the policy and names.
        episode: the episode.
        rank: what it is among those that were played, such as "best"; may be empty.
        frames: of the steps shown; ``None``: there are none.
    """
    steps = np.array(list(episode.shown), np.int64)
    ticks = np.array([len(record.value) for record in episode.shown.values()])
    time = _Time(np.repeat(steps, ticks), np.repeat(np.arange(len(steps)), ticks))
    figures: list[Figure] = []
    if frames is not None:
        figures.append(
            Picture(
                title="What happens",
                caption="The environment as it was when the policy chose the action of this step.",
                images=frames.images,
                shown=time.each(frames.places),
                is_pixelated=frames.side <= _PIXEL_ART,
            )
        )
    observed = list(_observed(player, episode, time))
    figures += [figure for figure in observed if isinstance(figure, Picture)]
    figures += _decision(player, episode, time)
    figures.append(_readout(player, episode, time))
    figures += _over_steps(player, episode)
    figures += [figure for figure in observed if not isinstance(figure, Picture)]
    figures += neuron_figures(neurons_of(episode, player.wiring), player.layout)
    num_steps = len(episode.rewards)
    parts = [f"episode {episode.number + 1}", f"return {episode.episode_return:.4g}", f"{num_steps} steps"]
    return Sample(
        name=", ".join(parts) + (f" ({rank})" if rank else ""),
        verdict="" if episode.is_success is None else "right" if episode.is_success else "wrong",
        steps=time.steps.tolist(),
        num_places=len(time.steps),
        figures=figures,
    )


@dataclass(frozen=True)
class _Time:
    """The places of an episode's time: one for each tick of each step shown."""

    steps: np.ndarray
    """The step of each place, [N]."""
    index: np.ndarray
    """Which of the steps shown that is, [N]."""

    def each(self, values: np.ndarray) -> np.ndarray:
        """A value of each step shown, for each place."""
        return values[self.index]

    def texts(self, values: list[str]) -> list[str]:
        """A text of each step of the episode, for each place."""
        return [values[step] for step in self.steps.tolist()]


def probabilities_of(policy: Policy, logits: np.ndarray) -> np.ndarray:
    """Probabilities of all options of a policy whose actions are chosen, [..., O], one choice after the other."""
    actions = policy.actions
    assert isinstance(actions, Choices)
    grouped = actions.grouped(torch.from_numpy(logits)).softmax(-1).numpy()  # [..., N, S]
    return np.concatenate([grouped[..., choice, :size] for choice, size in enumerate(actions.sizes)], -1)


def _decision(player: Player, episode: Episode, time: _Time) -> Iterator[Figure]:
    """What the policy would do after each tick."""
    logits = np.concatenate([record.logits for record in episode.shown.values()])
    names = [name for names in player.action_names for name in names]
    if isinstance(player.policy.actions, Numbers):
        yield from _number_figures(player.policy.actions, logits, names, len(time.steps))
        return
    found = probabilities_of(player.policy, logits)
    kept = np.sort(np.argsort(-found.max(0), kind="stable")[:MAX_OPTIONS])
    some = f" The {len(kept)} likeliest of {found.shape[1]} options." if len(kept) < found.shape[1] else ""
    yield Bars(
        title="Action probabilities",
        caption=f"After this tick; the action is drawn from those after the last tick of a step.{some}",
        labels=[names[option] for option in kept.tolist()],
        values=found[:, kept],
        y_label="probability",
        y_range=(0.0, 1.0),
    )


def _number_figures(actions: Numbers, logits: np.ndarray, names: Sequence[str], num_places: int) -> Iterator[Figure]:
    """Mean and standard deviation of actions that are numbers, as the environment takes them."""
    mean, low, high = gaussian_of(actions, logits)
    kept = range(min(len(names), MAX_LINES))
    yield Lines(
        title="Actions",
        caption="The middle of the distribution of each number after each tick, with one standard deviation to either "
        "side, as the environment takes it.",
        x=np.arange(num_places, dtype=np.float64),
        lines=[Line(name=names[n], y=mean[:, n], low=low[:, n], high=high[:, n]) for n in kept],
        x_label="tick, from 0",
        y_label="action",
        cursor="time",
    )
    rows = [_join(mean[place], [f"{one:.3g}" for one in mean[place]]) for place in range(num_places)]
    spread = [
        _join(low[place], [f"{one:.3g} to {other:.3g}" for one, other in zip(low[place], high[place], strict=True)])
        for place in range(num_places)
    ]
    yield Readout(
        title="Distribution of the action",
        caption="Its middle, and one standard deviation to either side of it.",
        names=("middle", "from, to"),
        values=(rows, spread),
    )


def gaussian_of(actions: Numbers, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The middle of the distribution of numbers, and one standard deviation below and above, for the environment.

    Args:
        actions: the action space.
        logits: means and logarithms of standard deviations before squashing, [T, 2 n].

    Returns:
        [T, n] each.
    """
    outputs = torch.from_numpy(logits)
    noises = (0.0, -1.0, 1.0)
    shape = (len(logits), len(actions.low))
    placed = [actions.place(outputs, outputs.new_full(shape, noise)).numpy() for noise in noises]
    middle, low, high = (actions.to_env(one).reshape(shape).astype(np.float64) for one in placed)
    return middle, low, high


def describe_action(player: Player, action: Any) -> str:
    """An action by its name."""
    actions = player.policy.actions
    flat = np.asarray(action).reshape(-1)
    if isinstance(actions, Numbers):
        return _join(flat, [f"{number:.3g}" for number in flat.tolist()])
    starts = actions.starts or (0,) * len(actions.sizes)
    names = [player.action_names[choice][int(number) - starts[choice]] for choice, number in enumerate(flat)]
    return _join(flat, names)


def _join(items: Any, texts: Sequence[str]) -> str:
    """Texts in a row, of many only the first ones."""
    return ", ".join(texts[:MAX_LINES]) + (f", ... ({len(items)})" if len(texts) > MAX_LINES else "")


def _readout(player: Player, episode: Episode, time: _Time) -> Figure:
    """What can be said of this step and tick in words."""
    values = np.concatenate([record.value for record in episode.shown.values()])
    certainty = np.concatenate([record.certainty for record in episode.shown.values()])
    returns = np.cumsum(episode.rewards)
    columns = {
        "action taken": time.texts([describe_action(player, action) for action in episode.actions]),
        "reward": time.texts([f"{reward:.4g}" for reward in episode.rewards]),
        "return so far": time.texts([f"{total:.4g}" for total in returns.tolist()]),
        "value": [f"{value:.3f}" for value in values.tolist()],
        "certainty": [f"{100 * one:.1f} %" for one in certainty.tolist()],
        "ticks used": time.texts([str(len(each)) for each in episode.values]),
    }
    if np.isnan(certainty).all():
        del columns["certainty"]
    for part in player.policy.layout.parts:
        if part.encoder in ("categories", "text"):
            found = {step: _words(part.find(episode.observations[step])) for step in episode.shown}
            columns[part.name or "observation"] = [found[step] for step in time.steps.tolist()]
    return Readout(
        title="This step",
        caption="Reward: what the environment returned for the action; the return so far includes it. Value and "
        "certainty are those after this tick.",
        names=list(columns),
        values=list(columns.values()),
    )


def _words(value: Any) -> str:
    """An observation of categories, or a text."""
    text = value if isinstance(value, str) else _join(np.ravel(value), [str(one) for one in np.ravel(value).tolist()])
    return text if len(text) <= 80 else f"{text[:77]}..."


def _over_steps(player: Player, episode: Episode) -> list[Figure]:
    """Value, certainty and rewards over all steps of the episode."""
    rewards = np.array(episode.rewards)
    options: dict[str, Any] = {
        "x": np.arange(len(rewards), dtype=np.float64),
        "x_label": "step, from 0",
        "cursor": "step",
    }
    values = np.array([each[-1] for each in episode.values])
    lines = [Line(name="value", y=values)]
    caption = "What the critic expects, after the last tick of each step"
    followed = following_rewards(episode, player.gamma)
    factor = player.value_factor
    if factor is not None and not np.isnan(followed).all():
        lines.append(Line(name="what followed", y=factor * followed))
        unit = "in the same units" if player.scale is not None else f"times {factor:.4g}, which fits best"
        caption += f", and the discounted rewards that followed, {unit}"
        if np.isnan(followed).any():
            caption += "; shortly before the episode was truncated, what would have followed is not known"
    figures: list[Figure] = [Lines(title="Value", caption=f"{caption}.", lines=lines, y_label="value", **options)]
    certainty = np.array([each[-1] for each in episode.certainties])
    if not np.isnan(certainty).all():
        figures.append(
            Lines(
                title="Certainty",
                caption="1 minus the normalised entropy of the policy after the last tick of each step.",
                lines=[Line(name="certainty", y=certainty)],
                y_label="certainty",
                y_range=(0.0, 1.0),
                **options,
            )
        )
    if len(set(rewards.tolist())) > 1:
        figures.append(
            Lines(
                title="Reward",
                caption="Of each step, as the environment returned it.",
                lines=[Line(name="reward", y=rewards)],
                y_label="reward",
                **options,
            )
        )
    figures.append(
        Lines(
            title="Return so far",
            caption="Sum of the rewards up to each step.",
            lines=[Line(name="return so far", y=np.cumsum(rewards))],
            y_label="return",
            **options,
        )
    )
    return figures


def following_rewards(episode: Episode, gamma: float) -> np.ndarray:
    """Discounted rewards of each step and those after it, [T]: ``G_t = r_t + gamma G_{t+1}``.

    Where an episode was truncated, what would have followed is not known: NaN in the last steps, whose discount until
    then is above ``FORGOTTEN``.
    """
    length = len(episode.rewards)
    totals = np.zeros(length)
    following = 0.0
    for step in range(length - 1, -1, -1):
        following = episode.rewards[step] + gamma * following
        totals[step] = following
    if not episode.is_terminated:
        totals[gamma ** np.arange(length, 0, -1) > FORGOTTEN] = np.nan
    return totals


def _observed(player: Player, episode: Episode, time: _Time) -> Iterator[Figure]:
    """What the policy saw, part by part: images as pictures, numbers as lines or a heat map."""
    for part in player.policy.layout.parts:
        if part.encoder in ("categories", "text"):
            continue  # these are in the readout
        title = f"What it sees: {part.name}" if part.name else "What it sees"
        if part.encoder != "grid" and not _is_image(part):
            yield from _number_lines(player, episode, part, title)
            continue
        shown = [np.asarray(part.find(episode.observations[step])) for step in episode.shown]
        draw = _draw_image if part.encoder != "grid" else _draw_minigrid if player.is_minigrid else _draw_cells
        compressed = compress([draw(part, one) for one in shown])
        is_view = player.is_minigrid and part.shape[:2] == MINIGRID_SHAPE[:2]
        yield Picture(
            title=title,
            caption="The observation of this step, which is all that the policy is shown."
            + (" The agent looks up from the middle of the lowest row." if is_view else ""),
            images=compressed.images,
            shown=time.each(compressed.places),
            is_pixelated=compressed.side <= _PIXEL_ART,
        )


def _number_lines(player: Player, episode: Episode, part: Part, title: str) -> Iterator[Figure]:
    """The numbers of an observation over the steps."""
    num_steps = len(episode.rewards)
    size = int(np.prod(part.shape, dtype=int))
    numbers = np.full((num_steps, size), np.nan)
    for step, observation in episode.observations.items():
        numbers[step] = np.asarray(part.find(observation), np.float64).reshape(-1)
    names = name_numbers(player.env_id, size) if size > 1 else [part.name or "number"]
    is_constant = (numbers == numbers[0]).all(0)
    constant = [f"{names[n]} is {numbers[0, n]:.4g}" for n in np.flatnonzero(is_constant).tolist()]
    moving = np.flatnonzero(~is_constant)
    caption = "The numbers that the policy is shown in each step."
    if constant and num_steps > 1:
        caption += f" Always the same: {_join(constant, constant)}."
    if not len(moving):
        moving = np.arange(size)
    if len(moving) <= MAX_LINES:
        yield Lines(
            title=title,
            caption=caption,
            x=np.arange(num_steps, dtype=np.float64),
            lines=[Line(name=names[n], y=numbers[:, n]) for n in moving.tolist()],
            x_label="step, from 0",
            y_label="value",
            cursor="step",
        )
        return
    kept = moving[:MAX_ROWS]
    some = f" The first {len(kept)} of {len(moving)} that change." if len(kept) < len(moving) else ""
    rows = numbers[:, kept].T
    largest = np.nanmax(np.abs(rows), axis=1, keepdims=True)
    yield Matrix(
        title=title,
        caption=f"{caption}{some} Each row relative to its largest absolute value.",
        values=(rows / np.where(largest > 0, largest, 1)).astype(np.float16),
        x_label="step, from 0",
        y_label="number",
        palette="diverging",
        limits=(-1.0, 1.0),
        y_names=[names[n] for n in kept.tolist()],
        cursor="step",
    )


def _is_image(part: Part) -> bool:
    """Whether a part of an observation is an image, channels last."""
    return part.encoder in ("conv", "patches") and len(part.shape) in (2, 3)


def _draw_image(part: Part, observation: np.ndarray) -> np.ndarray:
    """An observation as an image, [H, W, 3]; of several images on top of each other the last one."""
    image = observation if observation.ndim == 3 else observation[..., None]
    if image.shape[2] not in (1, 3):
        image = image[..., -1:]
    if image.dtype != np.uint8:
        image = (255 * np.clip(image / (part.scale or 1.0), 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _draw_cells(part: Part, observation: np.ndarray) -> np.ndarray:
    """Cells of a grid as an image whose colours are object, colour and state, [H, W, 3]."""
    largest = np.maximum(np.array(part.sizes[:3]) - 1, 1)
    return np.ascontiguousarray((255 * np.clip(observation / largest, 0, 1)).astype(np.uint8))


def _draw_minigrid(part: Part, observation: np.ndarray) -> np.ndarray:
    """MiniGrid's cells as MiniGrid draws them, [H, W, 3]; in the agent's own view, the agent is not in the cells."""
    from minigrid.core.constants import OBJECT_TO_IDX
    from minigrid.core.grid import Grid

    cells = observation.astype(int)
    width, height, _ = cells.shape  # the first axis goes to the right
    position, direction = (width // 2, height - 1), _UPWARDS
    where = np.argwhere(cells[..., 0] == OBJECT_TO_IDX["agent"])
    if len(where):
        position = (int(where[0][0]), int(where[0][1]))
        direction = int(cells[position][2])
        cells[position] = (OBJECT_TO_IDX["empty"], 0, 0)
    grid, is_seen = Grid.decode(cells)
    return grid.render(_TILE, agent_pos=position, agent_dir=direction, highlight_mask=is_seen)
