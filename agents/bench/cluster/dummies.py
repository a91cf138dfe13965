"""Dummy env runners and learners: they take as long and send as much as real ones, without torch or RLlib."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray

from ctm_rl.agents.bench.timing import median_seconds


class _Dummy:
    """Waits as long as the work would take, and sends a result of the same size."""

    def __init__(self, share: list[np.ndarray]) -> None:
        self._share = share

    def play(self, seconds: float) -> list[np.ndarray]:
        time.sleep(seconds)
        return self._share

    def set_weights(self, weights: np.ndarray) -> int:
        return len(weights)

    def learn(self, share: list[np.ndarray], seconds: float) -> int:
        time.sleep(seconds)
        return sum(column.nbytes for column in share)

    def loaded(self) -> list[str]:
        """Those of torch and RLlib that this process has loaded; it should be neither."""
        import sys

        return sorted({"torch", "ray.rllib"} & set(sys.modules))


class Simulation:
    """Iterations of dummies, which this process calls and gathers from as training does.

    Args:
        num_env_runners: how many dummy env runners are started.
        num_learners: how many dummy learners.
        share: the columns that each env runner sends in an iteration.
        weight_bytes: size of the weights that each receives.
    """

    def __init__(self, num_env_runners: int, num_learners: int, share: list[np.ndarray], weight_bytes: int) -> None:
        dummy = ray.remote(_Dummy).options(num_cpus=0)
        self._runners: list[Any] = [dummy.remote(share) for _ in range(num_env_runners)]
        self._learners: list[Any] = [dummy.remote([]) for _ in range(num_learners)]
        self._weights = np.zeros(weight_bytes, np.uint8)
        self._call_all("loaded")  # waits until all have started

    def loaded(self) -> list[str]:
        """Those of torch and RLlib that any dummy has loaded: none, unless Ray's workers do so by themselves."""
        return sorted({name for names in self._call_all("loaded") for name in names})

    def close(self) -> None:
        """Ends the dummies."""
        for dummy in (*self._runners, *self._learners):
            ray.kill(dummy)

    def run(
        self,
        num_env_runners: int,
        num_learners: int,
        *,
        act: float,
        learn: float,
        log: Callable[[], Any],
        rounds: int,
    ) -> float:
        """Simulates iterations of some of the dummies.

        Args:
            num_env_runners: how many env runners are used.
            num_learners: how many learners; if one, it is this process.
            act: seconds of every env runner.
            learn: seconds of every learner.
            log: called for every share.
            rounds: how many iterations are measured, after one that is thrown away.

        Returns:
            The median of their seconds.
        """
        runners, learners = self._runners[:num_env_runners], self._learners[:num_learners]
        return median_seconds(lambda: self._iterate(runners, learners, act, learn, log), rounds)

    def _iterate(
        self, runners: Sequence[Any], learners: Sequence[Any], act: float, learn: float, log: Callable[[], Any]
    ) -> None:
        references = [runner.play.remote(act) for runner in runners]
        ray.wait(references, num_returns=len(references))
        shares = ray.get(references)
        for _ in shares:
            log()
        batch = [np.concatenate(column) for column in zip(*shares, strict=True)]
        if len(learners) > 1:
            parts = zip(*(np.array_split(column, len(learners)) for column in batch), strict=True)
            ray.get([learner.learn.remote(list(part), learn) for learner, part in zip(learners, parts, strict=True)])
        else:
            time.sleep(learn)
        weights = ray.put(self._weights)
        ray.get([runner.set_weights.remote(weights) for runner in runners])

    def _call_all(self, method: str) -> list[Any]:
        return ray.get([getattr(dummy, method).remote() for dummy in (*self._runners, *self._learners)])
