"""Losses straight from their definitions, one sample and one tick at a time, and from the recorded cases."""

import itertools
import json
import math
from typing import Any

import pytest
import torch
from paths import GOLDEN
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ctm_rl.config import AnswerConfig
from ctm_rl.models import losses
from ctm_rl.models.answering import Thought, group

DATA_TASKS = ("parity", "mazes", "qamnist", "image", "sort")
RENEW = "golden files come from running the published code; see tests/golden/README.md"
B, G, C, K = 3, 7, 4, 5


def case(name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a recorded case."""
    path = GOLDEN / f"{name}.io.safetensors"
    with safe_open(path, "pt") as file:
        return file.metadata(), load_file(path)


CASES = [
    path.name.removesuffix(".io.safetensors")
    for path in sorted(GOLDEN.glob("*.safetensors"))
    if case(path.name.removesuffix(".io.safetensors"))[0]["task"] in DATA_TASKS
]


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions [B, G, C, K], certainties [B, K] and targets [B, G], in float64."""
    generator = torch.Generator().manual_seed(seed)
    predictions = 3 * torch.randn(B, G, C, K, generator=generator, dtype=torch.float64)
    certainties = torch.rand(B, K, generator=generator, dtype=torch.float64)
    return predictions, certainties, torch.randint(0, C, (B, G), generator=generator)


def cross_entropy(logits: Tensor, target: int) -> float:
    """-log softmax(logits)[target], by hand."""
    return math.log(sum(math.exp(float(value)) for value in logits)) - float(logits[target])


def slow_ticks(predictions: Tensor, targets: Tensor, counted: list[int], row: int) -> list[float]:
    """l_k of one sample: the mean over the first ``counted[row]`` groups."""
    ticks = []
    for k in range(predictions.shape[-1]):
        groups = range(min(counted[row], targets.shape[1]))
        values = [cross_entropy(predictions[row, g, :, k], int(targets[row, g])) for g in groups]
        ticks.append(sum(values) / len(values))
    return ticks


def slow_loss(predictions: Tensor, certainties: Tensor, targets: Tensor, counted: list[int], is_last: bool) -> float:
    """The whole loss, sample after sample."""
    total = 0.0
    for row in range(len(targets)):
        ticks = slow_ticks(predictions, targets, counted, row)
        surest = max(range(len(ticks)), key=lambda k: float(certainties[row, k]))
        total += (min(ticks) + (ticks[-1] if is_last else ticks[surest])) / 2
    return total / len(targets)


def slow_counted(predictions: Tensor, targets: Tensor, lookahead: int) -> list[int]:
    """How many steps of each route count, tick after tick and step after step."""
    counted = []
    for row in range(len(targets)):
        longest = 0
        for k in range(predictions.shape[-1]):
            right = [int(predictions[row, g, :, k].argmax()) == int(targets[row, g]) for g in range(targets.shape[1])]
            longest = max(longest, right.index(False) if False in right else len(right))
        counted.append(max(longest - 1, 0) + lookahead)
    return counted


def loss_of(
    predictions: Tensor, certainties: Tensor, targets: Tensor, num_answer_ticks: int = 0, **options: Any
) -> Tensor:
    """The loss of answers [B, G, C, K], or [B, C, K] with targets [B]."""
    config = AnswerConfig(
        num_action_sync_neurons=4,
        encoder="digits" if num_answer_ticks else "parity",
        num_classes=predictions.shape[-2],
        num_groups=predictions.shape[1] if predictions.dim() == 4 else 1,
        num_answer_ticks=num_answer_ticks,
    )
    thought = Thought(predictions.flatten(1, -2), certainties)
    return losses.answer_loss(config, thought, targets, **options)


@pytest.mark.parametrize("use_most_certain", [True, False])
def test_loss_is_the_mean_of_the_best_tick_and_the_chosen_one(use_most_certain: bool) -> None:
    predictions, certainties, targets = batch()
    expected = slow_loss(predictions, certainties, targets, [G] * B, not use_most_certain)
    loss = loss_of(predictions, certainties, targets, use_most_certain=use_most_certain)
    assert abs(float(loss) - expected) < 1e-12
    expected = slow_loss(predictions[:, :1], certainties, targets[:, :1], [1] * B, not use_most_certain)
    loss = loss_of(predictions[:, 0], certainties, targets[:, 0], use_most_certain=use_most_certain)
    assert abs(float(loss) - expected) < 1e-12


def test_the_two_choices_differ_on_this_batch() -> None:
    predictions, certainties, targets = batch()
    ticks = losses.tick_losses(predictions, targets)
    assert not torch.equal(ticks.argmin(1), certainties.argmax(1))
    assert float(losses.two_tick_loss(ticks, certainties)) != float(losses.two_tick_loss(ticks, certainties, False))


def test_only_the_chosen_ticks_get_a_gradient_and_certainty_gets_none() -> None:
    predictions, certainties, targets = batch()
    predictions.requires_grad_()
    certainties.requires_grad_()
    loss_of(predictions, certainties, targets).backward()
    assert certainties.grad is None
    assert predictions.grad is not None
    ticks = losses.tick_losses(predictions, targets)
    for row in range(B):
        chosen = {int(ticks[row].argmin()), int(certainties[row].argmax())}
        touched = {k for k in range(K) if predictions.grad[row, ..., k].abs().sum() > 0}
        assert touched == chosen


def test_a_tick_that_is_both_best_and_most_certain_counts_fully() -> None:
    ticks = torch.tensor([[3.0, 1.0, 2.0], [6.0, 7.0, 5.0]])
    certainties = torch.tensor([[0.2, 0.9, 0.5], [0.3, 0.8, 0.1]])
    assert float(losses.two_tick_loss(ticks, certainties)) == ((1 + 1) / 2 + (5 + 7) / 2) / 2
    assert float(losses.two_tick_loss(ticks, certainties, use_most_certain=False)) == ((1 + 2) / 2 + (5 + 5) / 2) / 2


@pytest.mark.parametrize("use_most_certain", [True, False])
def test_with_one_tick_the_loss_is_plain_cross_entropy(use_most_certain: bool) -> None:
    predictions, certainties, targets = batch()
    once = predictions[:, 0, :, :1]
    loss = loss_of(once, certainties[:, :1], targets[:, 0], use_most_certain=use_most_certain)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(once[..., 0], targets[:, 0]))


