"""Has environment runners play: all of them a fragment, in turn with learning or one ahead of it."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.rollout import RolloutFragment, concatenate
from ctm_rl.errors import EnvFault

MAX_TRIES = 60
"""How often environment runners are asked in one iteration, a second apart, before it is given up."""

_TAG = "fragments"
_LOG = logging.getLogger(__name__)


class _Answer(NamedTuple):
    """What a runner says to an order."""

    order: int
    """Which order it was, counted from 1."""
    worker: int
    """Who answers."""
    fragment: Any
    """What was played, or the fault of its environment: RLlib would end the process, and tell nobody why."""
    metrics: Any
    """Of the runner."""


class Collector:
    """Gathers one fragment from every runner, and goes on with what came if some are lost.

    Args:
        group: the runners.
        restore: brings lost runners back, as far as that has happened.
        log: takes the metrics of the runners that have played.
        timeout: how long runners may take for a fragment, in seconds; ``None``: for ever.
        num_rows: B, environments of all runners.
        unit: the environments handed on are a multiple of this.
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
        self._group, self._restore, self._log = group, restore, log
        self._timeout, self._num_rows, self._unit = timeout, num_rows, unit
        self._num_orders = 0
        self._is_ordered = False

    def order(self, tick_seed: int | None) -> None:
        """Has the remote runners begin their next fragments, with the weights that they have now.

        Args:
            tick_seed: what the numbers of ticks are drawn from; see ``ColumnarEnvRunner.sample``.
        """
        self._num_orders += 1
        play = functools.partial(_play, order=self._num_orders, tick_seed=tick_seed)
        self._group.foreach_env_runner_async(play, tag=_TAG)
        self._is_ordered = True

    def forget(self) -> None:
        """Waits for what has been ordered, and throws it away."""
        if self._is_ordered:
            self._group.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=self._timeout)
            self._is_ordered = False

    def collect(self, tick_seed: int | None) -> RolloutFragment:
        """Waits for fragments, of the last order if there is one, and cuts them to what makes equal minibatches.

        Args:
            tick_seed: for fragments that have not been ordered.

        Returns:
            All runners' fragments, as one, in the runners' order.

        Raises:
            EnvFault: an environment failed.
            RuntimeError: no runner can be found that plays.
        """
        for _ in range(MAX_TRIES):
            fragments, metrics = self._play_all(tick_seed)
            if metrics:
                self._log(metrics)
            num_rows = sum(fragment.num_rows for fragment in fragments)
            if num_rows >= self._unit:
                num_kept = num_rows - num_rows % self._unit
                if num_rows < self._num_rows:
                    _LOG.warning(
                        "%d of %d environments were played; the iteration goes on with %d of them.",
                        num_rows,
                        self._num_rows,
                        num_kept,
                    )
                return concatenate(fragments).rows(0, num_kept)
            _LOG.warning(
                "%d of %d environments were played, and %d are needed at least; trying to bring runners back.",
                num_rows,
                self._num_rows,
                self._unit,
            )
            time.sleep(1.0)
            self._restore()
        raise RuntimeError(
            f"no environment runner has come back in {MAX_TRIES} tries; see the log for what they died of."
        )

    def _play_all(self, tick_seed: int | None) -> tuple[list[RolloutFragment], list[Any]]:
        """One fragment and the metrics of every runner that answers, in the runners' order."""
        if self._group.num_remote_env_runners() == 0:
            runner = self._group.local_env_runner
            assert isinstance(runner, ColumnarEnvRunner)
            return [runner.sample(tick_seed=tick_seed)], [runner.get_metrics()]
        if not self._is_ordered:
            self.order(tick_seed)
        self._is_ordered = False
        # What a task returns belongs to the driver: it does not die with its runner.
        found = self._group.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=self._timeout)
        answers = sorted((answer for _, answer in found), key=lambda answer: answer.worker)
        for answer in answers:
            if isinstance(answer.fragment, EnvFault):
                raise answer.fragment
        # Whoever was too late for its own order comes with this one: too old to learn from.
        timely = [answer.fragment for answer in answers if answer.order == self._num_orders]
        return timely, [answer.metrics for answer in answers]


def _play(runner: Any, *, order: int, tick_seed: int | None) -> _Answer:
    """Runs where the runner is."""
    try:
        return _Answer(order, runner.worker_index, runner.sample(tick_seed=tick_seed), runner.get_metrics())
    except EnvFault as fault:
        return _Answer(order, runner.worker_index, fault, None)
