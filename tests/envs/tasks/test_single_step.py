"""Single-step environments: observations, scores, and Gymnasium's check."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

from ctm_rl.envs.tasks.parity import ParityEnv, ParityTask, ParityVectorEnv
from ctm_rl.envs.tasks.single_step import Samples, SingleStepEnv, SingleStepTask, SingleStepVectorEnv
from ctm_rl.envs.tasks.sorting import SortingEnv, SortingTask

IDS = ["ctm_rl.envs:ctm_rl/Parity-v0", "ctm_rl.envs:ctm_rl/Sorting-v0"]


# numbers of a normal distribution have no bounds, about which Gymnasium warns
@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity:UserWarning")
@pytest.mark.parametrize("env_id", IDS)
def test_environments_pass_gymnasiums_check(env_id: str) -> None:
    env = gym.make(env_id, length=7).unwrapped
    assert isinstance(env, SingleStepEnv)
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("env_id", IDS)
def test_the_same_seed_returns_the_same_and_another_seed_does_not(env_id: str) -> None:
    env = gym.make(env_id, length=12)
    first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("env_id", IDS)
def test_the_correct_answer_is_rewarded_with_one_and_a_wrong_element_costs_its_share(env_id: str) -> None:
    env = gym.make(env_id, length=5)
    _, info = env.reset(seed=1)
    target = info["target"]
    assert env.action_space.contains(target)
    assert env.step(target)[1:4] == (1.0, True, False)
    env.reset(seed=1)
    wrong = target.copy()
    wrong[2] = (wrong[2] + 1) % 2 if "Parity" in env_id else (wrong[2] + 1) % 5
    assert env.step(wrong)[1] == pytest.approx(0.8)


def test_parity_is_that_of_every_prefix() -> None:
    inputs, targets = ParityTask(9).sample(np.random.default_rng(5), 6)
    for row, target in zip(inputs, targets, strict=True):
        for place in range(9):
            assert target[place] == sum(value == -1 for value in row[: place + 1]) % 2


def test_shorter_sequences_end_in_ones() -> None:
    inputs, targets = ParityTask(9, min_length=4).sample(np.random.default_rng(5), 4000)
    assert isinstance(inputs, np.ndarray)
    is_negative = inputs == -1
    assert (targets == np.cumsum(is_negative, 1) % 2).all()
    shares = is_negative.mean(0)
    # of six lengths from 4 to 9, those of at least place + 1 may hold a -1 there
    expected = [0.5 * min(6, 9 - place) / 6 for place in range(9)]
    assert shares == pytest.approx(expected, abs=0.03)
    with pytest.raises(ValueError, match="min_length must be from 1 to length = 9, got 10"):
        ParityTask(9, min_length=10)


def test_sorting_puts_the_numbers_in_order() -> None:
    inputs, targets = SortingTask(8).sample(np.random.default_rng(6), 6)
    for row, target in zip(inputs, targets, strict=True):
        assert list(row[target]) == sorted(row)


@pytest.mark.parametrize("env_id", IDS)
def test_a_vector_scores_every_answer_and_returns_the_next_inputs(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=6, length=5)
    assert isinstance(envs, SingleStepVectorEnv)
    inputs, info = envs.reset(seed=1)
    assert envs.observation_space.contains(inputs)
    assert envs.action_space.contains(info["target"])
    answers = info["target"].copy()
    answers[2:, 0] = (answers[2:, 0] + 1) % 2
    answers[4:, 0] = 1 - np.minimum(info["target"][4:, 0], 1)
    following, rewards, ended, cut, infos = envs.step(answers)
    assert rewards == pytest.approx([1, 1, *[0.8] * 4])
    assert ended.all()
    assert not cut.any()
    assert np.array_equal(infos["final_obs"], inputs)
    assert np.array_equal(infos["final_info"]["target"], info["target"])
    assert not np.array_equal(following, inputs)
    assert np.array_equal(envs.step(infos["target"])[1], np.ones(6))


def test_a_seed_makes_the_same_vector_again() -> None:
    envs = gym.make_vec(IDS[0], num_envs=4, length=12)
    first, again = envs.reset(seed=3)[0], envs.reset(seed=3)[0]
    assert np.array_equal(first, again)
    assert len({row.tobytes() for row in first}) == 4


class CountingTask(SingleStepTask):
    """Ten samples whose input and target are their index."""

    def __init__(self) -> None:
        super().__init__(gym.spaces.Dict(number=gym.spaces.Discrete(10)), gym.spaces.Discrete(10))

    @property
    def num_samples(self) -> int:
        return 10

    def sample(self, rng: np.random.Generator, num_samples: int) -> Samples:
        return self.take(rng, rng.integers(10, size=num_samples))

    def take(self, rng: np.random.Generator, indices: np.ndarray) -> Samples:
        return Samples({"number": indices}, indices)


def test_samples_can_be_chosen_by_index() -> None:
    shown, info = SingleStepEnv(CountingTask()).reset(options={"index": 7})
    assert shown == {"number": 7}
    assert info["target"] == 7
    envs = SingleStepVectorEnv(3, CountingTask())
    assert envs.reset(options={"indices": [4, 0, 9]})[1]["target"].tolist() == [4, 0, 9]
    with pytest.raises(ValueError, match="there are 10 samples, counted from 0"):
        envs.reset(options={"indices": [4, 0, 10]})
    with pytest.raises(ValueError, match="options must name 3 samples, got 1"):
        envs.reset(options={"indices": [4]})
    with pytest.raises(ValueError, match="they have no index"):
        ParityEnv(3).reset(options={"index": 0})
    with pytest.raises(TypeError, match="takes one SingleStepTask"):
        SingleStepEnv(10)


def test_a_vector_takes_its_arguments_in_the_same_order_and_in_the_old_one() -> None:
    task = CountingTask()
    made = (
        SingleStepVectorEnv(task, 3),
        SingleStepVectorEnv(task, num_envs=3),
        SingleStepVectorEnv(3, task),
        ParityVectorEnv(5, num_envs=3),
        ParityVectorEnv(3, 5),
        ParityVectorEnv(num_envs=3, length=5),
    )
    assert [envs.num_envs for envs in made] == [3] * 6
    assert [envs.single_observation_space.shape for envs in made[3:]] == [(5,)] * 3
    with pytest.raises(TypeError, match="needs num_envs, how many there are"):
        SingleStepVectorEnv(task)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        SingleStepVectorEnv(task, 0)


class PairTask(SingleStepTask):
    """Gives a plain pair, with truth values as targets."""

    def __init__(self) -> None:
        super().__init__(Box(0, 1, (2,), np.float32), Discrete(2))

    def sample(self, rng: np.random.Generator, num_samples: int) -> Any:
        inputs = rng.random((num_samples, 2), np.float32)
        return inputs, inputs[:, 0] > inputs[:, 1]


def test_a_task_may_give_a_plain_pair() -> None:
    envs = SingleStepVectorEnv(PairTask(), 4)
    inputs, info = envs.reset(seed=1)
    assert info["target"].dtype == np.int64
    assert info["target"].tolist() == (inputs[:, 0] > inputs[:, 1]).tolist()
    assert envs.step(info["target"])[1].tolist() == [1.0] * 4
    assert SingleStepEnv(PairTask()).reset(seed=1)[1]["target"] in (0, 1)


def test_what_a_task_lacks_is_named() -> None:
    task = PairTask()
    task.sample = lambda rng, num_samples: [1, 2, 3]
    with pytest.raises(TypeError, match=r"a task must give Samples\(inputs, targets\), got list"):
        SingleStepEnv(task).reset()
    bare = PairTask.__new__(PairTask)
    with pytest.raises(TypeError, match=r"PairTask has no spaces; call super\(\).__init__"):
        SingleStepEnv(bare)


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
