"""Halting: a row stops ticking once it is certain enough, and takes no time from then on."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ctm_rl.machine.attention import RowReading, rows_of_readings
from ctm_rl.machine.core import Core
from ctm_rl.machine.state import AnyState, join_rows, rows_of_state

_WORTHWHILE = 1 / 8
"""Halted rows are taken out only when they are at least this share of all rows in the batch."""
_COST = 1 / 4
"""Cost of taking rows out, in ticks of all rows; they stay where the remaining ticks would save less."""


@runtime_checkable
class Ticking(Protocol):
    """Some rows that tick one tick at a time."""

    def tick(self) -> Float[Tensor, "b P"]:
        """Runs one more tick; returns what the heads read."""
        ...

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone."""
        ...


@runtime_checkable
class Deciding(Protocol):
    """Some rows that tick, with the certainty of each."""

    def tick(self) -> Float[Tensor, " b"]:
        """Runs one more tick; returns the certainty of each row."""
        ...

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """Continues with these rows alone."""
        ...

    def outcome(self, rows: Int[Tensor, " n"]) -> Sequence[Tensor]:
        """The results of the last tick for some rows, [n, ...] each."""
        ...


class Halted(NamedTuple):
    """The answer of a model whose rows halt one by one; B rows."""

    predictions: Float[Tensor, "B O"]
    """Logits after the row's last tick; O = G x C, all classes of the first group first."""
    ticks: Int[Tensor, " B"]
    """How many ticks the row took."""
    certainty: Float[Tensor, " B"]
    """Certainty of that answer, mean over its groups."""


class Outcome(NamedTuple):
    """The results of all rows, each after its last tick."""

    parts: list[Tensor]
    """From ``Deciding.outcome``, [B, ...] each."""
    ticks: Int[Tensor, " B"]
    """How many ticks each row took."""
    certainty: Float[Tensor, " B"]
    """Its certainty after the last tick."""


def check_halt_certainty(halt_certainty: float | None) -> None:
    """Raises ValueError for an invalid certainty."""
    if halt_certainty is not None and not 0.0 <= halt_certainty <= 1.0:
        raise ValueError(f"halt_certainty must be from 0 to 1, got {halt_certainty}.")


@torch.no_grad()
def tick_until_certain(
    deciding: Deciding, num_rows: int, num_ticks: int, halt_certainty: float | None, first_tick: int = 1
) -> Outcome:
    """Ticks until every row has halted: at ``min {k: certainty_k >= halt_certainty}``, or at the last tick.

    Halted rows are taken out of the batch as soon as that pays off; until then their ticks are ignored.

    Args:
        deciding: B rows.
        num_rows: B.
        num_ticks: K, after which every row halts.
        halt_certainty: the certainty at which a row halts; ``None``: no halting, every row takes K ticks.
        first_tick: the first tick that may be the last one, from 1.

    Returns:
        The results of each row, in the order of the rows.
    """
    check_halt_certainty(halt_certainty)
    rows: Tensor | None = None  # which rows are in the batch: at first all of them
    is_thinking: Tensor | None = None  # which of these have not halted
    halted: list[tuple[Tensor, ...]] = []
    for tick in range(1, num_ticks + 1):
        certainty = deciding.tick()
        if rows is None or is_thinking is None:
            rows = torch.arange(num_rows, device=certainty.device)
            is_thinking = torch.ones_like(rows, dtype=torch.bool)
        if tick == num_ticks:
            is_enough = is_thinking
        elif tick < first_tick or halt_certainty is None:
            continue
        else:
            # rounding may make a certainty of 0 slightly negative
            is_enough = is_thinking & (certainty >= halt_certainty) if halt_certainty else is_thinking
        done = is_enough.nonzero().squeeze(1)
        if not len(done):
            continue
        halted.append((rows[done], torch.full_like(done, tick), certainty[done], *deciding.outcome(done)))
        is_thinking = is_thinking & ~is_enough
        num_left = int(is_thinking.sum())
        if not num_left:
            break
        share = 1 - num_left / len(rows)
        if share >= _WORTHWHILE and share * (num_ticks - tick) >= _COST:
            left = _closed_up(is_thinking, num_left)
            deciding.keep(left)
            rows, is_thinking = rows[left], is_thinking[left]
    order, *columns = zip(*halted, strict=True)
    if len(order) == 1:
        ticks, certainty, *parts = halted[0][1:]
    else:
        places = torch.cat(order).argsort()
        ticks, certainty, *parts = (join_rows(column, places) for column in columns)
    return Outcome(parts, ticks, certainty)


def _closed_up(is_left: Bool[Tensor, " b"], num_left: int) -> Int[Tensor, " n"]:
    """The remaining rows, each in its place, except that the last ones fill the gaps, so that few have to be moved."""
    rows = torch.arange(num_left, device=is_left.device)
    rows[~is_left[:num_left]] = is_left[num_left:].nonzero().squeeze(1) + num_left
    return rows


class CoreTicking:
    """Any core, tick by tick.

    Args:
        core: the machine or a baseline.
        state: where to start, B rows; left as it was.
        readings: what to read at each tick.
    """

    def __init__(self, core: Core[Any], state: AnyState, readings: Sequence[RowReading]) -> None:
        self._core = core
        self.state = state
        """The state after the last tick, of the remaining rows."""
        self._readings = list(readings)

    def tick(self) -> Float[Tensor, "b P"]:
        """See ``Ticking``."""
        self.state = self._core.tick(self.state, self._readings.pop(0)).state
        return self._core.answer(self.state)

    def keep(self, rows: Int[Tensor, " n"]) -> None:
        """See ``Ticking``."""
        self.state = rows_of_state(self.state, rows)
        self._readings = rows_of_readings(self._readings, rows)
