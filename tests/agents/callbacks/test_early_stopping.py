"""Early stops: when a value counts, what patience counts, and that a resumed run goes on where it was."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ctm_rl.agents.callbacks.callback import RunView
from ctm_rl.agents.callbacks.early_stopping import EarlyStopping, measure_of
from ctm_rl.agents.experiments.settings import StopSettings
from ctm_rl.configs import load

WINDOW = 10


def nothing() -> None:
    return None


def stopping(experiment: Any, **settings: Any) -> EarlyStopping:
    return EarlyStopping(StopSettings(**settings), measure_of(experiment, WINDOW))


def stopped_in(
    callback: EarlyStopping, rows: list[dict[str, Any]], directory: Path, first: int = 1
) -> tuple[int, str] | None:
    """The iteration in which a run of these lines stops, and why; lines are written as the run writes them."""
    run = RunView(directory, load("cartpole"), position=nothing, algorithm=nothing, policy=nothing)
    with (directory / "metrics.jsonl").open("a") as file:
        for number, row in enumerate(rows, first):
            line = {"iteration": number, **row}
            file.write(json.dumps(line) + "\n")
            file.flush()
            callback.on_iteration(run, line)
            if run.stop_reason is not None:
                return number, run.stop_reason
    return None


def returns(*values: float | None, num_episodes: int = 5) -> list[dict[str, Any]]:
    return [{"episode_return_mean": value, "num_episodes": num_episodes} for value in values]


def test_a_return_counts_once_the_window_is_full(tmp_path: Path) -> None:
    callback = stopping(load("cartpole"), at_return=100.0)
    found = stopped_in(callback, returns(None, 500, 99.9, 100, 300), tmp_path)
    # With 5 episodes in each iteration, 10 have ended after the second: the 500 counts.
    assert found == (2, "mean return of 10 episodes is 500, at least --stop.at-return 100")
    (tmp_path / "metrics.jsonl").unlink()
    lonely = stopping(load("cartpole"), at_return=100.0)
    assert stopped_in(lonely, returns(500, 400, 300, 100, num_episodes=3), tmp_path) == (
        4,
        "mean return of 10 episodes is 100, at least --stop.at-return 100",
    )


def test_patience_counts_iterations_in_a_row_without_a_better_value(tmp_path: Path) -> None:
    callback = stopping(load("cartpole"), patience=3)
    values = returns(9, 1, 2, 2, 1, 3, 3, 2, 3, 4)
    found = stopped_in(callback, values, tmp_path)
    # 9 is of too few episodes; 2 stands for two iterations, then 3 is better; equal values are not better.
    assert found == (
        9,
        "mean return of 10 episodes was best in iteration 6 (3), and not better for --stop.patience 3 iterations",
    )


@pytest.mark.parametrize("cut", [4, 7, 8])
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(cut: int, tmp_path: Path) -> None:
    values = returns(9, 1, 2, 2, 1, 3, 3, 2, 3, 4)
    assert stopped_in(stopping(load("cartpole"), patience=3), values[:cut], tmp_path) is None
    # What a crash has left of later iterations does not count.
    found = stopped_in(stopping(load("cartpole"), patience=3), values[cut:], tmp_path, cut + 1)
    assert found is not None
    assert found[0] == 9


def test_a_run_that_patience_has_stopped_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    first = stopped_in(stopping(load("cartpole"), patience=2), returns(1, 5, 4, 4), tmp_path)
    assert first is not None
    assert first[0] == 4
    second = stopped_in(stopping(load("cartpole"), patience=2), returns(4, 6, 5, 5, 7), tmp_path, 5)
    assert second is not None
    assert second[0] == 8
    assert "best in iteration 6 (6)" in second[1]


def test_iterations_that_are_trained_again_count_once(tmp_path: Path) -> None:
    callback = stopping(load("cartpole"), patience=3)
    assert stopped_in(callback, returns(9, 2, 1, 1), tmp_path) is None
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    found = stopped_in(callback, returns(1, 1, 1), tmp_path, 3)
    assert found is not None
    assert found[0] == 5


def test_accuracies_count_at_the_tests_on_held_out_samples(tmp_path: Path) -> None:
    experiment = load("parity")
    every = experiment.held_out.num_iterations  # pyright: ignore[reportAttributeAccessIssue]
    assert every > 1
    # Repeated until the next test.
    scores = [0.5, 0.7, 0.7, 0.69, 0.9]
    rows = [{"accuracy": None}] * (every - 1) + [{"accuracy": score} for score in scores for _ in range(every)]
    found = stopped_in(stopping(experiment, at_accuracy=0.65), rows, tmp_path)
    assert found == (2 * every, "held-out accuracy is 0.7, at least --stop.at-accuracy 0.65")
    (tmp_path / "metrics.jsonl").unlink()
    found = stopped_in(stopping(experiment, patience=2), rows, tmp_path)
    assert found is not None
    assert found[0] == 4 * every
    assert "best in iteration 20 (0.7), and not better for --stop.patience 2 tests" in found[1]


def test_the_evaluations_value_counts_where_there_are_evaluations(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Evaluated:
        every: int = 2

    class WithEval:
        eval = Evaluated()

    callback = EarlyStopping(StopSettings(at_return=100.0), measure_of(WithEval(), WINDOW))  # pyright: ignore[reportArgumentType]
    rows = [
        {"episode_return_mean": 500.0, "num_episodes": 99, "eval_return_mean": value} for value in (None, 50.0, 50.0)
    ]
    rows.append({"episode_return_mean": 1.0, "num_episodes": 0, "eval_return_mean": 120.0})
    found = stopped_in(callback, rows, tmp_path)
    assert found == (4, "mean return of the evaluation is 120, at least --stop.at-return 100")


@pytest.mark.parametrize(
    ("name", "stop", "message"),
    [
        ("cartpole", {"at_accuracy": 0.9}, "stop.at_accuracy has no effect in runs that act; use stop.at_return"),
        ("parity", {"at_return": 9.0}, "stop.at_return has no effect in runs that answer; use stop.at_accuracy"),
    ],
)
def test_a_stop_without_effect_is_refused(name: str, stop: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(load(name), stop=StopSettings(**stop))


@pytest.mark.parametrize("stop", [{"at_accuracy": 1.5}, {"patience": 0}, {"at_return": float("nan")}])
def test_values_that_no_run_reaches_are_refused(stop: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(stop))):
        StopSettings(**stop)
