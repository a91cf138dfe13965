"""MiniGrid's partial view, computed several times faster: the same numbers without intermediate grids of objects."""

from functools import lru_cache
from types import MethodType
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.core.constants import DIR_TO_VEC, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Wall, WorldObj
from minigrid.minigrid_env import MiniGridEnv

_OWN = ("gen_obs", "gen_obs_grid", "get_view_exts")
"""Methods that an environment must not override."""
_DIRECTIONS = [(int(x), int(y)) for x, y in DIR_TO_VEC]
_WALL = Wall()
_UNSEEN, _EMPTY = bytes(3), bytes((OBJECT_TO_IDX["empty"], 0, 0))


class FastView(gym.Wrapper[Any, Any, Any, Any]):
    """Computes a MiniGrid agent's view in one pass over the cells in view.

    MiniGrid slices the view out as a new grid, rotates it up to four times, each time into another grid, computes which
    cells are visible, and encodes them. Here the cells are read in place, row by row away from the agent, and the
    visible cells of a row are the bits of a number. The observations are the same, bit for bit.

    Args:
        env: a MiniGrid environment for which ``has_plain_view`` holds.

    Raises:
        ValueError: it computes its view in another way.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        if not has_plain_view(env):
            raise ValueError(f"only MiniGrid's own view can be computed fast, and {env} has another one.")
        # step and reset of the environment call it by this name; a bound method, so that a copy gets its own
        grid_env: Any = env.unwrapped
        grid_env.gen_obs = MethodType(_observe, grid_env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step with the action as an ``int``, which MiniGrid compares faster than NumPy's numbers."""
        return self.env.step(int(action))


def has_plain_view(env: gym.Env) -> bool:
    """Whether an environment is MiniGrid's and computes its view as MiniGrid does."""
    kind = type(env.unwrapped)
    return issubclass(kind, MiniGridEnv) and all(getattr(kind, name) is getattr(MiniGridEnv, name) for name in _OWN)


def view_of(env: MiniGridEnv) -> np.ndarray:
    """Computes the agent's view.

    Args:
        env: after a reset; its grid is a plain ``Grid``.

    Returns:
        Object, colour and state of every cell in view, [across, along, 3], uint8; the agent stands in the middle
        (across) of the last row (along).
    """
    size = env.agent_view_size
    rows = _cells_in_view(env, size)
    lit = [(1 << size) - 1] * size if env.see_through_walls else _visible(rows, size)
    rows[0][size // 2] = env.carrying  # is shown in the agent's own cell
    codes = [
        _code(cell) if is_lit >> across & 1 else _UNSEEN
        for row, is_lit in zip(reversed(rows), reversed(lit), strict=True)
        for across, cell in enumerate(row)
    ]
    return np.frombuffer(b"".join(codes), np.uint8).reshape(size, size, 3).transpose(1, 0, 2).copy()


def _observe(env: MiniGridEnv) -> dict[str, Any]:
    """Returns what MiniGrid's own ``gen_obs`` returns."""
    if type(env.grid) is not Grid:
        return type(env).gen_obs(env)
    return {"image": view_of(env), "direction": env.agent_dir, "mission": env.mission}


def _code(cell: WorldObj | None) -> bytes:
    """A cell as three bytes."""
    return _EMPTY if cell is None else bytes(cell.encode())


def _cells_in_view(env: MiniGridEnv, size: int) -> list[list[WorldObj | None]]:
    """The cells in view, from the agent's own row onwards, each row from left to right; walls beyond the grid."""
    grid, half = env.grid, size // 2
    x, y = int(env.agent_pos[0]), int(env.agent_pos[1])
    ahead_x, ahead_y = _DIRECTIONS[env.agent_dir]
    right_x, right_y = -ahead_y, ahead_x
    # the part of every row that lies inside the grid: across from `begin` up to `end`
    place, extent = (x, grid.width) if right_x else (y, grid.height)
    if right_x + right_y > 0:
        begin, end = max(0, half - place), min(size, half - place + extent)
    else:
        begin, end = max(0, half + place - extent + 1), min(size, half + place + 1)
    stride = right_x + right_y * grid.width
    onwards = ahead_x + ahead_y * grid.width
    before, after = [_WALL] * begin, [_WALL] * (size - end)
    # rows that lie inside it
    place, extent = (x, grid.width) if ahead_x else (y, grid.height)
    num_rows = min(size, extent - place if ahead_x + ahead_y > 0 else place + 1)
    cells, rows = grid.grid, []
    first = y * grid.width + x + (begin - half) * stride
    for start in range(first, first + num_rows * onwards, onwards):
        stop = start + (end - begin) * stride
        rows.append(before + cells[start : stop if stop >= 0 else None : stride] + after)
    return rows + [[_WALL] * size for _ in range(size - num_rows)]


def _visible(rows: list[list[WorldObj | None]], size: int) -> list[int]:
    """Which cells of each row are visible, a bit for each, from the agent's own row onwards."""
    incoming, lit = 1 << size // 2, []
    for row in rows:
        clear = 0
        for across, cell in enumerate(row):
            if cell is None or cell.see_behind():
                clear |= 1 << across
        visible, incoming = _spread(incoming, clear, size)
        lit.append(visible)
    return lit


@lru_cache(maxsize=1 << 16)
def _spread(lit: int, clear: int, size: int) -> tuple[int, int]:
    """Spreads visibility along a row, to the right and then to the left, and from every clear cell to the next row.

    Args:
        lit: cells that are visible from the row before, a bit for each.
        clear: cells that can be seen through.
        size: cells in the row.

    Returns:
        Cells of this row that are visible, and cells of the next row that are visible from this one.
    """
    to_next = 0
    for across in range(size - 1):
        if (lit & clear) >> across & 1:
            lit |= 2 << across
            to_next |= 3 << across
    for across in range(size - 1, 0, -1):
        if (lit & clear) >> across & 1:
            lit |= 1 << across - 1
            to_next |= 3 << across - 1
    return lit, to_next
