"""Has environment runners make samples ahead of the learners, and makes anew what a lost one owed."""

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from ctm_rl.agents.rllib import private
from ctm_rl.errors import UserError

MAX_TRIES = 60
"""How often runners are looked for, a second apart, before it is given up."""

MAX_LOSSES = 5
"""How many runners may be lost over one order before it is given up."""

_LOG = logging.getLogger(__name__)

Job = Callable[[Any], Any]
"""What a runner is asked for: called with it, where it is."""


class _Order:
    """Something that a runner was asked for."""

    def __init__(self, job: Job, worker: int, result: ray.ObjectRef, receipt: ray.ObjectRef) -> None:
        self.job = job
        self.worker = worker
        self.result = result
        self.receipt = receipt


class Feed:
    """Orders samples from remote environment runners, in turn, and hands them on in any order they are asked for.

    What is ordered must be the same whichever runner makes it: if one is lost, another makes it.

    Args:
        group: the runners, at least one of them remote.
        restore: brings lost runners back, as far as that has happened.
        timeout: how long a runner may take for one order, in seconds; None: for ever.
    """

    def __init__(self, group: EnvRunnerGroup, restore: Callable[[], Any], timeout: float | None) -> None:
        self._group = group
        self._restore = restore
        self._timeout = timeout
        self._orders: dict[Any, _Order] = {}

    def order(self, key: Any, job: Job) -> None:
        """Has the runner with the fewest orders do a job, unless it was ordered under this key already."""
        if key not in self._orders:
            self._orders[key] = self._place(job)

    def take(self, key: Any) -> ray.ObjectRef:
        """Waits until an order is done.

        Args:
            key: of an order.

        Returns:
            Where the result lies; it belongs to this process, and outlives the runner that made it.

        Raises:
            UserError: the environment failed.
            RuntimeError: no runner can be found that does it.
        """
        order = self._orders.pop(key)
        for _ in range(MAX_LOSSES):
            try:
                ray.get(order.receipt, timeout=self._timeout)
                return order.result
            except RayTaskError as error:
                # The environment failed; another runner would fail as well.
                if isinstance(error.cause, UserError):
                    raise error.cause from error
                raise
            except (RayError, GetTimeoutError):
                _LOG.warning("environment runner %d was lost; another makes its samples.", order.worker)
                private.actor_manager_of(self._group).set_actor_state(order.worker, healthy=False)
                order = self._place(order.job)
        raise RuntimeError(f"{MAX_LOSSES} environment runners were lost over the same samples; see the log for why.")

    def forget(self) -> None:
        """Forgets all orders that were not taken."""
        self._orders.clear()

    def _place(self, job: Job) -> _Order:
        """Hands a job to a runner."""
        manager = private.actor_manager_of(self._group)
        for _ in range(MAX_TRIES):
            workers = self._group.healthy_env_runner_ids()
            if workers:
                load = [order.worker for order in self._orders.values()]
                worker = min(workers, key=load.count)
                # What a task returns belongs to whoever asked for it. The receipt tells that it is there without
                # bringing it here.
                call: Any = manager.actors()[worker].fill.options(num_returns=2)
                result, receipt = call.remote(job)
                return _Order(job, worker, result, receipt)
            time.sleep(1.0)
            self._restore()
        raise RuntimeError(
            f"no environment runner has come back in {MAX_TRIES} tries; see the log for what they died of."
        )
