"""What is emitted over the ticks and how long it took, recomputed tick by tick."""

import pytest
import torch
from torch import Tensor

from ctm_rl.metrics import SortingScores, emissions, share_interval

B, N, K = 30, 4, 9


def one_hot(rows: Tensor, num_classes: int = N + 1) -> Tensor:
    """Logits [B, C, K] of what each tick prefers, [B, K]."""
    return torch.nn.functional.one_hot(rows, num_classes).transpose(1, 2).float()


def emit(row: list[int], blank: int = N) -> list[tuple[int, int]]:
    """(index, tick) of everything that one row emits."""
    emitted = []
    previous = blank
    for tick, best in enumerate(row):
        if best not in (blank, previous):
            emitted.append((best, tick))
        previous = best
    return emitted


def draw(num_ticks: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """What each tick prefers (in half of the rows the right order with blanks between), numbers and their order."""
    generator = torch.Generator().manual_seed(num_ticks)
    numbers = torch.randn(B, N, generator=generator)
    targets = numbers.argsort(1)
    rows = torch.randint(N + 1, (B, num_ticks), generator=generator)
    for index in range(0, B, 2):
        if num_ticks >= N:
            rows[index] = N
            ticks = torch.randperm(num_ticks, generator=generator)[:N].sort().values
            rows[index, ticks] = targets[index]
    return rows, numbers, targets


def test_decoding_merges_repetitions_and_leaves_blanks_out() -> None:
    rows = torch.tensor([[2, 2, 3, 2, 0, 0, 1], [3, 3, 3, 3, 3, 3, 3], [1, 3, 1, 2, 2, 0, 3]])
    indices, _, counts = emissions(one_hot(rows, 4))
    expected = [[2, 2, 0, 1], [], [1, 1, 2, 0]]
    assert [row[:count] for row, count in zip(indices.tolist(), counts.tolist(), strict=True)] == expected


@pytest.mark.parametrize("num_ticks", [1, 2, K])
def test_emissions_equal_a_loop_over_ticks(num_ticks: int) -> None:
    rows, _, _ = draw(num_ticks)
    result = emissions(one_hot(rows))
    expected = [emit(row) for row in rows.tolist()]
    assert result.counts.tolist() == [len(row) for row in expected]
    assert result.indices.tolist() == [[i for i, _ in row] + [-1] * (num_ticks - len(row)) for row in expected]
    assert result.ticks.tolist() == [[t for _, t in row] + [-1] * (num_ticks - len(row)) for row in expected]


@pytest.mark.parametrize("num_ticks", [1, 2, K])
def test_sorting_scores_equal_a_loop_over_emissions(num_ticks: int) -> None:
    rows, numbers, targets = draw(num_ticks)
    edges = [0.1, 0.5, 1.0]
    scores = SortingScores(edges)
    for part in torch.arange(B).split([4, 0, 26]):
        scores.add(one_hot(rows[part]), numbers[part], targets[part])
    whole, elements, squares = 0, 0, 0
    by_place: list[list[int]] = [[] for _ in range(N)]
    by_gap: list[list[int]] = [[] for _ in edges]
    for row, values, target in zip(rows.tolist(), numbers.tolist(), targets.tolist(), strict=True):
        emitted = emit(row)
        whole += [index for index, _ in emitted] == target
        before, others = -1, elements
        for place, (index, tick) in enumerate(emitted[:N]):
            elements += index == target[place]
            by_place[place].append(tick - before - 1)
            before = tick
            if place and index == target[place] and emitted[place - 1][0] == target[place - 1]:
                gap = values[target[place]] - values[target[place - 1]]
                for bin_index in reversed(range(len(edges))):
                    if gap >= edges[bin_index]:
                        by_gap[bin_index].append(by_place[place][-1])
                        break
        squares += (elements - others) ** 2
    assert scores.summary() == {
        "num_samples": B,
        "accuracy": elements / (B * N),
        "accuracy_interval": share_interval(elements, squares, B, N),
        "accuracy_whole_interval": share_interval(whole, whole, B, 1),
        "accuracy_whole": whole / B,
        "wait_by_place": [sum(waits) / len(waits) if waits else None for waits in by_place],
        "wait_by_gap": [
            {"low": low, "high": high, "count": len(waits), "wait": sum(waits) / len(waits) if waits else None}
            for low, high, waits in zip(edges, [0.5, 1.0, None], by_gap, strict=True)
        ],
    }
    if num_ticks == K:
        assert 0 < whole < B and all(by_gap)


def test_waits_count_blanks_and_repetitions_since_the_previous_emission() -> None:
    numbers = torch.tensor([[0.25, 0.0, 0.75]])  # the second gap equals an edge
    scores = SortingScores([0.0, 0.5])
    # one blank, then index 1 twice, a blank, index 0, and immediately index 2
    scores.add(one_hot(torch.tensor([[3, 1, 1, 3, 0, 2]]), 4), numbers, numbers.argsort(1))
    summary = scores.summary()
    assert summary["accuracy_whole"] == summary["accuracy"] == 1.0
    assert summary["wait_by_place"] == [1.0, 2.0, 0.0]
    assert summary["wait_by_gap"] == [
        {"low": 0.0, "high": 0.5, "count": 1, "wait": 2.0},
        {"low": 0.5, "high": None, "count": 1, "wait": 0.0},
    ]


def test_extra_emissions_are_not_exactly_sorted_and_no_emissions_are_all_wrong() -> None:
    numbers = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    scores = SortingScores()
    scores.add(one_hot(torch.tensor([[0, 1, 0], [2, 2, 2]]), 3), numbers, numbers.argsort(1))
    summary = scores.summary()
    assert (summary["accuracy"], summary["accuracy_whole"]) == (0.5, 0.0)
    assert summary["wait_by_place"] == [0.0, 0.0]
    empty = SortingScores()
    empty.add(one_hot(torch.tensor([[2, 2, 2]]), 3), numbers[:1], numbers[:1].argsort(1))
    summary = empty.summary()
    assert (summary["accuracy"], summary["accuracy_whole"]) == (0.0, 0.0)
    assert summary["wait_by_place"] == [None, None]
    assert {row["wait"] for row in summary["wait_by_gap"]} == {None}


def test_a_single_number_has_no_gap() -> None:
    numbers = torch.tensor([[0.5]])
    scores = SortingScores()
    scores.add(one_hot(torch.tensor([[1, 0]]), 2), numbers, torch.zeros(1, 1, dtype=torch.long))
    summary = scores.summary()
    assert (summary["accuracy_whole"], summary["wait_by_place"]) == (1.0, [1.0])
    assert sum(row["count"] for row in summary["wait_by_gap"]) == 0


@pytest.mark.parametrize("edges", [[], [0.5, 0.5], [1.0, 0.5], [-1.0, 0.5]])
def test_edges_that_do_not_increase_are_refused(edges: list[float]) -> None:
    with pytest.raises(ValueError, match="must increase from at least 0"):
        SortingScores(edges)


def test_nothing_added_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        SortingScores().summary()
