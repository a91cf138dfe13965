"""Accuracies and decoding, recomputed by hand."""

import torch

from ctm_rl.metrics import accuracy, decode_sorting


def test_accuracy_reads_each_sample_at_its_most_certain_tick() -> None:
    answers = torch.tensor([[[0, 1, 1], [1, 1, 0]], [[1, 0, 0], [0, 0, 1]]])  # [B, G, K]
    predictions = torch.nn.functional.one_hot(answers, 2).permute(0, 1, 3, 2).float()
    targets = torch.tensor([[1, 1], [0, 1]])
    certainties = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.5, 0.4]])
    result = accuracy(predictions, certainties, targets)
    # right by tick: (0, 1, 0, 0), (1, 1, 1, 0), (1, 0, 1, 1)
    torch.testing.assert_close(result.by_tick, torch.tensor([0.25, 0.75, 0.75]))
    assert result.most_certain == 0.75
    assert result.whole == 0.5


def test_decoding_merges_repetitions_and_leaves_blanks_out() -> None:
    rows = torch.tensor([[2, 2, 3, 2, 0, 0, 1], [3, 3, 3, 3, 3, 3, 3], [1, 3, 1, 2, 2, 0, 3]])
    predictions = torch.nn.functional.one_hot(rows, 4).transpose(1, 2).float()
    assert decode_sorting(predictions) == [[2, 2, 0, 1], [], [1, 1, 2, 0]]
