"""Draws the README's picture from a run that learned mazes; needs matplotlib (``pip install "ctm-rl[bench]"``).

    ctm-rl train mazes --num-threads 1 --budget.env-steps 448000 --seed 1 --run-dir runs/mazes
    python scripts/make_readme_picture.py runs/mazes docs/images

Of some mazes that the model never saw it takes the longest that the model solves, and shows where the model attends and
which route it answers at five ticks, the activity of some neurons, the output synchronisation, and the certainty. Two
files are written, for light and for dark pages.
"""

import importlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

import ctm_rl.envs  # noqa: F401  # registers the mazes
from ctm_rl import ContinuousThoughtMachine, load_model
from ctm_rl.envs.tasks.maze_moves import DELTAS, WAIT
from ctm_rl.models.preprocessing import model_inputs

# An optional extra, without which types are checked too.
colours_of: Any = importlib.import_module("matplotlib.colors").LinearSegmentedColormap.from_list
figures: Any = importlib.import_module("matplotlib.figure")

NUM_MAZES, SEED = 500, 20_000
NUM_TRACES = 12
WIDTH, HEIGHT, DPI = 10.0, 5.6, 150


class Theme(NamedTuple):
    """Colours of a page."""

    text: str
    faint: str
    wall: str
    floor: str


THEMES = {
    "light": Theme(text="#1f2328", faint="#d0d7de", wall="#3b4450", floor="#eef1f4"),
    "dark": Theme(text="#e6edf3", faint="#3d444d", wall="#21262d", floor="#6e7681"),
}
START, GOAL, ROUTE, ATTENTION, CERTAINTY = "#e5484d", "#30a46c", "#3b82f6", "#f5a524", "#8b5cf6"
TRACES = ("#3b82f6", "#f5a524", "#30a46c", "#e5484d", "#8b5cf6", "#06b6d4")


class Shown(NamedTuple):
    """One maze, and what a model does about it; K ticks."""

    image: np.ndarray
    """[H, W, 3], bytes."""
    target: np.ndarray
    """The right moves, [L]."""
    moves: np.ndarray
    """The moves that are answered after each tick, [K, L]."""
    certainty: np.ndarray
    """[K]."""
    attention: np.ndarray
    """Mean over the heads, [K, side, side]."""
    activity: np.ndarray
    """Post-activations, [K, D]."""
    sync: np.ndarray
    """Output synchronisation, [K, P]."""

    @property
    def length(self) -> int:
        """Moves of the right route."""
        return int((self.target != WAIT).sum())

    @property
    def share(self) -> np.ndarray:
        """The share of the route's moves that are right after each tick, [K]."""
        return (self.moves == self.target)[:, : self.length].mean(1)


@torch.no_grad()
def choose(model: ContinuousThoughtMachine, env_kwargs: dict[str, Any]) -> Shown:
    """Takes the longest of the mazes that the model solves."""
    envs = gym.make_vec("ctm_rl.envs:ctm_rl/Maze-v0", num_envs=NUM_MAZES, **env_kwargs)
    images, info = envs.reset(seed=SEED)
    inputs, _ = model_inputs(model.config, torch.as_tensor(images))
    thought = model(inputs, record=True)
    moves = thought.predictions.unflatten(1, (model.config.num_groups, -1)).argmax(2).numpy()  # [B, L, K]
    targets = info["target"]
    lengths = (targets != WAIT).sum(1)
    row = int(np.where((moves[..., -1] == targets).all(1), lengths, 0).argmax())
    recording = thought.recording
    assert recording is not None
    attention = recording.attention[:, row].mean(1).squeeze(1).numpy()  # [K, S]
    side = round(attention.shape[1] ** 0.5)
    return Shown(
        images[row],
        targets[row],
        moves[row].T,
        thought.certainties[row].numpy(),
        attention.reshape(-1, side, side),
        recording.post_activations[:, row].numpy(),
        recording.output_sync[:, row].numpy(),
    )


