"""Mazes read pixel by pixel in plain Python: the reference for the fast code."""

from collections import deque

import numpy as np

from ctm_rl.envs.tasks.mazes import MazeTask

STEPS = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}
BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)

Pixel = tuple[int, int]


def draw(task: MazeTask, seed: int, num_mazes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, 3] and routes [N, L] of a task."""
    inputs, targets = task.sample(np.random.default_rng(seed), num_mazes)
    assert isinstance(inputs, np.ndarray)
    return inputs, targets


def colours(image: np.ndarray) -> dict[Pixel, tuple[int, ...]]:
    """The colour of every pixel of an image [H, W, 3]."""
    height, width, _ = image.shape
    return {(y, x): tuple(int(part) for part in image[y, x]) for y in range(height) for x in range(width)}


def find(image: np.ndarray, colour: tuple[int, ...]) -> Pixel:
    """The only pixel that has a colour."""
    (found,) = [pixel for pixel, shown in colours(image).items() if shown == colour]
    return found


def shortest(image: np.ndarray) -> dict[Pixel, int]:
    """Moves from the red pixel to every pixel that can be reached, by breadth-first search."""
    shown = colours(image)
    start = find(image, RED)
    distance, queue = {start: 0}, deque([start])
    while queue:
        y, x = queue.popleft()
        for dy, dx in STEPS.values():
            after = (y + dy, x + dx)
            if shown.get(after, BLACK) != BLACK and after not in distance:
                distance[after] = distance[y, x] + 1
                queue.append(after)
    return distance


def walk(image: np.ndarray, route: np.ndarray) -> list[Pixel]:
    """The pixels of a route from the red one to its first wait; checks that all are open and that only waits follow."""
    shown = colours(image)
    pixels = [find(image, RED)]
    moves = [int(move) for move in route]
    length = moves.index(4) if 4 in moves else len(moves)
    assert all(move == 4 for move in moves[length:])
    for move in moves[:length]:
        pixels.append((pixels[-1][0] + STEPS[move][0], pixels[-1][1] + STEPS[move][1]))
        assert shown.get(pixels[-1], BLACK) != BLACK
    return pixels


def route_lengths(routes: np.ndarray) -> np.ndarray:
    """Moves of each route before its first wait, [N]."""
    return np.array([[*route, 4].index(4) for route in routes])
