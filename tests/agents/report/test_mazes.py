"""The route that is drawn is the one that is predicted, and mazes can be changed by hand."""

import numpy as np

from ctm_rl.agents.evaluation.answers import EvaluationTask
from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.report import mazes
from ctm_rl.agents.report.samples import Candidate
from ctm_rl.envs.tasks.maze_images import GOAL, START, WALL, as_codes, locate
from ctm_rl.envs.tasks.maze_moves import DELTAS, DOWN, RIGHT, UP, WAIT, follow
from ctm_rl.envs.tasks.mazes import MazeTask


def draw(num: int = 20, length: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Mazes with their routes."""
    made = MazeTask(9, length).sample(np.random.default_rng(0), num)
    return np.asarray(made.inputs), made.targets


def replay(image: np.ndarray, moves: np.ndarray) -> list[list[int]]:
    """The pixels of a route, move by move, until it is stopped."""
    codes = as_codes(image[None])[0]
    place = locate(codes[None], START)[0]
    places = [place.tolist()]
    for move in moves.tolist():
        if codes[tuple(place)] == GOAL:
            break
        following = place + DELTAS[move]
        if codes[tuple(following)] == WALL:
            break
        place = following
        places.append(place.tolist())
    return places


def test_the_right_route_leads_to_the_goal() -> None:
    images, routes = draw()
    for image, route in zip(images, routes, strict=True):
        places = mazes.walk(image, route[None])[0]
        length = int((route != WAIT).sum())
        assert not np.isnan(places[: length + 1]).any()
        assert np.isnan(places[length + 1 :]).all()
        assert places[length].tolist() == locate(as_codes(image[None]), GOAL)[0].tolist()
        assert mazes.reaches_goal(image, route)


def test_the_drawn_route_is_the_one_that_is_predicted() -> None:
    images, routes = draw()
    generator = np.random.default_rng(1)
    for image, route in zip(images, routes, strict=True):
        # right for a while, then at random: into walls, back, or waiting
        moves = np.where(np.arange(40) < generator.integers(1, 12, (6, 1)), route, generator.integers(0, 5, (6, 40)))
        drawn = mazes.walk(image, moves)
        assert drawn.shape == (6, 41, 2)
        ends = follow(np.repeat(as_codes(image[None]), 6, 0), locate(as_codes(image[None]), START).repeat(6, 0), moves)
        for one, expected, end in zip(drawn, moves, ends.end_yx, strict=True):
            kept = one[~np.isnan(one[:, 0])]
            assert not np.isnan(one[: len(kept)]).any()
            assert kept.tolist() == replay(image, expected)[: len(kept)]
            # what is left out are waits at the end alone
            assert all(place == kept[-1].tolist() for place in replay(image, expected)[len(kept) :])
            assert kept[-1].tolist() == end.tolist()


def test_a_route_into_a_wall_ends_before_it() -> None:
    image = draw()[0][0]
    places = mazes.walk(image, np.array([[UP] * 10 + [DOWN] * 10 + [RIGHT] * 20]))[0]
    codes = as_codes(image[None])[0]
    assert all(codes[int(row), int(column)] != WALL for row, column in places if not np.isnan(row))


def test_start_and_goal_set_by_hand_have_a_right_route() -> None:
    images, routes = draw()
    for image, route in zip(images, routes, strict=True):
        moved = mazes.swapped(Candidate(0, 0, image, route, True), 40)
        codes, before = as_codes(moved.observation[None]), as_codes(image[None])
        assert np.array_equal(codes == WALL, before == WALL)
        assert locate(codes, START).tolist() == locate(before, GOAL).tolist()
        assert mazes.reaches_goal(moved.observation, moved.target)


def test_the_whole_route_of_a_larger_maze_reaches_its_goal() -> None:
    task = EvaluationTask(TaskConfig(id="ctm_rl.envs:ctm_rl/Maze-v0", kwargs={"size": 7}), "route", "mazes")
    image = mazes.larger_maze(task, 15, seed=0)
    assert image.shape == (15, 15, 3)
    route = mazes.whole_route(image)
    codes = as_codes(image[None])
    assert route[0].tolist() == locate(codes, START)[0].tolist()
    assert route[-1].tolist() == locate(codes, GOAL)[0].tolist()
    assert (np.abs(np.diff(route, axis=0)).sum(1) == 1).all()
    assert len(route) > 15


def test_only_mazes_are_mazes() -> None:
    image = draw(1)[0][0]
    assert mazes.is_maze(image)
    assert not mazes.is_maze(np.where(image == 255, 254, image))
    assert not mazes.is_maze(np.zeros((9, 9, 3), np.uint8))
    assert not mazes.is_maze(np.zeros(9))


def test_larger_mazes_are_odd_and_larger() -> None:
    assert mazes.larger_sizes(9) == [13, 19]
    assert mazes.larger_sizes(39) == [59, 79]
