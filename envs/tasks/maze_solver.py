"""Shortest routes through many mazes at once: breadth-first search over pixels, then descent of the distances."""

from typing import NamedTuple

import numpy as np

from ctm_rl.envs.tasks.maze_moves import DELTAS, DIRECTION_BITS, WAIT

_WALL, _UNREACHED = -1, 0
_CHECK_EVERY = 16
"""Steps after which solved mazes are removed from the search."""


class Routes(NamedTuple):
    """Shortest routes."""

    moves: np.ndarray
    """Up, down, left, right (0 to 3), then waits (4), int64 [N, route_length]; longer routes are cut."""
    lengths: np.ndarray
    """Moves of the whole route, however long, int64 [N]; -1 where there is no route, and ``moves`` are waits."""


def solve(is_open: np.ndarray, start_yx: np.ndarray, goal_yx: np.ndarray, route_length: int) -> Routes:
    """Finds shortest routes; among equally short ones, up precedes down, left and right at every step.

    Args:
        is_open: pixels that are not walls, bool [N, H, W].
        start_yx: row and column, [N, 2], open.
        goal_yx: row and column, [N, 2], open.
        route_length: how many moves are returned.

    Returns:
        The routes and their lengths.
    """
    field = _search(is_open, goal_yx, start_yx)
    width = is_open.shape[2] + 2
    deltas = DELTAS @ [width, 1]
    position = _flat(start_yx, is_open.shape)
    distance = field.take(position)  # of the start from the goal, plus 1
    lengths = np.where(distance > 0, distance, 0).astype(np.int64) - 1
    moves = np.full((route_length, len(is_open)), WAIT)
    to_neighbours, num_steps = deltas[:4, None], int(lengths.max(initial=0))
    for place in range(min(num_steps, route_length)):
        distance -= 1
        is_nearer = field.take(position + to_neighbours) == np.maximum(distance, _UNREACHED)
        is_nearer &= distance > 0
        move = _FIRST.take(np.bitwise_or.reduce(is_nearer * DIRECTION_BITS, axis=0))
        moves[place] = move
        position += deltas.take(move)
    return Routes(np.ascontiguousarray(moves.T), lengths)


def distances(is_open: np.ndarray, source_yx: np.ndarray) -> np.ndarray:
    """Computes the distance of every pixel from a source, in moves.

    Args:
        is_open: pixels that are not walls, bool [N, H, W].
        source_yx: row and column, [N, 2], open.

    Returns:
        int32 [N, H, W]; -1 for walls and unreachable pixels.
    """
    num_mazes, height, width = is_open.shape
    field = _search(is_open, source_yx, None).reshape(num_mazes, height + 2, width + 2)[:, 1:-1, 1:-1]
    return np.where(field > 0, field - 1, -1)


_FIRST = np.array([WAIT, *((bits & -bits).bit_length() - 1 for bits in range(1, 16))])
"""The first direction among those whose bits are set."""


def _search(is_open: np.ndarray, source_yx: np.ndarray, until_yx: np.ndarray | None) -> np.ndarray:
    """Distances plus 1 from a source, flat int32 over mazes with a border of one pixel; walls -1, unreached 0.

    The search of a maze stops soon after the pixel ``until_yx`` is reached, where one is given.
    """
    num_mazes, height, width = is_open.shape
    bordered = np.full((num_mazes, height + 2, width + 2), _WALL, np.int32)
    np.subtract(is_open, 1, out=bordered[:, 1:-1, 1:-1], dtype=np.int32)  # open: unreached
    area, field = bordered[0].size if num_mazes else 1, bordered.reshape(-1)
    until = None if until_yx is None else _flat(until_yx, is_open.shape)
    to_neighbours = (DELTAS[:4] @ [width + 2, 1])[:, None]
    frontier, step = _flat(source_yx, is_open.shape), 1
    field[frontier] = step
    while frontier.size:
        step += 1
        if until is not None and step % _CHECK_EVERY == 0:
            is_searching = field.take(until) == _UNREACHED
            frontier = frontier[is_searching.take(frontier // area)]
        near = (frontier + to_neighbours).reshape(-1)
        found = near[field.take(near) == _UNREACHED]
        # a pixel found from two sides is kept once: for the number that was written last
        number = np.arange(len(found), dtype=np.int32)
        field[found] = number
        frontier = found[field.take(found) == number]
        field[frontier] = step
    return field


def _flat(yx: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Indices of pixels in a flat array over mazes with a border of one pixel, [N]."""
    num_mazes, height, width = shape
    return (np.arange(num_mazes) * (height + 2) + yx[:, 0] + 1) * (width + 2) + yx[:, 1] + 1
