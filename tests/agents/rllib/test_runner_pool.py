"""The pool of environment runners: lost runners are replaced, slow ones left out, and in the end it gives up."""

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray

from ctm_rl.agents.rllib import runner_pool
from ctm_rl.agents.rllib.runner_pool import RunnerPool, RunnersLost
from ctm_rl.errors import EnvFault, UserError

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote(num_cpus=0)
class Runner:
    """A remote runner without environments."""

    def run_job(self, job: Callable[[Any], Any]) -> tuple[Any, bool]:
        return job(self), True


class Group:
    """An ``EnvRunnerGroup`` with as many remote runners as are healthy; its own worker manager."""

    def __init__(self, num_runners: int) -> None:
        self.local_env_runner = "local"
        self.healthy = set(range(1, num_runners + 1))
        self.runners: dict[int, Any] = {worker: Runner.remote() for worker in self.healthy}
        self.jobs: list[Any] = []
        self.answers: list[Any] = []
        self._worker_manager = self

    def num_remote_env_runners(self) -> int:
        return len(self.runners)

    def healthy_env_runner_ids(self) -> list[int]:
        return sorted(self.healthy)

    def actors(self) -> dict[int, Any]:
        return self.runners

    def set_actor_state(self, worker: int, healthy: bool) -> None:
        self.healthy.discard(worker)

    def restore(self) -> None:
        self.healthy.add(1)
        self.runners[1] = Runner.remote()

    def foreach_env_runner_async(self, job: Callable[[Any], Any], tag: str) -> None:
        self.jobs.append(job)
        self.num_outstanding = 1

    def num_outstanding_async_reqs(self, tag: str) -> int:
        return self.num_outstanding

    def fetch_ready_async_reqs(self, *, tags: str, timeout_seconds: float | None) -> list[Any]:
        self.num_outstanding = 0
        return self.answers.pop(0)


def pool_of(group: Any, timeout: float | None = 60.0) -> RunnerPool:
    return RunnerPool(group, group.restore, timeout)


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_pool.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("no_sleep")
def test_runners_that_are_lost_again_and_again_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_pool, "MAX_LOSSES", 2)
    pool = pool_of(Group(1))
    request = pool.start(lambda _: os._exit(1), [])
    with pytest.raises(RunnersLost, match="2 environment runners were lost over the same job"):
        pool.wait(request, [])


def test_a_slow_runner_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    group = Group(2)
    ray.get([runner.run_job.remote(str) for runner in group.runners.values()])  # both have started
    pool = pool_of(group, timeout=5.0)
    slow = pool.start(lambda _: time.sleep(600), [2])
    assert slow.worker == 1
    result = pool.wait(slow._replace(job=lambda _: 7), [2])
    assert ray.get(result) == 7
    assert group.healthy == {2}
    assert "environment runner 1 was lost or too slow" in caplog.text
    ray.kill(group.runners[1])


def test_a_fault_of_the_environment_is_not_tried_again() -> None:
    def fail(_: Any) -> None:
        raise UserError("no such image")

    pool = pool_of(Group(1))
    with pytest.raises(UserError, match=r"^no such image$"):
        pool.wait(pool.start(fail, []), [])


def test_the_runner_with_the_fewest_requests_is_chosen() -> None:
    pool = pool_of(Group(3))
    assert [pool.start(len, busy).worker for busy in ([], [1], [1, 2], [1, 2, 3, 3, 1])] == [1, 2, 3, 2]


@pytest.mark.usefixtures("no_sleep")
def test_it_fails_if_no_runner_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(1)
    group.healthy.clear()
    monkeypatch.setattr(group, "restore", lambda: None)
    with pytest.raises(RunnersLost, match="no environment runner has come back in 60 tries"):
        pool_of(group).start(len, [])


def test_answers_come_in_the_runners_order_and_late_ones_are_marked() -> None:
    group = Group(3)
    pool = pool_of(group)
    # Runner 2 answers the first job an iteration late, runner 3 is lost.
    group.answers = [[(1, (1, "a"))], [(2, (1, "b")), (2, (2, "c")), (1, (2, "d"))]]
    assert pool.run_all(len) == [("a", True)]
    assert pool.run_all(len) == [("d", True), ("b", False), ("c", True)]


def test_a_job_that_was_started_ahead_is_not_started_again() -> None:
    group = Group(1)
    pool = pool_of(group)
    group.answers = [[], []]
    pool.start_all(len)
    pool.run_all(len)
    assert len(group.jobs) == 1
    pool.start_all(len)
    pool.discard()
    pool.discard()  # nothing is left to wait for
    assert (len(group.jobs), group.answers) == (2, [])


def test_a_fault_of_one_environment_ends_a_job_of_all() -> None:
    def fail(_: Any) -> None:
        raise EnvFault("broken")

    group = Group(1)
    pool = pool_of(group)
    pool.start_all(fail)
    group.answers = [[(1, group.jobs[0]("runner"))]]
    with pytest.raises(EnvFault, match="broken"):
        pool.run_all(fail)


def test_without_remote_runners_the_local_one_does_every_job_when_it_is_waited_for() -> None:
    pool = pool_of(Group(0))
    number = itertools.count()
    request = pool.start(lambda runner: (runner, next(number)), [])
    assert pool.is_local
    assert pool.run_all(lambda runner: (runner, next(number))) == [(("local", 0), True)]
    assert pool.wait(request, []) == ("local", 1)
