"""Wrappers by name."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils.env_checker import check_env
from own_modules import own_modules

from ctm_rl import notes
from ctm_rl.agents.experiments.acting import EnvConfig
from ctm_rl.agents.rllib.environment import make_env, make_vector_env
from ctm_rl.envs import wrap
from ctm_rl.envs.wrappers import by_name
from ctm_rl.errors import UserError

WRAPPED = "ctm_rl.envs:ctm_rl/Wrapped-v0"
EMPTY, FOUR_ROOMS = "MiniGrid-Empty-5x5-v0", "MiniGrid-FourRooms-v0"


class Counting(gym.Env):
    """Observes how many steps have been taken, and rewards as many."""

    observation_space = Box(0, 1000, (2,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._observe(), float(self.count), self.count == 10, False, {}

    def _observe(self) -> np.ndarray:
        return np.full(2, self.count, np.float32)


def length(env: gym.Env) -> int:
    """Steps of one episode of the same action."""
    env.reset(seed=1)
    for step in range(1, 1000):
        *_, is_terminated, is_truncated, _ = env.step(0)
        if is_terminated or is_truncated:
            return step
    raise AssertionError("the episode does not end")


def test_frames_are_skipped_up_to_the_end_and_their_rewards_summed() -> None:
    env = wrap(Counting(), ["frame-skip=4"])
    env.reset(seed=1)
    steps = [env.step(0) for _ in range(3)]
    assert [(observation[0], reward, ended) for observation, reward, ended, *_ in steps] == [
        (4, 1 + 2 + 3 + 4, False),
        (8, 5 + 6 + 7 + 8, False),
        (10, 9 + 10, True),
    ]


def test_wrappers_are_applied_in_the_order_given_the_first_innermost() -> None:
    assert length(wrap(Counting(), ["frame-skip=2", "time-limit=3"])) == 3
    assert length(wrap(Counting(), ["time-limit=3", "frame-skip=2"])) == 2
    assert length(wrap(Counting(), "time-limit=3 frame-skip=2".split())) == 2


def test_a_limit_replaces_the_registered_one() -> None:
    assert length(wrap(gym.make("MountainCar-v0"), ["time-limit=230"])) == 230
    assert length(make_env(EnvConfig(id="MountainCar-v0", max_episode_steps=230, wrappers=("hide-velocities",)))) == 230


def test_the_truncation_of_the_first_episode_counts_skipped_frames() -> None:
    first = [length(wrap(gym.make("MountainCar-v0"), ["frame-skip=50", "stagger"])) for _ in range(3)]
    assert max(first) <= 4


def test_rewards_are_clipped_for_learning_and_their_raw_sum_is_known() -> None:
    env = wrap(Counting(), ["clip-rewards"])
    env.reset(seed=1)
    steps = [env.step(0) for _ in range(10)]
    assert [reward for _, reward, *_ in steps] == [1.0] * 10
    assert [info.get("raw_return") for *_, info in steps] == [None] * 9 + [sum(range(11))]


def test_an_own_vector_class_with_another_space_or_other_arguments_is_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Vector(gym.vector.VectorEnv):
        metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

        def __init__(self, num_envs: int, high: float = 9) -> None:
            self.num_envs, self.single_action_space = num_envs, Discrete(2)
            self.single_observation_space = Box(0, high, (2,), np.float32)
            self.observation_space = Box(0, high, (num_envs, 2), np.float32)
            self.action_space = gym.spaces.MultiDiscrete([2] * num_envs)

    gym.register("Twofold-v0", lambda **_: Counting(), vector_entry_point=lambda **kwargs: Vector(**kwargs))
    try:
        for kwargs, reason in (
            ({}, r"another space than gymnasium.make (Box of shape (2,), float32 from 0 to 9 instead of Box"),
            ({"low": 1}, "does not take the arguments of gymnasium.make"),
        ):
            notes.forget()
            caplog.clear()
            for _ in range(2):
                env = make_vector_env(EnvConfig(id="Twofold-v0", kwargs=kwargs), 2)
                assert type(env.unwrapped).__name__ == "GuardedSyncVectorEnv"
            assert len(caplog.records) == 1
            assert reason in caplog.text
        assert type(make_vector_env(EnvConfig(id="Twofold-v0", kwargs={"high": 1000}), 2).unwrapped) is Vector
    finally:
        gym.registry.pop("Twofold-v0")


def test_any_elements_can_be_hidden_by_index() -> None:
    env = wrap(Counting(), ["hide-velocities=1"])
    env.reset(seed=1)
    np.testing.assert_array_equal(env.step(0)[0], [1, 0])


@pytest.mark.parametrize(
    ("names", "shape", "highest"),
    [
        ([], (7, 7, 3), [10, 5, 2]),
        (["grid-image"], (7, 7, 3), [10, 5, 2]),
        (["grid-full"], (19, 19, 3), [10, 5, 3]),
        (["grid-full", "grid-image"], (19, 19, 3), [10, 5, 3]),
        (["grid-onehot"], (7, 7, 20), [1] * 20),
        (["grid-onehot", "grid-image"], (7, 7, 20), [1] * 20),
    ],
)
def test_grids_have_tight_spaces_that_contain_the_observations(
    names: list[str], shape: Any, highest: list[int]
) -> None:
    env = gym.make(WRAPPED, env_id=FOUR_ROOMS, wrapper_names=names)
    space = env.observation_space
    image = space["image"] if isinstance(space, Dict) else space
    assert isinstance(image, Box)
    assert (image.shape, image.dtype) == (shape, np.uint8)
    assert (image.high == np.array(highest)).all()
    assert isinstance(space, Dict) == ("grid-image" not in names)
    # The guard raises for an observation outside them.
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(50):
        env.step(env.action_space.sample())


def test_in_the_whole_grid_the_agents_state_is_its_direction() -> None:
    env = gym.make(WRAPPED, env_id=EMPTY, wrapper_names=["grid-full", "grid-image"])
    image, _ = env.reset(seed=1)
    seen = set()
    for _ in range(4):
        seen.add(int(image[image[..., 0] == 10][0, 2]))
        image, *_ = env.step(0)
    assert seen == {0, 1, 2, 3}


# Gymnasium expects bytes with three channels to be a colour image, which MiniGrid's view is not
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_image_alone_passes_gymnasiums_check() -> None:
    check_env(gym.make(WRAPPED, env_id=EMPTY, wrapper_names=["grid-image"]).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("names", [["time-limit=8"], ["grid-full", "grid-image", "time-limit=8"]])
def test_minigrids_rewards_depend_on_the_requested_limit(names: list[str]) -> None:
    env = gym.make(WRAPPED, env_id=EMPTY, wrapper_names=names)
    assert length(env) == 8
    env.reset(seed=1)
    # The goal is two to the right and two down.
    rewards = [env.step(action)[1] for action in (2, 2, 1, 2, 2)]
    assert rewards[-1] == pytest.approx(1 - 0.9 * 5 / 8)


def test_a_level_of_babyai_keeps_the_limit_when_it_is_reset() -> None:
    env = gym.make(WRAPPED, env_id="minigrid:BabyAI-GoToLocal-v0", wrapper_names=["time-limit=5"])
    assert [length(env), length(env)] == [5, 5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("velocities", r"no wrapper 'velocities'; the wrappers are hide-velocities\[=INDEX,INDEX,...\], frame-skip=N"),
        ("frame-skip", "is given as frame-skip=N .* got 'frame-skip'"),
        ("frame-skip=0", "N an integer of at least 1"),
        ("time-limit=2,3", "is given as time-limit=N"),
        ("hide-velocities=a", "is given as hide-velocities"),
        ("stagger=2", "is given as stagger "),
        ("hide-velocities", "velocities in the observations of .*Counting.* are not known .* pass them"),
        ("hide-velocities=2", "at least 0 and below 2"),
        ("grid-image", "wrapper grid-image is for MiniGrid's observations"),
        ("stagger", "needs episodes with a time limit"),
    ],
)
def test_a_wrapper_that_is_unknown_or_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        wrap(Counting(), [name])


def test_encodings_that_minigrid_lacks_are_refused() -> None:
    for names in (["grid-full", "grid-onehot"], ["grid-onehot", "grid-onehot"]):
        with pytest.raises(UserError, match="grid-onehot encodes the agent's view"):
            gym.make(WRAPPED, env_id=EMPTY, wrapper_names=names)
    with pytest.raises(UserError, match="wrapper grid-full is for"):
        gym.make(WRAPPED, env_id=EMPTY, wrapper_names=["grid-image", "grid-full"])


def test_a_refusal_names_the_environment() -> None:
    with pytest.raises(UserError, match=r"env.id 'CartPole-v1' cannot be made: there is no wrapper 'x'"):
        make_env(EnvConfig(id="CartPole-v1", wrappers=("x",)))
    with pytest.raises(UserError, match=r"env.id 'CartPole-v1' cannot be made: --env.kwargs has 'lenth'"):
        make_env(EnvConfig(id="CartPole-v1", kwargs={"lenth": 3}))


def test_an_environments_own_vector_class_is_used_where_it_supports_the_wrappers() -> None:
    def kind_of(*wrappers: str, **changes: Any) -> str:
        env = make_vector_env(EnvConfig(id="CartPole-v1", wrappers=wrappers, **changes), 2)
        env.close()
        return type(env.unwrapped).__name__

    assert kind_of() == kind_of("time-limit=7", "hide-velocities") == "CartPoleVectorEnv"
    assert kind_of("frame-skip=2") == kind_of("hide-velocities", "time-limit=7") == "GuardedSyncVectorEnv"
    assert kind_of(vectorization="sync") == kind_of(tolerate_faults=True) == "GuardedSyncVectorEnv"


@pytest.mark.parametrize(
    ("env_id", "names"),
    [
        ("minigrid:MiniGrid-Empty-5x5-v0", ("grid-full", "grid-image", "time-limit=9", "stagger")),
        (EMPTY, ("frame-skip=2",)),
        ("Acrobot-v1", ("hide-velocities", "frame-skip=3", "time-limit=5")),
    ],
)
def test_environments_in_separate_processes_return_the_same(env_id: str, names: tuple[str, ...]) -> None:
    played = []
    for vectorization in ("sync", "async"):
        env: Any = make_vector_env(EnvConfig(id=env_id, wrappers=names, vectorization=vectorization), 2)
        env.action_space.seed(3)
        steps = [env.reset(seed=[5, 6])[0]]
        for _ in range(12):
            steps += env.step(env.action_space.sample())[:4]
        env.close()
        played.append(steps)
    for one, two in zip(*played, strict=True):
        np.testing.assert_equal(one, two)


# --- wrappers of the user's ---


@pytest.fixture
def own(place: Path) -> Iterator[None]:
    """Modules of the user's in the current folder."""
    with own_modules(place):
        yield


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "reward"),
    [
        ("own_wrappers:Scale=0.5", 0.5),
        ('own_wrappers:Scale={"factor": 2, "shift": 1}', 3.0),
        ("mine=4", 4.0),
    ],
)
def test_a_wrapper_of_the_users_takes_its_value(name: str, reward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"mine": EntryPoint("mine", "own_wrappers:Scale", by_name.OWN_WRAPPERS)}
    monkeypatch.setattr(by_name, "declared_code", lambda group: points)
    env = wrap(Counting(), ["time-limit=3", name])
    env.reset(seed=1)
    assert env.step(0)[1] == reward


