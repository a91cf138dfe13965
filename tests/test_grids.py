"""MiniGrid's image alone."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

GRID_IMAGE = "ctm_rl.envs:ctm_rl/GridImage-v0"


# MiniGrid's own view is not a picture in the sense that Gymnasium expects of bytes with three channels
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_image_alone_keeps_gymnasiums_rules_and_its_shape() -> None:
    env = gym.make(GRID_IMAGE, env_id="MiniGrid-Empty-5x5-v0")
    assert env.observation_space.shape == (7, 7, 3)
    check_env(env.unwrapped, skip_render_check=True)
    observation, _ = env.reset(seed=1)
    assert observation.dtype == np.uint8
    assert env.observation_space.contains(observation)


def test_the_limit_truncates_episodes() -> None:
    env = gym.make(GRID_IMAGE, env_id="MiniGrid-Empty-5x5-v0", episode_limit=3)
    env.reset(seed=1)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


def test_an_environment_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="have an image to be left alone; CartPole-v1 has Box"):
        gym.make(GRID_IMAGE, env_id="CartPole-v1")
