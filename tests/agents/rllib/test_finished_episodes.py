"""Episodes that ended in an iteration, from RLlib's results."""

from typing import Any

import numpy as np
import pytest

from ctm_rl.agents.rllib.finished_episodes import LENGTHS, RETURNS, finished_episodes, series_of


@pytest.mark.parametrize(
    ("returns", "lengths", "expected"),
    [
        ([], [], []),
        ([7.0], [3], [(7.0, 3)]),
        # RLlib's results have the value itself in the place of a list of one.
        (7.0, 3, [(7.0, 3)]),
        (np.float64(0.0), np.int64(3), [(0.0, 3)]),
        ([7.0, -1.5], [3, 4], [(7.0, 3), (-1.5, 4)]),
    ],
)
def test_every_episode_is_found_a_single_one_too(returns: Any, lengths: Any, expected: list[tuple[float, int]]) -> None:
    found = finished_episodes({"env_runners": {RETURNS: returns, LENGTHS: lengths}})
    assert [(episode.episode_return, episode.length) for episode in found] == expected


def test_a_result_may_have_none() -> None:
    assert finished_episodes({}) == finished_episodes({"env_runners": {}}) == []
    assert series_of({"env_runners": {"notes": "one text"}}, "notes") == ["one text"]
