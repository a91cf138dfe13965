"""Mazes as a single-step task: the route from the red pixel to the green one."""

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

from ctm_rl.envs.tasks.maze_folder import StoredMazes, read_mazes
from ctm_rl.envs.tasks.maze_generation import Passages, depth_first, draw_open, percolation, wilson
from ctm_rl.envs.tasks.maze_images import GOAL, NUM_SYMMETRIES, START, paint, turn
from ctm_rl.envs.tasks.maze_moves import Predictor, reapply
from ctm_rl.envs.tasks.maze_solver import distances, solve
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv

GENERATORS: dict[str, Callable[..., Passages]] = {"dfs": depth_first, "wilson": wilson, "percolation": percolation}
PASSAGE_PROBABILITY = 0.6
"""Default of percolation: most cells are then connected."""
_LEAST_PROBABILITY = 0.1
_BATCH = 1024
"""Mazes generated together: enough to amortise NumPy's calls, few enough for the processor's cache."""


class MazeTask(SingleStepTask):
    """Images of mazes with their routes; see ``MazeEnv``."""

    def __init__(
        self,
        size: int = 19,
        route_length: int = 100,
        *,
        generator: str | None = None,
        passage_probability: float | None = None,
        augment: bool = False,
        folder: str | None = None,
        split: str | None = None,
    ) -> None:
        if size < 5 or size % 2 == 0:
            raise ValueError(f"size must be odd and at least 5 pixels, got {size}.")
        if route_length < 1:
            raise ValueError(f"route_length must be at least 1, got {route_length}.")
        super().__init__(Box(0, 255, (size, size, 3), np.uint8), MultiDiscrete([5] * route_length))
        self.size = size
        self.route_length = route_length
        self.augment = augment
        self._generator, self._passage_probability = _check_generator(generator, passage_probability, folder)
        self._stored: StoredMazes | None = None
        if folder is not None:
            self._stored = read_mazes(folder, "train" if split is None else split, size, route_length)
        elif split is not None:
            raise ValueError(f"split={split!r} needs a folder: generated mazes differ by their seeds.")

    @property
    def num_samples(self) -> int | None:
        """How many mazes the folder holds; None: they are generated without limit."""
        return None if self._stored is None else len(self._stored.codes)

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Generates mazes [N, size, size, 3] and their routes [N, route_length], or draws them from the folder."""
        if self._stored is not None:
            return self.take(rng, rng.integers(len(self._stored.codes), size=num_samples))
        images = np.empty((num_samples, self.size, self.size, 3), np.uint8)
        routes = np.empty((num_samples, self.route_length), np.int64)
        for first in range(0, num_samples, _BATCH):
            codes, moves = self._make(rng, min(_BATCH, num_samples - first))
            images[first : first + _BATCH], routes[first : first + _BATCH] = self._paint(rng, codes, moves)
        return Samples(images, routes)

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Returns mazes of the folder by index; ``rng`` rotates and flips them, where they are augmented."""
        if self._stored is None:
            return super().take(rng, indices)
        return Samples(*self._paint(rng, self._stored.codes[indices], self._stored.moves[indices]))

    def reapply(self, images: np.ndarray, predict: Predictor) -> np.ndarray:
        """Returns which mazes are solved piece by piece, bool [N]; see ``envs.tasks.maze_moves.reapply``."""
        return reapply(images, predict).solved

    def _paint(self, rng: np.random.Generator, codes: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of mazes, rotated and flipped where they are augmented, and their routes."""
        if self.augment:
            codes, moves = turn(codes, moves, rng.integers(NUM_SYMMETRIES, size=len(codes)))
        return paint(codes), moves

    def _make(self, rng: np.random.Generator, num_mazes: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes of new mazes [N, size, size], and their routes."""
        generate, num_cells = GENERATORS[self._generator], self.size // 2
        if self._generator == "percolation":
            is_open = draw_open(generate(rng, num_mazes, num_cells, self._passage_probability))
            start_yx, goal_yx = _draw_connected_ends(rng, is_open)
        else:
            is_open = draw_open(generate(rng, num_mazes, num_cells))
            start_yx, goal_yx = _draw_ends(rng, num_mazes, num_cells)
        routes = solve(is_open, start_yx, goal_yx, self.route_length)
        codes, each = is_open.view(np.uint8), np.arange(num_mazes)
        codes[each, start_yx[:, 0], start_yx[:, 1]] = START
        codes[each, goal_yx[:, 0], goal_yx[:, 1]] = GOAL
        return codes, routes.moves


class MazeEnv(SingleStepEnv):
    """Finds the shortest route through a maze, move by move. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(0, 255, (size, size, 3), uint8)``: cells at odd rows and columns, passages or walls between them. Walls are
    black, open pixels white, the start is red (255, 0, 0), the goal green (0, 255, 0).

    ## Action space
    ``MultiDiscrete([5] * route_length)``: one move per pixel, 0 up, 1 down, 2 left, 3 right; 4 waits, from when
    the goal is reached to the end. A route longer than ``route_length`` is cut. Among equally short routes (percolation
    only) the correct one prefers up to down to left to right, at every step.

    ## Rewards
    The share of correct moves, waits included, in [0, 1].

    ## Starting state
    A new maze. In perfect mazes (``dfs``, ``wilson``: one route between any two cells) start and goal are two different
    cells, drawn uniformly. With percolation the start is a random cell that has an open passage, the goal another
    random cell that can be reached from it.

    ## Episode end
    After one step.

    ## Arguments
    ``size``: height and width in pixels, odd, 19 by default.
    ``route_length``: how many moves the answer has, 100 by default.
    ``generator``: ``"dfs"`` (default: randomised depth-first search, long winding corridors), ``"wilson"`` (every
    perfect maze equally likely) or ``"percolation"`` (loops and unreachable parts).
    ``passage_probability``: of percolation, each passage is open with this probability, 0.1 to 1, default 0.6.
    ``augment``: rotate and flip the mazes and their routes at random, by each of the eight symmetries equally likely;
    False by default. The distribution of generated mazes is symmetric anyway, that of a folder need not be.
    ``folder``: use the published mazes in this folder instead of generating them: PNG files of ``size`` pixels, the
    route drawn in blue (see ``envs.tasks.maze_folder``).
    ``split``: of a folder, ``"train"`` (default) or ``"test"``: its sub-folder of that name; without such sub-folders
    both are the folder itself.
    """

    task_class = MazeTask


class MazeVectorEnv(SingleStepVectorEnv):
    """A vector of ``MazeEnv`` whose mazes are made in one batch."""

    task_class = MazeTask


def _check_generator(generator: str | None, passage_probability: float | None, folder: str | None) -> tuple[str, float]:
    """Returns the generator and its probability; settings without effect are refused."""
    if generator is not None and generator not in GENERATORS:
        raise ValueError(f"generator must be one of {', '.join(GENERATORS)}, got {generator!r}.")
    if folder is not None and generator is not None:
        raise ValueError(f"generator={generator!r} generates mazes, and a folder holds them: leave one of the two out.")
    if passage_probability is None:
        return generator or "dfs", PASSAGE_PROBABILITY
    if generator != "percolation":
        raise ValueError('passage_probability needs generator="percolation".')
    if not _LEAST_PROBABILITY <= passage_probability <= 1:
        raise ValueError(f"passage_probability must be from {_LEAST_PROBABILITY} to 1, got {passage_probability}.")
    return generator, passage_probability


def _draw_ends(rng: np.random.Generator, num_mazes: int, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of two different cells of each maze, row and column, [N, 2] each."""
    start = rng.integers(num_cells**2, size=num_mazes)
    goal = (start + rng.integers(1, num_cells**2, size=num_mazes)) % num_cells**2
    return _pixel(start, num_cells), _pixel(goal, num_cells)


def _draw_connected_ends(rng: np.random.Generator, is_open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of two different connected cells of each maze, row and column, [N, 2] each."""
    num_mazes, num_cells = len(is_open), is_open.shape[1] // 2
    sides = is_open[:, :-2:2, 1::2], is_open[:, 2::2, 1::2], is_open[:, 1::2, :-2:2], is_open[:, 1::2, 2::2]
    has_passage = np.logical_or.reduce(sides).reshape(num_mazes, -1)
    start = np.where(has_passage, rng.random(has_passage.shape), -1.0).argmax(1)
    reached = distances(is_open, _pixel(start, num_cells))[:, 1::2, 1::2].reshape(num_mazes, -1) > 0
    goal = np.where(reached, rng.random(reached.shape), -1.0).argmax(1)
    return _pixel(start, num_cells), _pixel(goal, num_cells)


def _pixel(cell: np.ndarray, num_cells: int) -> np.ndarray:
    """Row and column of the pixel of a cell, [N, 2]."""
    return 2 * np.stack(np.divmod(cell, num_cells), axis=1) + 1
