"""What environments return in other types and shapes than documented: taken with one note, or one line about it."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
import peculiar
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.agents.rllib.spaces import fit
from ctm_rl.config import PolicyConfig, encoders_by_part, quote_part
from ctm_rl.envs.guard.env_guard import MAX_FAULTS, EnvGuard
from ctm_rl.envs.guard.vector_guard import VectorGuard
from ctm_rl.errors import EnvFault, UserError


def play(name: str, caplog: pytest.LogCaptureFixture, **changes: Any) -> tuple[Any, Any]:
    """Plays three environments to the first step of their third episode; returns what was packed, and the rewards."""
    caplog.clear()
    config = EnvConfig(id=f"peculiar:peculiar/{name}-v0", step_time_limit=None, **changes)
    one = make_env(config)
    layout = fit(PolicyConfig(), one.observation_space, one.action_space).layout
    env = make_vector_env(config, 3)
    packed, rewards = layout.pack(env.reset(seed=4)[0], 3), None
    for _ in range(13):
        observations, rewards, *_ = env.step(env.action_space.sample())
        packed = layout.pack(observations, 3)
    env.close()
    return packed, rewards


@pytest.mark.parametrize("name", peculiar.TAKEN)
def test_what_others_take_is_taken_and_noted_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    arguments, noted = peculiar.TAKEN[name]
    packed, rewards = play(name, caplog)
    lines = caplog.text.splitlines()
    assert len(lines) == bool(noted), caplog.text
    assert not noted or f"environment peculiar:peculiar/{name}-v0 return" in lines[0]
    assert not noted or re.search(noted, lines[0]), lines[0]
    np.testing.assert_array_equal(rewards, [0.25 if "reward" in arguments else 0.5] * 3)
    assert np.isfinite(packed).all()
    if name == "outside":
        np.testing.assert_array_equal(packed, [[0, 2.5]] * 3)
    if name == "int64":
        np.testing.assert_array_equal(packed, [[7, 250]] * 3)


@pytest.mark.parametrize("name", peculiar.REFUSED)
def test_what_has_no_form_of_its_space_is_a_fault_with_one_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    where = "at the start of" if "observation" in peculiar.REFUSED[name][0] else "in step 1 of"
    with pytest.raises(EnvFault, match=f"{peculiar.REFUSED[name][1]}.*, {where} episode 1 from seed ") as raised:
        play(name, caplog)
    assert "\n" not in str(raised.value)


def test_bounds_are_faults_if_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EnvFault, match=r"holds 2.5 at \[1\], outside of its bounds \[-2.0, 2.0\], at the start"):
        play("outside", caplog, check_bounds=True)


@pytest.mark.parametrize("name", ["reward-array", "words", "info-types"])
def test_processes_note_to_the_one_that_started_them(name: str, caplog: pytest.LogCaptureFixture) -> None:
    from ctm_rl.agents.rllib.count_faults import pop_notes, show_notes

    config = EnvConfig(id=f"peculiar:peculiar/{name}-v0", vectorization="async", step_time_limit=None)
    env = make_vector_env(config, 2)
    env.reset(seed=1)
    for _ in range(12):
        env.step(env.action_space.sample())
    entries = pop_notes(env)
    assert pop_notes(env) == []
    env.close()
    assert len(entries) == (1 if name == "info-types" else 2)  # information is put together here
    show_notes({"env_runners": {"env_notes": entries}})
    assert len(caplog.records) == 1
    assert f"peculiar/{name}-v0 return" in caplog.text


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_leaving_the_process_is_a_fault(vectorization: Any) -> None:
    env: Any = make_vector_env(EnvConfig(id="peculiar:peculiar/Leaves-v0", vectorization=vectorization), 2)
    env.reset(seed=[3, 4])
    with pytest.raises(EnvFault, match=r"raised SystemExit: no seats left \(peculiar.py, line \d+\), in step 1 of ep"):
        for _ in range(9):
            env.step(np.zeros(2, int))
    env.close()


def test_ray_ending_its_worker_is_no_fault() -> None:
    class Ended(peculiar.PeculiarEnv):
        def step(self, action: Any) -> Any:
            stop = SystemExit(1)
            stop.ray_terminate_msg = b"exit_actor() is called."  # pyright: ignore[reportAttributeAccessIssue]
            raise stop

    env = EnvGuard(Ended, "Ended-v0", is_tolerant=True)
    env.reset(seed=1)
    with pytest.raises(SystemExit):
        env.step(0)


def test_a_call_that_returns_other_than_documented_says_so() -> None:
    class Old(peculiar.PeculiarEnv):
        def step(self, action: Any) -> Any:
            return super().step(action)[:4]

    env = EnvGuard(Old, "Old-v0")
    env.reset(seed=1)
    with pytest.raises(EnvFault, match="returned 4 values from step instead of 5"):
        env.step(0)

    class Older(peculiar.PeculiarEnv):
        def reset(self, **kwargs: Any) -> Any:
            return super().reset(**kwargs)[0]

    with pytest.raises(EnvFault, match="from reset instead of 2"):
        EnvGuard(Older, "Older-v0").reset(seed=1)


def test_an_environment_whose_faults_end_most_of_its_episodes_is_given_up() -> None:
    class Often(peculiar.PeculiarEnv):
        num_episodes = 0

        def reset(self, **kwargs: Any) -> Any:
            Often.num_episodes += 1
            return super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            if self.count == 3 and Often.num_episodes % 5:
                raise ZeroDivisionError
            return super().step(action)

    env = EnvGuard(Often, "Often-v0", is_tolerant=True)
    with pytest.raises(
        EnvFault, match=rf"{MAX_FAULTS} of \d\d episodes ended by faults, more than 50%, the last one: "
    ):
        for _ in range(MAX_FAULTS * 2):
            env.reset(seed=None)
            while not any(env.step(0)[2:4]):
                pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoSpace", "has no observation_space when it is made: it is 'later'; set it to a gymnasium.Space in __init__"),
        ("Nothing", r"action space MultiDiscrete\(\[\]\) has 0 options; 1 to 65,536 are supported"),
        ("Billions", r"action space Discrete\(3000000000\) has 3,000,000,000 options; 1 to 65,536"),
    ],
)
def test_spaces_without_a_policy_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        env = make_env(EnvConfig(id=f"peculiar:peculiar/{name}-v0"))
        fit(PolicyConfig(), env.observation_space, env.action_space)


@pytest.mark.parametrize(
    "space",
    [MultiBinary(2**17), Box(-1, 1, (300, 300)), MultiDiscrete([2**15, 2**15, 3])],
    ids=lambda space: type(space).__name__,
)
def test_more_options_than_outputs_are_refused(space: Any) -> None:
    with pytest.raises(UserError, match="1 to 65,536 are supported"):
        fit(PolicyConfig(), peculiar.SIGNAL, space)


@pytest.mark.parametrize("space", [MultiDiscrete([2**62, 2**62]), Discrete(2**40), MultiBinary(2**25)], ids=str)
def test_larger_observations_than_encoders_read_are_refused(space: Any) -> None:
    with pytest.raises(UserError, match="is not supported: it must be"):
        fit(PolicyConfig(), space, Discrete(2))


def test_two_parts_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"two parts of the observation are called 'a\.b'"):
        fit(PolicyConfig(), Dict({"a.b": Discrete(2), "a": Dict(b=Discrete(2))}), Discrete(2))


@pytest.mark.parametrize("name", ["speed, m/s", 'a "b"', " x", "c=d", "a=b,c=d", "plain"])
def test_a_part_may_have_any_name(name: str) -> None:
    text = f"{quote_part(name)}=conv,other=skip"
    assert encoders_by_part(text) == {name: "conv", "other": "skip"}


class OddVector(gym.vector.VectorEnv):
    """A vector class that returns lists."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self) -> None:
        self.num_envs, self.single_observation_space, self.single_action_space = 3, Box(-1, 1, (2,)), Discrete(2)
        self.observation_space, self.action_space = Box(-1, 1, (3, 2)), MultiDiscrete([2] * 3)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return [[0, 0]] * 3, None

    def step(self, actions: Any) -> Any:
        return [[0, 1.5]] * 3, [[1], [2], [3]], [False, True, False], np.zeros(3), []


