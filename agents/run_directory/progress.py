"""What a person sees of a run: one live line on a terminal, plain lines elsewhere."""

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from ctm_rl.agents.experiments.settings import BudgetConfig

Row = dict[str, float | None]

SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """Is told how a run goes."""

    def wait(self, message: str) -> None:
        """Something takes a while."""
        ...

    def say(self, message: str) -> None:
        """Something worth a line of its own."""
        ...

    def show(self, row: Row) -> None:
        """An iteration has been learned."""
        ...

    def stop(self) -> None:
        """The run has been asked to stop; called from a signal's handler, so it may only take note."""
        ...

    def close(self) -> None:
        """The run has stopped."""
        ...


class SilentProgress:
    """Shows nothing: for a run from Python."""

    def wait(self, message: str) -> None:
        """Shows nothing."""

    def say(self, message: str) -> None:
        """Shows nothing."""

    def show(self, row: Row) -> None:
        """Shows nothing."""

    def stop(self) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Shows nothing."""


class TerminalProgress:
    """Writes to the terminal; where there is none, as into a file, a line every few seconds.

    Args:
        budget: when the run is finished.
        console: where to write.
    """

    def __init__(self, budget: BudgetConfig, console: Console) -> None:
        self._budget = budget
        self._console = console
        self._live: Live | None = None
        self._status: Status | None = None
        self._last_row: Row | None = None
        self._last_time = float("-inf")
        self._is_stopping = False

    def wait(self, message: str) -> None:
        """Shows what is waited for until there is something else; where there is no terminal, as a line."""
        if not self._console.is_terminal:
            self.say(message)
            return
        self._end_waiting()
        self._status = self._console.status(message)
        self._status.start()

    def say(self, message: str) -> None:
        """Writes a line, above the live one if there is one."""
        self._end_waiting()
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def show(self, row: Row) -> None:
        """Renews the live line, or writes a plain one when the last is some seconds old."""
        self._last_row = row
        if not self._console.is_terminal:
            if time.monotonic() - self._last_time >= SECONDS_BETWEEN_LINES:
                self._write(row)
            return
        self._end_waiting()
        if self._live is None:
            self._live = Live(self, console=self._console, refresh_per_second=4)
            self._live.start()

    def stop(self) -> None:
        """Has the live line say so when it is next drawn."""
        self._is_stopping = True

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._end_waiting()
        self._is_stopping = False
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._last_row is not None:
            self._write(self._last_row)
        self._last_row = None

    def _end_waiting(self) -> None:
        """Takes away what was waited for."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _write(self, row: Row) -> None:
        """Writes one plain line."""
        self._last_time = time.monotonic()
        self._last_row = None
        self.say(f"iteration {row['iteration']}: {_facts(row)}, {self._steps(row)}, {_clock(row['seconds'] or 0)}")

    def __rich__(self) -> Table:
        """Gives the live line as it is now."""
        row = self._last_row
        line = Table.grid("", Column(no_wrap=True), padding=(0, 1))
        if row is None:
            return line
        clock = f"{_clock(row['seconds'] or 0)}, {_clock(self._remaining(row))} to go"
        ending = "stopping (Ctrl-C again: now)" if self._is_stopping else clock
        bar = ProgressBar(total=1.0, completed=self._share(row), width=10 if self._console.width < 100 else 30)
        line.add_row(bar, Text(f"{_facts(row)}, {self._steps(row)}, {ending}"))
        return line

    def _share(self, row: Row) -> float:
        """How much of the budget is used up."""
        share = (row["env_steps"] or 0) / self._budget.env_steps
        if self._budget.minutes is not None:
            share = max(share, (row["seconds"] or 0) / 60 / self._budget.minutes)
        return min(1.0, share)

    def _remaining(self, row: Row) -> float:
        """About how many seconds are left."""
        speed = row["env_steps_per_second"] or 0
        remaining = max(0.0, self._budget.env_steps - (row["env_steps"] or 0)) / speed if speed else 0.0
        if self._budget.minutes is not None:
            remaining = min(remaining, max(0.0, self._budget.minutes * 60 - (row["seconds"] or 0)))
        return remaining

    def _steps(self, row: Row) -> str:
        """Steps taken and allowed."""
        return f"{_count(row['env_steps'] or 0)} of {_count(self._budget.env_steps)} steps"


def _facts(row: Row) -> str:
    """How well it goes, and how fast."""
    if "episode_return_mean" in row:
        value = row["episode_return_mean"]
        shown = "no episode ended yet" if value is None else f"return {describe_return(value)}"
        if row.get("env_faults"):
            shown += f", {row['env_faults']:.0f} env faults"
    else:
        loss, accuracy, whole = (row[name] for name in ("total_loss", "accuracy", "accuracy_whole"))
        shown = f"loss {loss or 0:.3f}"
        if accuracy is not None:
            shown += f", {100 * accuracy:.1f} % right, {100 * (whole or 0):.1f} % throughout"
    return f"{shown}, {row['env_steps_per_second'] or 0:,.0f} steps/s"


def _count(number: float) -> str:
    """A number of steps in few letters: 950, 12.3k, 1.25M, 2G."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"


def _clock(seconds: float) -> str:
    """A duration, as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe_return(value: float) -> str:
    """A return for a person: where it is small, as in MiniGrid, where 1 is the best, digits after the point count."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