def routes() -> tuple[Tensor, Tensor, Tensor]:
    """Routes of which 0, 1, 4 and all 9 steps are right, at the third tick of five, and nothing at the others."""
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(0, C, (4, 9), generator=generator)
    predictions = torch.rand(4, 9, C, K, generator=generator, dtype=torch.float64)
    wrong = (targets + 1) % C
    for row, num_right in enumerate((0, 1, 4, 9)):
        for step in range(9):
            predictions[row, step, wrong[row, step]] += 2.0
            if step < num_right:
                predictions[row, step, targets[row, step], 2] += 4.0
        # right again after the first mistake: no longer part of the beginning
        if num_right < 8:
            predictions[row, num_right + 1, targets[row, num_right + 1], 2] += 4.0
    return predictions, torch.rand(4, K, generator=generator, dtype=torch.float64), targets


@pytest.mark.parametrize("lookahead", [1, 3, 5])
def test_a_route_counts_as_far_as_it_is_right_and_a_little_further(lookahead: int) -> None:
    predictions, certainties, targets = routes()
    counted = slow_counted(predictions, targets, lookahead)
    assert counted == [lookahead, lookahead, 3 + lookahead, 8 + lookahead]
    mask = losses.route_mask(predictions, targets, lookahead)
    assert mask.sum(1).tolist() == [min(9, steps) for steps in counted]
    assert all(row.tolist() == sorted(row.tolist(), reverse=True) for row in mask)
    for is_last in (False, True):
        expected = slow_loss(predictions, certainties, targets, counted, is_last)
        options = {"lookahead": lookahead, "use_most_certain": not is_last}
        loss = loss_of(predictions, certainties, targets, use_curriculum=True, **options)
        assert abs(float(loss) - expected) < 1e-12


def test_steps_beyond_the_curriculum_get_no_gradient() -> None:
    predictions, certainties, targets = routes()
    predictions.requires_grad_()
    loss_of(predictions, certainties, targets, use_curriculum=True).backward()
    assert predictions.grad is not None
    touched = predictions.grad.abs().sum((2, 3)) > 0
    assert torch.equal(touched, losses.route_mask(predictions, targets))
    assert touched.sum(1).tolist() == [5, 5, 8, 9]


def test_a_whole_route_has_the_loss_of_a_sequence() -> None:
    predictions, certainties, targets = batch()
    assert losses.route_mask(predictions, targets, lookahead=G).all()
    torch.testing.assert_close(
        loss_of(predictions, certainties, targets, use_curriculum=True, lookahead=G),
        loss_of(predictions, certainties, targets),
    )


