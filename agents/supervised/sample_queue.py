"""Samples that environment runners make ahead of the learners, and make again if a runner is lost."""

from collections.abc import Callable
from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from ctm_rl.agents.rllib.runner_pool import Job, Request, RunnerPool


class SampleQueue:
    """Requests samples from environment runners, evenly, and hands them on in any order.

    A job's result must be the same whichever runner does it: if one is lost, another does it again.

    Args:
        group: the runners; without remote ones, samples are made when they are taken.
        restore: brings back those lost runners that have been restarted.
        timeout: how long a runner may take for one request, in seconds; ``None``: as long as it needs.
    """

    def __init__(self, group: EnvRunnerGroup, restore: Callable[[], Any], timeout: float | None) -> None:
        self._pool = RunnerPool(group, restore, timeout)
        self._requests: dict[Any, Request] = {}

    @property
    def is_local(self) -> bool:
        """Whether samples are made in this process."""
        return self._pool.is_local

    def request(self, key: Any, job: Job) -> None:
        """Has the runner with the fewest requests do a job, unless there is a request under this key already."""
        if key not in self._requests:
            self._requests[key] = self._pool.start(job, self._busy)

    def take(self, key: Any) -> Any:
        """Waits for the result of a request.

        Args:
            key: of the request.

        Returns:
            A reference to the result, or the result itself if it was made in this process.

        Raises:
            UserError: the environment failed.
            RunnersLost: no runner does it.
        """
        return self._pool.wait(self._requests.pop(key), self._busy)

    @property
    def _busy(self) -> list[int]:
        """A runner's index for each of its requests."""
        return [request.worker for request in self._requests.values()]
