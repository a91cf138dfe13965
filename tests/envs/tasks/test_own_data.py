"""A user's own data and tasks as environments."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from image_files import random_images

from ctm_rl.envs.tasks.own_data import DataEnv, DataTask
from ctm_rl.errors import UserError

DATA, NAMED = "ctm_rl.envs:ctm_rl/Data-v0", "ctm_rl.envs:ctm_rl/Task-v0"


def save(folder: Path, x: Any, y: Any) -> str:
    """Writes an npz file; returns its path."""
    np.savez(folder / "a.npz", x=x, y=y)
    return str(folder / "a.npz")


def test_images_pass_gymnasiums_check_and_are_what_the_file_holds(tmp_path: Path) -> None:
    images = random_images(20, 8, 9, 3)
    path = save(tmp_path, images, ["a", "b"] * 10)
    env = gym.make(DATA, path=path).unwrapped
    assert isinstance(env, DataEnv)
    check_env(env, skip_render_check=True)
    assert env.observation_space == Box(0, 255, (8, 9, 3), np.uint8)
    envs = gym.make_vec(DATA, 4, path=path, split="test")
    assert envs.single_action_space == Discrete(2)
    shown, info = envs.reset(options={"indices": [0, 1, 2, 3]})
    number = {image.tobytes(): place for place, image in enumerate(images)}
    assert [number[image.tobytes()] % 2 for image in shown] == info["target"].tolist()


def test_sequences_of_symbols_have_bounds_and_vectors_none(tmp_path: Path) -> None:
    symbols = np.where(np.random.default_rng(0).random((20, 5)) < 0.5, -1, 1)
    task = DataTask(save(tmp_path, symbols, np.arange(20)[:, None] % (2, 3)))
    assert task.observation_space == Box(-1, 1, (5,), np.float32)
    assert task.action_space == MultiDiscrete([3, 3])
    assert DataTask(save(tmp_path, symbols + 1, [0, 1] * 10)).observation_space == Box(-np.inf, np.inf, (5,))


def test_only_images_to_learn_from_are_augmented(tmp_path: Path) -> None:
    path = save(tmp_path, random_images(20, 8, 8, 1), [0, 1] * 10)

    def taken(task: DataTask) -> Any:
        return task.take(np.random.default_rng(0), np.arange(4)).inputs

    plain, changed = (taken(DataTask(path, augment=augment)) for augment in (False, True))
    assert not np.array_equal(plain, changed)
    plain, same = (taken(DataTask(path, "test", augment=augment)) for augment in (False, True))
    assert np.array_equal(plain, same)
    with pytest.raises(ValueError, match="augment shifts and flips images; these are vectors"):
        DataTask(save(tmp_path, np.arange(40.0).reshape(20, 2), [0, 1] * 10), augment=True)


def test_mistakes_name_the_option_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--data a.npz: it has one class only, 3; at least 2 are needed"):
        DataTask(save(tmp_path, np.zeros((20, 2)), [3] * 20))
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        DataTask(save(tmp_path, np.zeros((20, 2)), [0, 1] * 10), "val")


@pytest.mark.parametrize("name", ["Brackets", "Sign"])
def test_a_class_becomes_an_environment_and_a_vector_of_them(name: str) -> None:
    env = gym.make(NAMED, task_name=f"own_tasks:{name}", arguments={})
    shown, info = env.reset(seed=3)
    assert env.step(info["target"])[1:3] == (1.0, True)
    envs = gym.make_vec(NAMED, 5, task_name=f"own_tasks:{name}", arguments={})
    inputs, infos = envs.reset(seed=3)
    assert inputs.shape == (5, *shown.shape)
    assert infos["target"].shape == (5,)


def test_arguments_reach_the_class() -> None:
    envs = gym.make_vec(NAMED, 2, task_name="own_tasks:Brackets", arguments={"length": 6})
    assert envs.single_observation_space.shape == (6,)
    with pytest.raises(UserError, match=r"own_tasks:number must be a SingleStepTask .* it makes a int"):
        gym.make_vec(NAMED, 2, task_name="own_tasks:number", arguments={})
