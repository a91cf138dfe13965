"""Measures what evaluation while training costs, and counts again which weights of a run are the best.

``python scripts/measure_evaluation.py cost [--rounds 12] [--num-env-runners 0]`` trains two runs in turn, ten
iterations each, one of them with an evaluation of 20 episodes in every ten iterations, and compares their steps a
second. The evaluation begins after the first of its ten iterations, so that all of it falls into them; the script says
if it did not. Both runs are in one process with one thread; evaluations are in another. Nothing else should run.

``python scripts/measure_evaluation.py recount RUN`` evaluates all kept checkpoints of a run as the run has done, and
compares the best one with ``checkpoints/best``.
"""

import argparse
import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from ctm_rl.agents.cluster.session import check_machine, prepare_environment, ray_for
from ctm_rl.agents.cluster.signals import StopRequest
from ctm_rl.agents.experiments.acting import ActingExperiment
from ctm_rl.agents.experiments.settings import EvalSettings
from ctm_rl.agents.run_directory.progress import Progress, Row
from ctm_rl.configs import load

EVERY, EPISODES = 10, 20


def measure_cost(rounds: int, num_env_runners: int) -> float:
    """Trains both runs in turn and prints each round; returns the median share of the speed that evaluations cost."""
    from ctm_rl.agents.runs.train_and_resume import new_run

    experiment = load("cartpole")
    assert isinstance(experiment, ActingExperiment)
    budget = dataclasses.replace(experiment.budget, env_steps=10**9)
    # Without annealing, whose schedule would depend on that budget.
    ppo = dataclasses.replace(experiment.ppo, is_lr_annealed=False)
    plain = dataclasses.replace(experiment, budget=budget, ppo=ppo, num_env_runners=num_env_runners)
    evaluated = dataclasses.replace(plain, eval=EvalSettings(every=EVERY, episodes=EPISODES))
    request = StopRequest(lambda: None)
    prepare_environment(plain)
    costs: list[float] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(ray_for(plain, request, check_machine(plain), num_cpus=2 + 2 * num_env_runners))
        rows: dict[str, Generator[Row, None, None]] = {}
        for name, one in (("without", plain), ("with", evaluated)):
            placed = dataclasses.replace(one, run_dir=str(folder / name))
            run = stack.enter_context(new_run(placed, request, Progress(), is_placed=True))
            rows[name] = stack.enter_context(contextlib.closing(run.rows()))
        # The first evaluation starts its process. Every block begins with the iteration that an evaluation follows.
        for name in rows:
            _train(rows[name], 2 * EVERY - 1)
        for number in range(rounds):
            order = ("without", "with") if number % 2 == 0 else ("with", "without")
            speeds = {name: _speed(rows[name], is_evaluated=name == "with") for name in order}
            costs.append(1 - speeds["with"] / speeds["without"])
            shown = ", ".join(f"{name} {speed:,.0f} steps/s" for name, speed in sorted(speeds.items()))
            print(f"round {number + 1}: {shown}, cost {100 * costs[-1]:+.1f} %", flush=True)
    return statistics.median(costs)


def _train(rows: Generator[Row, None, None], count: int) -> list[Row]:
    """Trains some iterations."""
    return [next(rows) for _ in range(count)]


def _speed(rows: Generator[Row, None, None], *, is_evaluated: bool) -> float:
    """Environment steps a second over ten iterations, by the clock outside of the run."""
    began = time.perf_counter()
    trained = _train(rows, EVERY)
    seconds = time.perf_counter() - began
    first, last = trained[0], trained[-1]
    if is_evaluated and last["eval_iteration"] != first["iteration"]:
        print(f"the evaluation of iteration {first['iteration']} was not over after {EVERY} iterations", flush=True)
    steps = (last["env_steps"] or 0) - (first["env_steps"] or 0)
    return steps / (EVERY - 1) * EVERY / seconds


def recount(run_dir: Path) -> bool:
    """Evaluates all kept checkpoints of a run again; returns whether the best one is in ``checkpoints/best``."""
    from ctm_rl.agents.evaluation.evaluator import evaluate_weights
    from ctm_rl.agents.run_directory.directory import read_config
    from ctm_rl.agents.run_directory.metrics_file import read_metrics
    from ctm_rl.checkpoints import store
    from ctm_rl.checkpoints.best import read_best

    experiment = read_config(run_dir)
    assert isinstance(experiment, ActingExperiment)
    best = read_best(run_dir)
    assert best is not None
    places = {iteration: store.path_of(run_dir, iteration) for iteration in sorted(store.iterations_of(run_dir))}
    last, every = read_metrics(run_dir)[-1]["iteration"], experiment.eval.every
    assert every is not None
    returns: dict[int, float] = {}
    for iteration, place in {**places, best.iteration: best.path}.items():
        if iteration and (iteration % every == 0 or iteration in (last, best.iteration)):
            result = evaluate_weights(experiment.evaluated_env, experiment.eval, iteration, store.load(place))
            returns[iteration] = result["episode_return_mean"]
            print(f"iteration {iteration}: {returns[iteration]:.3f}", flush=True)
    winner = max(returns, key=lambda iteration: (returns[iteration], -iteration))
    print(f"recounted best: iteration {winner}, {returns[winner]:.3f}; checkpoints/best: iteration {best.iteration}, "
          f"{best.value:.3f}")  # fmt: skip
    return winner == best.iteration and returns[winner] == best.value


def main() -> int:
    """Reads the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    cost = kinds.add_parser("cost")
    cost.add_argument("--rounds", type=int, default=12)
    cost.add_argument("--num-env-runners", type=int, default=0)
    kinds.add_parser("recount").add_argument("run_dir", type=Path)
    options = parser.parse_args()
    if options.kind == "recount":
        return 0 if recount(options.run_dir) else 1
    median = measure_cost(options.rounds, options.num_env_runners)
    print(f"evaluation of {EPISODES} episodes in every {EVERY} iterations costs {100 * median:+.1f} % (median)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
