"""sb3-contrib as a contender: returns are raw, as many steps are taken as asked for, and the normaliser is frozen."""

import gymnasium as gym
import numpy as np
import pytest

from ctm_rl.agents.bench.learning import contender_sb3
from ctm_rl.agents.bench.learning.sb3_settings import SB3Settings
from ctm_rl.agents.bench.learning.worker import play_randomly
from ctm_rl.agents.experiments.acting import EnvConfig

pytest.importorskip("sb3_contrib")
SMALL = SB3Settings(
    n_envs=2, n_steps=32, batch_size=32, n_epochs=1, policy_kwargs={"lstm_hidden_size": 4, "activation_fn": "ReLU"}
)
CARTPOLE = EnvConfig(id="CartPole-v1", wrappers=("hide-velocities",), max_episode_steps=12)


def test_the_recorded_mean_is_of_raw_rewards_and_of_the_last_100_episodes() -> None:
    envs = contender_sb3.make_envs(CARTPOLE, 2, gamma=0.99)
    seen: list[float] = []
    step = envs.venv.step_wait

    def watched() -> tuple:
        _, rewards, _, infos = result = step()
        seen.extend(rewards)  # below the normalisation
        lengths.extend(info["episode"]["l"] for info in infos if "episode" in info)
        return result

    lengths: list[int] = []
    envs.venv.step_wait = watched
    model = contender_sb3.make_model(envs, SMALL, seed=1)
    rows = contender_sb3.learn(model, 1000)
    assert [steps for steps, _ in rows] == [64 * number for number in range(1, 17)]  # the first that reaches 1,000
    assert set(seen) == {1.0}
    normalised = envs.normalize_reward(np.array([1.0, 1.0]))
    assert not np.allclose(normalised, 1.0)
    assert rows[-1][1] == pytest.approx(np.mean(lengths[-100:]), abs=1e-6)
    assert len(lengths) < 100 or np.mean(lengths[-100:]) != np.mean(lengths)
    assert rows[0][1] is not None and 5 <= rows[0][1] <= 12


def test_an_evaluation_uses_the_normaliser_of_training_and_leaves_it() -> None:
    envs = contender_sb3.make_envs(CARTPOLE, 2, gamma=0.99)
    model = contender_sb3.make_model(envs, SMALL, seed=1)
    contender_sb3.learn(model, 64)
    before = envs.obs_rms.mean.copy(), envs.obs_rms.count, envs.ret_rms.count
    returns = contender_sb3.evaluate(model, CARTPOLE, 5, deterministic=True)
    assert len(returns) == 5 and all(5 <= value <= 12 for value in returns)
    np.testing.assert_array_equal(envs.obs_rms.mean, before[0])
    assert (envs.obs_rms.count, envs.ret_rms.count) == before[1:]


def test_settings_reach_the_library() -> None:
    settings = SB3Settings(
        **{name: getattr(SMALL, name) for name in ("n_envs", "n_steps", "batch_size", "policy_kwargs")},
        is_annealed=True,
        learning_rate=1e-3,
        clip_range=0.1,
        use_sde=True,
        sde_sample_freq=4,
    )
    pendulum = EnvConfig(id="Pendulum-v1", wrappers=("hide-velocities",))
    model = contender_sb3.make_model(contender_sb3.make_envs(pendulum, 2, gamma=0.9), settings, seed=3)
    assert [model.lr_schedule(share) for share in (1.0, 0.5, 0.0)] == [1e-3, 5e-4, 0.0]
    assert [model.clip_range(share) for share in (1.0, 0.5, 0.0)] == [0.1, 0.05, 0.0]
    assert (model.use_sde, model.sde_sample_freq, model.n_epochs, model.seed) == (True, 4, 10, 3)
    assert model.get_vec_normalize_env().gamma == 0.9
    assert model.policy.lstm_actor.hidden_size == 4


def test_images_and_choices_become_vectors() -> None:
    grid = contender_sb3.flat_env(EnvConfig(id="MiniGrid-DoorKey-5x5-v0", wrappers=("grid-image",)))
    assert grid.observation_space.shape == (147,)
    gym.register("learning/Choice-v0", lambda **_: _Choice())
    try:
        choice = contender_sb3.flat_env(EnvConfig(id="learning/Choice-v0"))
        assert choice.reset(seed=0)[0].tolist() == [0, 0, 1, 0]
    finally:
        del gym.registry["learning/Choice-v0"]


class _Choice(gym.Env):
    """Shows one of four values."""

    observation_space = gym.spaces.Discrete(4)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        return 2, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        return 2, 0.0, True, False, {}


def test_a_random_policy_plays_the_same_episodes_for_the_same_seed() -> None:
    returns = play_randomly(CARTPOLE, 6, seed=0)
    assert returns == play_randomly(CARTPOLE, 6, seed=0)
    assert len(returns) == 6 and all(5 <= value <= 12 for value in returns)
    assert returns[:3] != play_randomly(CARTPOLE, 3, seed=1)