def test_a_question_counts_its_answering_ticks_only() -> None:
    predictions, certainties, targets = batch()
    predictions, targets = predictions[:, 0], targets[:, 0]
    loss = loss_of(predictions, certainties, targets, 2)
    torch.testing.assert_close(loss, loss_of(predictions[..., -2:], certainties[:, -2:], targets), rtol=0, atol=0)
    changed, surer = predictions.clone(), certainties.clone()
    changed[..., :-2] = 50.0
    surer[:, :-2] = 1.0
    assert loss_of(changed, surer, targets, 2) == loss
    with pytest.raises(ValueError, match=f"num_answer_ticks must be from 1 to {K}, all ticks, got {K + 1}"):
        loss_of(predictions, certainties, targets, K + 1)


@pytest.mark.parametrize("num_ticks", [2, 3, 5])
def test_sorting_sums_over_every_way_to_emit_the_order(num_ticks: int) -> None:
    generator = torch.Generator().manual_seed(3)
    num_numbers, blank = 2, 2
    predictions = torch.randn(B, num_numbers + 1, num_ticks, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[0, 1], [1, 0], [1, 0]])
    probabilities = predictions.softmax(1)
    expected = 0.0
    for row in range(B):
        total = 0.0
        for emitted in itertools.product(range(num_numbers + 1), repeat=num_ticks):
            if [index for index, _ in itertools.groupby(emitted) if index != blank] == targets[row].tolist():
                total += math.prod(float(probabilities[row, index, k]) for k, index in enumerate(emitted))
        expected -= math.log(total) / num_numbers / B
    assert abs(float(losses.sorting_loss(predictions, targets)) - expected) < 1e-12


def test_sorting_with_too_few_ticks_is_infinite() -> None:
    predictions = torch.zeros(B, 4, 2)
    assert losses.sorting_loss(predictions, torch.tensor([[2, 0, 1]] * B)) == math.inf


def test_an_answer_is_split_group_after_group() -> None:
    flat = torch.arange(B * 6 * K, dtype=torch.float32).view(B, 6, K)
    grouped = group(flat, 2)
    assert grouped.shape == (B, 2, 3, K)
    for g, c in itertools.product(range(2), range(3)):
        assert torch.equal(grouped[:, g, c], flat[:, 3 * g + c])
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=f"num_groups must divide the 6 logits of an answer, got {wrong}"):
            group(flat, wrong)


def test_a_curriculum_that_never_looks_ahead_is_refused() -> None:
    predictions, certainties, targets = batch()
    with pytest.raises(ValueError, match="lookahead must be at least 1, got 0"):
        loss_of(predictions, certainties, targets, use_curriculum=True, lookahead=0)


@pytest.mark.parametrize("name", CASES)
def test_recorded_answers_give_the_recorded_loss(name: str) -> None:
    about, recorded = case(name)
    predictions, targets = recorded["out/predictions"], recorded["in/y"]
    certainties = recorded["out/certainties"][:, 1] if "out/certainties" in recorded else None
    is_sure = about["model"] == "ctm" or (about["task"] == "image" and certainties is not None)
    predictions = predictions if predictions.dim() == 3 else predictions[..., None]
    given = torch.zeros(predictions.shape[::2]) if certainties is None else certainties
    if about["task"] == "sort":
        loss = losses.sorting_loss(predictions, targets)
    elif about["task"] in ("parity", "mazes"):
        grouped, is_maze = group(predictions, targets.shape[1]), about["task"] == "mazes"
        loss = loss_of(grouped, given, targets, use_curriculum=is_maze, use_most_certain=is_sure)
        if is_maze:
            upto = recorded["out/curriculum_upto"].clamp(max=targets.shape[1])
            assert losses.route_mask(grouped, targets).sum(1).tolist() == upto.tolist()
    else:
        num_answer_ticks = 0
        if about["task"] == "qamnist":
            num_answer_ticks = predictions.shape[-1] - recorded["in/x"].shape[1] - recorded["in/z"].shape[1]
        loss = loss_of(predictions, given, targets, num_answer_ticks, use_most_certain=is_sure)
    torch.testing.assert_close(loss, recorded["out/loss"], rtol=1e-6, atol=0.0, msg=f"{json.dumps(about)}; {RENEW}")
