"""Finished episodes and the seeds of environments, the same for all environment runners."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

RETURNS = "episode_returns"
"""Key in a result's ``env_runners``: returns of the episodes that ended."""
LENGTHS = "episode_lengths"
"""Key in a result's ``env_runners``: their lengths."""
SUCCESSES = "episode_successes"
"""Key in a result's ``env_runners``: whether they were successes, of those whose environment says so."""
SUCCESS = "is_success"
"""Key in the information of an episode's last step: whether it was a success, as robotics environments say it."""
FAULT = "env_fault"
"""Key in the information of an episode's last step: the fault that ended it; such an episode is not counted."""
RAW_RETURN = "raw_return"
"""Key in the information of an episode's last step: its return, where the rewards were clipped."""

CUT_SHORT = ("is_staggered", FAULT)
"""Keys in the info of an episode's last step that say that it was cut short: by the wrapper ``stagger``, or by a
tolerated fault. Its return is not that of a whole episode and is not reported."""


class FinishedEpisode(NamedTuple):
    """A whole episode that ended in an iteration."""

    episode_return: float
    """Sum of the environment's own rewards."""
    length: int
    """Environment steps."""
    is_success: bool | None = None
    """Whether the environment calls it a success; ``None``: it says nothing."""


def read_success(info: Mapping[str, Any]) -> bool | None:
    """Whether an episode was a success, from the information of its last step; ``None``: it does not say."""
    value = info.get(SUCCESS)
    try:
        return None if value is None else bool(value)
    except (TypeError, ValueError):  # an array of several values
        return None


def finished_episodes(result: dict[str, Any]) -> list[FinishedEpisode]:
    """The episodes that ended in an iteration, in order, from a result of ``Algorithm.train``.

    RLlib's own means cover one iteration only, and its stock runner counts a step too many for every piece of an
    episode when the learner shares a process with the environments.
    """
    returns, lengths = (series_of(result, key) for key in (RETURNS, LENGTHS))
    return [FinishedEpisode(float(value), int(length)) for value, length in zip(returns, lengths, strict=True)]


def series_of(result: dict[str, Any], key: str) -> list[Any]:
    """What the environment runners have logged one by one in an iteration (``reduce="item_series"``).

    Args:
        result: of ``Algorithm.train``, where RLlib puts a value in the place of a list of one.
        key: of the series, below ``env_runners``.
    """
    found = result.get("env_runners", {}).get(key, [])
    return found if isinstance(found, list) else [found]


def seeds_of_envs(seed: int, iteration: int, num_envs: int) -> list[int]:
    """Derives the seeds of environments from one seed.

    Args:
        seed: of the runner.
        iteration: iteration in which the environments start: 0, or that of resuming.
        num_envs: number of seeds.

    Returns:
        Seeds below 2**31 (evaluation uses others): the same for the same arguments, unrelated for different ones.
    """
    words = np.random.SeedSequence([seed, iteration]).generate_state(num_envs)
    return [int(word) // 2 for word in words]
