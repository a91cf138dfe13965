"""Figures of mazes: attention and predicted route by tick, success by length, larger mazes, start and goal by hand."""

import time
from typing import Any

import numpy as np
import torch

from ctm_rl.agents.evaluation.answers import EvaluationTask, evaluate_answers
from ctm_rl.agents.evaluation.run_environment import changed_env
from ctm_rl.agents.report.document import Bars, Figure, Picture, Table
from ctm_rl.agents.report.samples import Candidate, Shown, answers_readout
from ctm_rl.envs.tasks.maze_images import GOAL, OPEN, START, WALL, as_codes, locate, paint
from ctm_rl.envs.tasks.maze_moves import WAIT, follow
from ctm_rl.envs.tasks.maze_solver import distances, solve
from ctm_rl.envs.tasks.mazes import MazeTask
from ctm_rl.metrics import wilson_interval
from ctm_rl.models.answering import ContinuousThoughtMachine, FeedForwardModel
from ctm_rl.models.answers import Answer

MAX_APPLICATIONS = 8
"""How often a larger maze is gone on with, in the picture."""
_NUM_LARGER = 100
"""Larger mazes that success is measured on."""
_NUM_DRAWN = 20
"""Larger mazes that the one in the picture is chosen from."""
_FACTORS = (1.5, 2.0)
"""How much larger they are."""
_SECONDS = 6.0
"""Time for each size, as far as it can be estimated; fewer mazes are tried where it takes longer."""
_MIN_LARGER = 5
"""Fewer of them say nothing: the size is left out."""
_SIZE = 19
"""Default of ``MazeEnv``."""
_MOVES = ("up", "down", "left", "right", "wait")


def is_maze(observation: object) -> bool:
    """Whether an observation is the image of a maze."""
    if not isinstance(observation, np.ndarray) or observation.shape[2:] != (3,) or observation.dtype != np.uint8:
        return False
    try:
        codes = as_codes(observation[None])
        for code in (START, GOAL):
            locate(codes, code)
    except ValueError:
        return False
    return True


