"""Questions about digits: the questions, the correct answers and the digits."""

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import image_files as files
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils.env_checker import check_env

from ctm_rl.envs.data.images import ArrayImages
from ctm_rl.envs.data.open_dataset import open_images
from ctm_rl.envs.tasks.qa_mnist import QAMnistEnv, QAMnistTask
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv
from ctm_rl.models.preprocessing import NOTHING

ID = "ctm_rl.envs:ctm_rl/QAMnist-v0"


def digits_by_image(split: str = "train") -> dict[bytes, int]:
    """The digit in each shipped image."""
    images = open_images("mnist", split=split)
    assert isinstance(images, ArrayImages)
    return {p.tobytes(): int(label) for p, label in zip(images.array, images.labels, strict=True)}


def rows(samples: Samples) -> list[dict[str, Any]]:
    """The samples one by one."""
    assert isinstance(samples.inputs, dict)
    return [{name: part[row] for name, part in samples.inputs.items()} for row in range(len(samples.targets))]


def test_the_environment_passes_gymnasiums_check() -> None:
    for arguments in ({}, {"num_digits": [2, 3], "num_operations": (1, 1), "size": 28, "split": "test"}):
        env = gym.make(ID, **arguments).unwrapped
        assert isinstance(env, SingleStepEnv)
        check_env(env, skip_render_check=True)


def test_spaces_are_those_of_the_most_digits_and_operations() -> None:
    task = QAMnistTask((2, 3), (1, 5), 30)
    assert task.observation_space == Dict(
        digits=Box(0, 255, (3, 30, 30, 1), np.uint8),
        num_digits=Discrete(2, start=2),
        question=Box(-3, 2, (11,), np.int64),
    )
    assert task.action_space == Discrete(10)
    assert task.num_samples is None


