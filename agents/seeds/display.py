"""How the runs of several seeds go: a live line for each on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from ctm_rl.agents.experiments.answering import AnsweringExperiment
from ctm_rl.agents.run_directory.progress import Row, describe_row, live_columns
from ctm_rl.agents.seeds.plan import Seeds

SECONDS_BETWEEN_LINES = 10.0
_LABEL_SPACE = 2


class SeedsDisplay:
    """Shows the newest metrics of the runs that train.

    Args:
        seeds: the runs.
        console: where to write.
    """

    def __init__(self, seeds: Seeds, console: Console) -> None:
        self._seeds, self._console = seeds, console
        experiment = seeds.experiment
        self._words = experiment.env.words if isinstance(experiment, AnsweringExperiment) else ()
        self._rows: dict[int, Row | None] = {}
        self._shown: dict[int, tuple[float, Row | None]] = {}
        self._live: Live | None = None
        self._is_stopping = False

    def write(self, message: str) -> None:
        """Writes a line that stays."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def write_end(self, seed: int, how: str) -> None:
        """Writes how a seed has ended, with its last metrics."""
        row = self._seeds.last_row(seed)
        facts = "" if row is None else f"; {describe_row(self._seeds.experiment.budget, row, self._words)}"
        self.write(f"seed {seed}: {how.rstrip('.')}{facts}")

    def update(self, running: Iterable[int]) -> None:
        """Reads and shows the metrics of the seeds that train now."""
        self._rows = {seed: self._seeds.last_row(seed) for seed in running}
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(self, console=self._console, refresh_per_second=2, transient=True)
                self._live.start()
            return
        for seed, row in self._rows.items():
            shown_at, before = self._shown.get(seed, (float("-inf"), None))
            if row is not None and row != before and time.monotonic() - shown_at >= SECONDS_BETWEEN_LINES:
                self._shown[seed] = time.monotonic(), row
                words = describe_row(self._seeds.experiment.budget, row, self._words)
                self.write(f"seed {seed}: iteration {row['iteration']}: {words}")

    def show_stopping(self) -> None:
        """Shows that the runs are about to stop; called in another thread."""
        self._is_stopping = True
        if not self._console.is_terminal:
            self.write("stopping all seeds; again to stop now")

    def close(self) -> None:
        """Ends the display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich__(self) -> Table:
        """Returns the live lines as they are now."""
        labels = {seed: f"seed {seed}" for seed in self._rows}
        width = self._console.width - max(map(len, labels.values()), default=0) - _LABEL_SPACE
        table = Table.grid("", "", Column(no_wrap=True), padding=(0, 1))
        for seed, row in self._rows.items():
            if row is None:
                table.add_row(labels[seed], "", Text("starting"))
            else:
                table.add_row(labels[seed], *live_columns(self._seeds.experiment.budget, row, self._words, width))
        if self._is_stopping:
            table.add_row("", "", Text("stopping all seeds; again to stop now"))
        return table