def test_an_environments_own_vector_class_may_return_lists(caplog: pytest.LogCaptureFixture) -> None:
    env = VectorGuard(OddVector(), "Odd-v0")
    assert env.reset(seed=1)[1] == {}
    observations, rewards, terminated, truncated, infos = env.step(np.zeros(3, int))
    np.testing.assert_array_equal(observations, [[0, 1.5]] * 3)
    np.testing.assert_array_equal(rewards, [1, 2, 3])
    assert (terminated.tolist(), truncated.tolist(), infos) == ([False, True, False], [False] * 3, {})
    assert len(caplog.records) == 5  # information, bounds, rewards, terminated, truncated


def test_minigrid_with_wrappers_of_its_users_keeps_their_space() -> None:
    from minigrid.wrappers import FullyObsWrapper, RGBImgPartialObsWrapper, SymbolicObsWrapper

    from ctm_rl.envs import wrap

    def image_of(kind: Any, env_id: str) -> tuple[gym.Env, Any]:
        inner = kind(gym.make(env_id, disable_env_checker=True))
        env = EnvGuard(lambda: wrap(inner, ()), env_id, has_bounds=True)
        assert env.observation_space == inner.observation_space
        env.reset(seed=2)
        return env, fit(PolicyConfig(), env.observation_space, env.action_space).layout

    for kind in (RGBImgPartialObsWrapper, SymbolicObsWrapper, FullyObsWrapper):
        env, layout = image_of(kind, "MiniGrid-FourRooms-v0")
        for action in (0, 2, 1, 2):
            layout.pack_one(env.step(action)[0])
    # The whole grid of a level of 7 x 7 has the shape of a view, and directions where that has states.
    env, layout = image_of(FullyObsWrapper, "MiniGrid-LavaGapS7-v0")
    (image,) = (part for part in layout.parts if part.name == "image")
    assert (image.encoder, image.sizes) == ("grid", (11, 6, 4))
    seen = {int(env.step(0)[0]["image"][..., 2].max()) for _ in range(4)}
    assert 3 in seen


def test_cells_outside_of_the_bounds_of_a_grid_are_read_as_the_nearest() -> None:
    space = Box(0, np.array([4, 3, 2]) * np.ones((5, 5, 1), int), (5, 5, 3), np.uint8)
    layout = fit(PolicyConfig(), space, Discrete(2)).layout
    assert layout.parts[0].encoder == "grid"
    packed = layout.pack_one(np.full((5, 5, 3), 9, np.uint8))
    assert packed.reshape(-1, 3)[0].tolist() == [4, 3, 2]
