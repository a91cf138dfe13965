"""A run's progress on the screen: one live line on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from ctm_rl.agents.experiments.settings import BudgetConfig

Row = dict[str, float | None]
"""One line of metrics, by its keys."""

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BEFORE_PARTS = 3.0
"""How long an iteration takes before its parts are shown on a terminal."""
SECONDS_BETWEEN_PARTS = 15.0
"""The same elsewhere, where each is a line."""
_UNITS = {"minibatches": "minibatch", "batches": "batch", "steps": "step"}
"""Names of a part of an iteration, by the names of several."""


class _Part(NamedTuple):
    """How far an iteration is."""

    iteration: int
    what: str
    num_done: int
    num_parts: int

    def __str__(self) -> str:
        return f"iteration {self.iteration}: {self.num_done} of {self.num_parts} {self.what}"


class Progress:
    """Shows how a run goes; this class shows nothing, as for a run from Python."""

    def show_waiting(self, message: str) -> None:
        """Shows what the run is waiting for, until something else is shown."""

    def write(self, message: str) -> None:
        """Writes a line that stays."""

    def show_metrics(self, row: Row) -> None:
        """Shows the metrics of the newest iteration."""

    def show_part(self, iteration: int, what: str, num_done: int, num_parts: int) -> None:
        """Shows how far an iteration is; called often.

        Args:
            iteration: number of the iteration.
            what: its parts, such as "minibatches".
            num_done: how many are done.
            num_parts: how many there are.
        """

    def show_stopping(self) -> None:
        """Shows that the run is about to stop; called in another thread."""

    def end_process(self, reason: BaseException) -> None:
        """Called in another thread when a stopped run does not end; the command line ends the process."""

    def close(self) -> None:
        """Ends the display."""


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Shows what is being done as one changing line on the terminal of standard error; elsewhere nothing.

    Yields:
        The function that shows a message.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("loading") as status:
        yield status.update


class TerminalProgress(Progress):
    """Shows a live line on a terminal; elsewhere, as in a file, writes a line every few seconds.

    Args:
        budget: what the bar and the remaining time are computed from.
        console: where to write.
        on_stuck: see ``Progress.end_process``.
        words: what a task calls its answers, see ``describe_accuracy``.
    """

    def __init__(
        self,
        budget: BudgetConfig,
        console: Console,
        on_stuck: Callable[[BaseException], None] = lambda reason: None,
        words: Sequence[str] = (),
    ) -> None:
        self._budget = budget
        self._words = words
        self._console = console
        self._on_stuck = on_stuck
        self._is_terminal = console.is_terminal  # rich asks the system each time
        self._part: _Part | None = None
        self._iteration_began = time.monotonic()
        self._live: Live | None = None
        self._status: Status | None = None
        self._last_row: Row | None = None
        self._last_time = float("-inf")
        self._is_stopping = False

    def show_waiting(self, message: str) -> None:
        """Shows what the run is waiting for until something else is shown; without a terminal, as a line."""
        if not self._console.is_terminal:
            self.write(message)
            return
        self._end_waiting()
        self._status = self._console.status(message)
        self._status.start()

    def write(self, message: str) -> None:
        """Writes a line, above the live one if there is one."""
        self._end_waiting()
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def show_metrics(self, row: Row) -> None:
        """Updates the live line; without a terminal, writes a line if the last one is some seconds old."""
        self._last_row = row
        if self._console.is_terminal:
            self._start_live()
        elif time.monotonic() - self._last_time >= SECONDS_BETWEEN_LINES:
            self._write_metrics(row)

    def show_part(self, iteration: int, what: str, num_done: int, num_parts: int) -> None:
        """Shows how far an iteration is, if it takes long."""
        now = time.monotonic()
        if self._part is None or self._part.iteration != iteration:
            self._iteration_began = now
        self._part = _Part(iteration, what, num_done, num_parts)
        if now - self._iteration_began < SECONDS_BEFORE_PARTS:
            return
        if self._is_terminal:
            self._start_live()
        elif now - max(self._last_time, self._iteration_began) >= SECONDS_BETWEEN_PARTS:
            self._last_time = now
            self.write(str(self._part))

    def show_stopping(self) -> None:
        """Shows that the run is about to stop: in the live line, or as a line."""
        self._is_stopping = True
        if self._status is not None:
            self._status.update(self._stopping)
        elif not self._console.is_terminal:
            self.write(self._stopping)

    def end_process(self, reason: BaseException) -> None:
        """Ends the process, if it is the command line's."""
        self._on_stuck(reason)

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._end_waiting()
        self._is_stopping, self._part = False, None
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._last_row is not None:
            self._write_metrics(self._last_row)
        self._last_row = None

    @property
    def _stopping(self) -> str:
        """What is shown after the first signal."""
        if self._part is None:
            return "stopping; again to stop now"
        return f"stopping after this {_UNITS.get(self._part.what, 'part of the iteration')}; again to stop now"

    def _start_live(self) -> None:
        """Starts the live line."""
        self._end_waiting()
        if self._live is None:
            self._live = Live(self, console=self._console, refresh_per_second=4)
            self._live.start()

    def _end_waiting(self) -> None:
        """Removes what ``show_waiting`` has shown."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _write_metrics(self, row: Row) -> None:
        """Writes the metrics as one plain line."""
        self._last_time = time.monotonic()
        self._last_row = None
        self.write(f"iteration {row['iteration']}: {describe_row(self._budget, row, self._words)}")

    def __rich__(self) -> Table:
        """Returns the live line as it is now."""
        row, part = self._last_row, self._part
        line = Table.grid("", Column(no_wrap=True), padding=(0, 1))
        is_long = time.monotonic() - self._iteration_began >= SECONDS_BEFORE_PARTS
        if self._is_stopping:
            line.add_row("", Text(self._stopping))
        elif row is not None:
            before = str(part) if part is not None and is_long else None
            line.add_row(*live_columns(self._budget, row, self._words, self._console.width, before))
        elif part is not None:
            line.add_row("", Text(str(part)))
        return line


class _Fact(NamedTuple):
    """A part of a line of progress."""

    text: str
    rank: int
    """0: always shown; of the others those with the largest number are left out first."""


def describe_row(budget: BudgetConfig, row: Row, words: Sequence[str] = ()) -> str:
    """Returns a line of metrics in words, whole.

    Args:
        budget: of the run.
        row: the metrics.
        words: see ``describe_accuracy``.
    """
    return ", ".join(fact.text for fact in (*_facts(budget, row, words), _elapsed(row)))


def live_columns(
    budget: BudgetConfig, row: Row, words: Sequence[str], width: int, before: str | None = None
) -> tuple[ProgressBar, Text]:
    """Returns a bar and a line of metrics that fit a terminal: the result and the time to go always stay.

    Args:
        budget: of the run.
        row: the metrics.
        words: see ``describe_accuracy``.
        width: of the terminal, in characters.
        before: what the line begins with.
    """
    bar_width = 10 if width < 100 else 30
    to_go = _Fact(f"{_clock(_remaining(budget, row))} to go", 0)
    facts = [*_facts(budget, row, words), _elapsed(row)]
    begin = ""
    if before is not None:
        begin = f"{before}; "
        facts = [fact._replace(rank=fact.rank + 1) for fact in facts]
    bar = ProgressBar(total=1.0, completed=used_share(budget, row), width=bar_width)
    text = begin + _fitted([*facts, to_go], width - bar_width - 2 - len(begin))
    return bar, Text(text, overflow="ellipsis")


def _fitted(facts: Sequence[_Fact], width: int) -> str:
    """The facts that fit a width, in their order."""
    kept = list(facts)
    while len(text := ", ".join(fact.text for fact in kept)) > width:
        last = max(kept, key=lambda fact: fact.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return text


def _remaining(budget: BudgetConfig, row: Row) -> float:
    """An estimate of the seconds that are left."""
    speed = row["env_steps_per_second"] or 0
    remaining = max(0.0, budget.env_steps - (row["env_steps"] or 0)) / speed if speed else 0.0
    if budget.minutes is not None:
        remaining = min(remaining, max(0.0, budget.minutes * 60 - (row["seconds"] or 0)))
    return remaining


def used_share(budget: BudgetConfig, row: Row) -> float:
    """Returns how much of a budget is used up at a line of metrics, from 0 to 1."""
    share = (row["env_steps"] or 0) / budget.env_steps
    if budget.minutes is not None:
        share = max(share, (row["seconds"] or 0) / 60 / budget.minutes)
    return min(1.0, share)


def _facts(budget: BudgetConfig, row: Row, words: Sequence[str]) -> list[_Fact]:
    """Return or accuracy, speed, and the steps taken of those in the budget."""
    unit = "steps"
    if "episode_return_mean" in row:
        value = row["episode_return_mean"]
        facts = [_Fact("no episode ended yet" if value is None else f"return {describe_return(value)}", 0)]
        if row.get("env_faults"):
            facts.append(_Fact(f"{row['env_faults']:.0f} env faults", 1))
    else:
        unit = "samples"
        loss, accuracy, whole = (row[name] for name in ("total_loss", "accuracy", "accuracy_whole"))
        shares = [] if accuracy is None else describe_accuracy(percent(accuracy), percent(whole or 0), words)
        facts = [_Fact(f"loss {loss or 0:.3f}", 6 if shares else 0)]
        facts += [_Fact(share, rank) for rank, share in enumerate(shares)]
    return [
        *facts,
        _Fact(f"{row['env_steps_per_second'] or 0:,.0f} {unit}/s", 4),
        _Fact(f"{_count(row['env_steps'] or 0)} of {_count(budget.env_steps)} {unit}", 3),
    ]


def _elapsed(row: Row) -> _Fact:
    """The time that a run has taken."""
    return _Fact(_clock(row["seconds"] or 0), 5)


def percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f} %"


def describe_accuracy(elements: str, whole: str, words: Sequence[str] = ()) -> list[str]:
    """Returns shares of right answers in words, as "97.0 % of bits" and "90.1 % of whole sequences".

    Args:
        elements: the share of right elements, as text such as 97.0 %.
        whole: the share of samples with all elements right, likewise.
        words: what the task calls its elements and its whole samples; one word where a sample is one element; empty:
            it has no words of its own.
    """
    if len(words) == 1:
        return [f"{whole} of {words[0]}"]
    names = words or ("elements", "whole samples")
    return [f"{share} of {name}" for share, name in zip((elements, whole), names, strict=True)]


def _count(number: float) -> str:
    """A number of steps, abbreviated: 950, 12.3k, 1.25M, 2G."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"


def _clock(seconds: float) -> str:
    """A duration, such as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe_return(value: float) -> str:
    """A return with one decimal, or three if it is small, as in MiniGrid, where 1 is the best."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
