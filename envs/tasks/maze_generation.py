"""Open passages of many mazes at once: depth-first search, Wilson's algorithm and percolation."""

from typing import NamedTuple

import numpy as np

from ctm_rl.envs.tasks.maze_moves import DIRECTION_BITS, DOWN, LEFT, RIGHT, UP

_DIE = 12
"""Sides of a die that chooses uniformly among one, two, three or four directions."""
_STEPS_PER_DRAW = 32
"""Steps for which dice are drawn at once, and after which it is checked whether all cells are visited."""
_OPPOSITE = (DOWN, UP, RIGHT, LEFT)
_STAY = 4


class Passages(NamedTuple):
    """Which passages between neighbouring cells are open, in N mazes of n x n cells."""

    right: np.ndarray
    """From cell (row, column) to (row, column + 1), bool [N, n, n - 1]."""
    down: np.ndarray
    """From cell (row, column) to (row + 1, column), bool [N, n - 1, n]."""


def depth_first(rng: np.random.Generator, num_mazes: int, num_cells: int) -> Passages:
    """Generates perfect mazes by randomised depth-first search: long winding corridors with few dead ends.

    Each search starts at a random cell and moves to a random unvisited neighbour, or backtracks by one cell where there
    is none. All mazes take a step together; the effect of a step is read from tables.

    Args:
        rng: source of randomness.
        num_mazes: N.
        num_cells: n, at least 2.

    Returns:
        Passages that connect all cells without a loop.
    """
    # padded by a row above and below, and a column that is the right border of a row and the left border of the next
    width = num_cells + 1
    is_cell = np.zeros((num_cells + 2) * width + 1, bool)
    is_cell[:-1].reshape(-1, width)[1:-1, :-1] = True
    unvisited = np.tile(is_cell, num_mazes)
    direction_back = np.full(len(unvisited), _STAY << 4, np.uint8)
    start = rng.choice(np.flatnonzero(is_cell), num_mazes)
    position = start + np.arange(num_mazes) * len(is_cell)
    unvisited[position] = False
    deltas, move, marked, mark = _step_tables(width)
    to_neighbours = deltas[:4, None]
    num_steps, dice = 0, np.empty(0, np.uint8)
    while True:
        if num_steps % _STEPS_PER_DRAW == 0:
            if num_steps >= num_cells**2 - 1 and not unvisited.any():
                break
            dice = rng.integers(_DIE, size=(_STEPS_PER_DRAW, num_mazes), dtype=np.uint8)
        is_unvisited = unvisited.take(position + to_neighbours, mode="clip")
        unvisited_bits = np.bitwise_or.reduce(is_unvisited * DIRECTION_BITS, axis=0)
        case = direction_back.take(position, mode="clip") | dice[num_steps % _STEPS_PER_DRAW]
        case = (unvisited_bits.astype(np.intp) << 7) + case
        to_mark = position + marked.take(case, mode="clip")
        direction_back[to_mark] = mark.take(case, mode="clip")
        unvisited[to_mark] = False
        position += move.take(case, mode="clip")
        num_steps += 1
    cells = direction_back.reshape(num_mazes, -1)[:, :-1].reshape(num_mazes, -1, width)[:, 1:-1, :-1] >> 4
    return _passages(cells)


def wilson(rng: np.random.Generator, num_mazes: int, num_cells: int) -> Passages:
    """Generates perfect mazes uniformly at random: many short dead ends.

    Wilson's algorithm in its parallel form (Propp and Wilson, 1998: cycle popping). Every cell but one points to a
    random neighbour; cells on a cycle of pointers draw another one, until there is no cycle. The order of the cycles
    does not matter, so those of all mazes are resolved at once.

    Args:
        rng: source of randomness.
        num_mazes: N.
        num_cells: n, at least 2.

    Returns:
        Passages that connect all cells without a loop.
    """
    area = num_cells**2
    neighbours, directions = _neighbour_tables(num_cells)
    unfinished = np.arange(num_mazes)
    root = rng.integers(area, size=num_mazes)
    dice = rng.integers(_DIE, size=(num_mazes, area), dtype=np.uint8)
    at_root = np.arange(num_mazes), root
    pointer, to_parent = neighbours[np.arange(area), dice], directions[np.arange(area), dice]
    pointer[at_root], to_parent[at_root] = root, _STAY
    while unfinished.size:
        in_maze = np.arange(unfinished.size)
        is_cyclic = _is_on_cycle(pointer)
        is_cyclic[in_maze, root] = False
        maze, cell = np.nonzero(is_cyclic)
        dice = rng.integers(_DIE, size=len(cell), dtype=np.uint8)
        pointer[maze, cell] = neighbours[cell, dice]
        to_parent[unfinished[maze], cell] = directions[cell, dice]
        goes_on = is_cyclic.any(1)
        unfinished, root, pointer = unfinished[goes_on], root[goes_on], pointer[goes_on]
    return _passages(to_parent.reshape(num_mazes, num_cells, num_cells))


