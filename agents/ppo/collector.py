"""Collects fragments from the environment runners, in step with learning or one iteration ahead."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.rollout import RolloutFragment, concatenate
from ctm_rl.agents.rllib.generators import read_generators
from ctm_rl.agents.rllib.runner_pool import RunnerPool

_LOG = logging.getLogger(__name__)


class Collector:
    """Collects one fragment from every runner; if some are lost, those of the others.

    Args:
        group: the runners.
        restore: brings back those lost runners that have been restarted.
        log: takes the metrics of the runners that have played.
        timeout: how long runners may take for a fragment, in seconds; ``None``: as long as they need.
        num_rows: B, environments of all runners.
        unit: the environments of a collected fragment are a multiple of this.
    """

    def __init__(
        self,
        group: EnvRunnerGroup,
        restore: Callable[[], Any],
        log: Callable[[list[Any]], Any],
        *,
        timeout: float | None,
        num_rows: int,
        unit: int,
    ) -> None:
        self._pool = RunnerPool(group, restore, timeout)
        self._log, self._num_rows, self._unit = log, num_rows, unit
        self.runner_states: dict[int, dict[str, Any]] = {}
        """What each remote runner played its last fragment up to, by its index: its generators (``generators``), and
        what ``ColumnarEnvRunner.get_playing`` returns (``playing``). So a checkpoint asks no runner."""

    def order(self, tick_seed: int | None) -> None:
        """Has the remote runners start their next fragments, with the weights that they have now.

        Args:
            tick_seed: seed of the numbers of ticks; see ``ColumnarEnvRunner.sample``.
        """
        self._pool.start_all(functools.partial(_play, tick_seed=tick_seed))

    def forget(self) -> None:
        """Waits for the fragments that were started ahead, and drops them."""
        self._pool.discard()

    def collect(self, tick_seed: int | None) -> RolloutFragment:
        """Waits for the fragments that were started ahead, or for new ones.

        Args:
            tick_seed: for fragments that were not started ahead.

        Returns:
            All runners' fragments as one, in the runners' order, cut to what makes equal minibatches.

        Raises:
            EnvFault: an environment failed.
            RunnersLost: too few runners are left, and none of the lost ones comes back.
        """
        return self._pool.retry(functools.partial(self._try_to_collect, tick_seed))

    def _try_to_collect(self, tick_seed: int | None) -> RolloutFragment | None:
        """The fragments of one round; ``None`` if they are too few to learn from."""
        fragments, metrics = self._play_all(tick_seed)
        if metrics:
            self._log(metrics)
        num_rows = sum(fragment.num_rows for fragment in fragments)
        if num_rows < self._unit:
            _LOG.warning(
                "%d of %d environments were played, and %d are needed at least; trying to bring runners back.",
                num_rows,
                self._num_rows,
                self._unit,
            )
            return None
        num_kept = num_rows - num_rows % self._unit
        if num_rows < self._num_rows:
            _LOG.warning(
                "%d of %d environments were played; the iteration goes on with %d of them.",
                num_rows,
                self._num_rows,
                num_kept,
            )
        return concatenate(fragments).rows(0, num_kept)

    def _play_all(self, tick_seed: int | None) -> tuple[list[RolloutFragment], list[Any]]:
        """One fragment of every runner that is in time, and the metrics of all that have played since."""
        answers = self._pool.run_all(functools.partial(_play, tick_seed=tick_seed))
        for (_, _, state), _ in answers:
            self.runner_states.update(state)
        # A fragment that comes an iteration late is too old to learn from.
        fragments = [fragment for (fragment, _, _), is_in_time in answers if is_in_time]
        return fragments, [metrics for (_, metrics, _), _ in answers]


def _play(
    runner: ColumnarEnvRunner, *, tick_seed: int | None
) -> tuple[RolloutFragment, Any, dict[int, dict[str, Any]]]:
    """Plays one fragment; called in the runner's process.

    Returns:
        The fragment, the metrics, and ``Collector.runner_states`` of this runner; runner 0 is in the driver's process.
    """
    fragment, metrics = runner.sample(tick_seed=tick_seed), runner.get_metrics()
    if not runner.worker_index:
        return fragment, metrics, {}
    state = {"generators": read_generators(), "playing": runner.get_playing()}
    return fragment, metrics, {runner.worker_index: state}
