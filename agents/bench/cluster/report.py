"""Predicts the cost of training with more env runners and learners, and checks the prediction by a simulation."""

import dataclasses
from typing import Any

from ctm_rl.agents.bench.cluster.cost_model import (
    ClusterSize,
    Costs,
    IterationCosts,
    NetworkLimits,
    predict,
    predict_on_one_machine,
)
from ctm_rl.agents.bench.measure import Report, circumstances, running_ray
from ctm_rl.agents.bench.settings import BenchOptions
from ctm_rl.agents.bench.table import markdown_table
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.errors import UserError
from ctm_rl.this_machine import count_cpus

_GIGABIT = 1e9 / 8
_MB = 1e6
_LONGEST_WAIT = 1.0
"""Longest time of a simulated learner, in seconds."""
_BYTES = ("gathered", "scattered", "weight", "reduced")
_TITLES = (
    *("env runners", "learners", "act s", "driver s", "network s", "learn s", "reduce s", "s/iteration", "ahead"),
    *("steps/s", "ahead", "gathered MB", "scattered MB", "weights MB", "reduced MB", "most"),
)
_DUMMY_TITLES = ("dummy env runners", "learners", "s/iteration", "predicted", "beside waiting", "predicted")


def cluster(experiment: ActingExperiment, options: BenchOptions, command: str, report: Report) -> dict[str, Any]:
    """Measures the parts of an iteration, adds them up for clusters, and simulates those that fit on this machine.

    Args:
        experiment: what is learned; it sets the size of each env runner.
        options: how to measure; ``options.cluster`` has the clusters.
        command: the command line, kept with the result.
        report: called with a line about what is being done.

    Returns:
        A result for JSON: ``machine``, ``versions``, ``command``, ``settings``, ``costs``, ``clusters`` and
        ``simulated``.

    Raises:
        UserError: the experiment cannot run on this machine, or uses an algorithm of RLlib's own.
    """
    if experiment.algorithm != "ppo":
        raise UserError(f"bench cluster is for algorithm ppo, got {experiment.algorithm}; leave --algorithm out.")
    clusters = options.cluster
    with running_ray(experiment) as experiment:
        from ctm_rl.agents.bench.cluster.costs import measure_costs
        from ctm_rl.agents.bench.cluster.dummies import Simulation

        measured = measure_costs(experiment, options.rounds, report)
        costs = measured.costs._replace(learn=measured.costs.learn / clusters.learner_speedup)
        num_gradient_steps = experiment.ppo.num_epochs * experiment.ppo.num_minibatches

        def size_of(num_env_runners: int, num_learners: int) -> ClusterSize:
            return ClusterSize(num_env_runners, num_learners, num_gradient_steps, measured.num_steps_per_runner)

        report(f"starting {clusters.dummy_env_runners} + {clusters.dummy_learners} dummies")
        simulation = Simulation(
            clusters.dummy_env_runners, clusters.dummy_learners, measured.share, weight_bytes=costs.weight_bytes
        )
        simulated = []
        try:
            for num_env_runners, num_learners in _simulated_sizes(clusters.dummy_env_runners, clusters.dummy_learners):
                report(f"simulating {num_env_runners} env runners and {num_learners} learners")
                # A longer wait would show nothing more.
                learn = min(_LONGEST_WAIT, costs.learn * num_env_runners / num_learners)
                seconds = simulation.run(
                    num_env_runners,
                    num_learners,
                    act=costs.act,
                    learn=learn,
                    log=measured.log,
                    rounds=options.rounds,
                )
                cut = costs._replace(learn=learn * num_learners / num_env_runners)
                predicted = predict_on_one_machine(cut, size_of(num_env_runners, num_learners), count_cpus())
                values = {"waited": costs.act + learn, "seconds": seconds, "predicted": predicted}
                rounded = {name: round(value, 5) for name, value in values.items()}
                simulated.append({"env_runners": num_env_runners, "learners": num_learners, **rounded})
            loaded = simulation.loaded()
        finally:
            simulation.close()
    network = NetworkLimits(clusters.network_gbits * _GIGABIT, clusters.env_runners_per_node)
    share_rows = experiment.num_envs_per_env_runner
    return {
        **circumstances(experiment, options, 1, command),
        "cluster": dataclasses.asdict(clusters),
        "costs": costs._asdict(),
        "clusters": [
            _row(size_of(num_env_runners, num_learners), costs, network, share_rows, experiment.ppo.num_minibatches)
            for num_learners in clusters.learners
            for num_env_runners in clusters.env_runners
        ],
        "simulated": simulated,
        "loaded_by_dummies": loaded,
    }


