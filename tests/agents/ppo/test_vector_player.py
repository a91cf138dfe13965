"""Which episodes are reported, and with which returns."""

from typing import Any

import numpy as np
import pytest

from ctm_rl.agents.ppo.vector_player import _finished_episodes
from ctm_rl.agents.rllib.vector_loop import VectorStep


def step(infos: dict[str, Any]) -> VectorStep:
    """A step in which the first three of four environments end an episode."""
    is_last = np.array([True, True, True, False])
    returns, lengths = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 6, 7, 8])
    zeros, flags = np.zeros(4), np.zeros(4, bool)
    return VectorStep(~flags, zeros, is_last, is_last, flags, returns, lengths, infos)


def test_every_episode_is_reported() -> None:
    assert _finished_episodes(step({})) == [(1.0, 5), (2.0, 6), (3.0, 7)]


@pytest.mark.parametrize("is_final", [False, True])
def test_episodes_that_a_fault_has_ended_are_not_reported_and_returns_are_raw(is_final: bool) -> None:
    infos = {
        "env_fault": np.array([None, "broken", None, None]),
        "_env_fault": np.array([False, True, False, False]),
        "raw_return": np.array([0.0, 0.0, 33.0, 0.0]),
        "_raw_return": np.array([False, False, True, False]),
    }
    found = _finished_episodes(step({"final_info": infos} if is_final else infos))
    assert found == [(1.0, 5), (33.0, 7)]
