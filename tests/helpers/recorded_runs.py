"""Short runs whose metrics were recorded: they show whether a change of the code changes a number.

``python tests/helpers/recorded_runs.py`` records them again, into ``golden/metrics.json`` on a machine like the first
one and otherwise into another file beside it: rounding that differs grows over the iterations of a run.
"""

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from paths import GOLDEN
from tiny_runs import comparable

ACTING = (
    *("--num-envs-per-env-runner", "8", "--ppo.num-rollout-steps", "16", "--ppo.num-minibatches", "2"),
    *("--ppo.num-epochs", "2", "--model.max-seq-len", "8", "--model.num-neurons", "32"),
    # as they were recorded, before experiments had other settings
    *("--model.normalize-observations", "False", "--model.use-first-order", "False", "--model.start-decay-rate", "0"),
    *("--ppo.lr", "1e-3", "--model.critic", "shared", "--ppo.is-clip-annealed", "False"),
)
ANSWERING = (
    *("--learning.batch-size", "8", "--learning.num-steps-per-iteration", "2", "--model.num-neurons", "32"),
    *("--learning.num-warmup-steps", "8", "--held-out.num-samples", "32", "--held-out.num-iterations", "5"),
    *("--num-threads", "1", "--budget.env-steps", "320"),
)
SYNC = ("--model.num-output-sync-neurons", "8", "--model.num-action-sync-neurons", "8")
RUNS: dict[str, tuple[str, ...]] = {
    "cartpole": ("cartpole", *ACTING, "--budget.env-steps", "2400"),
    "cartpole-window": ("cartpole-window", *ACTING, "--budget.env-steps", "2400"),
    "acrobot-lstm": ("acrobot", "--model.kind", "lstm", *ACTING, "--budget.env-steps", "2500"),
    "pendulum": ("pendulum", *ACTING, "--budget.env-steps", "2500"),
    "minigrid-doorkey": ("minigrid-doorkey", *ACTING, "--budget.env-steps", "2500"),
    "parity": ("parity", *ANSWERING, *SYNC),
    "mazes": ("mazes", *ANSWERING, "--model.num-ticks", "5"),
    "qa-mnist": ("qa-mnist", *ANSWERING, *SYNC),
    "sorting": (
        *("sorting", *ANSWERING, "--model.num-output-sync-neurons", "16"),
        # as it was recorded
        *("--model.use-first-order", "False", "--model.start-decay-rate", "0", "--learning.lr", "2e-3"),
    ),
    "mnist": ("mnist", *ANSWERING),
    "parity-bandit": (
        *("parity-bandit", *ANSWERING, *SYNC, "--bandit.num-epochs", "2"),
        *("--model.use-first-order", "False"),  # as it was recorded
    ),
}
"""What each run is trained with, beside ``--seed 1``."""
OLD_RUNS: dict[str, tuple[str, ...]] = {
    "acting": (
        *(
            "cartpole",
            *ACTING,
            "--model.num-neurons",
            "16",
            "--model.feature-dim",
            "16",
            "--checkpoint-iterations",
            "1",
        ),
        *("--model.num-output-sync-neurons", "8", "--ppo.is-lr-annealed", "False", "--budget.env-steps"),
    ),
    "answering": (
        *("parity", *ANSWERING, *SYNC, "--model.num-neurons", "16", "--model.feature-dim", "16"),
        *("--env.kwargs", '{"length": 6}', "--learning.schedule", "constant", "--checkpoint-iterations", "1"),
        *("--budget.env-steps",),
    ),
}
"""Runs that version 0.1.0 left in ``golden/runs``: what they were trained with, to be followed by their budget."""
BUDGETS = {"acting": ("240", "370", "480"), "answering": ("32", "64")}
"""Environment steps of two iterations, and of those at whose end each resumed run stops."""
NUM_ROWS = 20
ORDER_OF_SUMMATION = 1e-6
"""Relative difference that is allowed for rounding in another order of operations."""
OTHER_MACHINE = 1e-3
"""The same on a processor of another maker or with other vector instructions, or with another PyTorch."""
RECORD = GOLDEN / "metrics.json"
"""The first record; others lie beside it as ``metrics-MAKER-INSTRUCTIONS.json``."""


