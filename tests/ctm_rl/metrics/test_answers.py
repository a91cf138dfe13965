"""Accuracy by tick and stopping ticks, recomputed sample by sample."""

import pytest
import torch
from torch import Tensor

from ctm_rl.metrics import (
    AnswerScores,
    StoppingScores,
    at_tick,
    most_certain_tick,
    right_by_tick,
    share_interval,
    stopping_ticks,
    wilson_interval,
)

B, G, C, K = 13, 3, 4, 5


def draw(num_ticks: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """Answers of which about half are right, certainties and targets."""
    generator = torch.Generator().manual_seed(num_ticks)
    targets = torch.randint(C, (B, G), generator=generator)
    predictions = torch.randn(B, G, C, num_ticks, generator=generator)
    predictions.scatter_add_(2, targets[..., None, None].expand(B, G, 1, num_ticks), torch.ones(B, G, 1, num_ticks))
    return predictions, torch.rand(B, num_ticks, generator=generator), targets


def one_hot(answers: Tensor, num_classes: int = C) -> Tensor:
    """Logits [B, G, C, K] of answers [B, G, K]."""
    return torch.nn.functional.one_hot(answers, num_classes).transpose(2, 3).float()


def count_right(predictions: Tensor, targets: Tensor, sample: int, tick: int) -> int:
    """How many elements of one sample are right after one tick."""
    right = 0
    for position in range(targets.shape[1]):
        logits = predictions[sample, position, :, tick].tolist()
        right += logits.index(max(logits)) == int(targets[sample, position])
    return right


def test_accuracy_reads_each_sample_at_its_most_certain_tick() -> None:
    predictions = one_hot(torch.tensor([[[0, 1, 1], [1, 1, 0]], [[1, 0, 0], [0, 0, 1]]]), 2)
    targets = torch.tensor([[1, 1], [0, 1]])
    certainties = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.5, 0.4]])
    scores = AnswerScores()
    scores.add(predictions, certainties, targets)
    result = scores.summary()
    # right by tick: (0, 1, 0, 0), (1, 1, 1, 0), (1, 0, 1, 1)
    assert result["accuracy_by_tick"] == [0.25, 0.75, 0.75]
    assert result["accuracy"] == 0.75
    assert result["accuracy_whole"] == 0.5


def test_the_earliest_of_equally_certain_ticks_is_read() -> None:
    assert most_certain_tick(torch.tensor([[0.1, 0.7, 0.7], [0.5, 0.5, 0.5]])).tolist() == [1, 0]


def test_the_first_of_equally_likely_classes_is_the_answer() -> None:
    predictions = torch.tensor([1.0, 2.0, 0.0, 2.0])[None, None, :, None].expand(1, 2, C, K)
    assert right_by_tick(predictions, torch.tensor([[1, 3]]))[..., 0].tolist() == [[True, False]]


def test_each_sample_is_read_at_its_own_tick() -> None:
    values = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert at_tick(values, torch.tensor([3, 1])).tolist() == [[3, 7, 11], [13, 17, 21]]
    assert at_tick(values[:, 0], torch.tensor([3, 1])).tolist() == [3, 13]


@pytest.mark.parametrize("num_ticks", [1, K])
def test_answer_scores_equal_a_loop_over_samples(num_ticks: int) -> None:
    predictions, certainties, targets = draw(num_ticks)
    scores = AnswerScores()
    for part in torch.arange(B).split([2, 7, 0, 4]):  # unequal batches, one of them empty
        scores.add(predictions[part], certainties[part], targets[part])
    right = [[count_right(predictions, targets, sample, tick) for tick in range(num_ticks)] for sample in range(B)]
    chosen = [row[certainty.index(max(certainty))] for row, certainty in zip(right, certainties.tolist(), strict=True)]
    expected = {
        "num_samples": B,
        "accuracy": sum(chosen) / (B * G),
        "accuracy_whole": sum(one == G for one in chosen) / B,
        "accuracy_interval": share_interval(sum(chosen), sum(one * one for one in chosen), B, G),
        "accuracy_whole_interval": wilson_interval(sum(one == G for one in chosen) / B, B),
        "accuracy_last": sum(row[-1] for row in right) / (B * G),
        "accuracy_whole_last": sum(row[-1] == G for row in right) / B,
        "accuracy_by_tick": [sum(column) / (B * G) for column in zip(*right, strict=True)],
        "accuracy_whole_by_tick": [sum(one == G for one in column) / B for column in zip(*right, strict=True)],
    }
    summary = scores.summary()
    assert summary.pop("certainty_by_tick") == pytest.approx(certainties.mean(0).tolist())
    assert summary == expected
    assert 0 < expected["accuracy_whole"] < expected["accuracy"] < 1


