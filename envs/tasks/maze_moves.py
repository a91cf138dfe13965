"""Moves through a maze: their numbers, how long a route is, where it leads, and routes predicted piece by piece."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ctm_rl.envs.tasks.maze_images import GOAL, OPEN, START, WALL, as_codes, locate, paint

UP, DOWN, LEFT, RIGHT, WAIT = range(5)
"""Moves, one pixel each; a route that has ended waits."""
DELTAS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])
"""What each move adds to (row, column), [5, 2]."""

Predictor = Callable[[np.ndarray], np.ndarray]
"""Maps pictures uint8 [N, H, W, 3] to moves [N, L]."""


class Walk(NamedTuple):
    """Where moves lead."""

    end_yx: np.ndarray
    """Row and column of the last position, [N, 2]; always an open pixel."""
    num_steps: np.ndarray
    """Moves made from pixel to pixel, [N]; waits and the move into a wall are none."""


class Reapplied(NamedTuple):
    """How routes predicted piece by piece ended."""

    solved: np.ndarray
    """Whether the goal was reached, bool [N]."""
    steps: np.ndarray
    """Moves made in each application, [N, max_applications]; 0 from where a maze was solved or got no further."""


def route_lengths(targets: np.ndarray) -> np.ndarray:
    """How long routes are.

    Args:
        targets: moves, [N, L].

    Returns:
        Moves before the first wait, [N], L where there is none. A route that was cut counts L.
    """
    is_wait = np.asarray(targets) == WAIT
    return np.where(is_wait.any(1), is_wait.argmax(1), is_wait.shape[1])


def follow(pictures: np.ndarray, start_yx: np.ndarray, moves: np.ndarray) -> Walk:
    """Makes moves until the goal is reached or one of them leads into a wall or out of the picture.

    Waits stay where they are, and what follows them is made all the same. Once a walk has met the goal or a wall, it
    stays where it is: on the goal, or on the pixel before the wall.

    Args:
        pictures: uint8, [N, H, W, 3].
        start_yx: row and column to begin at, [N, 2].
        moves: from 0 to 4, [N, L].

    Returns:
        Where the walks end and how many moves they made.
    """
    return _follow(as_codes(pictures), np.asarray(start_yx), np.asarray(moves))


def reapply(pictures: np.ndarray, predict: Predictor, max_applications: int = 20) -> Reapplied:
    """Solves mazes whose routes are longer than what is predicted at once: where a route ends, the next one starts.

    Each application predicts moves from the picture and follows them (``follow``); the pixel the walk ends on turns
    red, the old start white, and the new picture is predicted from. A maze is solved when a walk meets the green
    pixel. Walks never leave the open pixels: a move into a wall ends the walk before the wall, and the next
    application starts there. A maze whose walk makes no move is given up, since the same picture gives the same
    moves; one that was solved or given up is not predicted again. Source: arXiv:2505.05522, which lets walks go on
    after a few moves into walls; here none does.

    Args:
        pictures: uint8, [N, H, W, 3], one red and one green pixel each.
        predict: maps the pictures still unsolved to moves; it is never given an empty batch.
        max_applications: how often it is applied to a maze at most.

    Returns:
        Which mazes were solved, and the moves made in each application.
    """
    if max_applications < 1:
        raise ValueError(f"max_applications must be at least 1, got {max_applications}.")
    codes = as_codes(pictures)
    position, goal = locate(codes, START), locate(codes, GOAL)
    solved = np.zeros(len(codes), bool)
    steps = np.zeros((len(codes), max_applications), np.int64)
    active = np.arange(len(codes))
    for application in range(max_applications):
        if active.size == 0:
            break
        moves = np.asarray(predict(paint(codes[active])))
        walk = _follow(codes[active], position[active], moves)
        steps[active, application] = walk.num_steps
        solved[active] = (walk.end_yx == goal[active]).all(1)
        codes[active, position[active, 0], position[active, 1]] = OPEN
        position[active] = walk.end_yx
        active = active[~solved[active] & (walk.num_steps > 0)]
        codes[active, position[active, 0], position[active, 1]] = START
    return Reapplied(solved, steps)


def _follow(codes: np.ndarray, start_yx: np.ndarray, moves: np.ndarray) -> Walk:
    """``follow`` in mazes given by codes [N, H, W]."""
    num_mazes = len(codes)
    if moves.ndim != 2 or len(moves) != num_mazes or start_yx.shape != (num_mazes, 2):
        raise ValueError(
            f"{num_mazes} pictures need a start [{num_mazes}, 2] and moves [{num_mazes}, L], "
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
