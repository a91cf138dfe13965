"""Published pictures of mazes: PNG files with the route drawn in blue, read and solved once."""

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ctm_rl.envs.tasks.maze_images import GOAL, OPEN, PALETTE, START, WALL
from ctm_rl.envs.tasks.maze_solver import Routes, solve

SPLITS = ("train", "test")

_ROUTE = 4
"""The code of a blue pixel; open, once the route has been read off."""
_OTHER = 5
"""The code of a pixel of any other colour."""
_COLOURS = np.vstack([PALETTE, [[0, 0, 255]]])
"""Red, green and blue of each code."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What is raised where a file holds no picture, or not all of one, or no maze."""
_BATCH = 1024
"""Mazes solved together."""


class StoredMazes(NamedTuple):
    """Mazes held in memory, with their routes."""

    codes: np.ndarray
    """What each pixel is, uint8 [N, size, size]; the route is not in it."""
    moves: np.ndarray
    """int64 [N, route_length]."""
    num_broken: int
    """Files that were left out."""


def read_mazes(folder: str | Path, split: str, size: int, route_length: int) -> StoredMazes:
    """Reads every PNG file anywhere below a folder, in the order of their paths.

    A file holds one maze: walls black, open pixels white, one red start, one green goal, and the route between them in
    blue. The route is read off and painted white; where nothing is blue, the maze is solved. Files that do not hold
    such a maze are left out, and one warning tells how many and why the first.

    Args:
        folder: holds the files, or sub-folders ``train`` and ``test`` that do.
        split: ``"train"`` or ``"test"``; without such sub-folders both are the folder itself.
        size: height and width of every picture.
        route_length: how many moves of a route are kept.

    Returns:
        The mazes.

    Raises:
        ValueError: there is no such folder, or no maze in it.
    """
    where = _find(Path(folder), split)
    paths = [
        Path(place, name)
        for place, _, names in os.walk(where, followlinks=True)
        for name in names
        if name.lower().endswith(".png") and not name.startswith(".")
    ]
    if not paths:
        raise ValueError(f"looked for PNG pictures of mazes in {where}, found none; {_HOW_TO_GET}")
    codes, moves, complaints = [], [], []
    paths.sort()
    for first in range(0, len(paths), _BATCH):
        good = []
        for path in paths[first : first + _BATCH]:
            try:
                good.append((path, _read(path, size)))
            except _BROKEN as error:
                complaints.append((path, str(error) or type(error).__name__))
        if good:
            drawn = np.stack([maze for _, maze in good])
            routes = _read_off(drawn, route_length)
            is_solved = routes.lengths > 0
            complaints += [(good[i][0], "no route from red to green") for i in np.flatnonzero(~is_solved)]
            codes.append(np.where(drawn == _ROUTE, OPEN, drawn)[is_solved].astype(np.uint8))
            moves.append(routes.moves[is_solved])
    if complaints:
        path, reason = min(complaints)
        told = f"{len(complaints)} of the {len(paths)} pictures in {where} hold no maze of {size} pixels"
        if len(complaints) == len(paths):
            raise ValueError(f"{told}; the first, {path.name}: {reason}.")
        warnings.warn(f"{told} and are left out; the first, {path.name}: {reason}.", stacklevel=2)
    return StoredMazes(np.concatenate(codes), np.concatenate(moves), len(complaints))


_HOW_TO_GET = (
    "get the published mazes by the links in the README of github.com/SakanaAI/continuous-thought-machines, unpack "
    "them and name the folder that holds train and test, or leave folder out to have mazes made."
)


def _find(folder: Path, split: str) -> Path:
    """Where the pictures of a split are."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    has_splits = any((folder / name).is_dir() for name in SPLITS)
    where = folder / split if has_splits else folder
    if not where.is_dir():
        raise ValueError(f"looked for pictures of mazes in {where}, there is no such folder; {_HOW_TO_GET}")
    return where


def _read(path: Path, size: int) -> np.ndarray:
    """The codes of a picture, the blue route among them, uint8 [size, size]."""
    with Image.open(path) as image:
        if image.size != (size, size):
            raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels")
        colours = _in_one_number(np.asarray(image.convert("RGB")))
    codes = np.full((size, size), _OTHER, np.uint8)
    for code, colour in enumerate(_in_one_number(_COLOURS)):
        codes[colours == colour] = code
    if (codes == _OTHER).any():
        raise ValueError("it has colours beside black, white, red, green and blue")
    if (codes == START).sum() != 1 or (codes == GOAL).sum() != 1:
        raise ValueError("it has not one red and one green pixel")
    return codes


def _read_off(drawn: np.ndarray, route_length: int) -> Routes:
    """The routes drawn, shortest routes where none is."""
    is_drawn = (drawn == _ROUTE).any((1, 2))[:, None, None]
    is_open = np.where(is_drawn, drawn >= START, drawn != WALL)
    start_yx, goal_yx = (np.argwhere(drawn == code)[:, 1:] for code in (START, GOAL))
    return solve(is_open, start_yx, goal_yx, route_length)


def _in_one_number(colours: np.ndarray) -> np.ndarray:
    """Red, green and blue [..., 3] as one number each, int32 [...]."""
    parts = colours.astype(np.int32)
    return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
