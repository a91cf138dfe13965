"""First right ticks, most certain ticks, intervals and calibration by tick, recomputed sample by sample."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ctm_rl.metrics import (
    AnswerScores,
    CalibrationScores,
    TickCalibration,
    TickScores,
    find_peaks,
    right_by_tick,
    wilson_interval,
)

B, G, C, K = 40, 3, 4, 5


def draw() -> tuple[Tensor, Tensor, Tensor]:
    """Answers of which about half are right, certainties and targets."""
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(C, (B, G), generator=generator)
    predictions = torch.randn(B, G, C, K, generator=generator)
    predictions.scatter_add_(2, targets[..., None, None].expand(B, G, 1, K), torch.full((B, G, 1, K), 1.5))
    return predictions, torch.rand(B, K, generator=generator), targets


def scored() -> dict:
    scores = TickScores()
    predictions, certainties, targets = draw()
    for rows in (slice(0, 25), slice(25, B)):
        scores.add(predictions[rows], certainties[rows], targets[rows])
    return scores.summary()


def test_first_right_and_most_certain_ticks_are_counted() -> None:
    predictions, certainties, targets = draw()
    result = scored()
    first = [0] * (K + 1)
    for whole in right_by_tick(predictions, targets).all(1).tolist():
        first[whole.index(True) if True in whole else K] += 1
    assert [*result["first_right_tick"], result["never_right"]] == first
    assert first[K] > 0 < first[0]
    chosen = [row.index(max(row)) for row in certainties.tolist()]
    assert result["most_certain_tick"] == [chosen.count(tick) for tick in range(K)]


def test_intervals_belong_to_the_accuracies_by_tick() -> None:
    scores = AnswerScores()
    scores.add(*draw())
    accuracy, result = scores.summary(), scored()
    assert result["accuracy_whole_by_tick_interval"] == [
        pytest.approx(wilson_interval(share, B)) for share in accuracy["accuracy_whole_by_tick"]
    ]
    for share, (low, high) in zip(accuracy["accuracy_by_tick"], result["accuracy_by_tick_interval"], strict=True):
        assert low < share < high


def test_the_band_holds_the_certainties_and_elements_their_shares() -> None:
    predictions, certainties, targets = draw()
    result = scored()
    np.testing.assert_allclose(result["certainty_band"], np.quantile(certainties.numpy(), (0.1, 0.5, 0.9), axis=0))
    by_element = right_by_tick(predictions, targets).double().mean(0)
    np.testing.assert_allclose(result["accuracy_by_element"], by_element)


def test_calibration_by_tick_is_that_of_the_ticks_so_far() -> None:
    predictions, certainties, targets = draw()
    by_tick = TickCalibration((1, 3, K))
    by_tick.add(predictions, certainties, targets)
    for point in by_tick.summary():
        alone = CalibrationScores(num_resamples=200)
        alone.add(predictions[..., : point["tick"]], certainties[:, : point["tick"]], targets)
        assert point["averaged"] == alone.summary()["averaged"]
        assert point["last"] == alone.summary()["last"]


@pytest.mark.parametrize(
    ("counts", "peaks"),
    [
        ([0, 9, 20, 9, 0, 0, 1, 8, 18, 7], [2, 8]),
        ([0, 9, 20, 9, 0, 0, 0, 1, 1, 0], [2]),
        ([1, 2, 3, 4, 5, 4, 3, 2, 1], [4]),
        ([5, 4, 5, 4, 5, 4], [0]),
        ([0, 0, 0], []),
        ([7], [0]),
    ],
)
def test_peaks_are_apart_and_have_samples_around_them(counts: list[int], peaks: list[int]) -> None:
    assert find_peaks(counts) == peaks
