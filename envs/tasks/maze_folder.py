"""Published images of mazes: PNG files with the route drawn in blue, read into memory with their routes."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctm_rl.envs.data.folder import SPLITS, Skipped, check_split, find_files
from ctm_rl.envs.data.images import BROKEN, check_num_images, open_image, why_broken
from ctm_rl.envs.data.pixels import as_array
from ctm_rl.envs.tasks.maze_images import GOAL, OPEN, PALETTE, START, WALL
from ctm_rl.envs.tasks.maze_solver import Routes, solve
from ctm_rl.errors import expand, printable

_ROUTE = 4
"""The code of a blue pixel, which becomes open once the route has been read."""
_OTHER = 5
"""The code of a pixel of any other colour."""
_COLOURS = np.vstack([PALETTE, [[0, 0, 255]]])
"""Red, green and blue of each code."""
_BATCH = 1024
"""Mazes solved together."""


class StoredMazes(NamedTuple):
    """Mazes held in memory, with their routes."""

    codes: np.ndarray
    """The code of each pixel, without the route, uint8 [N, size, size]."""
    moves: np.ndarray
    """int64 [N, route_length]."""


def read_mazes(folder: str | Path, split: str, size: int, route_length: int) -> StoredMazes:
    """Reads every PNG file anywhere below a folder, in the order of their paths.

    A file holds one maze: walls black, open pixels white, one red start, one green goal, and the route between them in
    blue. The route is read and painted white; where nothing is blue, the maze is solved. Files that do not hold such a
    maze are left out, and one warning reports how many, and the reason for the first.

    Args:
        folder: holds the files, or sub-folders ``train`` and ``test`` with the files.
        split: ``"train"`` or ``"test"``; without such sub-folders both are the folder itself.
        size: height and width of every image.
        route_length: how many moves of a route are kept.

    Returns:
        The mazes.

    Raises:
        ValueError: there is no such folder, or no maze in it.
    """
    place, skipped = _find(expand(folder), split), Skipped()
    paths = sorted(map(Path, find_files(place, (".png",), skipped)))
    where = printable(place)
    if not paths:
        raise ValueError(f"looked for PNG images of mazes in {where}, found none; {_HOW_TO_GET}")
    check_num_images(len(paths), where, (size, size))
    skipped.report(place)
    codes, moves, problems = [], [], []
    for first in range(0, len(paths), _BATCH):
        good = []
        for path in paths[first : first + _BATCH]:
            try:
                good.append((path, _read(path, size)))
            except BROKEN as error:  # includes the ValueError of an image that is not a maze
                problems.append((path, why_broken(error)))
        if good:
            drawn = np.stack([maze for _, maze in good])
            routes = _read_routes(drawn, route_length)
            is_solved = routes.lengths > 0
            problems += [(good[i][0], "no route from red to green") for i in np.flatnonzero(~is_solved)]
            codes.append(np.where(drawn == _ROUTE, OPEN, drawn)[is_solved].astype(np.uint8))
            moves.append(routes.moves[is_solved])
    if problems:
        path, reason = min(problems)
        first = f"the first, {printable(path.name)}: {reason}"
        summary = f"{len(problems)} of the {len(paths)} images in {where} hold no maze of {size} pixels"
        if len(problems) == len(paths):
            raise ValueError(f"{summary}; {first}.")
        warnings.warn(f"{summary} and are left out; {first}.", stacklevel=2)
    return StoredMazes(np.concatenate(codes), np.concatenate(moves))


_HOW_TO_GET = (
    "get the published mazes by the links in the README of github.com/SakanaAI/continuous-thought-machines, unpack "
    "them and pass the folder that holds train and test, or leave folder out to generate mazes."
)


def _find(folder: Path, split: str) -> Path:
    """The folder of a split."""
    check_split(split)
    has_splits = any((folder / name).is_dir() for name in SPLITS)
    where = folder / split if has_splits else folder
    if not where.is_dir():
        raise ValueError(f"looked for images of mazes in {printable(where)}, there is no such folder; {_HOW_TO_GET}")
    return where


def _read(path: Path, size: int) -> np.ndarray:
    """The codes of an image, including the blue route, uint8 [size, size]."""
    with open_image(path, ("PNG",)) as image:
        if image.size != (size, size):
            raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels")
        colours = _as_numbers(as_array(image))
    codes = np.full((size, size), _OTHER, np.uint8)
    for code, colour in enumerate(_as_numbers(_COLOURS)):
        codes[colours == colour] = code
    if (codes == _OTHER).any():
        raise ValueError("it has other colours than black, white, red, green and blue")
    if (codes == START).sum() != 1 or (codes == GOAL).sum() != 1:
        raise ValueError("it does not have one red and one green pixel")
    return codes


def _read_routes(drawn: np.ndarray, route_length: int) -> Routes:
    """The routes drawn in blue; shortest routes where none is drawn."""
    is_drawn = (drawn == _ROUTE).any((1, 2))[:, None, None]
    is_open = np.where(is_drawn, drawn >= START, drawn != WALL)
    start_yx, goal_yx = (np.argwhere(drawn == code)[:, 1:] for code in (START, GOAL))
    return solve(is_open, start_yx, goal_yx, route_length)


def _as_numbers(colours: np.ndarray) -> np.ndarray:
    """Red, green and blue [..., 3] as one number each, int32 [...]."""
    parts = colours.astype(np.int32)
    return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
