"""RLlib's environment runner, with environments that are seeded apart and a record of every episode."""

from collections.abc import Sequence
from typing import Any

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.episodes import LENGTHS, RETURNS, seeds_of_envs
from ctm_rl.agents.rllib.faults import FAULTS, FaultCounter
from ctm_rl.errors import EnvFault


class SeededEnvRunner(SingleAgentEnvRunner):
    """Plays a vector of environments, each from its own, unrelated seed, and reports every episode.

    RLlib counts environment seeds up from ``seed + worker_index``: runners next to each other, and runs with seeds next
    to each other, would then play almost the same environments.
    """

    _start_iteration = 0
    _faults: FaultCounter | None = None

    def make_env(self) -> None:
        """Makes the environments anew, and counts their faults from here on."""
        super().make_env()
        is_tolerant = bool(self.config.env_config.get("tolerate_faults"))
        self._faults = None if self.env is None else FaultCounter(self.env, is_tolerant=is_tolerant)

    def sample(self, **kwargs: Any) -> Any:
        """Plays as RLlib does; a fault of an environment stays one, where RLlib would make a RuntimeError of it.

        Raises:
            EnvFault: an environment failed.
        """
        try:
            return super().sample(**kwargs)
        except RuntimeError as error:
            if isinstance(error.__cause__, EnvFault):
                raise error.__cause__ from None
            raise

    @property
    def has_played(self) -> bool:
        """Whether there are environments here, and they have been stepped."""
        return self.env is not None and not private.needs_reset(self)

    def restart(self, iteration: int, num_env_steps: int) -> None:
        """Makes ready to go on from a saved iteration: new episodes, seeded by it; the next weights count, however old.

        Args:
            iteration: how many iterations had been learned.
            num_env_steps: how many environment steps had been sampled, by all runners.
        """
        self._start_iteration = iteration
        private.forget_episodes(self)
        self.num_env_steps_sampled_lifetime = num_env_steps

    def get_metrics(self) -> Any:
        """Returns what happened since the last call, with the return and length of each episode that ended."""
        for pieces in private.pieces_of_finished_episodes(self):
            total = float(sum(piece.get_return() for piece in pieces))
            self.metrics.log_value(RETURNS, total, reduce="item_series")
            self.metrics.log_value(LENGTHS, pieces[0].t, reduce="item_series")
        self.metrics.log_value(FAULTS, 0 if self._faults is None else self._faults.pop(), reduce="sum")
        return super().get_metrics()

    def _try_env_reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """Resets all environments; RLlib gives a seed the first time only."""
        if isinstance(seed, int):
            seed = seeds_of_envs(seed, self._start_iteration, self.num_envs)
        return super()._try_env_reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]
