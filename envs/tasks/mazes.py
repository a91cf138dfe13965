"""Mazes: which way from the red pixel to the green one?"""

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

from ctm_rl.envs.tasks.maze_folder import StoredMazes, read_mazes
from ctm_rl.envs.tasks.maze_generation import Passages, depth_first, draw_open, percolation, wilson
from ctm_rl.envs.tasks.maze_images import GOAL, NUM_SYMMETRIES, START, paint, turn
from ctm_rl.envs.tasks.maze_moves import Predictor, reapply
from ctm_rl.envs.tasks.maze_solver import distances, solve
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv

GENERATORS = ("dfs", "wilson", "percolation")
PASSAGE_PROBABILITY = 0.6
"""Of percolation, where nothing else is said: most cells then hang together."""
_LEAST_PROBABILITY = 0.1
_BATCH = 1024
"""Mazes made together: enough to hide what a call of numpy costs, few enough for the processor's cache."""


class MazeTask(SingleStepTask):
    """Pictures of mazes with their routes; see ``MazeEnv``."""

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
            raise ValueError(f"split={split!r} needs a folder: mazes that are made differ by their seeds.")

    @property
    def num_samples(self) -> int | None:
        """How many mazes the folder holds; None: they are made, without end."""
        return None if self._stored is None else len(self._stored.codes)

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        """Makes mazes [N, size, size, 3] and their routes [N, route_length], or draws them from the folder."""
        if self._stored is not None:
            return self.take(rng, rng.integers(len(self._stored.codes), size=num_samples))
        pictures = np.empty((num_samples, self.size, self.size, 3), np.uint8)
        routes = np.empty((num_samples, self.route_length), np.int64)
        for first in range(0, num_samples, _BATCH):
            codes, moves = self._make(rng, min(_BATCH, num_samples - first))
            pictures[first : first + _BATCH], routes[first : first + _BATCH] = self._show(rng, codes, moves)
        return Samples(pictures, routes)

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        """Takes certain mazes out of the folder; chance turns and flips them, where they are augmented."""
        if self._stored is None:
            return super().take(rng, indices)
        return Samples(*self._show(rng, self._stored.codes[indices], self._stored.moves[indices]))

    def reapply(self, pictures: np.ndarray, predict: Predictor) -> np.ndarray:
        """Which mazes are solved piece by piece, bool [N]; see ``ctm_rl.envs.tasks.maze_moves.reapply``."""
        return reapply(pictures, predict).solved

    def _show(self, rng: np.random.Generator, codes: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures of mazes, turned and flipped where they are augmented, and their routes."""
        if self.augment:
            codes, moves = turn(codes, moves, rng.integers(NUM_SYMMETRIES, size=len(codes)))
        return paint(codes), moves

    def _make(self, rng: np.random.Generator, num_mazes: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes of new mazes [N, size, size], and their routes."""
        is_open = draw_open(self._draw_passages(rng, num_mazes))
        if self._generator == "percolation":
            start_yx, goal_yx = _ends_in_one_part(rng, is_open)
        else:
            start_yx, goal_yx = _ends(rng, num_mazes, self.size // 2)
        routes = solve(is_open, start_yx, goal_yx, self.route_length)
        codes, each = is_open.view(np.uint8), np.arange(num_mazes)
        codes[each, start_yx[:, 0], start_yx[:, 1]] = START
        codes[each, goal_yx[:, 0], goal_yx[:, 1]] = GOAL
        return codes, routes.moves

    def _draw_passages(self, rng: np.random.Generator, num_mazes: int) -> Passages:
        """The passages of new mazes."""
        num_cells = self.size // 2
        if self._generator == "percolation":
            return percolation(rng, num_mazes, num_cells, self._passage_probability)
        return (wilson if self._generator == "wilson" else depth_first)(rng, num_mazes, num_cells)


class MazeEnv(SingleStepEnv):
    """Finds the shortest way through a maze, told move by move. Source: arXiv:2505.05522.

    ## Observation space
    ``Box(0, 255, (size, size, 3), uint8)``: cells at odd rows and columns, passages or walls between them. Walls are
    black, open pixels white, the start is red (255, 0, 0), the goal green (0, 255, 0).

    ## Action space
    ``MultiDiscrete([5] * route_length)``: one move per pixel, 0 up, 1 down, 2 left, 3 right; 4 waits, from where the
    goal has been reached to the end. Of a route longer than ``route_length`` only that many moves are asked for. Among
    equally short routes (percolation alone) the right one prefers up to down to left to right, at every step.

    ## Rewards
    The share of moves that are right, waits included, in [0, 1].

    ## Starting state
    A new maze. In perfect mazes (``dfs``, ``wilson``: one route between any two cells) start and goal are two
    different random cells, every pair as likely as any other. With percolation the start is a random cell that has an
    open passage, the goal another random cell among those that can be reached from it.

    ## Episode end
    After one step.

    ## Arguments
    ``size``: height and width in pixels, odd, 19 by default.
    ``route_length``: how many moves are asked for, 100 by default.
    ``generator``: ``"dfs"`` (default: randomised depth-first search, long winding corridors), ``"wilson"`` (every
    perfect maze equally likely) or ``"percolation"`` (loops and cut-off parts).
    ``passage_probability``: of percolation, each passage is open with this probability, 0.1 to 1, default 0.6.
    ``augment``: turn and flip the mazes at random, each of the eight ways equally likely, and their routes with them;
    False by default. Mazes that are made look alike in all eight ways, those of a folder need not.
    ``folder``: take the published mazes in this folder in place of making some: PNG files of ``size`` pixels, the
    route drawn in blue (see ``ctm_rl.envs.tasks.maze_folder``).
    ``split``: of a folder, ``"train"`` (default) or ``"test"``: its sub-folder of that name; without such sub-folders
    both are the folder itself.
    """

    task_class = MazeTask


class MazeVectorEnv(SingleStepVectorEnv):
    """Many of ``MazeEnv``, whose mazes are made all at once."""

    task_class = MazeTask


def _check_generator(generator: str | None, passage_probability: float | None, folder: str | None) -> tuple[str, float]:
    """The generator and its probability; what has no effect is refused."""
    if generator is not None and generator not in GENERATORS:
        raise ValueError(f"generator must be one of {', '.join(GENERATORS)}, got {generator!r}.")
    if folder is not None and generator is not None:
        raise ValueError(f"generator={generator!r} makes mazes, and a folder holds them: leave one of the two out.")
    if passage_probability is None:
        return generator or "dfs", PASSAGE_PROBABILITY
    if generator != "percolation":
        raise ValueError('passage_probability needs generator="percolation".')
    if not _LEAST_PROBABILITY <= passage_probability <= 1:
        raise ValueError(f"passage_probability must be from {_LEAST_PROBABILITY} to 1, got {passage_probability}.")
    return generator, passage_probability


def _ends(rng: np.random.Generator, num_mazes: int, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of two different cells of each maze, row and column, [N, 2] each."""
    start = rng.integers(num_cells**2, size=num_mazes)
    goal = (start + rng.integers(1, num_cells**2, size=num_mazes)) % num_cells**2
    return _pixel(start, num_cells), _pixel(goal, num_cells)


def _ends_in_one_part(rng: np.random.Generator, is_open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of two different cells of each maze that a route joins, row and column, [N, 2] each."""
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
