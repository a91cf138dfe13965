"""Environments with a method ``action_masks``: shown with their masks, whatever the observation and the method are."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from ctm_rl.envs.make import make_wrapped, make_wrapped_vector
from ctm_rl.envs.wrappers.action_masks import ShowActionMasks, sample_legal, show_action_masks
from ctm_rl.errors import UserError

SEVERAL = MultiDiscrete(np.array([2, 3]), start=np.array([1, -1]))


class Plain(gym.Env):
    """Observes a number that counts the steps."""

    def __init__(self, action_space: Space, observation_space: Space | None = None) -> None:
        self.action_space = action_space
        self.observation_space = observation_space or Box(0, 10, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.look(), 0.0, self.count == 3, False, {}

    def look(self) -> Any:
        number = np.array([self.count], np.float32)
        return {"n": number} if isinstance(self.observation_space, Dict) else number


class Masking(gym.Wrapper):
    """A wrapper with the method, as sb3-contrib's ``ActionMasker``: one option more with each step."""

    def action_masks(self) -> Any:
        return [True, False, False, True, self.unwrapped.count > 0]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("space", [Discrete(5), SEVERAL], ids=["discrete", "multi-discrete"])
def test_the_mask_of_the_state_stands_beside_the_observation(space: Space) -> None:
    env = show_action_masks(gym.wrappers.TimeLimit(Masking(Plain(space)), 9))
    assert env.observation_space == Dict({"observation": Box(0, 10, (1,)), "action_mask": MultiBinary(5)})
    observation, _ = env.reset(seed=1)
    assert observation["action_mask"].tolist() == [1, 0, 0, 1, 0]
    observation, *_ = env.step(sample_legal(space, observation))
    assert (float(observation["observation"][0]), observation["action_mask"].tolist()) == (1, [1, 0, 0, 1, 1])


def test_a_dictionary_gets_one_entry_more_and_one_that_has_it_stays() -> None:
    space = Dict({"n": Box(0, 10, (1,))})
    env = show_action_masks(Masking(Plain(Discrete(5), space)))
    assert env.observation_space == Dict({**space, "action_mask": MultiBinary(5)})
    assert set(env.reset(seed=1)[0]) == {"n", "action_mask"}
    assert show_action_masks(env) is env
    assert isinstance(env, ShowActionMasks)
    plain = Plain(Discrete(5))
    assert show_action_masks(plain) is plain


def test_an_attribute_counts_as_what_a_method_returns() -> None:
    env = Plain(Discrete(2))
    env.action_masks = (1, 0)  # pyright: ignore[reportAttributeAccessIssue]
    assert show_action_masks(env).reset(seed=1)[0]["action_mask"].tolist() == [1, 0]


def test_actions_that_are_not_chosen_are_refused_when_the_environment_is_made() -> None:
    gym.register("MaskedBox-v0", lambda **_: Masking(Plain(Box(-1, 1, (2,)))))
    with pytest.raises(UserError, match=r"has action_masks, and its action space Box\(.*\) is none to choose from"):
        make_wrapped("MaskedBox-v0")
    gym.registry.pop("MaskedBox-v0")


class Many(gym.vector.VectorEnv):
    """A vector class with the spaces of the environment without masks."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = Box(0, 10, (1,)), Discrete(5)


def test_a_vector_class_that_would_not_show_the_masks_is_not_used() -> None:
    gym.register(
        "MaskedMany-v0", lambda **_: Masking(Plain(Discrete(5))), vector_entry_point=lambda **kwargs: Many(**kwargs)
    )
    env = make_wrapped_vector(3, "MaskedMany-v0")
    observations, _ = env.reset(seed=1)
    assert observations["action_mask"].tolist() == [[1, 0, 0, 1, 0]] * 3
    env.close()
    gym.registry.pop("MaskedMany-v0")


@pytest.mark.parametrize(
    ("space", "mask", "legal"),
    [
        (Discrete(4, start=3), [0, 1, 0, 1], {4, 6}),
        (SEVERAL, [0, 1, 1, 0, 1], {(2, -1), (2, 1)}),
        (MultiBinary(2), [1, 0, 1, 1], {(0, 0), (0, 1)}),
    ],
    ids=["discrete", "multi-discrete", "multi-binary"],
)
def test_a_legal_action_is_drawn(space: Space, mask: list[int], legal: set[Any]) -> None:
    space.seed(1)
    drawn = [sample_legal(space, {"observation": 0, "action_mask": np.array(mask)}) for _ in range(30)]
    assert all(space.contains(action) for action in drawn)
    assert {tuple(np.atleast_1d(action)) if np.ndim(action) else int(action) for action in drawn} == legal
    assert space.contains(sample_legal(space, 3))