def walk(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Where moves lead, place by place, as ``maze_moves.follow`` has it: before a wall, or on the goal, a walk ends.

    Args:
        image: of one maze, uint8 [H, W, 3].
        moves: of R routes, [R, L].

    Returns:
        Row and column after each move, the start first, [R, L + 1, 2]; NaN after the last move that has led anywhere.
    """
    codes = as_codes(image[None])
    start = locate(codes, START)
    num_routes, length = moves.shape
    # the first j moves of every route, then waits, which lead nowhere
    is_made = np.arange(length) < np.arange(length + 1)[:, None]
    prefixes = np.where(is_made, moves[:, None], WAIT).reshape(-1, length)
    walks = follow(np.broadcast_to(codes, (len(prefixes), *codes.shape[1:])), start.repeat(len(prefixes), 0), prefixes)
    places = walks.end_yx.reshape(num_routes, length + 1, 2).astype(np.float64)
    num_steps = walks.num_steps.reshape(num_routes, length + 1)
    # the first place at which all steps have been made
    last = (num_steps == num_steps[:, -1:]).argmax(1)
    places[np.arange(length + 1) > last[:, None]] = np.nan
    return places


def maze_sample(shown: Shown) -> list[Figure]:
    """A maze with the attention of every head and the route that is predicted at each tick."""
    image = np.asarray(shown.candidate.observation)
    moves = shown.probabilities.argmax(2)  # [K, L]
    attention = shown.attention
    return [
        Picture(
            title="Maze",
            caption="The maze, from red to green, with the attention of each head at this tick, the route that is "
            "predicted at this tick, up to where it runs into a wall, and the right one.",
            images=image[None],
            attention=attention if attention is not None and attention.ndim == 4 else None,
            route=walk(image, shown.candidate.target[None])[0],
            routes=walk(image, moves),
        ),
        answers_readout(shown, _MOVES, _progress(image, moves, shown.candidate.target)),
    ]


def reaches_goal(image: np.ndarray, moves: np.ndarray) -> bool:
    """Whether a route reaches the goal.

    Args:
        image: of one maze, uint8 [H, W, 3].
        moves: [L].
    """
    codes = as_codes(image[None])
    return bool((follow(codes, locate(codes, START), moves[None]).end_yx == locate(codes, GOAL)).all())


def _progress(image: np.ndarray, moves: np.ndarray, target: np.ndarray) -> dict[str, list[str]]:
    """How far the predicted route goes at each tick, by name."""
    codes = as_codes(image[None])
    walks = follow(np.repeat(codes, len(moves), 0), locate(codes, START).repeat(len(moves), 0), moves)
    reached = (walks.end_yx == locate(codes, GOAL)).all(1)
    length = int((target != WAIT).sum())
    right = [int((np.append(row == target, False)).argmin()) for row in moves]
    return {
        "steps made": [str(steps) for steps in walks.num_steps.tolist()],
        "right from the start": [f"{min(count, length)} of {length}" for count in right],
        "goal": ["reached" if one else "not reached" for one in reached.tolist()],
    }


def maze_figures(result: dict[str, Any]) -> list[Figure]:
    """Success by the length of the route.

    Args:
        result: of the evaluation, with ``routes`` of ``RouteScores``.
    """
    bins = [point for point in result["routes"]["by_length"] if point["num_samples"]]
    intervals = [wilson_interval(point["route"], point["num_samples"]) for point in bins]
    return [
        Bars(
            title="Success by length of the route",
            caption="Share of mazes in which every move of the route is right, by its length: "
            f"{', '.join(str(point['num_samples']) for point in bins)} mazes.",
            labels=[f"{point['low']} to {point['high']}" for point in bins],
            values=[float(point["route"]) for point in bins],
            low=[low for low, _ in intervals],
            high=[high for _, high in intervals],
            x_label="moves",
            y_label="share of mazes",
            y_range=(0.0, 1.0),
        )
    ]


def larger_sizes(size: int) -> list[int]:
    """Sizes of larger mazes, odd."""
    return [int(size * factor) // 2 * 2 + 1 for factor in _FACTORS]


def larger_task(task: EvaluationTask, size: int) -> EvaluationTask:
    """A task with mazes of another size: generated as the run's own, by depth-first search where those are stored."""
    env = task.env
    if "folder" in env.kwargs:
        kept = {name: value for name, value in env.kwargs.items() if name == "route_length"}
        env = type(env)(id=env.id, kwargs=kept, words=env.words)
    return task._replace(env=changed_env(env, {"size": size}))


def reapplication(
    model: ContinuousThoughtMachine | FeedForwardModel, task: EvaluationTask, result: dict[str, Any], seed: int
) -> list[Figure]:
    """Mazes solved by going on from where the last route ended: of the run's own size, and of larger ones.

    Args:
        model: the model.
        task: with the run's own mazes.
        result: of the evaluation on them.
        seed: of larger mazes.
    """
    size = task.env.kwargs.get("size", _SIZE)
    rows = [_solved_row(size, result)]
    seconds = result["seconds"] / result["episodes"]
    for larger in larger_sizes(size):
        # more pixels, and more pieces
        expected = seconds * (larger / size) ** 4
        count = int(min(_NUM_LARGER, _SECONDS / max(expected, 1e-6)))
        if count < _MIN_LARGER:
            break
        started = time.perf_counter()
        found = evaluate_answers(
            model, larger_task(task, larger), episodes=count, seed=seed, device=torch.device("cpu")
        )
        seconds, size = (time.perf_counter() - started) / count, larger
        rows.append(_solved_row(larger, found))
    return [
        Table(
            title="Larger mazes, piece by piece",
            caption="Where one route does not reach the goal, the model goes on from where it ended, up to 20 times: "
            "share of mazes that are solved so, and with one route alone.",
            columns=("size in pixels", "mazes", "solved piece by piece", "whole route right"),
            rows=rows,
        )
    ]


def _solved_row(size: int, result: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table of sizes."""
    count, solved = result["episodes"], result["solved_by_reapplying"]
    shares = []
    for share in (solved, result["routes"]["route"]):
        low, high = wilson_interval(share, count)
        shares.append(f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
    return (f"{size} x {size}", str(count), *shares)


def swapped(candidate: Candidate, route_length: int) -> Candidate:
    """A maze with start and goal set by hand: on the goal of another one, and as far from there as possible.

    Args:
        candidate: a maze; its passages are kept.
        route_length: number of moves of an answer.
    """
    codes = as_codes(np.asarray(candidate.observation)[None])
    start = locate(codes, GOAL)
    is_open = codes != WALL
    field = distances(is_open, start)[0]
    # the farthest pixel whose route fits into an answer
    goal = np.array([np.unravel_index(np.where(field <= route_length, field, -1).argmax(), field.shape)])
    return with_ends(candidate, start, goal, route_length)


def with_ends(candidate: Candidate, start: np.ndarray, goal: np.ndarray, route_length: int) -> Candidate:
    """A maze with another start and goal.

    Args:
        candidate: a maze; its passages are kept.
        start: row and column, [1, 2], open.
        goal: row and column, [1, 2], open, another one.
        route_length: number of moves of an answer.
    """
    is_open = as_codes(np.asarray(candidate.observation)[None]) != WALL
    codes = np.where(is_open, OPEN, WALL).astype(np.uint8)
    codes[0, start[0, 0], start[0, 1]] = START
    codes[0, goal[0, 0], goal[0, 1]] = GOAL
    routes = solve(is_open, start, goal, route_length)
    return candidate._replace(observation=paint(codes)[0], target=routes.moves[0])


def larger_maze(task: EvaluationTask, size: int, seed: int) -> np.ndarray:
    """The image of a maze that is larger than those of training, of several that with the longest route.

    Args:
        task: with the run's own mazes.
        size: of the maze.
        seed: of the mazes.

    Returns:
        uint8 [size, size, 3].
    """
    kwargs = larger_task(task, size).env.kwargs
    kept = {name: kwargs[name] for name in ("generator", "passage_probability") if name in kwargs}
    images, routes = MazeTask(size, size**2, **kept).sample(np.random.default_rng(seed), _NUM_DRAWN)
    return np.asarray(images)[(routes != WAIT).sum(1).argmax()]


def whole_route(image: np.ndarray) -> np.ndarray:
    """The right route through a maze, however long, [L + 1, 2]."""
    codes = as_codes(image[None])
    routes = solve(codes != WALL, locate(codes, START), locate(codes, GOAL), codes[0].size)
    return walk(image, routes.moves[:, : int(routes.lengths[0])])[0]


def pieces(model: ContinuousThoughtMachine | FeedForwardModel, image: np.ndarray) -> list[tuple[np.ndarray, Answer]]:
    """A maze solved piece by piece, with what happens inside: each piece starts where the last one ended.

    Args:
        model: the model.
        image: of the maze.

    Returns:
        The image that each piece begins with, and the recorded answer to it, until the goal is reached, a piece leads
        nowhere, or there are ``MAX_APPLICATIONS`` of them.
    """
    can_record = isinstance(model, ContinuousThoughtMachine)
    found: list[tuple[np.ndarray, Answer]] = []
    codes = as_codes(image[None])
    position, goal = locate(codes, START), locate(codes, GOAL)
    while len(found) < MAX_APPLICATIONS:
        image = paint(codes)[0]
        answer = model.answer(image[None], record=can_record)
        found.append((image, answer))
        walked = follow(codes, position, answer.classes.reshape(1, -1))
        codes[0, position[0, 0], position[0, 1]] = OPEN
        position = walked.end_yx
        if not walked.num_steps[0] or (position == goal).all():
            break
        codes[0, position[0, 0], position[0, 1]] = START
    return found
