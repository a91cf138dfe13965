"""Which episodes are reported, and with which returns."""

from typing import Any

import numpy as np
import pytest

from ctm_rl.agents.ppo.vector_player import _finished_episodes
from ctm_rl.agents.rllib.finished_episodes import FinishedEpisode, read_success
from ctm_rl.agents.rllib.vector_loop import VectorStep


def step(infos: dict[str, Any]) -> VectorStep:
    """A step in which the first three of four environments end an episode."""
    is_last = np.array([True, True, True, False])
    returns, lengths = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 6, 7, 8])
    zeros, flags = np.zeros(4), np.zeros(4, bool)
    return VectorStep(~flags, zeros, is_last, is_last, flags, returns, lengths, infos)


def test_every_episode_is_reported() -> None:
    assert _finished_episodes(step({})) == [FinishedEpisode(1.0, 5), FinishedEpisode(2.0, 6), FinishedEpisode(3.0, 7)]


@pytest.mark.parametrize("is_final", [False, True])
def test_episodes_that_a_fault_has_ended_are_not_reported_and_returns_are_raw(is_final: bool) -> None:
    infos = {
        "env_fault": np.array([None, "broken", None, None]),
        "_env_fault": np.array([False, True, False, False]),
        "raw_return": np.array([0.0, 0.0, 33.0, 0.0]),
        "_raw_return": np.array([False, False, True, False]),
    }
    found = _finished_episodes(step({"final_info": infos} if is_final else infos))
    assert found == [FinishedEpisode(1.0, 5), FinishedEpisode(33.0, 7)]


@pytest.mark.parametrize("is_final", [False, True])
@pytest.mark.parametrize(
    "values", [np.array([True, False, True, True]), np.array([1.0, 0.0, 0.0, 1.0]), [True, None, 0, 1]]
)
def test_an_episode_is_a_success_if_its_last_step_says_so(is_final: bool, values: Any) -> None:
    values = np.asarray(values, dtype=None if isinstance(values, np.ndarray) else object)
    infos = {"is_success": values, "_is_success": np.array([True, True, False, True])}
    found = _finished_episodes(step({"final_info": infos} if is_final else infos))
    expected = [True, None if values[1] is None else False, None]
    assert [episode.is_success for episode in found] == expected


@pytest.mark.parametrize("value", [np.zeros(3), "", None])
def test_what_is_no_yes_or_no_is_no_statement(value: Any) -> None:
    assert read_success({"is_success": value}) in (None, False)
    assert read_success({}) is None
