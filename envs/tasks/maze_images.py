"""Images of mazes: the code of each pixel, its colour, and the eight symmetries of a square."""

import numpy as np

WALL, OPEN, START, GOAL = range(4)
"""Codes of pixels, in arrays uint8 [N, H, W]."""
PALETTE = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]], np.uint8)
"""Red, green and blue of each code: walls black, open white, start red, goal green, [4, 3]."""

NUM_SYMMETRIES = 8
"""Symmetries of a square, numbered ``4 * is_flipped + quarter_turns``."""
_UNTURNED, _QUARTER_TURN, _FLIP = np.arange(5), np.array([2, 3, 1, 0, 4]), np.array([0, 1, 3, 2, 4])
"""What up, down, left, right and wait become in a quarter turn anticlockwise, and when left and right are swapped."""
_HALF_TURN = _QUARTER_TURN[_QUARTER_TURN]
_TURNS = np.stack([_UNTURNED, _QUARTER_TURN, _HALF_TURN, _QUARTER_TURN[_HALF_TURN]])
_MOVES_AFTER = np.concatenate([_TURNS, _FLIP[_TURNS]])
"""What each move becomes by each symmetry, [8, 5]."""


def paint(codes: np.ndarray) -> np.ndarray:
    """Converts codes [N, H, W] to images, uint8 [N, H, W, 3]."""
    return PALETTE.take(codes, axis=0)


def as_codes(images: np.ndarray) -> np.ndarray:
    """Converts images to codes.

    Args:
        images: uint8, [N, H, W, 3], in the colours of ``PALETTE``.

    Returns:
        Codes, uint8 [N, H, W].

    Raises:
        ValueError: they have another shape or another colour.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images of mazes have shape [N, H, W, 3], got {list(images.shape)}.")
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    codes = np.where(blue == 255, OPEN, np.where(red == 255, START, np.where(green == 255, GOAL, WALL)))
    codes = codes.astype(np.uint8)
    if not np.array_equal(paint(codes), images):
        raise ValueError("images of mazes have only the colours black, white, red (255, 0, 0) and green (0, 255, 0).")
    return codes


def locate(codes: np.ndarray, code: int) -> np.ndarray:
    """Returns row and column of the only pixel of each maze that has a code, [N, 2].

    Raises:
        ValueError: a maze has no such pixel, or several.
    """
    maze, row, column = np.nonzero(codes == code)
    if not np.array_equal(maze, np.arange(len(codes))):
        colour = {START: "red", GOAL: "green"}.get(code, f"code {code}")
        raise ValueError(f"each maze must have exactly one {colour} pixel.")
    return np.stack([row, column], axis=1)


def turn(codes: np.ndarray, moves: np.ndarray, symmetries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotates and flips square mazes and their routes.

    Args:
        codes: uint8, [N, size, size].
        moves: [N, L].
        symmetries: for each maze, from 0 to 7, [N]: number mod 4 quarter turns anticlockwise, then, from 4 on, left
            and right are swapped.

    Returns:
        The codes [N, size, size] and moves [N, L] afterwards.
    """
    turned = np.empty_like(codes)
    for symmetry in range(NUM_SYMMETRIES):
        rows = np.flatnonzero(symmetries == symmetry)
        rotated = np.rot90(codes[rows], symmetry % 4, axes=(1, 2))
        turned[rows] = rotated[:, :, ::-1] if symmetry >= 4 else rotated
    return turned, _MOVES_AFTER[symmetries[:, None], moves]