def machine() -> str:
    """What the last digits depend on: the processor's maker and vector instructions, and the version of PyTorch.

    MKL chooses other code for other makers, with the same vector instructions.
    """
    import torch

    info = Path("/proc/cpuinfo")
    maker = re.search(r"vendor_id\s*: (\S+)", info.read_text()) if info.is_file() else None
    parts = [platform.machine(), *([maker[1]] if maker else []), torch.backends.cpu.get_cpu_capability()]
    return f"{' '.join(parts)} torch {torch.__version__}"


def play(name: str, run_dir: str) -> list[dict[str, float | None]]:
    """Trains one of ``RUNS`` in this process; returns its first metrics without timings and memory."""
    from ctm_rl.cli.main import main

    assert main(["train", *RUNS[name], "--seed", "1", "--run-dir", run_dir]) == 0
    return comparable(run_dir)[:NUM_ROWS]


def evaluated(name: str) -> list[str]:
    """The command that evaluates an old run."""
    return ["evaluate", name, "--episodes", "40", "--seed", "5", "--json"]


def comparable_evaluation(output: str) -> dict[str, object]:
    """What an evaluation wrote, timings and intervals aside, which version 0.1.0 did not have."""
    aside = ("seconds", "ms", "interval")
    return {key: value for key, value in json.loads(output).items() if not any(word in key for word in aside)}


def resumed(name: str) -> list[dict[str, float | None]]:
    """Resumes an old run for as many iterations as it has; gives its metrics.

    One that acts is resumed for each iteration: version 0.1.0 began new episodes with every checkpoint, as a resumed
    run does.
    """
    from ctm_rl.cli.main import main

    for env_steps in BUDGETS[name][1:]:
        assert main(["resume", name, "--budget.env-steps", env_steps]) == 0
    return comparable(name)


def recorded() -> dict[str, Any]:
    """What was recorded on a machine like this one, or else the first record."""
    records = [json.loads(file.read_text()) for file in (RECORD, *sorted(GOLDEN.glob("metrics-*.json")))]
    return next((record for record in records if record["machine"] == machine()), records[0])


def assert_same_evaluation(result: Any, expected: Any, recorded_on: str) -> None:
    """Compares nested results of an evaluation: exactly on the machine they were recorded on, else but for rounding."""
    import pytest

    if machine() == recorded_on:
        assert json.dumps(result) == json.dumps(expected)
    elif isinstance(expected, dict):
        assert list(result) == list(expected)
        for key, value in expected.items():
            assert_same_evaluation(result[key], value, recorded_on)
    elif isinstance(expected, list):
        assert len(result) == len(expected)
        for one, value in zip(result, expected, strict=True):
            assert_same_evaluation(one, value, recorded_on)
    elif isinstance(expected, float):
        assert result == pytest.approx(expected, rel=ORDER_OF_SUMMATION, abs=ORDER_OF_SUMMATION)
    else:
        assert result == expected


def assert_equal(
    rows: list[dict[str, float | None]], expected: list[dict[str, float | None]], recorded_on: str
) -> None:
    """Compares metrics with recorded ones: closely on the machine they were recorded on, loosely on another."""
    import pytest

    tolerance = ORDER_OF_SUMMATION if machine() == recorded_on else OTHER_MACHINE
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for number, (row, wanted) in enumerate(zip(rows, expected, strict=True), 1):
        for key, value in wanted.items():
            where = f"line {number}: {key}"
            if value is None:
                assert row[key] is None, where
            else:
                assert row[key] == pytest.approx(value, rel=tolerance, abs=tolerance * 1e-3), where


def record() -> None:
    """Plays all of them and writes what came out."""
    import tempfile

    import ray

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=200 * 2**20)
        rows = {name: play(name, os.path.join(folder, name)) for name in RUNS}
        ray.shutdown()
    columns = {name: {key: [row[key] for row in runs] for key in runs[0]} for name, runs in rows.items()}
    lines = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"    {json.dumps(key)}: {json.dumps(values)}" for key, values in metrics.items())
        + "\n  }"
        for name, metrics in columns.items()
    ]
    processor, first = (one.partition(" torch ")[0] for one in (machine(), json.loads(RECORD.read_text())["machine"]))
    target = RECORD if processor == first else GOLDEN / f"metrics-{'-'.join(processor.split()[1:])}.json"
    target.write_text(f'{{\n  "machine": {json.dumps(machine())},\n' + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record()
