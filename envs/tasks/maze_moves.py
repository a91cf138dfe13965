"""Moves through a maze: their numbers, where a route leads, and long routes predicted piece by piece."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ctm_rl.envs.tasks.maze_images import GOAL, OPEN, START, WALL, as_codes, locate, paint

UP, DOWN, LEFT, RIGHT, WAIT = range(5)
"""Moves, one pixel each; a route that has ended waits."""
DELTAS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])
"""What each move adds to (row, column), [5, 2]."""
DIRECTION_BITS = np.array([[1], [2], [4], [8]], np.uint8)
"""Bits for up, down, left and right, in which a set of directions is one number, [4, 1]."""

Predictor = Callable[[np.ndarray], np.ndarray]
"""Maps images uint8 [N, H, W, 3] to moves [N, L]."""


class Walk(NamedTuple):
    """Where moves lead."""

    end_yx: np.ndarray
    """Row and column of the last position, [N, 2]; always an open pixel."""
    num_steps: np.ndarray
    """Moves made from pixel to pixel, [N]; waits and the move into a wall do not count."""


class Reapplied(NamedTuple):
    """The result of predicting routes piece by piece."""

    solved: np.ndarray
    """Whether the goal was reached, bool [N]."""
    steps: np.ndarray
    """Moves made in each application, [N, max_applications]; 0 once a maze is solved or makes no progress."""


def follow(codes: np.ndarray, start_yx: np.ndarray, moves: np.ndarray) -> Walk:
    """Makes moves until the goal is reached or one of them leads into a wall or out of the image.

    A wait stays in place and does not end the walk. Once a walk has reached the goal or a wall, it stays where it is:
    on the goal, or on the pixel before the wall.

    Args:
        codes: of the mazes' pixels, [N, H, W].
        start_yx: row and column to begin at, [N, 2].
        moves: from 0 to 4, [N, L].

    Returns:
        Where the walks end and how many moves they made.
    """
    num_mazes = len(codes)
    if moves.ndim != 2 or len(moves) != num_mazes or start_yx.shape != (num_mazes, 2):
        raise ValueError(
            f"{num_mazes} mazes need a start [{num_mazes}, 2] and moves [{num_mazes}, L], "
            f"got {list(start_yx.shape)} and {list(moves.shape)}."
        )
    if moves.size and (moves.min() < UP or moves.max() > WAIT):
        raise ValueError(f"moves go from {UP} to {WAIT}, got {moves.min()} to {moves.max()}.")
    each, size = np.arange(num_mazes), np.array(codes.shape[1:])
    end_yx, num_steps = start_yx.astype(np.int64), np.zeros(num_mazes, np.int64)
    is_walking = np.ones(num_mazes, bool)
    for place in range(moves.shape[1]):
        is_walking &= codes[each, end_yx[:, 0], end_yx[:, 1]] != GOAL
        if not is_walking.any():
            break
        next_yx = end_yx + DELTAS[moves[:, place]]
        is_inside = ((next_yx >= 0) & (next_yx < size)).all(1)
        row, column = np.clip(next_yx, 0, size - 1).T
        is_walking &= is_inside & (codes[each, row, column] != WALL)
        end_yx = np.where(is_walking[:, None], next_yx, end_yx)
        num_steps += is_walking & (moves[:, place] != WAIT)
    return Walk(end_yx, num_steps)


def reapply(images: np.ndarray, predict: Predictor, max_applications: int = 20) -> Reapplied:
    """Solves mazes whose routes are longer than one prediction: each prediction starts where the last walk ended.

    Each application predicts moves from the image and follows them (``follow``); the last pixel of the walk is painted
    red and the old start white, and the next prediction is made from the new image. A maze is solved when a walk
    reaches the green pixel. Walks never leave the open pixels: a move into a wall ends the walk before the wall, and
    the next application starts there. A maze whose walk makes no move is given up, because the same image leads to the
    same moves; a maze that is solved or given up is not predicted again. Source: arXiv:2505.05522, where walks
    continue after a few moves into walls; here they do not.

    Args:
        images: uint8, [N, H, W, 3], with one red and one green pixel each.
        predict: maps the images of unsolved mazes to moves; its batch is never empty.
        max_applications: how often it is applied to a maze at most.

    Returns:
        Which mazes were solved, and the moves made in each application.
    """
    if max_applications < 1:
        raise ValueError(f"max_applications must be at least 1, got {max_applications}.")
    codes = as_codes(images)
    position, goal = locate(codes, START), locate(codes, GOAL)
    solved = np.zeros(len(codes), bool)
    steps = np.zeros((len(codes), max_applications), np.int64)
    active = np.arange(len(codes))
    for application in range(max_applications):
        if active.size == 0:
            break
        moves = np.asarray(predict(paint(codes[active])))
        walk = follow(codes[active], position[active], moves)
        steps[active, application] = walk.num_steps
        solved[active] = (walk.end_yx == goal[active]).all(1)
        codes[active, position[active, 0], position[active, 1]] = OPEN
        position[active] = walk.end_yx
        active = active[~solved[active] & (walk.num_steps > 0)]
        codes[active, position[active, 0], position[active, 1]] = START
    return Reapplied(solved, steps)
