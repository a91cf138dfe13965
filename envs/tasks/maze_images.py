"""What a maze looks like: the code of each pixel, its colour, and the eight ways to turn and flip it."""

import numpy as np

WALL, OPEN, START, GOAL = range(4)
"""What a pixel is. In arrays of codes, uint8 [N, H, W]."""
PALETTE = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]], np.uint8)
"""Red, green and blue of each code: walls black, open white, start red, goal green, [4, 3]."""

NUM_SYMMETRIES = 8
"""Ways to turn and flip a square: number ``4 * is_flipped + quarter_turns``."""
_QUARTER_TURN = np.array([2, 3, 1, 0, 4])
"""What up, down, left, right and wait become when the picture turns anticlockwise."""
_FLIP = np.array([0, 1, 3, 2, 4])
"""What they become when left and right change places."""


def paint(codes: np.ndarray) -> np.ndarray:
    """Codes [N, H, W] as pictures, uint8 [N, H, W, 3]."""
    return PALETTE.take(codes, axis=0)


def as_codes(pictures: np.ndarray) -> np.ndarray:
    """Reads pictures back.

    Args:
        pictures: uint8, [N, H, W, 3], of the colours of ``PALETTE`` alone.

    Returns:
        Codes, uint8 [N, H, W].

    Raises:
        ValueError: they are not of that shape, or show another colour.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim != 4 or pictures.shape[3] != 3:
        raise ValueError(f"pictures of mazes have shape [N, H, W, 3], got {list(pictures.shape)}.")
    red, green, blue = pictures[..., 0], pictures[..., 1], pictures[..., 2]
    codes = np.where(blue == 255, OPEN, np.where(red == 255, START, np.where(green == 255, GOAL, WALL)))
    codes = codes.astype(np.uint8)
    if not np.array_equal(paint(codes), pictures):
        raise ValueError("pictures of mazes show black, white, red (255, 0, 0) and green (0, 255, 0) alone.")
    return codes


def locate(codes: np.ndarray, code: int) -> np.ndarray:
    """Row and column of the one pixel of each maze that has a code, [N, 2].

    Raises:
        ValueError: a maze has none, or several.
    """
    maze, row, column = np.nonzero(codes == code)
    if not np.array_equal(maze, np.arange(len(codes))):
        colour = {START: "red", GOAL: "green"}.get(code, f"code {code}")
        raise ValueError(f"each maze must have exactly one {colour} pixel.")
    return np.stack([row, column], axis=1)


def turn(codes: np.ndarray, moves: np.ndarray, symmetries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns and flips square mazes and their routes.

    Args:
        codes: uint8, [N, size, size].
        moves: [N, L].
        symmetries: for each maze, from 0 to 7, [N]: number mod 4 quarter turns anticlockwise, then, from 4 on,
            left and right change places.

    Returns:
        The codes [N, size, size] and moves [N, L] afterwards.
    """
    turned_codes, turned_moves = np.empty_like(codes), np.empty_like(moves)
    for symmetry in range(NUM_SYMMETRIES):
        rows = np.flatnonzero(symmetries == symmetry)
        turned, table = np.rot90(codes[rows], symmetry % 4, axes=(1, 2)), np.arange(5)
        for _ in range(symmetry % 4):
            table = _QUARTER_TURN[table]
        if symmetry >= 4:
            turned, table = turned[:, :, ::-1], _FLIP[table]
        turned_codes[rows], turned_moves[rows] = turned, table[moves[rows]]
    return turned_codes, turned_moves
