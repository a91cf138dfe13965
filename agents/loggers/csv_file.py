"""A CSV file with the columns of ``metrics.jsonl``, for spreadsheets and data frames."""

import csv
import os
from pathlib import Path

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.run_directory.metrics_file import read_metrics
from ctm_rl.agents.run_directory.progress import Row

CSV_FILE = "progress.csv"


class CsvFile:
    """Writes ``progress.csv``: a line for each iteration, with an empty field where there is no value.

    It is written again from ``metrics.jsonl`` when rows are dropped, columns are added, or it is gone.
    """

    def start(self, experiment: AnyExperiment, run_dir: Path, resumed_from: int | None) -> None:
        """See ``Logger``."""
        self._run_dir, self._path = run_dir, run_dir / CSV_FILE
        self._columns: list[str] = []
        if resumed_from is not None:
            self.truncate(resumed_from)

    def write(self, row: Row, step: int) -> None:
        """See ``Logger``."""
        if not self._columns or row.keys() - set(self._columns) or not self._path.is_file():
            self._write_again([*self._rows_before(row), row])
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def truncate(self, iteration: int) -> None:
        """See ``Logger``."""
        self._write_again([row for row in read_metrics(self._run_dir) if (row.get("iteration") or 0) <= iteration])

    def close(self) -> None:
        """See ``Logger``."""

    def _rows_before(self, row: Row) -> list[Row]:
        """The rows of earlier iterations."""
        number = row["iteration"] or 0
        return [other for other in read_metrics(self._run_dir) if (other.get("iteration") or 0) < number]

    def _write_again(self, rows: list[Row]) -> None:
        """Replaces the file."""
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        temporary = self._path.with_name(f".{CSV_FILE}.new")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._path)
