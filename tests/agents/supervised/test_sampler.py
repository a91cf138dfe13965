"""The sampler: samples depend on the seed and their indices alone, and held-out samples are never learned from."""

import itertools
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ctm_rl.agents.experiments.answering import TaskConfig
from ctm_rl.agents.supervised.sampler import (
    _HELD_OUT,
    _TRAINING,
    EnvironmentFailed,
    LabelledSamples,
    Sampler,
    _seed,
    check_samples,
    make_samples_env,
)
from ctm_rl.errors import UserError

PARITY = TaskConfig(id="ctm_rl.envs:ctm_rl/Parity-v0", kwargs={"length": 7})
QUESTIONS = TaskConfig(
    id="ctm_rl.envs:ctm_rl/QAMnist-v0", kwargs={"size": 16, "num_digits": [2, 3], "num_operations": [1, 2]}
)
DIGITS = TaskConfig(
    id="ctm_rl.envs:ctm_rl/Images-v0", kwargs={"dataset": "mnist"}, held_out_kwargs={"split": "test"}
)  # fmt: skip
BOTH = pytest.mark.parametrize("env", [PARITY, QUESTIONS], ids=["parity", "questions"])
ROWS, STEPS = 5, 3


class Remainder(gym.Env[np.ndarray, int]):
    """A user's own: which remainder a number leaves; a single environment, its arrays in float64."""

    observation_space = gym.spaces.Box(0.0, 1.0, (4,), np.float64)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, answer: str = "right") -> None:
        self._answer = answer

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        observation = self.np_random.random(4)
        if self._answer == "raise":
            raise LookupError("the file of numbers has gone")
        right = int(observation.sum() * 10) % 3
        answers = {"right": {"target": right}, "none": {}, "outside": {"target": 3}, "float": {"target": right / 3}}
        return observation, answers[self._answer]

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(4), 0.0, True, False, {}


@pytest.fixture(autouse=True)
def remainder() -> Iterator[None]:
    """Registers the user's environment."""
    gym.register("Remainder-v0", Remainder)  # pyright: ignore[reportArgumentType]
    yield
    del gym.registry["Remainder-v0"]


def sampler(env: TaskConfig, seed: int = 1, held_out_seed: int = 0) -> Sampler:
    return Sampler(env, num_rows=ROWS, num_steps=STEPS, seed=seed, held_out_seed=held_out_seed)


def arrays_of(columns: LabelledSamples) -> list[np.ndarray]:
    """All arrays of some samples."""
    observation = columns.observations
    return [*(observation.values() if isinstance(observation, dict) else [observation]), columns.targets]


def are_same(one: LabelledSamples, two: LabelledSamples) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays_of(one), arrays_of(two), strict=True))


@BOTH
def test_samples_depend_on_their_indices_and_not_on_the_order_of_making_them(env: TaskConfig) -> None:
    one, two = sampler(env), sampler(env)
    numbers = list(itertools.product(range(3), range(2)))
    first = {number: one.fragment(*number) for number in numbers}
    for number in reversed(numbers):
        two.held_out(0, 9)
        again = two.fragment(*number)
        assert all(len(array) == ROWS * STEPS for array in arrays_of(again))
        assert are_same(again, first[number])
    assert not any(are_same(first[a], first[b]) for a, b in itertools.combinations(numbers, 2))
    assert not are_same(sampler(env, seed=2).fragment(0, 0), first[0, 0])


@BOTH
def test_held_out_samples_depend_on_their_own_seed_alone(env: TaskConfig) -> None:
    first = sampler(env).held_out(1, 12)
    assert are_same(sampler(env, seed=9).held_out(1, 12), first)
    assert not are_same(sampler(env, held_out_seed=9).held_out(1, 12), first)
    assert not are_same(sampler(env, seed=0, held_out_seed=0).fragment(1, 0), first)
    assert [len(sampler(env).held_out(chunk, 12).targets) for chunk in range(3)] == [5, 5, 2]


def test_seeds_of_training_and_held_out_samples_do_not_overlap() -> None:
    words = list(itertools.product(range(6), range(40), range(4)))
    training = [_seed(_TRAINING, *word) for word in words]
    held_out = [_seed(_HELD_OUT, *word) for word in words]
    assert len({*training, *held_out}) == 2 * len(words)
    # Gymnasium gives environment i of a vector the seed plus i.
    assert 0 <= min(training)
    assert max(training) + 2**31 < 2**62 <= min(held_out)
    assert max(held_out) < 2**63
    np.random.default_rng(max(held_out))


def test_a_finite_set_is_tested_exactly_once_each() -> None:
    made = Sampler(DIGITS, num_rows=48, num_steps=1, seed=1, held_out_seed=0)
    count = made.count_held_out(10**6)
    assert count == 1000
    assert made.count_held_out(90) == 90
    chunks = [made.held_out(chunk, count) for chunk in range(-(-count // 48))]
    assert [len(chunk.targets) for chunk in chunks] == [48] * 20 + [40]
    task: Any = gym.make_vec(DIGITS.id, 1, split="test").unwrapped
    everything = task.task.take(np.random.default_rng(0), np.arange(count))
    assert np.array_equal(np.concatenate([chunk.observations for chunk in chunks]), everything.inputs)
    assert np.array_equal(np.concatenate([chunk.targets for chunk in chunks]), everything.targets)
    part = [made.held_out(chunk, 90).targets for chunk in range(2)]
    assert np.array_equal(np.concatenate(part), everything.targets[:90])


def test_a_users_own_single_environment_makes_samples() -> None:
    made = sampler(TaskConfig(id="Remainder-v0"))
    assert isinstance(made.env.unwrapped, gym.vector.SyncVectorEnv)
    columns = made.fragment(2, 1)
    assert columns.observations.shape == (ROWS * STEPS, 4)
    assert columns.targets.dtype.kind == "i"
    assert np.array_equal(columns.targets, (columns.observations.sum(1) * 10).astype(int) % 3)
    assert len(np.unique(columns.observations)) == ROWS * STEPS * 4
    assert are_same(sampler(TaskConfig(id="Remainder-v0")).fragment(2, 1), columns)
    assert made.count_held_out(11) == 11
    made.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("none", r'^Remainder-v0 cannot be learned from labels: its reset returns no info\["target"\].$'),
        ("outside", r'^info\["target"\] of Remainder-v0 must be an answer in Discrete\(3\), got 3.$'),
        ("float", r'^info\["target"\] of Remainder-v0 must be an answer in Discrete\(3\), got [0-9.]+.$'),
        ("raise", r"^Remainder-v0 failed when it was reset: LookupError: the file of numbers has gone$"),
    ],
)
def test_an_environment_without_right_answers_is_refused_in_one_line(answer: str, message: str) -> None:
    env = make_samples_env(TaskConfig(id="Remainder-v0", kwargs={"answer": answer}), 2)
    with pytest.raises(UserError, match=message) as caught:
        check_samples(env)
    assert isinstance(caught.value, EnvironmentFailed) == (answer == "raise")


def test_an_unknown_environment_or_argument_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^env.id 'Nowhere-v0' cannot be made: .*$"):
        make_samples_env(TaskConfig(id="Nowhere-v0"), 2)
    with pytest.raises(UserError, match=r"^env.id 'ctm_rl.envs:ctm_rl/Parity-v0' cannot be made: .*width.*$"):
        make_samples_env(TaskConfig(id=PARITY.id, kwargs={"width": 3}), 2)
