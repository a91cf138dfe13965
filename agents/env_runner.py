"""RLlib's environment runner, with environments that are seeded apart and a record of every episode."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

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

    RLlib's own means cover one iteration only, and count a step too many for every piece of an episode when the
    learner shares a process with the environments.
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


class SeededEnvRunner(SingleAgentEnvRunner):
    """Plays a vector of environments, each from its own, unrelated seed, and reports every episode.

    RLlib counts environment seeds up from ``seed + worker_index``: runners next to each other, and runs with seeds next
    to each other, would then play almost the same environments.
    """

    _start_iteration = 0

    def restart(self, iteration: int, num_env_steps: int) -> None:
        """Makes ready to go on from a saved iteration: new episodes, seeded by it; the next weights count, however old.

        Args:
            iteration: how many iterations had been learned.
            num_env_steps: how many environment steps had been sampled, by all runners.
        """
        self._start_iteration = iteration
        self._needs_initial_reset = True
        self._done_episodes_for_metrics.clear()
        self._weights_seq_no = 0
        self.num_env_steps_sampled_lifetime = num_env_steps

    def get_metrics(self) -> Any:
        """Returns what happened since the last call, with the return and length of each episode that ended."""
        for episode in self._done_episodes_for_metrics:
            pieces = [episode, *self._ongoing_episodes_for_metrics.get(episode.id_, [])]
            total = float(sum(piece.get_return() for piece in pieces))
            self.metrics.log_value(RETURNS, total, reduce="item_series")
            self.metrics.log_value(LENGTHS, episode.t, reduce="item_series")
        return super().get_metrics()

    def _try_env_reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """Resets all environments; RLlib gives a seed the first time only."""
        if isinstance(seed, int):
            seed = seeds_of_envs(seed, self._start_iteration, self.num_envs)
        return super()._try_env_reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]