def test_answers_that_are_all_right_or_all_wrong_score_one_or_zero() -> None:
    targets = torch.tensor([[0, 1], [2, 3]])
    certainties = torch.rand(2, K, generator=torch.Generator().manual_seed(0))
    for shift, share in ((0, 1.0), (1, 0.0)):
        predictions = one_hot(((targets + shift) % C)[..., None].expand(-1, -1, K))
        scores, stopping = AnswerScores(), StoppingScores([0.5])
        scores.add(predictions, certainties, targets)
        stopping.add(predictions, certainties, targets)
        summary = scores.summary()
        assert {summary[name] for name in ("accuracy", "accuracy_last", "accuracy_whole", "accuracy_whole_last")} == {
            share
        }
        assert summary["accuracy_by_tick"] == summary["accuracy_whole_by_tick"] == [share] * K
        assert stopping.summary()[0]["accuracy"] == stopping.summary()[0]["accuracy_whole"] == share


@pytest.mark.parametrize("num_ticks", [1, K])
def test_stopping_scores_equal_a_loop_over_samples_and_ticks(num_ticks: int) -> None:
    predictions, certainties, targets = draw(num_ticks)
    thresholds = [0.9, 0.0, 0.5, 1.0]
    scores = StoppingScores(thresholds)
    for part in torch.arange(B).split([5, 8]):
        scores.add(predictions[part], certainties[part], targets[part])
    for threshold, row in zip(thresholds, scores.summary(), strict=True):
        ticks, right = [], []
        for sample in range(B):
            tick = 0
            while tick < num_ticks - 1 and certainties[sample, tick] < threshold:
                tick += 1
            ticks.append(tick + 1)
            right.append(count_right(predictions, targets, sample, tick))
        assert row == {
            "threshold": threshold,
            "mean_ticks": sum(ticks) / B,
            "accuracy": sum(right) / (B * G),
            "accuracy_whole": sum(one == G for one in right) / B,
        }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_certainty_equal_to_the_threshold_stops(dtype: torch.dtype) -> None:
    certainties = torch.tensor([[0.2, 0.9, 0.3, 0.95], [0.2, 0.1, 0.3, 0.25]], dtype=dtype)
    thresholds = torch.tensor([0.9, 0.2, 0.99], dtype=torch.float64)
    assert stopping_ticks(certainties, thresholds).tolist() == [[1, 0, 3], [3, 0, 3]]


@pytest.mark.parametrize("scores", [AnswerScores(), StoppingScores()], ids=lambda scores: type(scores).__name__)
def test_nothing_added_and_batches_that_do_not_fit_are_refused(scores: AnswerScores | StoppingScores) -> None:
    predictions, certainties, targets = draw()
    with pytest.raises(ValueError, match="at least one sample"):
        scores.summary()
    scores.add(predictions[:0], certainties[:0], targets[:0])
    with pytest.raises(ValueError, match="at least one sample"):
        scores.summary()


def test_batches_with_another_number_of_ticks_are_refused_and_not_counted() -> None:
    predictions, certainties, targets = draw()
    scores = AnswerScores()
    scores.add(predictions, certainties, targets)
    before = scores.summary()
    with pytest.raises(ValueError, match="same number of elements and ticks"):
        scores.add(predictions[..., :2], certainties[:, :2], targets)
    assert scores.summary() == before


def test_a_threshold_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        StoppingScores([0.5, 1.5])
