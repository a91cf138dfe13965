"""Published mazes: a folder of PNG files and their routes are read, and broken files reported."""

import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from maze_reference import GREEN, draw, find, walk
from PIL import Image

from ctm_rl.envs.tasks.maze_folder import read_mazes
from ctm_rl.envs.tasks.mazes import MazeTask
from ctm_rl.envs.tasks.single_step import SingleStepEnv

BLUE = [0, 0, 255]
LONG = 200

Drawn = tuple[np.ndarray, np.ndarray]
"""Images and routes."""


def publish(folder: Path, num_mazes: int, seed: int, size: int = 9, generator: str = "dfs") -> Drawn:
    """Writes mazes as they are published: the route in blue, in a folder of a class."""
    images, routes = draw(MazeTask(size, LONG, generator=generator), seed, num_mazes)
    (folder / "0").mkdir(parents=True)
    for number, (image, route) in enumerate(zip(images, routes, strict=True)):
        drawn = np.array(image)
        for y, x in walk(image, route)[1:-1]:
            drawn[y, x] = BLUE
        Image.fromarray(drawn).save(folder / "0" / f"{number:03d}.png")
    return images, routes


@pytest.mark.parametrize("generator", ["dfs", "percolation"])
def test_the_mazes_of_a_folder_are_read_without_the_blue_route(tmp_path: Path, generator: str) -> None:
    train = publish(tmp_path / "train", 12, 1, generator=generator)
    test = publish(tmp_path / "test", 5, 2, generator=generator)
    for split, (images, routes) in ((None, train), ("train", train), ("test", test)):
        task = MazeTask(9, LONG, folder=str(tmp_path), split=split)
        assert task.num_samples == len(routes)
        taken = task.take(np.random.default_rng(0), np.arange(len(routes)))
        assert isinstance(taken.inputs, np.ndarray)
        assert np.array_equal(taken.inputs, images)
        assert np.array_equal(taken.targets, routes)
    drawn, _ = draw(MazeTask(9, LONG, folder=str(tmp_path)), 0, 400)
    assert len({image.tobytes() for image in drawn}) == 12


def test_without_sub_folders_both_splits_are_the_folder_and_routes_are_cut(tmp_path: Path) -> None:
    _, routes = publish(tmp_path, 6, 3)
    for split in ("train", "test"):
        stored = read_mazes(tmp_path, split, 9, 5)
        assert np.array_equal(stored.moves, routes[:, :5])


def test_the_drawn_route_is_used_where_another_is_as_short(tmp_path: Path) -> None:
    image = np.zeros((5, 5, 3), np.uint8)
    image[1:4, 1:4] = 255
    image[2, 2] = 0
    image[1, 1], image[3, 3] = [255, 0, 0], [0, 255, 0]
    Image.fromarray(image).save(tmp_path / "a.png")  # nothing drawn: solved, down before right
    image[1, 2], image[1, 3], image[2, 3] = BLUE, BLUE, BLUE
    Image.fromarray(image).save(tmp_path / "b.png")
    assert read_mazes(tmp_path, "train", 5, 5).moves.tolist() == [[1, 1, 3, 3, 4], [3, 3, 1, 1, 4]]


def test_augmented_mazes_of_a_folder_are_still_solved_and_differ(tmp_path: Path) -> None:
    publish(tmp_path, 3, 4)
    task = MazeTask(9, LONG, folder=str(tmp_path), augment=True)
    inputs, targets = task.take(np.random.default_rng(5), np.repeat([0, 2], 60))
    assert isinstance(inputs, np.ndarray)
    for image, route in zip(inputs, targets, strict=True):
        assert walk(image, route)[-1] == find(image, GREEN)
    assert len({image.tobytes() for image in inputs}) == 16


def test_the_environment_of_a_folder_passes_gymnasiums_check_and_returns_a_chosen_maze(tmp_path: Path) -> None:
    images, routes = publish(tmp_path, 4, 6)
    env = gym.make("ctm_rl.envs:ctm_rl/Maze-v0", size=9, route_length=LONG, folder=str(tmp_path)).unwrapped
    assert isinstance(env, SingleStepEnv)
    check_env(env, skip_render_check=True)
    shown, info = env.reset(options={"index": 2})
    assert np.array_equal(shown, images[2])
    assert np.array_equal(info["target"], routes[2])


def test_broken_images_are_left_out_and_reported_once(tmp_path: Path) -> None:
    _, routes = publish(tmp_path, 8, 7)
    place = tmp_path / "0"
    whole = (place / "000.png").read_bytes()
    (place / "000.png").write_bytes(whole[: len(whole) // 2])  # cut off
    (place / "001.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((7, 7, 3), np.uint8)).save(place / "002.png")  # another size
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(place / "003.png")  # no start, no goal
    odd = np.asarray(Image.open(place / "004.png")).copy()
    odd[0, 0] = [1, 2, 3]
    Image.fromarray(odd).save(place / "004.png")  # another colour
    shut = np.zeros((9, 9, 3), np.uint8)
    shut[1, 1], shut[7, 7], shut[4, 4] = [255, 0, 0], [0, 255, 0], BLUE
    Image.fromarray(shut).save(place / "005.png")  # no way
    (place / "notes.txt").write_text("no maze")
    with pytest.warns(UserWarning, match=r"6 of the 8 images in .* left out; the first, 000.png") as warned:
        stored = read_mazes(tmp_path, "train", 9, LONG)
    assert len(warned) == 1
    assert np.array_equal(stored.moves, routes[6:])


def test_a_folder_without_a_valid_maze_is_refused_with_the_reason(tmp_path: Path) -> None:
    publish(tmp_path, 2, 8, size=11)
    with pytest.raises(ValueError, match=r"2 of the 2 .* hold no maze of 9 pixels; .* it has 11 x 11 pixels"):
        read_mazes(tmp_path, "train", 9, 10)


def test_a_missing_or_empty_folder_is_refused_with_what_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"looked for images of mazes in .*absent, .*no such folder; get .* README"):
        MazeTask(9, folder=str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"looked for PNG images of mazes in .*, found none; get the published"):
        MazeTask(9, folder=str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"in .*test, there is no such folder"):
        MazeTask(9, folder=str(tmp_path), split="test")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'validation'"):
        MazeTask(9, folder=str(tmp_path), split="validation")


def test_a_valid_folder_is_read_without_a_warning(tmp_path: Path) -> None:
    publish(tmp_path, 2, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_mazes(tmp_path, "test", 9, 10).codes) == 2
