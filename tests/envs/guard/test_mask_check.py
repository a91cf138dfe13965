"""Action masks are checked where an episode goes on, in single environments and in vector classes."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ctm_rl.envs.guard.describe_fault import BadObservation
from ctm_rl.envs.guard.mask_check import make_mask_check
from ctm_rl.envs.guard.vector_guard import VectorGuard
from ctm_rl.errors import EnvFault

SHOWN = Dict({"observation": Box(-1, 1, (2,)), "action_mask": Box(0, 1, (5,))})


def test_there_is_a_check_only_where_there_is_a_mask_of_the_actions() -> None:
    assert make_mask_check(Box(-1, 1, (2,)), Discrete(5)) is None
    assert make_mask_check(SHOWN, Box(-1, 1, (5,))) is None
    assert make_mask_check(SHOWN, Discrete(4)) is None
    assert make_mask_check(SHOWN, MultiBinary(2)) is None
    assert make_mask_check(SHOWN, MultiDiscrete([2, 3])) is not None


def test_masks_that_forbid_everything_or_are_none_are_bad_unless_the_episode_has_ended() -> None:
    check = make_mask_check(SHOWN, MultiDiscrete([2, 3]))
    assert check is not None
    check({"action_mask": np.array([0, 1, 1, 0, 0])}, None)
    with pytest.raises(BadObservation, match=r"part 'action_mask' forbids every option of choice 0$"):
        check({"action_mask": np.array([0, 0, 1, 0, 0])}, None)
    with pytest.raises(BadObservation, match=r"has no valid mask of its actions: action_mask must hold 1 .* got 0\.5"):
        check({"action_mask": np.array([0.5, 0, 1, 0, 0])}, None)
    masks = np.ones((3, 5))
    masks[1] = 0
    check({"action_mask": masks}, np.array([False, True, False]))
    with pytest.raises(BadObservation, match=r"forbids every option of choice 0 in row 1"):
        check({"action_mask": masks}, np.array([True, False, True]))


class Vector(VectorEnv):
    """Three environments; row 2 ends with every step, with a mask that forbids everything, or with that of a reset."""

    num_envs = 3
    single_observation_space, single_action_space = SHOWN, Discrete(5)
    observation_space = batch_space(SHOWN, 3)
    action_space = batch_space(single_action_space, 3)

    def __init__(self, mode: AutoresetMode) -> None:
        self.metadata = {"autoreset_mode": mode}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return {"observation": np.zeros((3, 2), np.float32), "action_mask": np.ones((3, 5), np.float32)}, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, infos = self.reset()
        observations["action_mask"][2] = 0
        is_over = np.array([False, False, True])
        return observations, np.zeros(3), is_over, np.zeros(3, bool), infos


def test_a_vector_class_is_checked_where_its_rows_go_on() -> None:
    env = VectorGuard(Vector(AutoresetMode.NEXT_STEP), "Some-v0")
    env.reset(seed=3)
    env.step(np.zeros(3, int))
    env = VectorGuard(Vector(AutoresetMode.SAME_STEP), "Some-v0")
    env.reset(seed=3)
    wanted = (
        r"3 x environment Some-v0 returned an observation whose part 'action_mask' forbids every action in row 2, in "
        r"step 1 after the reset with seed 3\."
    )
    with pytest.raises(EnvFault, match=wanted):
        env.step(np.zeros(3, int))
