"""Classic control without velocities."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import ctm_rl.envs
from ctm_rl.envs import HideVelocity
from ctm_rl.envs.wrappers.hide_velocity import HideVelocityVector

WRAPPED = "ctm_rl.envs:ctm_rl/Wrapped-v0"
HIDDEN = ["hide-velocities"]


def _play(env: gym.Env, num_steps: int, seed: int) -> np.ndarray:
    """Observations of ``num_steps`` random steps, [num_steps + 1, ...]."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    observations = [observation]
    for _ in range(num_steps):
        observation, _, is_terminated, is_truncated, _ = env.step(env.action_space.sample())
        if is_terminated or is_truncated:
            observation, _ = env.reset()
        observations.append(observation)
    return np.stack(observations)


@pytest.mark.parametrize(("env_id", "velocities"), [("CartPole-v1", [1, 3]), ("Acrobot-v1", [4, 5])])
def test_velocities_are_zero_and_everything_else_is_unchanged(env_id: str, velocities: list[int]) -> None:
    plain = _play(gym.make(env_id), 60, seed=3)
    hidden = _play(HideVelocity(gym.make(env_id)), 60, seed=3)
    seen = [index for index in range(plain.shape[1]) if index not in velocities]
    assert (plain[1:, velocities] != 0).any()
    assert (hidden[:, velocities] == 0).all()
    np.testing.assert_array_equal(hidden[:, seen], plain[:, seen])


def test_the_environments_own_array_is_not_written_to() -> None:
    env = HideVelocity(gym.make("CartPole-v1"))
    given = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)
    hidden = env.observation(given)
    np.testing.assert_array_equal(given, np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))
    np.testing.assert_array_equal(hidden, np.array([0.1, 0.0, 0.3, 0.0], dtype=np.float32))
    assert hidden.dtype == np.float32


# Its warning about bounds is for the author of the space: CartPole's velocities are unbounded.
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is -?infinity")
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_the_registered_environment_passes_gymnasiums_check(env_id: str) -> None:
    env = gym.make(WRAPPED, env_id=env_id, wrapper_names=HIDDEN)
    check_env(env.unwrapped, skip_render_check=True)
    for observation in _play(env, 40, seed=5):
        assert observation in env.observation_space


def test_the_same_seed_gives_the_same_observations() -> None:
    first = _play(gym.make(WRAPPED, env_id="CartPole-v1", wrapper_names=HIDDEN), 50, seed=11)
    second = _play(gym.make(WRAPPED, env_id="CartPole-v1", wrapper_names=HIDDEN), 50, seed=11)
    np.testing.assert_array_equal(first, second)


def test_episodes_end_at_the_registered_or_the_requested_limit() -> None:
    for names, expected in ((HIDDEN, 200), (["time-limit=7", *HIDDEN], 7), ([*HIDDEN, "time-limit=300"], 300)):
        env = gym.make(WRAPPED, env_id="MountainCar-v0", wrapper_names=names)
        env.reset(seed=1)
        num_steps, is_truncated = 0, False
        while not is_truncated:
            *_, is_truncated, _ = env.step(1)
            num_steps += 1
        assert num_steps == expected


def test_indices_can_be_given_for_any_vector() -> None:
    observations = _play(HideVelocity(gym.make("CartPole-v1"), indices=[0]), 10, seed=2)
    assert (observations[:, 0] == 0).all()
    assert (observations[:, 1] != 0).any()


def test_unknown_environments_and_indices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one-dimensional Box only.*Discrete\(16\)"):
        HideVelocity(gym.make("FrozenLake-v1"))
    unknown = gym.make("CartPole-v1").unwrapped
    unknown.spec = EnvSpec("Mine-v3")
    with pytest.raises(ValueError, match=r"velocities in the observations of Mine-v3.*CartPole-v1.*pass them"):
        HideVelocity(unknown)
    with pytest.raises(ValueError, match=r"at least 0 and below 4.*got 4"):
        HideVelocity(gym.make("CartPole-v1"), indices=[4])


def test_importing_the_package_registers_its_environments() -> None:
    assert ctm_rl.envs.__name__ == "ctm_rl.envs"
    assert "ctm_rl/Wrapped-v0" in gym.registry


def play_vector(env: gym.vector.VectorEnv, num_steps: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Observations, rewards, terminated and truncated of ``num_steps`` random steps."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample())[:4] for _ in range(num_steps)]


def test_a_vector_of_cartpoles_is_gymnasiums_own_without_velocities() -> None:
    own = gym.make_vec("CartPole-v1", num_envs=5)
    mode = gym.VectorizeMode.VECTOR_ENTRY_POINT
    hidden = gym.make_vec(WRAPPED, 5, mode, env_id="CartPole-v1", wrapper_names=HIDDEN)
    assert type(hidden.unwrapped) is type(own.unwrapped)
    for plain, masked in zip(play_vector(own, 60, 3), play_vector(hidden, 60, 3), strict=True):
        assert (masked[0][:, [1, 3]] == 0).all()
        np.testing.assert_array_equal(masked[0][:, [0, 2]], plain[0][:, [0, 2]])
        for one, two in zip(masked[1:], plain[1:], strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("env_id", "expected"), [("CartPole-v1", 6), ("MountainCar-v0", 6)])
def test_a_vectors_episodes_end_at_the_limit_and_are_truncated(env_id: str, expected: int) -> None:
    env = gym.make_vec(WRAPPED, 3, "vector_entry_point", env_id=env_id, wrapper_names=["time-limit=6", *HIDDEN])
    for step, (_, _, is_terminated, is_truncated) in enumerate(play_vector(env, 14, 1), start=1):
        assert not is_terminated.any()
        # Every episode takes one more step, the one that resets.
        assert is_truncated.all() == (step % (expected + 1) == expected)
        assert is_truncated.any() == is_truncated.all()


def test_a_vector_without_a_class_of_its_own_equals_single_environments() -> None:
    vector = gym.make_vec(WRAPPED, 2, "vector_entry_point", env_id="Acrobot-v1", wrapper_names=HIDDEN)
    single = gym.make_vec(WRAPPED, 2, "sync", env_id="Acrobot-v1", wrapper_names=HIDDEN)
    assert isinstance(vector.unwrapped, gym.vector.SyncVectorEnv)
    for one, two in zip(play_vector(vector, 30, 4), play_vector(single, 30, 4), strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_vector_with_velocities_in_its_final_observations_is_refused() -> None:
    kwargs = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    env = gym.make_vec("MountainCar-v0", num_envs=2, vectorization_mode="sync", vector_kwargs=kwargs)
    with pytest.raises(ValueError, match="this one has SameStep"):
        HideVelocityVector(env)
