"""Staggered starts: environments that begin together and do not stay in step."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.envs.wrappers.staggered_start import StaggeredStart

ENV = EnvConfig(id="MountainCar-v0", max_episode_steps=40, stagger_episodes=True)


def lengths(env: gym.Env, num_episodes: int) -> list[int]:
    """Lengths of episodes that repeat one action; MountainCar then ends by its limit alone."""
    found = []
    for episode in range(num_episodes):
        env.reset(seed=5 if episode == 0 else None)
        is_over, steps = False, 0
        while not is_over:
            *_, is_terminated, is_truncated, _ = env.step(1)
            assert not is_terminated
            is_over, steps = is_truncated, steps + 1
        found.append(steps)
    return found


def test_only_the_first_episode_is_truncated_and_the_seed_decides_where() -> None:
    first, *rest = lengths(StaggeredStart(gym.make("MountainCar-v0", max_episode_steps=40)), 4)
    assert 1 <= first < 40
    assert rest == [40, 40, 40]
    assert lengths(StaggeredStart(gym.make("MountainCar-v0", max_episode_steps=40)), 1) == [first]


def test_environments_are_spread_over_their_episodes_in_training_and_not_in_evaluation() -> None:
    vector = make_vector_env(ENV, 30)
    vector.reset(seed=1)
    ended = np.zeros(30, int)
    for step in range(1, 41):
        *_, is_truncated, _ = vector.step(np.ones(30, int))
        ended[(ended == 0) & is_truncated] = step
    vector.close()
    assert len(set(ended)) > 15
    assert 10 < ended.mean() < 30
    assert lengths(make_env(ENV), 2) == [40, 40]


def test_it_passes_gymnasiums_check() -> None:
    env = gym.make("ctm_rl.envs:ctm_rl/Wrapped-v0", env_id="MountainCar-v0", wrapper_names=["stagger"])
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec is not None


def test_an_environment_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs episodes with a time limit, and those of .*CartPole.* have none"):
        StaggeredStart(gym.make("CartPole-v1").unwrapped)
