"""Episodes and their seeds, the same whichever environment runner plays them."""

from typing import Any, NamedTuple

import numpy as np

RETURNS = "episode_returns"
"""Where a result's ``env_runners`` lists the returns of the episodes that ended."""
LENGTHS = "episode_lengths"
"""Where a result's ``env_runners`` lists their lengths."""


class FinishedEpisode(NamedTuple):
    """An episode that ended in an iteration."""

    episode_return: float
    """Sum of the environment's own rewards."""
    length: int
    """Environment steps."""


def finished_episodes(result: dict[str, Any]) -> list[FinishedEpisode]:
    """Reads from a result of ``Algorithm.train`` which episodes ended in that iteration, in their order.

    RLlib's own means cover one iteration only, and its stock runner counts a step too many for every piece of an
    episode when the learner shares a process with the environments.
    """
    of_runners = result.get("env_runners", {})
    returns, lengths = (of_runners.get(key) for key in (RETURNS, LENGTHS))
    if not isinstance(returns, list) or not isinstance(lengths, list):
        return []
    return [FinishedEpisode(float(value), int(length)) for value, length in zip(returns, lengths, strict=True)]


def seeds_of_envs(seed: int, iteration: int, num_envs: int) -> list[int]:
    """Spreads one seed over environments.

    Args:
        seed: of the runner.
        iteration: where in the run the environments start: 0, or where it was resumed.
        num_envs: how many to make.

    Returns:
        Seeds below 2**31 (evaluation uses those above): the same for the same arguments, unrelated for any others.
    """
    words = np.random.SeedSequence([seed, iteration]).generate_state(num_envs)
    return [int(word) // 2 for word in words]
