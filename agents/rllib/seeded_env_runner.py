"""RLlib's environment runner with unrelated seeds of environments, and returns and lengths of all episodes."""

from collections.abc import Sequence
from typing import Any

from gymnasium.wrappers.vector import DictInfoToList
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.finished_episodes import CUT_SHORT, RAW_RETURN, FinishedEpisode, read_success, seeds_of_envs
from ctm_rl.agents.rllib.runner_base import ResumableRunner
from ctm_rl.agents.rllib.spans import COLLECT, span
from ctm_rl.errors import EnvFault


class SeededEnvRunner(ResumableRunner, SingleAgentEnvRunner):
    """RLlib's environment runner; each environment has its own, unrelated seed, and every episode is reported.

    RLlib seeds environments with ``seed + worker_index`` and the numbers after it: neighbouring runners, and runs with
    neighbouring seeds, would play almost the same environments.
    """

    def make_env(self) -> None:
        """Creates the environments again, as our own runner does, with a new count of faults."""
        self._make_vector(DictInfoToList)

    def sample(self, **kwargs: Any) -> Any:
        """Samples as RLlib does, but raises an ``EnvFault`` as such, which RLlib wraps in a RuntimeError.

        Raises:
            EnvFault: an environment failed.
        """
        try:
            with span(COLLECT):
                return super().sample(**kwargs)
        except RuntimeError as error:
            if isinstance(error.__cause__, EnvFault):
                raise error.__cause__ from None
            raise

    @property
    def has_played(self) -> bool:
        """Whether this runner has environments that have been stepped."""
        return self.env is not None and not self._needs_initial_reset

    @property
    def longest_episode(self) -> int:
        """Environment steps of the longest episode under way; 0 before the first sample."""
        return private.longest_episode_of(self) if self.has_played else 0

    def _drop_finished(self) -> None:
        """Drops finished episodes that have not been reported."""
        private.drop_finished_episodes(self)

    def get_metrics(self) -> Any:
        """Returns the metrics since the last call, with the return and length of each whole episode that ended."""
        finished = []
        for pieces in private.pieces_of_finished_episodes(self):
            info = pieces[0].get_infos(-1)
            if not any(key in info for key in CUT_SHORT):
                total = info.get(RAW_RETURN, sum(piece.get_return() for piece in pieces))
                finished.append(FinishedEpisode(float(total), pieces[0].t, read_success(info)))
        self._log_finished(finished)
        return super().get_metrics()

    def _try_env_reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """Resets all environments; RLlib passes a seed only the first time."""
        if isinstance(seed, int):
            seed = seeds_of_envs(seed, self._start_iteration or 0, self.num_envs)
        return super()._try_env_reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]
