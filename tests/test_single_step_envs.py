"""Single-step environments: what they show, what they call right, and that they keep Gymnasium's rules."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ctm_rl.envs.bandit import SingleStepEnv
from ctm_rl.envs.parity import ParityEnv
from ctm_rl.envs.sorting import SortingEnv

IDS = ["ctm_rl.envs:ctm_rl/Parity-v0", "ctm_rl.envs:ctm_rl/Sorting-v0"]


# numbers of a normal distribution have no bounds, and Gymnasium wonders about them
@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity:UserWarning")
@pytest.mark.parametrize("env_id", IDS)
def test_environment_keeps_gymnasiums_rules(env_id: str) -> None:
    env = gym.make(env_id, length=7).unwrapped
    assert isinstance(env, SingleStepEnv)
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("env_id", IDS)
def test_same_seed_shows_the_same_and_another_shows_another(env_id: str) -> None:
    env = gym.make(env_id, length=12)
    first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("env_id", IDS)
def test_the_right_answer_earns_one_and_a_wrong_element_its_share(env_id: str) -> None:
    env = gym.make(env_id, length=5)
    _, info = env.reset(seed=1)
    target = info["target"]
    assert env.action_space.contains(target)
    assert env.step(target)[1:4] == (1.0, True, False)
    env.reset(seed=1)
    wrong = target.copy()
    wrong[2] = (wrong[2] + 1) % 2 if "Parity" in env_id else (wrong[2] + 1) % 5
    assert env.step(wrong)[1] == pytest.approx(0.8)


def test_parity_is_the_parity_of_every_beginning() -> None:
    inputs, targets = ParityEnv(9).sample(np.random.default_rng(5), 6)
    for row, target in zip(inputs, targets, strict=True):
        for place in range(9):
            assert target[place] == sum(value == -1 for value in row[: place + 1]) % 2


def test_sorting_puts_the_numbers_in_order() -> None:
    inputs, targets = SortingEnv(8).sample(np.random.default_rng(6), 6)
    for row, target in zip(inputs, targets, strict=True):
        assert list(row[target]) == sorted(row)


def test_an_input_is_answered_once() -> None:
    env = ParityEnv(3)
    _, info = env.reset(seed=2)
    env.step(info["target"])
    with pytest.raises(gym.error.ResetNeeded, match="answered once"):
        env.step(info["target"])


@pytest.mark.parametrize("kind", [ParityEnv, SortingEnv])
def test_a_length_below_one_is_refused(kind: type[ParityEnv | SortingEnv]) -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        kind(0)
