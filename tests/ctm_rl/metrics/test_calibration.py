"""Calibration, intervals and agreement with people, recomputed element by element."""

import math

import pytest
import torch
from torch import Tensor

from ctm_rl.metrics import (
    CalibrationScores,
    HumanScores,
    bootstrap_means,
    brier_scores,
    read_probabilities,
)
from ctm_rl.metrics.calibration import READINGS, bin_indices

B, G, C, K, BINS = 17, 2, 3, 4, 6


def draw(num_ticks: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """Answers, certainties and targets; in float64, so that no bin depends on rounding."""
    generator = torch.Generator().manual_seed(num_ticks)
    predictions = 2 * torch.randn(B, G, C, num_ticks, generator=generator, dtype=torch.float64)
    certainties = torch.rand(B, num_ticks, generator=generator)
    return predictions, certainties, torch.randint(C, (B, G), generator=generator)


def softmax(logits: list[float]) -> list[float]:
    """Probabilities of one element."""
    powers = [math.exp(one) for one in logits]
    return [one / sum(powers) for one in powers]


def read(predictions: Tensor, certainties: Tensor, reading: str, sample: int, position: int) -> list[float]:
    """Probabilities of one element, read in one of the three ways."""
    by_tick = [softmax(predictions[sample, position, :, tick].tolist()) for tick in range(predictions.shape[3])]
    if reading == "averaged":
        return [sum(column) / len(by_tick) for column in zip(*by_tick, strict=True)]
    certainty = certainties[sample].tolist()
    return by_tick[-1 if reading == "last" else certainty.index(max(certainty))]


def calibrate(elements: list[tuple[list[float], int]], num_bins: int) -> tuple[float, float, list[list[float]]]:
    """Calibration error, Brier score and (confidence, right) of each bin from (probabilities, target) pairs."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(num_bins)]
    brier = 0.0
    for probabilities, target in elements:
        confidence = max(probabilities)
        index = next(i for i in range(num_bins) if confidence <= (i + 1) / num_bins or i == num_bins - 1)
        bins[index].append((confidence, probabilities.index(confidence) == target))
        brier += sum((one - (c == target)) ** 2 for c, one in enumerate(probabilities))
    error = sum(abs(sum(right - confidence for confidence, right in part)) for part in bins)
    table = [[len(part), sum(c for c, _ in part), sum(r for _, r in part)] for part in bins]
    return error / len(elements), brier / len(elements), table


@pytest.mark.parametrize("num_ticks", [1, K])
def test_calibration_equals_a_loop_over_elements(num_ticks: int) -> None:
    predictions, certainties, targets = draw(num_ticks)
    scores = CalibrationScores(num_bins=BINS, num_resamples=3)
    for part in torch.arange(B).split([4, 0, 13]):
        scores.add(predictions[part], certainties[part], targets[part])
    summary = scores.summary()
    assert list(summary) == list(READINGS)
    for reading, result in summary.items():
        elements = [
            (read(predictions, certainties, reading, sample, position), int(targets[sample, position]))
            for sample in range(B)
            for position in range(G)
        ]
        error, brier, table = calibrate(elements, BINS)
        probabilities = read_probabilities(predictions, certainties)[reading]
        assert result["ece"] == pytest.approx(error)
        assert result["brier"] == pytest.approx(brier)
        assert float(brier_scores(probabilities, targets).mean()) == pytest.approx(brier)
        assert table[0][0] == 0  # three classes: no confidence is below 1/3
        for index, (row, (count, confidence, right)) in enumerate(zip(result["reliability"], table, strict=True)):
            assert (row["low"], row["high"], row["count"]) == (index / BINS, (index + 1) / BINS, count)
            assert row["confidence"] == (pytest.approx(confidence / count) if count else None)
            assert row["accuracy"] == (pytest.approx(right / count) if count else None)


def test_a_bin_holds_its_upper_edge_and_the_first_holds_zero() -> None:
    confidences = torch.tensor([0.0, 0.1, 0.25, 0.26, 0.5, 0.75, 0.76, 1.0])
    assert bin_indices(confidences, 4).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert bin_indices(confidences, 1).tolist() == [0] * 8


def test_sure_answers_are_calibrated_when_right_and_have_the_largest_error_when_wrong() -> None:
    targets = torch.tensor([[0], [2], [1]])
    for shift, error, brier in ((0, 0.0, 0.0), (1, 1.0, 2.0)):
        predictions = 1000 * torch.nn.functional.one_hot((targets + shift) % C, C)[..., None].float()
        scores = CalibrationScores(num_resamples=5)
        scores.add(predictions, torch.ones(3, 1), targets)
        for result in scores.summary().values():
            assert (result["ece"], result["brier"]) == (error, brier)
            assert (result["ece_interval"], result["brier_interval"]) == ([error] * 2, [brier] * 2)
            assert [row["count"] for row in result["reliability"]] == [0] * 14 + [3]
            assert result["reliability"][0]["accuracy"] is None


def test_resampled_means_equal_means_of_the_drawn_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctm_rl.metrics.intervals.CHUNK_SIZE", 20)  # two resamples at once, the last one alone
    values = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    means = bootstrap_means(values, 5, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    drawn = [row for rows in (2, 2, 1) for row in torch.randint(8, (rows, 8), generator=generator)]
    expected = torch.stack([torch.stack([values[int(index)] for index in row]).double().mean(0) for row in drawn])
    torch.testing.assert_close(means, expected)


def test_intervals_equal_a_loop_that_resamples_whole_samples() -> None:
    predictions, certainties, targets = draw()
    scores = CalibrationScores(num_bins=BINS, num_resamples=40, interval=0.8, seed=5)
    scores.add(predictions, certainties, targets)
    summary = scores.summary()
    drawn = torch.randint(B, (40, B), generator=torch.Generator().manual_seed(5)).tolist()
    for reading, result in summary.items():
        resampled = [
            calibrate(
                [(read(predictions, certainties, reading, i, g), int(targets[i, g])) for i in row for g in range(G)],
                BINS,
            )
            for row in drawn
        ]
        errors, briers, _ = zip(*resampled, strict=True)
        for values, name in ((sorted(errors), "ece"), (sorted(briers), "brier")):
            for bound, share in zip(result[f"{name}_interval"], (0.1, 0.9), strict=True):
                below = math.floor(share * 39)
                expected = values[below] + (share * 39 - below) * (values[below + 1] - values[below])
                assert bound == pytest.approx(expected)
    assert scores.summary() == summary  # the same seed, the same draws


def test_an_interval_has_the_width_of_the_normal_one() -> None:
    generator = torch.Generator().manual_seed(3)
    predictions = torch.randn(2000, 1, C, 1, generator=generator)
    targets = torch.randint(C, (2000, 1), generator=generator)
    scores = CalibrationScores()
    scores.add(predictions, torch.ones(2000, 1), targets)
    result = scores.summary()["last"]
    samples = brier_scores(predictions[..., 0].softmax(2), targets)
    low, high = result["brier_interval"]
    assert low < result["brier"] < high
    assert high - low == pytest.approx(2 * 1.96 * float(samples.std()) / 2000**0.5, rel=0.1)


def test_calibration_refuses_batches_and_settings_that_do_not_fit() -> None:
    predictions, certainties, targets = draw()
    scores = CalibrationScores()
    with pytest.raises(ValueError, match="at least one sample"):
        scores.summary()
    scores.add(predictions, certainties, targets)
    with pytest.raises(ValueError, match="it was 2, now 1"):
        scores.add(predictions[:, :1], certainties, targets[:, :1])
    with pytest.raises(ValueError, match="num_bins must be at least 1"):
        CalibrationScores(num_bins=0)
    with pytest.raises(ValueError, match="num_resamples must be at least 1"):
        CalibrationScores(num_resamples=0)
    with pytest.raises(ValueError, match="interval must be at least 0 and below 1"):
        CalibrationScores(interval=1.0)


def pearson(one: list[float], other: list[float]) -> float:
    """Correlation from its definition."""
    mean, other_mean = sum(one) / len(one), sum(other) / len(other)
    product = sum((a - mean) * (b - other_mean) for a, b in zip(one, other, strict=True))
    squares = [sum((a - m) ** 2 for a in side) for side, m in ((one, mean), (other, other_mean))]
    return product / math.sqrt(squares[0] * squares[1])


def entropy(row: list[float]) -> float:
    """Of one distribution, in nats."""
    return -sum(one * math.log(one) for one in row if one > 0)


@pytest.mark.parametrize("num_ticks", [1, K])
def test_agreement_with_people_equals_a_loop_over_classes(num_ticks: int) -> None:
    predictions, certainties, _ = draw(num_ticks)
    human = torch.rand(B, C, generator=torch.Generator().manual_seed(9))
    human[0] = torch.tensor([0.0, 3.0, 0.0])  # all agree
    human /= human.sum(1, keepdim=True)
    scores = HumanScores()
    for part in torch.arange(B).split([9, 8]):
        scores.add(predictions[part, 0], certainties[part], human[part])
    people = human.tolist()
    for reading, result in scores.summary().items():
        model = [read(predictions, certainties, reading, sample, 0) for sample in range(B)]
        cross = [-sum(h * math.log(p) for h, p in zip(*rows, strict=True)) for rows in zip(people, model, strict=True)]
        assert result["cross_entropy"] == pytest.approx(sum(cross) / B, rel=1e-6)
        assert result["kl"] == pytest.approx((sum(cross) - sum(map(entropy, people))) / B, rel=1e-5)
        flat = [[one for row in rows for one in row] for rows in (model, people)]
        assert result["correlation"] == pytest.approx(pearson(flat[0], flat[1]), abs=1e-6)
        entropies = [[entropy(row) for row in rows] for rows in (model, people)]
        assert result["entropy_correlation"] == pytest.approx(pearson(entropies[0], entropies[1]), abs=1e-6)


def test_a_model_that_answers_as_people_do_has_no_divergence() -> None:
    human = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
    scores = HumanScores()
    scores.add(human.log()[..., None], torch.ones(2, 1), human)
    result = scores.summary()["last"]
    assert result["kl"] == pytest.approx(0, abs=1e-12)
    assert result["correlation"] == pytest.approx(1)


def test_a_model_with_constant_answers_has_no_correlation() -> None:
    human = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
    scores = HumanScores()
    scores.add(torch.zeros(2, C, 1), torch.zeros(2, 1), human)
    result = scores.summary()["most_certain"]
    assert result["correlation"] is None
    assert result["entropy_correlation"] is None
    assert result["cross_entropy"] == pytest.approx(math.log(C))


@pytest.mark.parametrize("row", [[0.5, 0.5, 0.5], [1.5, -0.5, 0.0], [math.nan, 0.5, 0.5]])
def test_rows_of_people_that_are_not_distributions_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="distribution in each row"):
        HumanScores().add(torch.zeros(1, C, 1), torch.zeros(1, 1), torch.tensor([row]))
    with pytest.raises(ValueError, match="at least one sample"):
        HumanScores().summary()