def walk(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The pixels that moves lead through, up to the first wait or wall, [N, 2] rows and columns."""
    is_wall = (image == 0).all(-1)
    places = [np.argwhere((image == [255, 0, 0]).all(-1))[0]]
    for move in moves:
        place = places[-1] + DELTAS[move]
        if move == WAIT or (place < 0).any() or (place >= len(image)).any() or is_wall[tuple(place)]:
            break
        places.append(place)
    return np.array(places)


def draw_maze(axes: Any, shown: Shown, tick: int, theme: Theme) -> None:
    """The maze, where the model attends, and the route that it answers after a tick."""
    height, width, _ = shown.image.shape
    is_wall = (shown.image == 0).all(-1)
    axes.imshow(is_wall, cmap=colours_of("maze", [theme.floor, theme.wall]), vmin=0, vmax=1)
    glow = colours_of("attention", [(0.96, 0.65, 0.14, 0.0), (0.96, 0.65, 0.14, 0.85)])
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(shown.attention[tick], cmap=glow, extent=extent, interpolation="bilinear", vmin=0, vmax=0.35)
    route = walk(shown.image, shown.moves[tick])
    axes.plot(route[:, 1], route[:, 0], color=ROUTE, linewidth=3, solid_joinstyle="round", solid_capstyle="round")
    for colour, code in ((START, [255, 0, 0]), (GOAL, [0, 255, 0])):
        row, column = np.argwhere((shown.image == code).all(-1))[0]
        axes.plot(column, row, "o", color=colour, markersize=8, markeredgecolor="white", markeredgewidth=1)
    axes.set_title(f"tick {tick + 1}, certainty {shown.certainty[tick]:.2f}", fontsize=10, color=theme.text)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()


def draw_traces(axes: Any, shown: Shown, theme: Theme) -> None:
    """The post-activations of the neurons that change most, one above the other."""
    chosen = np.argsort(-shown.activity.std(0))[:NUM_TRACES]
    ticks = np.arange(1, len(shown.activity) + 1)
    for place, neuron in enumerate(chosen):
        trace = shown.activity[:, neuron]
        trace = (trace - trace.min()) / max(float(np.ptp(trace)), 1e-6)
        axes.plot(ticks, place + 0.85 * trace, color=TRACES[place % len(TRACES)], linewidth=1.6)
    axes.set_yticks([])
    label(axes, f"activity of {NUM_TRACES} neurons", theme)


def draw_sync(axes: Any, shown: Shown, theme: Theme) -> None:
    """The output synchronisation, in the order in which pairs reach their largest value."""
    limit = float(np.percentile(np.abs(shown.sync), 98))
    order = np.argsort(np.abs(shown.sync).argmax(0) + 0.01 * np.sign(shown.sync[-1]), kind="stable")
    extent = (0.5, len(shown.sync) + 0.5, shown.sync.shape[1], 0)
    # Nothing where there is nothing, on pages of any colour.
    ends = [(0.23, 0.51, 0.96, 1.0), (0.23, 0.51, 0.96, 0.0), (0.90, 0.28, 0.30, 0.0), (0.90, 0.28, 0.30, 1.0)]
    colours = colours_of("sync", list(zip((0.0, 0.5, 0.5, 1.0), ends, strict=True)))
    axes.imshow(shown.sync[:, order].T, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", extent=extent)
    axes.set_yticks([])
    label(axes, f"synchronisation of {shown.sync.shape[1]} pairs", theme)


def draw_certainty(axes: Any, shown: Shown, theme: Theme) -> None:
    """Certainty, and how much of the route is right, after each tick."""
    ticks = np.arange(1, len(shown.certainty) + 1)
    axes.plot(ticks, shown.certainty, color=CERTAINTY, linewidth=2.2)
    axes.plot(ticks, shown.share, color=ROUTE, linewidth=2.2)
    axes.text(ticks[-1], 0.30, "certainty", color=CERTAINTY, ha="right", fontsize=10)
    axes.text(ticks[-1], 0.16, "moves right", color=ROUTE, ha="right", fontsize=10)
    axes.set_ylim(-0.02, 1.05)
    axes.set_yticks([0, 0.5, 1])
    axes.grid(color=theme.faint, linewidth=0.6)
    label(axes, "answer", theme)


def label(axes: Any, title: str, theme: Theme) -> None:
    """Title, axis of ticks and colours of a panel."""
    axes.set_title(title, fontsize=10, color=theme.text)
    axes.set_xlabel("tick", fontsize=9, color=theme.text)
    axes.set_xticks([1, 4, 8, 12, 16])
    axes.tick_params(colors=theme.text, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color(theme.faint)


def draw(shown: Shown, theme: Theme, path: Path) -> None:
    """Writes the picture for one kind of page."""
    figure = figures.Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    num_ticks = len(shown.certainty)
    ticks = (0, num_ticks // 4 - 1, num_ticks // 2 - 1, 3 * num_ticks // 4 - 1, num_ticks - 1)
    above, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.25])
    for axes, tick in zip(above.subplots(1, len(ticks)), ticks, strict=True):
        draw_maze(axes, shown, tick, theme)
    for axes, panel in zip(below.subplots(1, 3), (draw_traces, draw_sync, draw_certainty), strict=True):
        panel(axes, shown, theme)
    figure.savefig(path, transparent=True)


def main(run_dir: str, folder: str) -> None:
    """Writes both pictures."""
    model = load_model(run_dir)
    assert isinstance(model, ContinuousThoughtMachine)
    shown = choose(model, {"size": 9, "route_length": model.config.num_groups})
    for name, theme in THEMES.items():
        draw(shown, theme, Path(folder) / f"maze-{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
