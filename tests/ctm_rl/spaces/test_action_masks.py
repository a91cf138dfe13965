"""Action masks: reading them in every form, and the distribution over legal options against the equations."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctm_rl.checkpoints.schema import check_actions
from ctm_rl.machine.certainty import certainty
from ctm_rl.spaces.action_masks import Forbidden, find_forbidden, pack_masks, read_masks, with_mask
from ctm_rl.spaces.actions import Choices, to_plain

B = 7
ONE = Choices(sizes=(11,), is_masked=True)
UNEQUAL = Choices(sizes=(2, 5, 1, 3), shape=(4,), is_masked=True)
BITS = Choices(sizes=(2, 2, 2), shape=(3,), dtype="int8", is_masked=True)
EVERY = pytest.mark.parametrize("actions", [ONE, UNEQUAL, BITS], ids=["one", "unequal", "bits"])


def masks_of(actions: Choices, seed: int = 1) -> Tensor:
    """Masks with at least one legal option of each choice; in the first row exactly one."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for size in actions.sizes:
        part = torch.rand(B, size, generator=generator) < 0.5
        part[0] = False
        part[torch.arange(B), torch.randint(size, (B,), generator=generator)] = True
        parts.append(part)
    return torch.cat(parts, -1)


def outputs_of(actions: Choices, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(B, actions.num_outputs, generator=generator, dtype=torch.float64)


# --- the equations ---


def reference(actions: Choices, outputs: Tensor, masks: Tensor) -> list[list[dict[int, Tensor]]]:
    """Logarithms of pi(a) = exp(y_a) / sum over legal b of exp(y_b), of legal a alone: [row][choice][option]."""
    rows = []
    for output, mask in zip(outputs, masks, strict=True):
        choices, start = [], 0
        for size in actions.sizes:
            legal = [option for option in range(size) if mask[start + option]]
            total = torch.stack([output[start + option].exp() for option in legal]).sum()
            choices.append({option: output[start + option] - total.log() for option in legal})
            start += size
        rows.append(choices)
    return rows


def entropies(rows: list[list[dict[int, Tensor]]]) -> Tensor:
    """-sum over legal a of pi(a) log pi(a), summed over the choices, [B]."""
    return torch.stack([sum_of([-logp.exp() * logp for choice in row for logp in choice.values()]) for row in rows])


def sum_of(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


@EVERY
def test_scores_and_divergence_are_those_of_the_distribution_over_legal_options_with_their_gradients(
    actions: Choices,
) -> None:
    masks = masks_of(actions)
    outputs, others = outputs_of(actions).requires_grad_(), outputs_of(actions, 5).requires_grad_()
    fast, slow = actions.masked(outputs, masks), reference(actions, outputs, masks)
    other = reference(actions, others, masks)
    drawn = actions.sample(fast, torch.Generator().manual_seed(3))
    columns = drawn.view(B, -1).tolist()
    scored = actions.score(fast, drawn)
    logp = torch.stack([
        sum_of([choice[option] for choice, option in zip(row, chosen, strict=True)])
        for row, chosen in zip(slow, columns, strict=True)
    ])  # fmt: skip
    divergence = torch.stack([
        sum_of([p[a].exp() * (p[a] - q[a]) for p, q in zip(row, another, strict=True) for a in p])
        for row, another in zip(slow, other, strict=True)
    ])  # fmt: skip
    pairs = [
        (scored.logp, logp),
        (scored.entropy, entropies(slow)),
        (actions.divergence(fast, actions.masked(others, masks)), divergence),
    ]
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        weights = torch.linspace(0.5, 2, B, dtype=torch.float64)
        leaves = [outputs, others]
        gradients = [
            torch.autograd.grad(
                (value * weights).sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for value in (found, wanted)
        ]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
        assert not gradients[0][0][~masks].any()


@EVERY
def test_certainty_is_one_minus_the_entropy_over_the_logarithm_of_the_number_of_legal_options(
    actions: Choices,
) -> None:
    masks, outputs = masks_of(actions), outputs_of(actions)
    found = certainty(actions.grouped(actions.masked(outputs, masks)), sizes=actions.count_legal(masks))
    for row, value in zip(reference(actions, outputs, masks), found, strict=True):
        each = [1 - float(entropies([[choice]])) / math.log(len(choice)) if len(choice) > 1 else 1.0 for choice in row]
        assert float(value) == pytest.approx(sum(each) / len(each), abs=1e-12)
    assert float(found[0]) == pytest.approx(1.0)  # nothing to choose
    level = certainty(actions.grouped(actions.masked(outputs * 0, masks)), sizes=actions.count_legal(masks))
    only = (actions.count_legal(masks) == 1).double().mean(-1)
    torch.testing.assert_close(level, only)


@EVERY
def test_no_illegal_option_is_ever_drawn_or_the_likeliest(actions: Choices) -> None:
    masks = masks_of(actions)
    outputs = outputs_of(actions).float() + 40.0 * ~masks  # the policy would like nothing better
    legal = masks.split(list(actions.sizes), -1)
    generator = torch.Generator().manual_seed(4)
    for drawn in (actions.mode(actions.masked(outputs, masks)), *(
        actions.sample(actions.masked(outputs, masks), generator) for _ in range(50)
    )):  # fmt: skip
        for of_choice, chosen in zip(legal, drawn.view(B, -1).T, strict=True):
            assert of_choice[torch.arange(B), chosen].all()


def test_where_nothing_is_legal_all_options_are_and_nothing_outside_of_them() -> None:
    masks = torch.zeros(2000, UNEQUAL.num_outputs, dtype=torch.bool)
    outputs = UNEQUAL.masked(torch.randn(2000, UNEQUAL.num_outputs), masks).requires_grad_()
    drawn = UNEQUAL.sample(outputs, torch.Generator().manual_seed(1))
    assert drawn.amax(0).tolist() == [1, 4, 0, 2]
    scored = UNEQUAL.score(outputs, drawn)
    (scored.logp + scored.entropy).sum().backward()
    torch.testing.assert_close(scored.logp, torch.full((2000,), -math.log(2 * 5 * 3)))
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


# --- forms ---


@EVERY
def test_masks_survive_as_bits(actions: Choices) -> None:
    masks = masks_of(actions)
    packed = pack_masks(masks.numpy())
    assert packed.dtype == np.uint8
    assert packed.shape == (B, -(-sum(actions.sizes) // 8))
    assert torch.equal(actions.unpack_masks(torch.from_numpy(packed)[:, None])[:, 0], masks)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "bool": lambda masks: masks,
    "bytes": lambda masks: masks.astype(np.int8),
    "floats": lambda masks: masks.astype(np.float32),
    "tuple": lambda masks: (masks[:, :2], masks[:, 2:7].astype(np.float64), masks[:, 7:8], masks[:, 8:]),
    "nested": lambda masks: ((masks[:, :2], masks[:, 2:7]), (masks[:, 7:8], masks[:, 8:])),
    "tensor": torch.from_numpy,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_batch_is_read(form: str) -> None:
    masks = masks_of(UNEQUAL).numpy()
    found = read_masks(FORMS[form](masks), UNEQUAL.sizes, B)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, masks)


def test_a_single_mask_is_read_also_from_lists() -> None:
    wanted = [[True, False, False, True, True]]
    for value in (
        [1, 0, 0, 1, 1],
        np.array([1, 0, 0, 1, 1]),
        [[True, False], [False, True, True]],
        ([1, 0], np.array([0.0, 1.0, 1.0])),
    ):
        assert read_masks(value, (2, 3), 1).tolist() == wanted
    assert read_masks([[1, 0], [1, 1]], (2, 2), 1).tolist() == [[True, False, True, True]]


@pytest.mark.parametrize(
    ("value", "num_rows", "message"),
    [
        (np.ones(4), 1, r"action_mask must have 5 entries, one for each option of the actions \(2 \+ 3\); got shape"),
        (np.ones((3, 4)), 3, r"must have 5 entries in each of 3 rows, .* got shape \(3, 4\)"),
        ((np.ones((2, 2)), np.ones((2, 2))), 2, r"got shape \(2, 2\) and \(2, 2\)"),
        (None, 1, r"must have 5 entries"),
        (np.array([0, -1e9, 0, 0, 0]), 1, r"must hold 1 for legal options and 0 for others, got -1000000000.0"),
        (np.array([0, 1, 2, 0, 0]), 1, r"and 0 for others, got 2"),
        (np.array([0, 1, np.nan, 0, 0]), 1, r"and 0 for others, got nan"),
    ],
)
def test_a_mask_of_another_shape_or_with_other_numbers_is_refused(value: Any, num_rows: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_masks(value, (2, 3), num_rows)


def test_the_first_choice_without_an_option_is_found() -> None:
    masks = np.ones((3, 5), bool)
    assert find_forbidden(masks, (5,)) is find_forbidden(masks, (2, 3)) is None
    masks[1, 2:] = False
    assert find_forbidden(masks, (5,)) is None
    assert find_forbidden(masks, (2, 3)) == Forbidden(row=1, choice=1)
    assert Forbidden(1, 1).describe((2, 3)) == "forbids every option of choice 1"
    masks[2] = False
    assert find_forbidden(masks, (5,)) == Forbidden(row=2, choice=0)
    assert Forbidden(2, 0).describe((5,)) == "forbids every action"


def test_a_mask_stands_beside_the_observation() -> None:
    assert with_mask(3, 4) == {"observation": 3, "action_mask": 4}
    assert with_mask({"a": 1, "action_mask": 2}, 4) == {"a": 1, "action_mask": 4}


def test_a_checkpoint_says_whether_there_are_masks_and_without_them_is_as_ever() -> None:
    assert check_actions(to_plain(ONE)) == ONE
    assert to_plain(ONE)["is_masked"] is True
    assert "is_masked" not in to_plain(Choices(sizes=(11,)))
    assert str(ONE) == "1 choice, one of 11, with action masks"
    with pytest.raises(ValueError, match=r"actions\.is_masked must be of type bool"):
        check_actions({**to_plain(ONE), "is_masked": 3})
