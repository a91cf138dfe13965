"""What a second env runner brings, and how long a learner waits while both play ahead; for an idle machine."""

import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.runs.build_algorithm import build_algorithm_config
from ctm_rl.configs import load

ROUNDS = 15
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two env runners need two cores"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def three_cpus(tmp_path: Path) -> Iterator[None]:
    """A Ray with room for one env runner beside two, of which only one or two play at a time."""
    with contextlib.chdir(tmp_path):
        ray.init(address="local", num_cpus=3, num_gpus=0, include_dashboard=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


def experiment(name: str, num_env_runners: int, *, collect_ahead: bool = False) -> ActingExperiment:
    loaded = load(name)
    assert isinstance(loaded, ActingExperiment)
    ppo = dataclasses.replace(loaded.ppo, collect_ahead=collect_ahead)
    return dataclasses.replace(loaded, ppo=ppo, num_env_runners=num_env_runners)


@contextlib.contextmanager
def built(one: ActingExperiment) -> Iterator[Any]:
    algorithm: Any = build_algorithm_config(one).build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


@pytest.mark.usefixtures("three_cpus")
def test_two_env_runners_collect_at_least_1_7_times_as_much() -> None:
    name = "minigrid-fourrooms-paper"
    rates: dict[int, list[float]] = {1: [], 2: []}
    with built(experiment(name, 1)) as one, built(experiment(name, 2)) as two:
        for number in range(ROUNDS + 2):
            for size, algorithm in ((1, one), (2, two)):
                started = time.perf_counter()
                fragment = algorithm._collector.collect(0)
                seconds = time.perf_counter() - started
                if number >= 2:
                    rates[size].append(fragment.num_steps / seconds)
    medians = {size: statistics.median(values) for size, values in rates.items()}
    print(f"{name}: {medians[1]:,.0f} and {medians[2]:,.0f} steps/s, {medians[2] / medians[1]:.2f} times")
    assert medians[2] > 1.7 * medians[1]


@pytest.mark.usefixtures("three_cpus")
def test_a_learner_hardly_waits_for_env_runners_that_play_ahead() -> None:
    shares = {ahead: share_of_waiting(experiment("cartpole", 2, collect_ahead=ahead)) for ahead in (False, True)}
    print(*(f"collect_ahead {ahead}: waits for {100 * share:.1f} %" for ahead, share in shares.items()), sep="\n")
    assert shares[True] < 0.1
    assert shares[True] < shares[False]


def share_of_waiting(one: ActingExperiment) -> float:
    """Of the time of iterations, what the process that learns spends without anything to learn from."""
    waits, totals = [], []
    with built(one) as algorithm:
        collect = algorithm._collector.collect

        def timed(tick_seed: int | None) -> Any:
            started = time.perf_counter()
            try:
                return collect(tick_seed)
            finally:
                waits.append(time.perf_counter() - started)

        algorithm._collector.collect = timed
        for _ in range(ROUNDS + 2):
            started = time.perf_counter()
            algorithm.train()
            totals.append(time.perf_counter() - started)
    return sum(waits[2:]) / sum(totals[2:])
