"""Mazes: images, solver and routes agree with a plain search of the image; generators, symmetries, the environment."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from maze_reference import BLACK, GREEN, RED, WHITE, colours, draw, find, route_lengths, shortest, walk

from ctm_rl.envs.tasks.maze_generation import Passages, depth_first, draw_open, percolation, wilson
from ctm_rl.envs.tasks.maze_images import as_codes, locate, paint, turn
from ctm_rl.envs.tasks.maze_solver import distances, solve
from ctm_rl.envs.tasks.mazes import GENERATORS, MazeTask
from ctm_rl.envs.tasks.single_step import SingleStepEnv

ENV_ID = "ctm_rl.envs:ctm_rl/Maze-v0"
LONG = 800
"""Moves that no route of these sizes exceeds."""


def generate(generator: str, seed: int, num_mazes: int, num_cells: int) -> Passages:
    rng = np.random.default_rng(seed)
    if generator == "percolation":
        return percolation(rng, num_mazes, num_cells, 0.6)
    return {"dfs": depth_first, "wilson": wilson}[generator](rng, num_mazes, num_cells)


@pytest.mark.parametrize("is_augmented", [False, True])
@pytest.mark.parametrize("size", [5, 9, 19, 39])
@pytest.mark.parametrize("generator", GENERATORS)
def test_routes_are_the_shortest_by_a_search_of_the_image_alone(generator: str, size: int, is_augmented: bool) -> None:
    task = MazeTask(size, LONG, generator=generator, augment=is_augmented)
    inputs, targets = draw(task, size, 200 // size)
    for image, route in zip(inputs, targets, strict=True):
        pixels = walk(image, route)
        goal = find(image, GREEN)
        assert pixels[-1] == goal
        assert len(pixels) - 1 == shortest(image)[goal] > 0
        assert task.observation_space.contains(image)
        assert task.action_space.contains(route)


@pytest.mark.parametrize("size", [5, 9, 19, 39])
@pytest.mark.parametrize("generator", ["dfs", "wilson"])
def test_mazes_are_perfect(generator: str, size: int) -> None:
    inputs, _ = draw(MazeTask(size, generator=generator), size, 15)
    num_cells = size // 2
    for image in inputs:
        shown = colours(image)
        is_open = {pixel for pixel, colour in shown.items() if colour != BLACK}
        assert all((y, x) in is_open for y in range(1, size, 2) for x in range(1, size, 2))
        assert not any((y, x) in is_open for y in range(0, size, 2) for x in range(0, size, 2))
        assert not any(0 in pixel or size - 1 in pixel for pixel in is_open)
        assert len(is_open) == num_cells**2 + num_cells**2 - 1  # cells, and one passage less
        assert len(shortest(image)) == len(is_open)  # all are connected
        assert sorted(set(shown.values())) == sorted([BLACK, WHITE, RED, GREEN])


def test_percolation_opens_its_share_of_passages_and_at_least_one() -> None:
    passages = percolation(np.random.default_rng(3), 400, 9, 0.6)
    assert passages.right.mean() == pytest.approx(0.6, abs=0.01)
    assert passages.down.mean() == pytest.approx(0.6, abs=0.01)
    rare = percolation(np.random.default_rng(3), 400, 2, 0.1)
    assert (rare.right.any((1, 2)) | rare.down.any((1, 2))).all()
    assert percolation(np.random.default_rng(3), 3, 4, 1.0).right.all()


@pytest.mark.parametrize(("generator", "seed"), [("dfs", 4), ("wilson", 5)])
def test_the_four_trees_of_two_by_two_cells_are_equally_likely(generator: str, seed: int) -> None:
    num_mazes = 8000
    right, down = generate(generator, seed, num_mazes, 2)
    shut = np.concatenate([~right.reshape(num_mazes, 2), ~down.reshape(num_mazes, 2)], axis=1)
    assert (shut.sum(1) == 1).all()
    # chi squared with three degrees of freedom: above 16.3 once in a thousand times
    assert ((shut.sum(0) - num_mazes / 4) ** 2 / (num_mazes / 4)).sum() < 16.3


def test_wilson_draws_all_trees_of_three_by_three_cells_equally_often() -> None:
    num_mazes = 38400
    right, down = wilson(np.random.default_rng(8), num_mazes, 3)
    trees = np.concatenate([right.reshape(num_mazes, 6), down.reshape(num_mazes, 6)], axis=1) @ (1 << np.arange(12))
    _, counts = np.unique(trees, return_counts=True)
    assert len(counts) == 192  # as many as Kirchhoff's theorem counts
    expected = num_mazes / 192
    assert ((counts - expected) ** 2 / expected).sum() < 191 + 4 * np.sqrt(2 * 191)
    # a depth-first search prefers long corridors: the same number fails for it
    right, down = depth_first(np.random.default_rng(8), num_mazes, 3)
    trees = np.concatenate([right.reshape(num_mazes, 6), down.reshape(num_mazes, 6)], axis=1) @ (1 << np.arange(12))
    counts = np.bincount(trees, minlength=4096)
    assert ((counts[counts > 0] - expected) ** 2 / expected).sum() > 1000


def test_depth_first_search_draws_as_a_recursive_one_does() -> None:
    """How often each passage of 3 x 3 cells is open, and how many dead ends there are, against plain Python."""
    rng = np.random.default_rng(21)
    num_mazes, opened, dead_ends = 4000, np.zeros((2, 3, 3)), 0
    for _ in range(num_mazes):
        first = (int(rng.integers(3)), int(rng.integers(3)))
        stack, visited, degree = [first], {first}, np.zeros((3, 3), int)
        while stack:
            y, x = stack[-1]
            ways = [(y + dy, x + dx) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))]
            ways = [way for way in ways if 0 <= min(way) and max(way) < 3 and way not in visited]
            if not ways:
                stack.pop()
                continue
            to = ways[rng.integers(len(ways))]
            opened[int(to[0] != y), min(y, to[0]), min(x, to[1])] += 1
            degree[y, x] += 1
            degree[to] += 1
            visited.add(to)
            stack.append(to)
        dead_ends += (degree == 1).sum()
    right, down = depth_first(np.random.default_rng(22), num_mazes, 3)
    assert np.abs(right.mean(0) - opened[0, :, :2] / num_mazes).max() < 0.05
    assert np.abs(down.mean(0) - opened[1, :2] / num_mazes).max() < 0.05
    degree = np.zeros((num_mazes, 3, 3), int)
    degree[:, :, :-1] += right
    degree[:, :, 1:] += right
    degree[:, :-1] += down
    degree[:, 1:] += down
    assert (degree == 1).sum() / num_mazes == pytest.approx(dead_ends / num_mazes, abs=0.06)


@pytest.mark.parametrize("generator", ["dfs", "wilson"])
def test_start_and_goal_are_any_two_cells(generator: str) -> None:
    inputs, _ = draw(MazeTask(5, generator=generator), 7, 3600)
    codes = as_codes(inputs)
    ends = np.concatenate([locate(codes, 2), locate(codes, 3)], axis=1) // 2
    counts = np.bincount(ends @ [8, 4, 2, 1], minlength=16)
    assert (counts[[0, 5, 10, 15]] == 0).all()
    assert (counts.reshape(4, 4)[~np.eye(4, dtype=bool)] > 230).all()  # 300 on average


@pytest.mark.parametrize("generator", GENERATORS)
def test_distances_and_the_search_agree_on_every_pixel(generator: str) -> None:
    is_open = draw_open(generate(generator, 12, 6, 5))
    start_yx = np.full((6, 2), 5)
    field = distances(is_open, start_yx)
    codes = is_open.astype(np.uint8)
    codes[:, 5, 5] = 2
    for image, found in zip(paint(codes), field, strict=True):
        reached = shortest(image)
        for pixel in np.ndindex(found.shape):
            assert found[pixel] == reached.get((pixel[0], pixel[1]), -1)


def test_the_solver_uses_open_borders_and_detects_that_there_is_no_route() -> None:
    is_open = np.ones((3, 4, 6), bool)
    is_open[1, :, 2] = False  # cut in two
    is_open[2, :3, 2] = False  # open at the bottom alone
    ends = np.zeros((3, 2), int), np.tile([0, 5], (3, 1))
    moves, lengths = solve(is_open, *ends, 12)
    assert lengths.tolist() == [5, -1, 11]
    assert moves.tolist() == [[3] * 5 + [4] * 7, [4] * 12, [1, 1, 1, 3, 3, 3, 0, 0, 0, 3, 3, 4]]
    short = solve(is_open, *ends, 4)
    assert np.array_equal(short.moves, moves[:, :4])
    assert np.array_equal(short.lengths, lengths)
    assert solve(is_open, ends[0], ends[0], 3).lengths.tolist() == [0, 0, 0]


def test_a_long_route_is_cut_and_a_short_one_waits() -> None:
    whole = draw(MazeTask(19, LONG), 9, 40)[1]
    cut = draw(MazeTask(19, 20), 9, 40)[1]
    assert np.array_equal(cut, whole[:, :20])
    assert (route_lengths(whole) > 20).any()
    assert (route_lengths(whole) < 20).any()
    assert np.array_equal(route_lengths(cut), np.minimum(route_lengths(whole), 20))


def test_each_of_the_eight_symmetries_moves_the_route_with_the_image() -> None:
    inputs, targets = draw(MazeTask(9, LONG), 10, 8)
    codes = as_codes(inputs)
    same = np.repeat(codes[:1], 8, axis=0), np.repeat(targets[:1], 8, axis=0)
    turned, moves = turn(*same, np.arange(8))
    assert np.array_equal(turned[0], codes[0])
    assert np.array_equal(turned[1], np.rot90(codes[0]))
    assert np.array_equal(turned[4], np.fliplr(codes[0]))
    assert len({maze.tobytes() for maze in turned}) == 8
    for image, route in zip(paint(turned), moves, strict=True):
        assert walk(image, route)[-1] == find(image, GREEN)
    assert np.array_equal(np.sort(turned, axis=None), np.sort(same[0], axis=None))


def test_augmented_mazes_have_all_eight_symmetries() -> None:
    plain = draw(MazeTask(9), 11, 400)[0]
    augmented = draw(MazeTask(9, augment=True), 11, 400)[0]
    seen = np.zeros(8, int)
    for before, after in zip(plain, augmented, strict=True):
        ways = [np.rot90(view, turns) for view in (before, before[:, ::-1]) for turns in range(4)]
        seen[[np.array_equal(way, after) for way in ways].index(True)] += 1
    assert (seen > 25).all()  # 50 on average


def test_mazes_beyond_the_first_batch_are_solved_too() -> None:
    inputs, targets = draw(MazeTask(5), 2, 1030)
    assert len(inputs) == len(targets) == 1030
    assert walk(inputs[1029], targets[1029])[-1] == find(inputs[1029], GREEN)


@pytest.mark.parametrize("generator", GENERATORS)
def test_no_two_mazes_have_the_same_walls_and_a_seed_makes_them_again(generator: str) -> None:
    task = MazeTask(19, generator=generator, augment=True)
    batches = [draw(task, seed, 100)[0] for seed in (2, 3)]
    assert len({image.any(-1).tobytes() for batch in batches for image in batch}) == 200
    assert np.array_equal(draw(task, 2, 100)[0], batches[0])


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_environment_passes_gymnasiums_check(generator: str) -> None:
    env = gym.make(ENV_ID, size=9, route_length=30, generator=generator, augment=True).unwrapped
    assert isinstance(env, SingleStepEnv)
    check_env(env, skip_render_check=True)


def test_the_reward_is_the_share_of_correct_moves_and_seeds_repeat() -> None:
    envs = gym.make_vec(ENV_ID, num_envs=5, size=9, route_length=30)
    inputs, info = envs.reset(seed=1)
    again, _ = envs.reset(seed=1)
    assert np.array_equal(inputs, again)
    assert envs.observation_space.contains(inputs)
    assert envs.action_space.contains(info["target"])
    answers = info["target"].copy()
    answers[2, :3] = (answers[2, :3] + 1) % 5
    assert envs.step(answers)[1] == pytest.approx([1, 1, 0.9, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8}, "size must be odd and at least 5 pixels, got 8"),
        ({"size": 3}, "size must be odd and at least 5 pixels, got 3"),
        ({"route_length": 0}, "route_length must be at least 1, got 0"),
        ({"generator": "prim"}, "generator must be one of dfs, wilson, percolation, got 'prim'"),
        ({"passage_probability": 0.5}, 'passage_probability needs generator="percolation"'),
        ({"generator": "percolation", "passage_probability": 1.5}, "must be from 0.1 to 1, got 1.5"),
        ({"split": "test"}, "split='test' needs a folder"),
        ({"generator": "dfs", "folder": "somewhere"}, "a folder holds them: leave one of the two out"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MazeTask(**arguments)


def test_images_of_another_shape_or_colour_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[N, H, W, 3\], got \[5, 5, 3\]"):
        as_codes(np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="black, white, red"):
        as_codes(np.full((1, 5, 5, 3), 7, np.uint8))
    with pytest.raises(ValueError, match="exactly one red pixel"):
        locate(np.ones((2, 5, 5), np.uint8), 2)
