"""Environment runners as workers: a job for all of them or for one, and what happens when runners are lost or slow.

Results lie in Ray's object store and belong to this process: they outlive the runners that made them.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from ctm_rl.agents.rllib import private
from ctm_rl.agents.rllib.iteration import SLICE_SECONDS, report
from ctm_rl.errors import Diverged, EnvFault, UserError

MAX_TRIES = 60
"""How often work is tried while runners are missing, a second apart, before it fails."""

MAX_LOSSES = 5
"""How many runners may be lost over one request before it fails."""

_TAG = "fragments"
_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

Job = Callable[[Any], Any]
"""Called with a runner, in the runner's process."""


class RunnersLost(UserError):
    """Environment runners were lost, and none came back."""

    exit_code = 1


class Request(NamedTuple):
    """A job that has been given to one runner."""

    job: Job
    worker: int = 0
    """Index of the runner; 0: the one in this process, which does the job when the result is needed."""
    result: Any = None
    """Reference to the result."""
    receipt: Any = None
    """Reference to something small that is available when the result is; waiting for it does not copy the result."""


class RunnerPool:
    """Has environment runners do jobs, and waits for the results.

    Without remote runners, the runner in this process does all jobs.

    Args:
        group: the runners.
        restore: brings back those lost runners that have been restarted.
        timeout: how long runners may take for a job, in seconds; ``None``: as long as they need.
    """

    def __init__(self, group: EnvRunnerGroup, restore: Callable[[], Any], timeout: float | None) -> None:
        self._group, self._restore, self._timeout = group, restore, timeout
        self._round = 0
        self._is_started = False

    @property
    def is_local(self) -> bool:
        """Whether the runner in this process does all jobs."""
        return self._group.num_remote_env_runners() == 0

    def start_all(self, job: Job) -> None:
        """Has all healthy remote runners start a job."""
        self._round += 1
        self._group.foreach_env_runner_async(functools.partial(_run, job=job, round=self._round), tag=_TAG)
        self._is_started = True

    def run_all(self, job: Job) -> list[tuple[Any, bool]]:
        """Waits for the job that was started last, or for a new one.

        Args:
            job: started if none is running.

        Returns:
            In the runners' order, each result that has come in, and whether it is of this job: a runner that was too
            slow for an earlier one answers now. Lost and slow runners are left out.

        Raises:
            EnvFault: an environment failed.
        """
        if self.is_local:
            return [(job(self._group.local_env_runner), True)]
        if not self._is_started:
            self.start_all(job)
        answers = [answer for _, answer in sorted(self._fetch(), key=lambda found: found[0])]
        for _, result in answers:
            if isinstance(result, (EnvFault, Diverged)):
                raise result
        return [(result, number == self._round) for number, result in answers]

    def discard(self) -> None:
        """Waits for the job that was started last, if it has not been waited for, and drops its results."""
        if self._is_started:
            self._fetch()

    def start(self, job: Job, busy: list[int]) -> Request:
        """Has one runner start a job.

        Args:
            job: what to do.
            busy: a runner's index for each request that it has; the runner with the fewest is chosen.

        Returns:
            What to wait for.

        Raises:
            RunnersLost: there is no healthy runner, and none comes back.
        """
        if self.is_local:
            return Request(job)
        worker = self.retry(lambda: min(self._group.healthy_env_runner_ids(), key=busy.count, default=None))
        call: Any = private.actor_manager_of(self._group).actors()[worker].run_job.options(num_returns=2)
        return Request(job, worker, *call.remote(job))

    def wait(self, request: Request, busy: list[int]) -> Any:
        """Waits until a request is done; if its runner is lost or too slow, another one does the same job.

        Args:
            request: from ``start``.
            busy: as for ``start``, if the job must be started again.

        Returns:
            A reference to the result, or the result itself if this process made it.

        Raises:
            UserError: the environment failed.
            RunnersLost: no runner does it.
        """
        if self.is_local:
            return request.job(self._group.local_env_runner)
        for _ in range(MAX_LOSSES):
            try:
                self._wait_for(request.receipt)
                return request.result
            except RayTaskError as error:
                # The environment failed; another runner would fail as well.
                if isinstance(error.cause, UserError):
                    raise error.cause from error
                raise
            except (RayError, GetTimeoutError):
                _LOG.warning("environment runner %d was lost or too slow; another one repeats its job.", request.worker)
                private.actor_manager_of(self._group).set_actor_state(request.worker, healthy=False)
                request = self.start(request.job, busy)
        raise RunnersLost(f"{MAX_LOSSES} environment runners were lost over the same job; see the log for reasons.")

    def retry(self, attempt: Callable[[], _T | None]) -> _T:
        """Calls a function until it returns something, and brings lost runners back in between.

        Args:
            attempt: returns ``None`` while too few runners are available.

        Returns:
            What it returned.

        Raises:
            RunnersLost: it has returned ``None`` each time.
        """
        for number in range(MAX_TRIES):
            result = attempt()
            if result is not None:
                return result
            report("tries to bring environment runners back", number, MAX_TRIES)
            time.sleep(1.0)
            self._restore()
        raise RunnersLost(f"no environment runner has come back in {MAX_TRIES} tries; see the log for reasons.")

    def _fetch(self) -> list[tuple[int, Any]]:
        """What has come in before the timeout, with the index of its runner."""
        self._is_started = False
        manager = private.actor_manager_of(self._group)
        found: list[tuple[int, Any]] = []
        for seconds in _slices(self._timeout):
            num_missing = manager.num_outstanding_async_reqs(_TAG)
            if not num_missing:
                break
            report("fragments", len(found), len(found) + num_missing)
            found += self._group.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=seconds)
        return found

    def _wait_for(self, receipt: Any) -> None:
        """Waits until a receipt is available.

        Raises:
            GetTimeoutError: it is not in time.
            RayError: its runner was lost, or failed.
        """
        for seconds in _slices(self._timeout):
            report("samples", 0, 1)
            if ray.wait([receipt], timeout=seconds)[0]:
                ray.get(receipt)
                return
        raise GetTimeoutError


def _slices(seconds: float | None) -> Iterator[float]:
    """The lengths of the slices that a time for waiting is divided into; at least one."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        rest = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
        yield max(0.0, min(SLICE_SECONDS, rest))
        if rest <= SLICE_SECONDS and deadline is not None:
            return


def _run(runner: Any, *, job: Job, round: int) -> tuple[int, Any]:
    """Does a job in the runner's process; its errors are returned, for RLlib would end the process without a report."""
    try:
        return round, job(runner)
    except (EnvFault, Diverged) as fault:
        return round, fault
