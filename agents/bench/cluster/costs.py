"""Measures the parts of an iteration of PPO, each alone, on one core of this machine."""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import ray
import torch

from ctm_rl.agents.bench.cluster.all_reduce import measure_all_reduce
from ctm_rl.agents.bench.cluster.cost_model import Costs
from ctm_rl.agents.bench.cluster.dummies import Simulation
from ctm_rl.agents.bench.contender_rllib import of_experiment
from ctm_rl.agents.bench.timing import median_seconds
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.ppo.env_runner import ColumnarEnvRunner
from ctm_rl.agents.ppo.rollout import RolloutFragment, concatenate
from ctm_rl.agents.rllib.columns import batch_of

_SHARES = 8
"""How many shares are gathered and scattered together, and how many dummies are called."""


class Measured(NamedTuple):
    """Costs, and what a simulation needs to reproduce them."""

    costs: Costs
    share: list[np.ndarray]
    """The columns that an env runner sends, environments first."""
    log: Callable[[], Any]
    """Logs the metrics of one env runner, as training does."""
    num_steps_per_runner: int
    """Environment steps of a share."""


def measure_costs(experiment: ActingExperiment, rounds: int, report: Callable[[str], None]) -> Measured:
    """Trains a few iterations in this process, and passes their fragments through the object store.

    Args:
        experiment: what is learned; one of its env runners and one learner are measured.
        rounds: how many times each part is measured.
        report: called with a line about what is being done.

    Returns:
        Medians of the seconds.
    """
    alone = dataclasses.replace(experiment, num_env_runners=0, num_learners=0)
    torch.set_num_threads(1)
    contender = of_experiment(alone)
    report("building one env runner and one learner")
    num_parameters = contender.prepare().parameters
    try:
        report("playing and learning")
        timings = [contender.run_iteration() for _ in range(rounds + 1)][1:]
        group = contender.algorithm.env_runner_group
        assert group is not None
        runner = group.local_env_runner
        assert isinstance(runner, ColumnarEnvRunner)
        fragment, metrics = runner.sample(tick_seed=0), runner.get_metrics()
        logger = contender.algorithm.metrics

        def log() -> None:
            logger.aggregate([metrics], key="dummies")

        report("passing shares through the object store")
        put, gather, scatter = _measure_store(fragment, rounds)
        weight_bytes = sum(value.nbytes for value in _arrays(runner.get_state(components=["rl_module"])))
        share = list(_arrays(fragment.columns()))
        trip, call = _measure_calls(rounds)
        log_seconds = median_seconds(log, 10 * rounds)
    finally:
        contender.close()
    report("averaging gradients")
    reduced = measure_all_reduce(4 * num_parameters)
    costs = Costs(
        act=statistics.median(cast(float, timing.rollout) for timing in timings),
        learn=statistics.median(cast(float, timing.update) for timing in timings),
        put=put,
        trip=trip,
        call=call,
        log=log_seconds,
        gather=gather,
        scatter=scatter,
        reduce_latency=reduced.latency,
        reduce_byte=reduced.byte,
        share_bytes=sum(column.nbytes for column in share),
        weight_bytes=weight_bytes,
        gradient_bytes=4 * num_parameters,
    )
    return Measured(costs, share, log, timings[-1].env_steps)


def _measure_store(fragment: RolloutFragment, rounds: int) -> tuple[float, float, float]:
    """Seconds of a share: put by its env runner, gathered and scattered by the driver."""

    def put() -> list[ray.ObjectRef]:
        return [ray.put(fragment) for _ in range(_SHARES)]

    references = put()

    def gather() -> RolloutFragment:
        return concatenate(ray.get(references))

    batch = gather()

    def scatter() -> list[ray.ObjectRef]:
        parts = [batch.rows(start, start + fragment.num_rows) for start in range(0, batch.num_rows, fragment.num_rows)]
        return [ray.put(batch_of(part.columns(), part.num_steps)) for part in parts]

    measured = [median_seconds(call, 10 * rounds) / _SHARES for call in (put, gather, scatter)]
    return measured[0], measured[1], measured[2]


def _measure_calls(rounds: int) -> tuple[float, float]:
    """Seconds of an iteration without any work: with one dummy, and for each further one."""
    simulation = Simulation(_SHARES, 0, [np.zeros(_SHARES, np.uint8)], 1)
    try:
        one, all_of_them = (
            simulation.run(size, 1, act=0, learn=0, log=lambda: None, rounds=10 * rounds) for size in (1, _SHARES)
        )
    finally:
        simulation.close()
    return one, max(0.0, all_of_them - one) / (_SHARES - 1)


def _arrays(tree: Any) -> list[np.ndarray]:
    """All arrays in nested dictionaries, in their order."""
    if isinstance(tree, dict):
        return [array for value in tree.values() for array in _arrays(value)]
    return [np.asarray(tree)] if isinstance(tree, np.ndarray) else []