def _simulated_sizes(num_env_runners: int, num_learners: int) -> list[tuple[int, int]]:
    """Numbers of env runners (1, 4, 16 and so on up to all), with one learner and with all."""
    sizes = [4**power for power in range(20) if 4**power < num_env_runners] + [num_env_runners]
    return [(size, learners) for learners in sorted({1, num_learners}) for size in sizes]


def _row(
    size: ClusterSize, costs: Costs, network: NetworkLimits, share_rows: int, num_minibatches: int
) -> dict[str, Any]:
    """One cluster's row for JSON."""
    iteration = predict(costs, size, network)
    num_steps = size.num_env_runners * size.num_steps_per_runner
    num_rows = size.num_env_runners * share_rows
    return {
        "env_runners": size.num_env_runners,
        "learners": size.num_learners,
        "env_steps": num_steps,
        **{name: round(value, 5) for name, value in iteration.parts._asdict().items()},
        "seconds": round(iteration.seconds, 5),
        "seconds_ahead": round(iteration.seconds_ahead, 5),
        "env_steps_per_second": round(num_steps / iteration.seconds, 1),
        "env_steps_per_second_ahead": round(num_steps / iteration.seconds_ahead, 1),
        "bottleneck": iteration.bottleneck,
        **{f"{name}_bytes": getattr(iteration, f"{name}_bytes") for name in _BYTES},
        # Every learner needs an environment in each of its minibatches.
        "is_possible": num_rows % (size.num_learners * num_minibatches) == 0,
    }


def to_text(result: dict[str, Any]) -> str:
    """Makes the tables as text, readable as Markdown."""
    costs, options = Costs(**result["costs"]), result["cluster"]
    lines = [
        f"one share: {costs.share_bytes / _MB:.2f} MB played in {costs.act:.3f} s, learned from in {costs.learn:.3f} s "
        f"({options['learner_speedup']:g} x one core here)",
        f"weights {costs.weight_bytes / _MB:.2f} MB, gradients {costs.gradient_bytes / _MB:.2f} MB",
        f"of the driver for each env runner: a call {1e3 * costs.call:.2f} ms (the first {1e3 * costs.trip:.2f} ms), "
        f"metrics {1e3 * costs.log:.2f} ms, gathering {1e3 * costs.gather:.2f} ms, "
        f"scattering {1e3 * costs.scatter:.2f} ms",
        f"between learners: {1e3 * costs.reduce_latency:.2f} ms per message, {1e9 * costs.reduce_byte:.2f} ns per byte",
        "",
        *markdown_table(_TITLES, ["---:"] * 15 + ["---"], [_cells(row) for row in result["clusters"]]),
    ]
    if not all(row["is_possible"] for row in result["clusters"]):
        lines += ["", "* too few environments for the learners' minibatches"]
    rows = [
        [f"{row['env_runners']}", f"{row['learners']}"]
        + [f"{row[name] - waited:.3f}" for waited in (0, row["waited"]) for name in ("seconds", "predicted")]
        for row in result["simulated"]
    ]
    loaded = result["loaded_by_dummies"]
    lines += ["", *markdown_table(_DUMMY_TITLES, ["---:"] * 6, rows)]
    lines += ["", f"dummies have loaded {', '.join(loaded) if loaded else 'neither torch nor RLlib'}", ""]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    """One cluster's line of the table."""
    return [
        f"{row['env_runners']:,}",
        f"{row['learners']}{'' if row['is_possible'] else ' *'}",
        *(f"{row[name]:.3f}" for name in (*IterationCosts._fields, "seconds", "seconds_ahead")),
        *(f"{row[name]:,.0f}" for name in ("env_steps_per_second", "env_steps_per_second_ahead")),
        *(f"{row[f'{name}_bytes'] / _MB:.1f}" for name in _BYTES),
        row["bottleneck"],
    ]