def test_targets_are_correct_digit_by_digit() -> None:
    digit_of = digits_by_image()
    task, rng = QAMnistTask(size=28), np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        samples = task.sample(rng, 5)
        for observed, target in zip(rows(samples), samples.targets, strict=True):
            assert task.observation_space.contains(observed)
            num_digits = observed["num_digits"]
            digits = [digit_of[image.tobytes()] for image in observed["digits"][:num_digits]]
            assert not observed["digits"][num_digits:].any()
            question = [int(part) for part in observed["question"]]
            used = question[: question.index(-3)] if -3 in question else question
            assert set(question[len(used) :]) <= {-3}
            value = digits[used[0]]
            for operator, index in zip(used[1::2], used[2::2], strict=True):
                assert operator in (-1, -2)
                value = (value + digits[index] if operator == -1 else value - digits[index]) % 10
            assert value == target
            seen.add((int(num_digits), len(used) // 2))
    assert seen == {(digits, operations) for digits in range(1, 5) for operations in range(1, 5)}


def test_a_batch_shares_its_numbers_and_draws_the_rest_evenly() -> None:
    task = QAMnistTask((3, 3), (2, 2), 4)
    samples = task.sample(np.random.default_rng(2), 6000)
    assert isinstance(samples.inputs, dict)
    question = samples.inputs["question"]
    for place in (0, 2, 4):
        assert np.bincount(question[:, place]) / 6000 == pytest.approx([1 / 3] * 3, abs=0.03)
    for place in (1, 3):
        assert (question[:, place] == -1).mean() == pytest.approx(0.5, abs=0.03)
    assert np.bincount(samples.targets) / 6000 == pytest.approx([0.1] * 10, abs=0.04)
    shared = [QAMnistTask(size=4).sample(np.random.default_rng(seed), 7).inputs for seed in range(5)]
    for inputs in shared:
        assert isinstance(inputs, dict)
        assert len(set(inputs["num_digits"])) == 1
        assert len(set((inputs["question"] == -3).sum(1))) == 1


def test_train_and_test_share_no_digit() -> None:
    used = {}
    for split in ("train", "test"):
        samples = QAMnistTask((4, 4), (1, 1), 28, split).sample(np.random.default_rng(3), 500)
        images = {image.tobytes() for row in rows(samples) for image in row["digits"]}
        assert images <= set(digits_by_image(split))
        used[split] = images
    assert not used["train"] & used["test"]


def test_the_same_seed_returns_the_same_and_a_vector_scores_answers() -> None:
    envs = gym.make_vec(ID, num_envs=6, num_digits=(2, 2))
    first, info = envs.reset(seed=3)
    again, _ = envs.reset(seed=3)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert envs.observation_space.contains(first)
    answers = info["target"].copy()
    answers[4:] = (answers[4:] + 1) % 10
    _, rewards, ended, _, infos = envs.step(answers)
    assert rewards.tolist() == [1, 1, 1, 1, 0, 0]
    assert ended.all()
    assert np.array_equal(infos["final_info"]["target"], info["target"])
    assert envs.observation_space.contains(infos["final_obs"])


def test_other_digits_are_taken_from_a_path(tmp_path: Path) -> None:
    images = np.full((3, 28, 28), 9, np.uint8)
    files.write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    files.write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([7, 7, 7]))
    observed, info = QAMnistEnv((1, 1), (1, 1), path=tmp_path).reset(seed=4)
    assert (observed["digits"] == 9).all()
    assert info["target"] == {-1: 4, -2: 0}[int(observed["question"][1])]


def test_without_operations_the_question_is_an_index_and_its_digit_the_answer() -> None:
    digit_of = digits_by_image()
    samples = QAMnistTask((3, 3), (0, 0), size=28).sample(np.random.default_rng(6), 50)
    for observed, target in zip(rows(samples), samples.targets, strict=True):
        (index,) = observed["question"]
        assert digit_of[observed["digits"][index, ..., 0].tobytes()] == target
    task = QAMnistTask((3, 3), (0, 1))
    questions = [task.sample(np.random.default_rng(seed), 5).inputs["question"] for seed in range(20)]
    assert {tuple((question == NOTHING).sum(1)) for question in questions} == {(0,) * 5, (2,) * 5}  # by batch


@pytest.mark.parametrize("value", [(-1, 2), (3, 2), (1,), 2])
def test_wrong_numbers_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="num_digits must be the least and the most, each at least 1, got"):
        QAMnistTask(num_digits=value)
    with pytest.raises(ValueError, match="num_operations must be the least and the most, each at least 0, got"):
        QAMnistTask(num_operations=value)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        QAMnistTask(size=0)


def test_questions_are_made_fast() -> None:
    task, rng = QAMnistTask((4, 4), (4, 4)), np.random.default_rng(5)
    seconds = []
    for _ in range(5):
        start = time.thread_time()
        task.sample(rng, 256)
        seconds.append(time.thread_time() - start)
    assert 256 / min(seconds) > 20_000


def test_digits_are_shifted_by_up_to_the_shift() -> None:
    plain, moved = (QAMnistTask((1, 2), (1, 1), 8, shift=shift) for shift in (0, 2))
    digits = moved.sample(np.random.default_rng(0), 150).inputs["digits"]
    assert digits.shape[1:] == (2, 8, 8, 1)
    bank = np.pad(plain._bank, [(0, 0), (2, 2), (2, 2), (0, 0)])
    places = {
        (down, right)
        for digit in digits[:, 0]
        for down in range(5)
        for right in range(5)
        if (bank[:, down : down + 8, right : right + 8] == digit).all((1, 2, 3)).any()
    }
    assert len(places) == 25
    assert all(
        any(
            (bank[:, down : down + 8, right : right + 8] == digit).all((1, 2, 3)).any()
            for down in range(5)
            for right in range(5)
        )
        for digit in digits[:20, 0]
    )


def test_a_negative_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="shift must be at least 0, got -1"):
        QAMnistTask(shift=-1)
