"""The last observations as one."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space
from gymnasium.utils.env_checker import check_env

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_vector_env
from ctm_rl.envs import wrap
from ctm_rl.errors import UserError


class Ramp(gym.Env):
    """Observes the number of steps taken, from 1, in every channel plus a tenth of its index."""

    action_space = Discrete(2)

    def __init__(self, space: Space, channel_axis: int | None = None) -> None:
        self.observation_space = space
        self._axis = channel_axis

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 1
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.look(), 0.0, False, False, {}

    def look(self) -> np.ndarray:
        shape: Any = self.observation_space.shape
        values = np.full(shape, self.count, np.float32)
        if self._axis is None:
            return values
        index = np.arange(shape[self._axis]) / 10
        return values + index.reshape([-1 if axis == self._axis else 1 for axis in range(len(shape))]).astype(
            np.float32
        )


def seen(env: gym.Env, num_steps: int) -> np.ndarray:
    """The observation after so many steps."""
    observation, _ = env.reset(seed=1)
    for _ in range(num_steps):
        observation, *_ = env.step(0)
    assert observation in env.observation_space
    return observation


def test_vectors_become_one_long_vector_the_newest_last() -> None:
    env = wrap(Ramp(Box(np.array([0, -1]), np.array([90, 99]), dtype=np.float32), 0), ["frame-stack=3"])
    space: Any = env.observation_space
    assert (space.shape, space.dtype) == ((6,), np.float32)
    assert (space.low.tolist(), space.high.tolist()) == ([0, -1] * 3, [90, 99] * 3)
    np.testing.assert_allclose(seen(env, 0), [1, 1.1] * 3)
    np.testing.assert_allclose(seen(env, 1), [1, 1.1, 1, 1.1, 2, 2.1])
    np.testing.assert_allclose(seen(env, 4), [3, 3.1, 4, 4.1, 5, 5.1])


@pytest.mark.parametrize(
    ("shape", "axis", "stacked", "channels"),
    [
        ((9, 10), None, (9, 10, 2), [2, 3]),
        ((9, 10, 3), 2, (9, 10, 6), [2, 2.1, 2.2, 3, 3.1, 3.2]),
        ((3, 9, 10), 0, (6, 9, 10), [2, 2.1, 2.2, 3, 3.1, 3.2]),
    ],
)
def test_the_channels_of_images_stand_side_by_side(
    shape: Any, axis: int | None, stacked: Any, channels: list[float]
) -> None:
    env = wrap(Ramp(Box(0, 255, shape, np.float32), axis), ["frame-stack=2"])
    image = seen(env, 2)
    assert image.shape == env.observation_space.shape == stacked
    np.testing.assert_allclose(image[:, 4, 5] if axis == 0 else image[4, 5], channels)


def test_hidden_velocities_can_be_read_off_and_every_episode_begins_with_its_own_observation() -> None:
    config = EnvConfig(id="CartPole-v1", wrappers=("hide-velocities", "frame-stack=2"), max_episode_steps=5)
    env = make_vector_env(config, 2)
    assert env.single_observation_space.shape == (8,)
    env.reset(seed=1)
    for step in range(1, 12):
        observations, *_ = env.step(np.zeros(2, int))
        assert (observations[:, :4] == observations[:, 4:]).all() == (step % 6 == 0)
    env.close()


# CartPole's velocities are unbounded, and the check warns about wrappers.
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasiums_check_is_passed() -> None:
    check_env(wrap(gym.make("CartPole-v1").unwrapped, ["frame-stack=4"]), skip_render_check=True)


@pytest.mark.parametrize(
    ("space", "name", "message"),
    [
        (Discrete(3), "frame-stack=2", r"stacks vectors and images, a Box of 1 to 3 axes; .* is Discrete\(3\)"),
        (Dict({"a": Box(0, 1, (2,))}), "frame-stack=2", r"observation is Dict\(a: Box"),
        (Box(0, 1, (2, 2, 2, 2)), "frame-stack=2", "a Box of 1 to 3 axes"),
        (Box(0, 1, (7, 7, 3)), "frame-stack=3", "would make 9 channels of an image of 7 x 7, .* stack fewer frames"),
        (Box(0, 1, (2, 3)), "frame-stack=4", "would make 4 channels of an image of 2 x 3"),
        (Box(0, 1, (3,)), "frame-stack", "is given as frame-stack=N"),
        (Box(0, 1, (3,)), "frame-stack=0", "N an integer of at least 1"),
    ],
)
def test_what_cannot_be_stacked_is_refused_in_one_line(space: Space, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        wrap(Ramp(space), [name])
    assert "\n" not in str(refused.value)