def percolation(rng: np.random.Generator, num_mazes: int, num_cells: int, passage_probability: float) -> Passages:
    """Generates mazes with loops and unreachable parts: each passage is open with the same probability, independently.

    Args:
        rng: source of randomness.
        num_mazes: N.
        num_cells: n, at least 2.
        passage_probability: above 0, at most 1.

    Returns:
        Passages, at least one of them open in each maze: a maze without any is drawn again.
    """
    right = rng.random((num_mazes, num_cells, num_cells - 1), np.float32) < passage_probability
    down = rng.random((num_mazes, num_cells - 1, num_cells), np.float32) < passage_probability
    is_shut = ~(right.any((1, 2)) | down.any((1, 2)))
    if is_shut.any():
        again = percolation(rng, int(is_shut.sum()), num_cells, passage_probability)
        right[is_shut], down[is_shut] = again.right, again.down
    return Passages(right, down)


def draw_open(passages: Passages) -> np.ndarray:
    """Computes which pixels are open: cells at odd rows and columns, passages between them, walls elsewhere.

    Args:
        passages: of N mazes with n x n cells.

    Returns:
        bool [N, size, size], size 2 n + 1.
    """
    num_mazes, num_cells = passages.right.shape[:2]
    is_open = np.zeros((num_mazes, 2 * num_cells + 1, 2 * num_cells + 1), bool)
    is_open[:, 1::2, 1::2] = True
    is_open[:, 1::2, 2:-1:2] = passages.right
    is_open[:, 2:-1:2, 1::2] = passages.down
    return is_open


def _passages(to_parent: np.ndarray) -> Passages:
    """The passages of trees, given each cell's direction to its parent, [N, n, n]; the root has ``_STAY``."""
    right = (to_parent[:, :, :-1] == RIGHT) | (to_parent[:, :, 1:] == LEFT)
    down = (to_parent[:, :-1] == DOWN) | (to_parent[:, 1:] == UP)
    return Passages(right, down)


def _step_tables(width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tables of the effect of a step, by case: four bits of directions, the direction back (0 to 4), a die (0 to 11).

    Returns:
        What up, down, left, right and staying add to a position; then, for each case, what is added to the position,
        what is added to it to find the cell that is marked, and that cell's direction back, in bits 4 to 6.
    """
    deltas = np.array([-width, width, -1, 1, 0])
    move, marked, mark = np.zeros((16, 8, 16), np.intp), np.zeros((16, 8, 16), np.intp), np.zeros((16, 8, 16), np.uint8)
    back = np.arange(_STAY + 1)
    move[0, back] = deltas[:, None]  # nowhere to go: the search backtracks, and the cell keeps its direction back
    mark[0, back] = back[:, None] << 4
    for bits in range(1, 16):
        choices = [direction for direction in range(4) if bits >> direction & 1]
        for die in range(_DIE):
            direction = choices[die % len(choices)]
            move[bits, :, die] = marked[bits, :, die] = deltas[direction]
            mark[bits, :, die] = _OPPOSITE[direction] << 4
    return deltas, move.reshape(-1), marked.reshape(-1), mark.reshape(-1)


def _neighbour_tables(num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbour that each side of the die chooses for each cell, and its direction, [n * n, 12] each."""
    directions = np.empty((num_cells**2, _DIE), np.uint8)
    for cell in range(num_cells**2):
        row, column = divmod(cell, num_cells)
        is_inside = {UP: row > 0, DOWN: row < num_cells - 1, LEFT: column > 0, RIGHT: column < num_cells - 1}
        choices = [direction for direction in is_inside if is_inside[direction]]
        directions[cell] = [choices[die % len(choices)] for die in range(_DIE)]
    deltas = np.array([-num_cells, num_cells, -1, 1])
    return np.arange(num_cells**2)[:, None] + deltas[directions], directions


def _is_on_cycle(pointer: np.ndarray) -> np.ndarray:
    """Which cells lie on a cycle of pointers, bool [N, n * n]: those that pointers still reach after many steps."""
    num_mazes, area = pointer.shape
    flat = (pointer + area * np.arange(num_mazes)[:, None]).reshape(-1)
    for _ in range((area - 1).bit_length()):  # doubles the number of steps, up to at least the number of cells
        flat = flat.take(flat)
    is_cyclic = np.zeros(num_mazes * area, bool)
    is_cyclic[flat] = True
    return is_cyclic.reshape(num_mazes, area)