@pytest.mark.usefixtures("own")
def test_they_stand_in_their_order_beside_others_in_single_environments_and_many() -> None:
    config = EnvConfig(id="CartPole-v1", wrappers=("frame-skip=2", "own_wrappers:Scale=10", "hide-velocities"))
    env, many = make_env(config), make_vector_env(config, 2)
    env.reset(seed=1)
    many.reset(seed=1)
    assert env.step(0)[1] == 20.0
    assert many.step(np.zeros(2, int))[1].tolist() == [20.0, 20.0]
    many.close()


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1,3", [1, 3]), ("true", True), ("red", "red"), ('{"a": 1}', {"a": 1}), ("", [])],
)
def test_values_of_wrappers(text: str, value: Any) -> None:
    assert by_name.parse([f"a:B={text}"]) == [("a:B", value)]
    assert by_name.parse(["a:B"]) == [("a:B", None)]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_wrappers:Scale", "wrapper own_wrappers:Scale needs factor: own_wrappers:Scale=VALUE, or"),
        ('own_wrappers:Scale={"factor": 1, "size": 2}', "takes no 'size'; it takes factor, shift"),
        ("own_wrappers:Scael=1", "--env.wrappers own_wrappers:Scael: own_wrappers has no Scael; it has Scale, "),
        ("own_wrappers:none", "must return a gymnasium.Env, and returned a NoneType"),
        ("own_wraps:Scale", "there is no module own_wraps in this folder"),
        ("scale", "there is no wrapper 'scale'; the wrappers are .* and module:Class of your own"),
    ],
)
def test_what_is_no_wrapper_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env(EnvConfig(id="CartPole-v1", wrappers=(name,)))
