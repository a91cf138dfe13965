"""Synchronisation: the recursion, the window, decay rates and pairings, recomputed another way."""

import pytest
import torch
from torch import Tensor

from ctm_rl.config import PairingKind
from ctm_rl.machine.pairing import Pairing, all_pairs, diagonal, make_pairing
from ctm_rl.machine.synchronisation import Synchronisation, decay_of, sync_of, window_sums

B, D, M, K = 3, 7, 4, 9
PAIRING = Pairing(torch.tensor([0, 3, 3, 6, 1]), torch.tensor([0, 5, 1, 2, 1]))


def activations() -> Tensor:
    """Activations of K ticks, [K, B, D]."""
    return torch.randn(K, B, D, generator=torch.Generator().manual_seed(1))


def make_sync(is_windowed: bool) -> Synchronisation:
    sync = Synchronisation(PAIRING, 15.0, is_windowed)
    with torch.no_grad():
        sync.decay_rate.copy_(torch.tensor([0.0, 0.3, 1.1, 4.0, 0.05]))
    return sync


def sum_over_ticks(z: Tensor, rate: Tensor) -> Tensor:
    """Synchronisation alpha / sqrt(beta) from the whole history [k, B, D] at once, [B, P]."""
    age = torch.arange(len(z) - 1, -1, -1).view(-1, 1, 1)
    weight = torch.exp(-rate * age)
    products = z[..., PAIRING.left] * z[..., PAIRING.right]
    return (weight * products).sum(0) / weight.sum(0).sqrt()


def test_recursion_equals_sum_over_all_ticks() -> None:
    sync, z = make_sync(is_windowed=False), activations()
    state = sync.start(z[0], None)
    for k in range(1, K):
        state = sync.advance(state, z[k])
        torch.testing.assert_close(sync_of(state.alpha, state.beta), sum_over_ticks(z[: k + 1], sync.decay_rate))


def test_window_equals_sum_over_the_last_ticks() -> None:
    sync, z = make_sync(is_windowed=True), activations()
    state = sync.start(z[M - 1], z[:M].permute(1, 2, 0))
    for k in range(M, K):
        state = sync.advance(state, z[k])
        torch.testing.assert_close(
            sync_of(state.alpha, state.beta), sum_over_ticks(z[k + 1 - M : k + 1], sync.decay_rate)
        )
        assert state.history is not None
        assert state.history.shape == (B, 6, M)  # neuron 4 is in no pair


def test_rate_zero_gives_sum_over_square_root_of_ticks() -> None:
    sync, z = make_sync(is_windowed=False), activations()
    state = sync.start(z[0], None)
    for k in range(1, K):
        state = sync.advance(state, z[k])
    assert torch.equal(state.beta[:, 0], torch.full((B,), float(K)))
    expected = (z[:, :, 0] ** 2).sum(0) / K**0.5
    torch.testing.assert_close(sync_of(state.alpha, state.beta)[:, 0], expected)


def test_window_sums_of_full_decay_keep_only_the_newest_tick() -> None:
    left, right = torch.randn(2, B, 5, M, generator=torch.Generator().manual_seed(2))
    alpha, beta = window_sums(left, right, torch.zeros(5))
    torch.testing.assert_close(alpha, left[..., -1] * right[..., -1])
    assert torch.equal(beta, torch.ones(B, 5))


def test_decay_passes_the_plain_gradient_inside_its_limits() -> None:
    rate = torch.tensor([0.0, 0.5, 4.0], requires_grad=True)
    decay = decay_of(rate, 4.0)
    decay.sum().backward()
    torch.testing.assert_close(rate.grad, -decay.detach())


def test_decay_outside_its_limits_passes_only_gradients_that_lead_back() -> None:
    for sign, expected in ((1.0, [True, False]), (-1.0, [False, True])):
        rate = torch.tensor([-0.5, 5.0], requires_grad=True)
        (sign * decay_of(rate, 4.0)).sum().backward()
        # d(decay)/d(rate) is negative, so a gradient step on +decay raises the rate: back inside for -0.5
        assert rate.grad is not None
        assert (rate.grad != 0).tolist() == expected


def test_terms_take_the_decay_rates_before_training_in_turn() -> None:
    assert Synchronisation(PAIRING, 15.0, is_windowed=False).decay_rate.tolist() == [0.0] * 5
    sync = Synchronisation(PAIRING, 15.0, is_windowed=False, start_decay_rates=(0, 1))
    assert sync.decay_rate.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert sync.decay_rate.requires_grad


def test_project_brings_decay_rates_back() -> None:
    sync = make_sync(is_windowed=False)
    with torch.no_grad():
        sync.decay_rate.copy_(torch.tensor([-1.0, 0.0, 3.0, 15.0, 99.0]))
    sync.project_()
    assert sync.decay_rate.tolist() == [0.0, 0.0, 3.0, 15.0, 15.0]


@pytest.mark.parametrize("is_windowed", [False, True])
def test_save_and_load_keeps_the_pairing(is_windowed: bool) -> None:
    z = activations()
    sync = make_sync(is_windowed)
    other = Synchronisation(
        Pairing(torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64)), 15.0, is_windowed
    )
    other.load_state_dict(sync.state_dict())
    history = z[:M].permute(1, 2, 0)
    one, two = sync.start(z[0], history), other.start(z[0], history)
    assert torch.equal(one.alpha, two.alpha)
    assert torch.equal(one.beta, two.beta)
    if is_windowed:
        assert one.history is not None
        assert two.history is not None
        assert torch.equal(one.history, two.history)


@pytest.mark.parametrize(
    ("kind", "role", "low", "high"),
    [("first-last", "output", 0, 4), ("first-last", "action", 6, 10),
     ("last-first", "output", 6, 10), ("last-first", "action", 0, 4)],
)  # fmt: skip
def test_ends_are_paired_completely(kind: PairingKind, role: str, low: int, high: int) -> None:
    pairing = make_pairing(kind, role, 10, 4)  # pyright: ignore[reportArgumentType]
    pairs = list(zip(pairing.left.tolist(), pairing.right.tolist(), strict=True))
    assert pairs == [(i, j) for i in range(low, high) for j in range(i, high)]


def test_random_pairs_come_from_independent_draws_of_each_side() -> None:
    torch.manual_seed(3)
    pairing = make_pairing("random", "output", 50, 6)
    assert len(pairing.left) == 21
    left, right = pairing.left[diagonal(21)], pairing.right[diagonal(21)]
    assert not torch.equal(left, right)
    rebuilt = all_pairs(left, right)
    assert torch.equal(rebuilt.left, pairing.left)
    assert torch.equal(rebuilt.right, pairing.right)


def test_random_pairing_joins_some_neurons_with_themselves() -> None:
    torch.manual_seed(4)
    pairing = make_pairing("random-pairing", "action", 1000, 8, num_self_pairs=3)
    assert len(pairing.left) == 8
    assert torch.equal(pairing.left[:3], pairing.right[:3])
    assert not torch.equal(pairing.left[3:], pairing.right[3:])
