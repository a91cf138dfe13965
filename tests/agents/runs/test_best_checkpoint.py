"""The best weights of a run: compared with those on the disk, written now and then, and with every checkpoint."""

from pathlib import Path

import pytest
import torch

from ctm_rl.agents.runs import best_checkpoint
from ctm_rl.agents.runs.best_checkpoint import BestCheckpoint, Candidate
from ctm_rl.checkpoints.best import folder_of, read_best
from ctm_rl.checkpoints.store import CheckpointError


def candidate(iteration: int, value: float, metric: str = "accuracy", weight: float = 1.0) -> Candidate:
    """Weights with a value."""
    return Candidate(iteration, metric, value, {"model": {"weights": {"a": torch.full((2,), weight)}}})


def best_of(run: Path) -> tuple[int, float] | None:
    """Iteration and value of the best checkpoint."""
    best = read_best(run)
    return None if best is None else (best.iteration, best.value)


def test_the_first_of_the_best_stays_and_others_are_not_written(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path)
    for iteration, value in ((1, 0.5), (2, 0.4), (3, 0.7), (4, 0.7), (5, 0.6)):
        best.offer(candidate(iteration, value))
    best.write(is_forced=True)
    assert best_of(tmp_path) == (3, 0.7)
    # A resumed run has another object, and goes on comparing.
    again = BestCheckpoint(tmp_path)
    again.offer(candidate(6, 0.65))
    again.write(is_forced=True)
    assert best_of(tmp_path) == (3, 0.7)
    # Values of another metric cannot be compared.
    again.offer(candidate(7, -3.0, "eval_return_mean"))
    again.write(is_forced=True)
    assert best_of(tmp_path) == (7, -3.0)


def test_writing_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(best_checkpoint.time, "monotonic", lambda: clock[0])
    best, save = BestCheckpoint(tmp_path), best_checkpoint.save_best

    def slow(*arguments: object, **options: object) -> Path:
        clock[0] += 0.5
        return save(*arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(best_checkpoint, "save_best", slow)
    written = []
    for iteration in range(1, 241):
        clock[0] += 0.5
        best.offer(candidate(iteration, float(iteration)))
        best.write()
        written.append(best_of(tmp_path))
    assert len(set(written)) == 3  # at the beginning, after 50 seconds, and after 100
    best.write(is_forced=True)
    assert best_of(tmp_path) == (240, 240.0)


def test_weights_that_are_not_finite_or_cannot_be_written_leave_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best = BestCheckpoint(tmp_path)
    best.offer(candidate(1, 0.5))
    best.write(is_forced=True)
    best.offer(candidate(2, 0.6, weight=float("nan")))
    best.write(is_forced=True)
    assert best_of(tmp_path) == (1, 0.5)

    def refuse(*_: object, **__: object) -> None:
        raise CheckpointError("checkpoint x cannot be written: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(best_checkpoint, "save_best", refuse)
        best.offer(candidate(3, 0.6))
        best.write(is_forced=True)
        best.write(is_forced=True)
    assert caplog.text.count("The best weights are kept in memory; training continues") == 1
    best.write(is_forced=True)
    assert best_of(tmp_path) == (3, 0.6)
    (folder_of(tmp_path) / "best.json").write_text("{")
    best.offer(candidate(4, 0.1))
    best.write(is_forced=True)
    assert best_of(tmp_path) == (4, 0.1)
