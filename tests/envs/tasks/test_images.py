"""Images as an environment: observations, classes and augmentation."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import image_files as files
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from PIL import Image

from ctm_rl.envs.data.auto_augment import CIFAR_POLICY, Name, apply, auto_augment
from ctm_rl.envs.data.crops import NUM_CROP_DRAWS, centre_crop, crop_and_flip, random_crop_box, random_resized_crop
from ctm_rl.envs.data.images import EncodedImages
from ctm_rl.envs.tasks.images import ImagesEnv, ImagesTask
from ctm_rl.envs.tasks.qa_mnist import QAMnistTask
from ctm_rl.envs.tasks.single_step import SingleStepEnv

ID = "ctm_rl.envs:ctm_rl/Images-v0"


@pytest.fixture
def cifar(tmp_path: Path) -> dict[str, Any]:
    """Arguments for a tiny CIFAR-10."""
    files.write_cifar(tmp_path / "test_batch.bin", files.random_images(6), [3, 1, 4, 1, 5, 9])
    for batch in range(1, 6):
        files.write_cifar(tmp_path / f"data_batch_{batch}.bin", files.random_images(2, seed=batch), [batch, 0])
    return {"dataset": "cifar10", "path": str(tmp_path)}


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    """Arguments for a tiny ImageNet of JPEGs, one of them grey and one very large."""
    smooth = [np.asarray(Image.fromarray(p).resize((60, 50))) for p in files.random_images(5, 5, 6)]
    for split in ("train", "val"):
        files.write_folder(tmp_path, split, np.stack(smooth), [0, 1, 2, 1, 0], "JPEG")
        Image.fromarray(smooth[0]).convert("L").save(tmp_path / split / "class_2/900.JPEG")
        Image.fromarray(smooth[1]).resize((700, 400)).save(tmp_path / split / "class_2/901.JPEG")
    return {"dataset": "imagenet", "path": str(tmp_path), "size": 24}


def test_environments_pass_gymnasiums_check(cifar: dict[str, Any]) -> None:
    for arguments in ({}, cifar, {**cifar, "split": "test", "size": 20}):
        env = gym.make(ID, **arguments).unwrapped
        assert isinstance(env, SingleStepEnv)
        check_env(env, skip_render_check=True)


def test_a_folder_passes_gymnasiums_check(folder: dict[str, Any]) -> None:
    for split in ("train", "test"):
        env = gym.make(ID, **folder, split=split).unwrapped
        assert isinstance(env, SingleStepEnv)
        check_env(env, skip_render_check=True)
        assert env.observation_space == Box(0, 255, (24, 24, 3), np.uint8)
        assert env.action_space == Discrete(3)


def test_spaces_are_those_of_the_data_set(cifar: dict[str, Any], folder: dict[str, Any]) -> None:
    assert ImagesTask().observation_space == Box(0, 255, (28, 28, 1), np.uint8)
    assert ImagesTask(size=16).observation_space == Box(0, 255, (16, 16, 1), np.uint8)
    assert ImagesTask(**cifar).observation_space == Box(0, 255, (32, 32, 3), np.uint8)
    assert ImagesTask(**{**folder, "size": None}).observation_space == Box(0, 255, (224, 224, 3), np.uint8)
    assert ImagesTask().action_space == ImagesTask(**cifar).action_space == Discrete(10)


def test_an_image_is_chosen_by_its_index(cifar: dict[str, Any]) -> None:
    env = ImagesEnv(**cifar, split="test")
    assert env.task.num_samples == 6
    shown, info = env.reset(options={"index": 2})
    assert np.array_equal(shown, files.random_images(6)[2])
    assert info["target"] == 4
    assert env.step(np.int64(4))[1] == 1.0
    env.reset(options={"index": 2})
    assert env.step(np.int64(5))[1] == 0.0


def test_a_vector_returns_images_with_their_classes(cifar: dict[str, Any]) -> None:
    envs = gym.make_vec(ID, num_envs=40, **cifar, split="test")
    shown, info = envs.reset(seed=1)
    assert envs.observation_space.contains(shown)
    truth = {p.tobytes(): label for p, label in zip(files.random_images(6), [3, 1, 4, 1, 5, 9], strict=True)}
    assert [truth[image.tobytes()] for image in shown] == info["target"].tolist()
    assert len({image.tobytes() for image in shown}) == 6
    assert envs.step(info["target"])[1].tolist() == [1.0] * 40


@pytest.mark.parametrize("data", ["cifar", "folder"])
@pytest.mark.parametrize("augment", [True, False])
def test_a_seed_returns_the_same_again(data: str, augment: bool, request: pytest.FixtureRequest) -> None:
    task = ImagesTask(**request.getfixturevalue(data), augment=augment)
    first, again, other = (task.sample(np.random.default_rng(seed), 12) for seed in (3, 3, 4))
    assert np.array_equal(np.asarray(first.inputs), np.asarray(again.inputs))
    assert np.array_equal(first.targets, again.targets)
    assert not np.array_equal(np.asarray(first.inputs), np.asarray(other.inputs))


@pytest.mark.parametrize("data", ["cifar", "folder"])
def test_only_training_images_are_augmented_by_default(data: str, request: pytest.FixtureRequest) -> None:
    arguments = request.getfixturevalue(data)
    same = np.zeros(8, np.int64)
    for split, augment, is_changing in [("train", None, True), ("test", None, False), ("train", False, False)]:
        task = ImagesTask(**arguments, split=split, augment=augment)
        shown = task.take(np.random.default_rng(1), same).inputs
        assert isinstance(shown, np.ndarray)
        assert (len({image.tobytes() for image in shown}) > 1) == is_changing


def test_a_broken_image_changes_nothing_for_the_others(folder: dict[str, Any]) -> None:
    indices = np.arange(7)
    whole = ImagesTask(**folder).take(np.random.default_rng(1), indices)
    path = sorted(Path(folder["path"]).glob("train/class_0/*"))[1]
    path.write_bytes(path.read_bytes()[:200])
    task = ImagesTask(**folder)
    assert isinstance(task.images, EncodedImages)
    for _ in range(2):
        if task.images.num_broken == 0:
            with pytest.warns(UserWarning, match="image 1 of"):
                shown = task.take(np.random.default_rng(1), indices)
        else:
            shown = task.take(np.random.default_rng(1), indices)
        is_equal = [np.array_equal(a, b) for a, b in zip(shown.inputs, whole.inputs, strict=True)]
        assert is_equal == [True, False, *[True] * 5]
        assert shown.targets.tolist() == [0, 1, 1, 1, 2, 2, 2]
        assert task.images.num_broken == 1


def test_sizes_that_fill_the_memory_are_refused() -> None:
    with pytest.raises(ValueError, match="size must be at most 4096, got 5000"):
        ImagesTask(size=5000)
    with pytest.raises(ValueError, match=r"has 4,000 images; at most 262 are kept in memory"):
        ImagesTask(size=2023)
    with pytest.raises(ValueError, match=r"has 4,000 images; at most 1,036 are kept in memory"):
        QAMnistTask(size=18, shift=500)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="mnist is never augmented; augment must be False or left out"):
        ImagesTask(augment=True)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        ImagesTask(size=0)


def test_a_shifted_image_is_a_part_of_itself_with_a_black_border() -> None:
    images = files.random_images(50, 9, 11)
    shown = crop_and_flip(images, np.random.default_rng(2), padding=2)
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = []
    for image, result in zip(framed, shown, strict=True):
        places += [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (1, -1)
            if np.array_equal(result, image[top : top + 9, left : left + 11][:, ::flip])
        ]
    assert len(places) == 50
    assert {top for top, _, _ in places} == {left for _, left, _ in places} == set(range(5))
    assert 15 <= sum(flip == 1 for _, _, flip in places) <= 35


def test_random_crops_have_the_areas_and_ratios_they_should() -> None:
    draws = np.random.default_rng(3).random((3000, NUM_CROP_DRAWS))
    boxes = np.array([random_crop_box(500, 400, drawn) for drawn in draws])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas, ratios = widths * heights / 200_000, widths / heights
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [500, 400]).all()
    assert areas.min() == pytest.approx(0.08, abs=0.005)
    assert areas.max() > 0.9
    assert ratios.min() == pytest.approx(3 / 4, abs=0.02)
    assert ratios.max() == pytest.approx(4 / 3, abs=0.02)
    # Where small crops always fit, areas are uniform, and the logarithms of ratios too; crops reach every corner.
    small = areas < 0.4
    assert areas[small].mean() == pytest.approx(0.24, abs=0.01)
    assert np.log(ratios[small]).mean() == pytest.approx(0, abs=0.01)
    assert (boxes[:, 0] / np.maximum(500 - widths, 1)).mean() == pytest.approx(0.5, abs=0.03)


def test_an_image_too_narrow_for_any_crop_is_cropped_to_its_centre() -> None:
    draws = np.full(NUM_CROP_DRAWS, 0.999)
    assert random_crop_box(1000, 30, draws) == (480, 0, 520, 30)
    assert random_crop_box(30, 1000, draws) == (0, 480, 30, 520)


@pytest.mark.parametrize("size", [(500, 400), (333, 517), (1600, 1200), (50, 62)])
def test_views_equal_cropping_and_resizing_step_by_step(size: tuple[int, int], tmp_path: Path) -> None:
    noise = Image.fromarray(files.random_images(1, 9, 9)[0]).resize(size, Image.Resampling.BICUBIC)
    noise.save(tmp_path / "a.png")
    noise.save(tmp_path / "a.jpg", quality=95)
    short = round(32 * 256 / 224)
    scale = short / min(size)
    resized = noise.resize((int(size[0] * scale + 1e-9), int(size[1] * scale + 1e-9)), Image.Resampling.BILINEAR)
    left, top = (round((length - 32) / 2) for length in resized.size)
    expected = np.asarray(resized.crop((left, top, left + 32, top + 32))).astype(int)
    with Image.open(tmp_path / "a.png") as image:
        assert np.abs(centre_crop(image, 32) - expected).max() <= 1
    whole = Image.open(tmp_path / "a.jpg").convert("RGB")
    for draws in np.random.default_rng(4).random((12, NUM_CROP_DRAWS)):
        box = random_crop_box(*size, draws)
        turn = -1 if draws[-1] < 0.5 else 1
        with Image.open(tmp_path / "a.png") as image:
            by_hand = noise.resize((32, 32), Image.Resampling.BILINEAR, box)
            assert np.array_equal(random_resized_crop(image, 32, draws), np.asarray(by_hand)[:, ::turn])
        with Image.open(tmp_path / "a.jpg") as image:
            by_hand = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR, box), int)[:, ::turn]
            apart = np.abs(random_resized_crop(image, 32, draws) - by_hand)
            if min(box[2] - box[0], box[3] - box[1]) < 64:
                assert apart.max() == 0
            # decoded at a fraction of its size it looks nearly the same, and nothing is shifted
            assert apart.mean() < 1.5


COLUMNS = np.broadcast_to(np.arange(0, 250, 25, dtype=np.uint8)[None, :, None], (10, 10, 3))
"""An image that gets lighter from left to right."""


@pytest.mark.parametrize(
    ("name", "strength", "row"),
    [
        ("invert", 0, [255, 230, 205, 180, 155, 130, 105, 80, 55, 30]),
        ("solarize", 5, [0, 25, 50, 75, 100, 130, 105, 80, 55, 30]),  # from 113.3 on
        ("posterize", 9, [0, 16, 48, 64, 96, 112, 144, 160, 192, 224]),  # four bits
        ("posterize", 0, [0, 25, 50, 75, 100, 125, 150, 175, 200, 225]),
        ("brightness", 5, [0, 37, 75, 112, 150, 187, 225, 255, 255, 255]),  # times 1.5
        ("brightness", -5, [0, 12, 25, 37, 50, 62, 75, 87, 100, 112]),
        ("contrast", -9, [101, 103, 106, 108, 111, 113, 116, 118, 121, 123]),  # a tenth of the way from the mean
        ("colour", 9, [0, 25, 50, 75, 100, 125, 150, 175, 200, 225]),  # grey stays grey
        ("auto_contrast", 0, [0, 28, 56, 85, 113, 141, 170, 198, 226, 255]),
        ("translate_x", 9, [100, 125, 150, 175, 200, 225, 0, 0, 0, 0]),  # four of ten
        ("translate_x", -9, [0, 0, 0, 0, 0, 25, 50, 75, 100, 125]),
        ("translate_y", 9, [0, 25, 50, 75, 100, 125, 150, 175, 200, 225]),
    ],
)
def test_each_change_does_what_its_name_says(name: Name, strength: int, row: list[int]) -> None:
    changed = np.asarray(apply(Image.fromarray(COLUMNS), name, strength))
    assert changed.shape == COLUMNS.shape
    assert np.abs(changed[0, :, 0].astype(int) - row).max() <= 1


def test_images_are_sheared_and_rotated_about_as_far_as_they_should() -> None:
    line = np.zeros((31, 31, 3), np.uint8)
    line[:, 15] = 255
    sheared = np.asarray(apply(Image.fromarray(line), "shear_x", 9))[:, :, 0]
    assert sheared[0].argmax() - sheared[30].argmax() == pytest.approx(9, abs=1)  # 0.3 of 30
    upright = np.asarray(apply(Image.fromarray(line.transpose(1, 0, 2)), "shear_y", 9))[:, :, 0]
    assert upright[:, 0].argmax() - upright[:, 30].argmax() == pytest.approx(9, abs=1)
    turned = np.asarray(apply(Image.fromarray(line), "rotate", 9))[:, :, 0]
    assert abs(int(turned[5].argmax()) - int(turned[25].argmax())) == pytest.approx(20 * np.tan(np.pi / 6), abs=1)


def test_the_policy_is_applied_with_its_probabilities() -> None:
    assert len(CIFAR_POLICY) == 25
    assert all(0 <= chance <= 1 and 0 <= strength <= 9 for pair in CIFAR_POLICY for _, chance, strength in pair)
    images = np.repeat(files.random_images(1), 1500, 0)
    changed = auto_augment(images, np.random.default_rng(5))
    assert np.array_equal(images, np.repeat(files.random_images(1), 1500, 0))
    # Invert then contrast, or equalize then invert, each chosen once in 25 times.
    inverted = (changed == 255 - images).all((1, 2, 3)).mean()
    assert inverted == pytest.approx((0.1 * 0.8 + 0.2 * 0.1) / 25, abs=0.004)
    is_same = (changed == images).all((1, 2, 3)).mean()
    kept = np.mean([(1 - a) * (1 - b) for (_, a, _), (_, b, _) in CIFAR_POLICY])
    assert kept - 0.03 < is_same < kept + 0.15  # noise that uses all values looks the same after some changes
