"""Advantages over fragments, against the double sum written episode by episode."""

import numpy as np
import pytest

from ctm_rl.agents.ppo.gae import estimate_advantages

GAMMA, LAMBDA = 0.9, 0.8


def written_out(rewards: list[float], values: list[float], next_values: list[float]) -> list[float]:
    """The advantages of one episode, or of as much of it as there is."""
    deltas = [r + GAMMA * n - v for r, v, n in zip(rewards, values, next_values, strict=True)]
    return [
        sum((GAMMA * LAMBDA) ** (later - step) * deltas[later] for later in range(step, len(deltas)))
        for step in range(len(deltas))
    ]


def estimate(rewards: list[float], values: list[float], next_values: list[float], is_last: list[int]) -> np.ndarray:
    """The advantages of a single row."""
    r, v, n = (np.array([column], dtype=np.float32) for column in (rewards, values, next_values))
    return estimate_advantages(r, v, n, np.array([is_last], dtype=bool), GAMMA, LAMBDA)[0]


def test_an_unfinished_episode_sums_up_to_the_end_of_the_fragment() -> None:
    given = [1.0, -2.0, 0.5], [0.3, 0.1, -0.4], [0.1, -0.4, 0.7]
    np.testing.assert_allclose(estimate(*given, [0, 0, 0]), written_out(*given), rtol=1e-6)


def test_nothing_after_an_end_reaches_what_is_before_it() -> None:
    # Terminated after two steps: next value 0. Then another episode, cut off by its limit, and a third.
    rewards, values, next_values = [1.0, 2.0, 3.0, 4.0, 5.0], [0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.0, 0.4, 0.9, 0.6]
    expected = [
        *written_out(rewards[:2], values[:2], next_values[:2]),
        *written_out(rewards[2:4], values[2:4], next_values[2:4]),
        *written_out(rewards[4:], values[4:], next_values[4:]),
    ]
    np.testing.assert_allclose(estimate(rewards, values, next_values, [0, 1, 0, 1, 0]), expected, rtol=1e-6)


@pytest.mark.parametrize("junk", [7.0, np.nan])
def test_an_autoreset_step_affects_no_other_step(junk: float) -> None:
    # The first step is the autoreset step of the previous fragment's episode; another is in the middle.
    rewards = [junk, 1.0, 2.0, junk, 3.0]
    values = [junk, 0.1, 0.2, junk, 0.4]
    next_values = [junk, 0.2, 0.6, junk, 0.5]
    found = estimate(rewards, values, next_values, [0, 0, 1, 0, 0])
    expected = [*written_out([1.0, 2.0], [0.1, 0.2], [0.2, 0.6]), *written_out([3.0], [0.4], [0.5])]
    np.testing.assert_allclose(found[[1, 2, 4]], expected, rtol=1e-6)


def test_rows_do_not_touch_each_other_and_every_layout_equals_the_double_sum() -> None:
    rng = np.random.default_rng(3)
    num_rows, num_steps = 7, 23
    rewards, values, next_values = rng.normal(size=(3, num_rows, num_steps)).astype(np.float32)
    is_last = rng.random((num_rows, num_steps)) < 0.2
    found = estimate_advantages(rewards, values, next_values, is_last, GAMMA, LAMBDA)
    for row in range(num_rows):
        begin = 0
        for stop in [*(np.flatnonzero(is_last[row]) + 1), num_steps]:
            piece = slice(begin, stop)
            expected = written_out(*(list(column[row, piece]) for column in (rewards, values, next_values)))
            np.testing.assert_allclose(found[row, piece], expected, rtol=1e-4, atol=1e-5)
            begin = stop


def test_with_ratios_it_is_v_trace_written_out() -> None:
    rng = np.random.default_rng(4)
    rewards, values, next_values = rng.normal(size=(3, 1, 6)).astype(np.float32)
    is_last = np.array([[0, 0, 1, 0, 0, 0]], dtype=bool)
    ratios = rng.random((1, 6)).astype(np.float32)
    found = estimate_advantages(rewards, values, next_values, is_last, GAMMA, LAMBDA, ratios)[0]
    deltas = (rewards + GAMMA * next_values - values)[0]
    for begin, stop in ((0, 3), (3, 6)):
        for step in range(begin, stop):
            # Each later step counts as far as all actions up to it would be taken now.
            expected = sum(
                (GAMMA * LAMBDA) ** (later - step) * ratios[0, step : later + 1].prod() * deltas[later]
                for later in range(step, stop)
            )
            np.testing.assert_allclose(found[step], expected, rtol=1e-5)
