"""Accuracy by position, by route length and by question, recomputed sample by sample."""

import pytest
import torch
from torch import Tensor

from ctm_rl.metrics import AnswerScores, PositionScores, QuestionScores, RouteScores

B, G, C, K = 40, 7, 5, 3


def draw(num_ticks: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """Routes of every length, most of their steps right, certainties and moves."""
    generator = torch.Generator().manual_seed(num_ticks)
    targets = torch.randint(4, (B, G), generator=generator)
    lengths = torch.arange(B) % (G + 1)
    targets[torch.arange(G) >= lengths[:, None]] = 4
    predictions = torch.randn(B, G, C, num_ticks, generator=generator)
    bonus = 3 * torch.ones(B, G, 1, num_ticks)
    predictions.scatter_add_(2, targets[..., None, None].expand(B, G, 1, num_ticks), bonus)
    return predictions, torch.rand(B, num_ticks, generator=generator), targets


def right_elements(predictions: Tensor, targets: Tensor, sample: int, tick: int) -> list[bool]:
    """Which elements of one sample are right after one tick."""
    answers = [predictions[sample, position, :, tick].tolist() for position in range(targets.shape[1])]
    return [a.index(max(a)) == t for a, t in zip(answers, targets[sample].tolist(), strict=True)]


def most_certain(certainties: Tensor, sample: int) -> int:
    """The tick at which one sample is read."""
    return certainties[sample].tolist().index(float(certainties[sample].max()))


@pytest.mark.parametrize("num_ticks", [1, K])
def test_position_scores_equal_a_loop_over_positions(num_ticks: int) -> None:
    predictions, certainties, targets = draw(num_ticks)
    scores = PositionScores()
    for part in torch.arange(B).split([3, 37]):
        scores.add(predictions[part], certainties[part], targets[part])
    chosen = [right_elements(predictions, targets, i, most_certain(certainties, i)) for i in range(B)]
    last = [right_elements(predictions, targets, i, num_ticks - 1) for i in range(B)]
    assert scores.summary() == {
        "accuracy_by_position": [sum(row[g] for row in chosen) / B for g in range(G)],
        "accuracy_by_position_last": [sum(row[g] for row in last) / B for g in range(G)],
    }


@pytest.mark.parametrize("num_ticks", [1, K])
@pytest.mark.parametrize("bin_size", [1, 3, 10])
def test_route_scores_equal_a_loop_over_routes(num_ticks: int, bin_size: int) -> None:
    predictions, certainties, targets = draw(num_ticks)
    scores, answers = RouteScores(), AnswerScores()
    for part in torch.arange(B).split([11, 0, 29]):
        scores.add(predictions[part], certainties[part], targets[part])
        answers.add(predictions[part], certainties[part], targets[part])
    routes = []
    for sample in range(B):
        right = right_elements(predictions, targets, sample, most_certain(certainties, sample))
        moves = [flag for flag, move in zip(right, targets[sample].tolist(), strict=True) if move != 4]
        routes.append((moves, all(right)))

    def shares(part: list[tuple[list[bool], bool]]) -> dict[str, float | None]:
        steps = [flag for moves, _ in part for flag in moves]
        return {
            "num_samples": len(part),
            "steps": sum(steps) / len(steps) if steps else None,
            "route": sum(all(moves) for moves, _ in part) / len(part) if part else None,
            "whole": sum(whole for _, whole in part) / len(part) if part else None,
        }

    summary = scores.summary(bin_size)
    by_length = summary.pop("by_length")
    assert summary == shares(routes)
    assert summary["whole"] == answers.summary()["accuracy_whole"]
    assert summary["route"] > summary["whole"] > 0
    low = 1
    for row in by_length:
        high = min(low + bin_size - 1, G)
        part = [route for route in routes if low <= max(len(route[0]), 1) <= high]
        assert row == {"low": low, "high": high, **shares(part)}
        low = high + 1
    assert low == G + 1


def test_lengths_without_routes_have_no_shares() -> None:
    targets = torch.tensor([[0, 4, 4, 4], [0, 1, 2, 3]])
    predictions = torch.nn.functional.one_hot(torch.tensor([[0, 0, 0, 0], [1, 1, 2, 3]]), C)[..., None].float()
    scores = RouteScores()
    scores.add(predictions, torch.ones(2, 1), targets)
    summary = scores.summary(bin_size=1)
    assert [row["num_samples"] for row in summary["by_length"]] == [1, 0, 0, 1]
    # the waits of the first are wrong, its only move is right; the second misses its first move
    first = {"low": 1, "high": 1, "num_samples": 1, "steps": 1.0, "route": 1.0, "whole": 0.0}
    assert summary["by_length"][0] == first
    assert summary["by_length"][1] == {
        "low": 2, "high": 2, "num_samples": 0, "steps": None, "route": None, "whole": None,
    }  # fmt: skip
    assert (summary["steps"], summary["route"], summary["whole"]) == (0.8, 0.5, 0.0)


def test_routes_of_waits_alone_have_no_steps() -> None:
    targets = torch.full((2, G), 4)
    predictions = torch.nn.functional.one_hot(targets, C)[..., None].float()
    scores = RouteScores()
    scores.add(predictions, torch.ones(2, 1), targets)
    summary = scores.summary()
    assert (summary["num_samples"], summary["steps"], summary["route"], summary["whole"]) == (2, None, 1.0, 1.0)


@pytest.mark.parametrize("num_ticks", [1, K])
def test_question_scores_equal_a_loop_over_questions(num_ticks: int) -> None:
    predictions, certainties, targets = draw(num_ticks)
    predictions, targets = predictions[:, :1], targets[:, :1]
    generator = torch.Generator().manual_seed(1)
    digits, operations = torch.randint(1, 4, (2, B), generator=generator)
    operations[digits == 2] = 1  # some cells of the table stay empty
    scores = QuestionScores()
    for part in torch.arange(B).split([25, 0, 15]):
        scores.add(predictions[part], certainties[part], targets[part], digits[part], operations[part])
    table: dict[tuple[int, int], list[list[bool]]] = {}
    for i in range(B):
        ticks = (most_certain(certainties, i), num_ticks - 1)
        right = [all(right_elements(predictions, targets, i, tick)) for tick in ticks]
        table.setdefault((int(digits[i]), int(operations[i])), []).append(right)
    assert (2, 3) not in table
    assert scores.summary() == [
        {
            "num_digits": size[0],
            "num_operations": size[1],
            "num_samples": len(rows),
            "accuracy": sum(row[0] for row in rows) / len(rows),
            "accuracy_last": sum(row[1] for row in rows) / len(rows),
        }
        for size, rows in sorted(table.items())
    ]


def test_questions_with_different_numbers_of_ticks_are_counted_together() -> None:
    scores = QuestionScores()
    for num_ticks in (2, 3):
        predictions, certainties, targets = draw(num_ticks)
        ones = torch.ones(B, dtype=torch.long)
        scores.add(predictions[:, :1], certainties, targets[:, :1], ones, ones)
    assert [row["num_samples"] for row in scores.summary()] == [2 * B]


@pytest.mark.parametrize("kind", [PositionScores, RouteScores, QuestionScores])
def test_nothing_added_is_refused(kind: type[PositionScores | RouteScores | QuestionScores]) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        kind().summary()


def test_batches_that_do_not_fit_are_refused() -> None:
    predictions, certainties, targets = draw()
    scores = RouteScores()
    scores.add(predictions[:0], certainties[:0], targets[:0])
    with pytest.raises(ValueError, match="at least one sample"):
        scores.summary()
    scores.add(predictions, certainties, targets)
    with pytest.raises(ValueError, match="bin_size must be at least 1, got 0"):
        scores.summary(0)
    with pytest.raises(ValueError, match="same number of elements"):
        scores.add(predictions[:, :3], certainties, targets[:, :3])
