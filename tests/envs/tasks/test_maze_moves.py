"""Following routes, and applying a predictor of routes repeatedly to mazes with longer routes."""

import numpy as np
import pytest
from maze_reference import GREEN, RED, STEPS, colours, draw, find, route_lengths, walk

from ctm_rl.envs.tasks.maze_images import as_codes, locate
from ctm_rl.envs.tasks.maze_moves import follow, reapply
from ctm_rl.envs.tasks.maze_solver import solve
from ctm_rl.envs.tasks.mazes import MazeTask


def make(size: int, num_mazes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, whole routes, starts."""
    inputs, targets = draw(MazeTask(size, 400), seed, num_mazes)
    return inputs, targets, locate(as_codes(inputs), 2)


def solver(images: np.ndarray, route_length: int) -> np.ndarray:
    """Predicts the first moves of the correct routes."""
    codes = as_codes(images)
    return solve(codes > 0, locate(codes, 2), locate(codes, 3), route_length).moves


def test_lengths_count_the_moves_before_the_first_wait() -> None:
    assert route_lengths(np.array([[0, 1, 4, 4], [4, 4, 4, 4], [3, 3, 3, 3], [2, 4, 2, 4]])).tolist() == [2, 0, 4, 1]


def test_correct_routes_lead_to_the_goal_and_random_ones_as_far_as_step_by_step() -> None:
    images, routes, start_yx = make(11, 12, 1)
    there = follow(as_codes(images), start_yx, routes)
    assert [tuple(end) for end in there.end_yx] == [find(image, GREEN) for image in images]
    assert np.array_equal(there.num_steps, route_lengths(routes))
    moves = np.random.default_rng(2).integers(5, size=(12, 30))
    moves[::2, :4] = routes[::2, :4]
    ends = follow(as_codes(images), start_yx, moves)
    for image, row, end, num_steps in zip(images, moves, ends.end_yx, ends.num_steps, strict=True):
        shown, pixel, made = colours(image), find(image, RED), 0
        for move in row:
            if shown[pixel] == GREEN:
                break
            dy, dx = STEPS.get(int(move), (0, 0))
            if shown[pixel[0] + dy, pixel[1] + dx] == (0, 0, 0):
                break
            pixel, made = (pixel[0] + dy, pixel[1] + dx), made + (move != 4)
        assert (tuple(end), num_steps) == (pixel, made)


def test_a_walk_ends_at_the_goal_at_a_wall_and_at_the_border_but_not_at_a_wait() -> None:
    images = np.full((4, 3, 4, 3), 255, np.uint8)
    images[:, 0, 3] = [0, 255, 0]
    images[:, 0, 0] = [255, 0, 0]
    images[1, 0, 2] = 0
    moves = np.array([[3, 3, 3, 1, 1], [3, 3, 1, 1, 1], [0, 1, 1, 1, 1], [4, 3, 4, 4, 1]])
    walks = follow(as_codes(images), np.zeros((4, 2), int), moves)
    assert walks.end_yx.tolist() == [[0, 3], [0, 1], [0, 0], [1, 1]]
    assert walks.num_steps.tolist() == [3, 1, 0, 2]


def test_reapplying_short_correct_routes_solves_long_mazes() -> None:
    images, routes, _ = make(19, 30, 3)
    lengths = route_lengths(routes)
    before = images.copy()
    sizes = []

    def predict(shown: np.ndarray) -> np.ndarray:
        sizes.append(len(shown))
        return solver(shown, 10)

    solved, steps = reapply(images, predict)
    assert np.array_equal(images, before)
    assert solved.all()
    assert np.array_equal(steps.sum(1), lengths)
    assert np.array_equal((steps > 0).sum(1), -(-lengths // 10))
    assert sizes == [int((lengths > 10 * done).sum()) for done in range(-(-lengths.max() // 10))]
    few, steps = reapply(images, lambda shown: solver(shown, 10), max_applications=2)
    assert np.array_equal(few, lengths <= 20)
    assert steps.shape == (30, 2)


def test_the_start_moves_to_where_the_route_ended() -> None:
    images, routes, _ = make(19, 20, 4)
    seen = []

    def predict(shown: np.ndarray) -> np.ndarray:
        seen.append(shown)
        return solver(shown, 6)

    reapply(images, predict, max_applications=2)
    left = np.flatnonzero(route_lengths(routes) > 6)
    for image, route, after in zip(images[left], routes[left], seen[1], strict=True):
        assert find(after, RED) == walk(image, route)[6]
        assert (after != image).any(-1).sum() == 2
        assert tuple(after[find(image, RED)]) == (255, 255, 255)


def test_a_walk_into_a_wall_continues_before_it_and_a_maze_without_progress_is_given_up() -> None:
    corridor = np.full((1, 3, 7, 3), 255, np.uint8)
    corridor[:, ::2] = 0
    corridor[0, 1, 0], corridor[0, 1, 6] = [255, 0, 0], [0, 255, 0]
    solved, steps = reapply(corridor, lambda shown: np.array([[3, 3, 0, 3, 3, 3, 3]]), max_applications=5)
    assert solved.tolist() == [True]
    assert steps.tolist() == [[2, 2, 2, 0, 0]]
    images, _, _ = make(11, 16, 5)
    calls = []

    def wait(shown: np.ndarray) -> np.ndarray:
        calls.append(len(shown))
        return np.full((len(shown), 7), 4)

    solved, steps = reapply(images, wait)
    assert calls == [16]
    assert not solved.any()
    assert not steps.any()


def test_arguments_that_do_not_fit_are_refused() -> None:
    images, routes, start_yx = make(9, 3, 6)
    with pytest.raises(ValueError, match=r"3 mazes need a start \[3, 2\] and moves \[3, L\], got \[3, 2\] and \[2"):
        follow(as_codes(images), start_yx, routes[:2])
    with pytest.raises(ValueError, match="moves go from 0 to 4, got 5 to 9"):
        follow(as_codes(images), start_yx, np.array([[5], [9], [6]]))
    with pytest.raises(ValueError, match="max_applications must be at least 1, got 0"):
        reapply(images, lambda shown: solver(shown, 3), max_applications=0)
