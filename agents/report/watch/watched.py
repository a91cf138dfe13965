"""The report of a run that is watched: curves after every iteration, figures of the model after every checkpoint."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ctm_rl.agents.experiments.serialise import AnyExperiment
from ctm_rl.agents.report.document import Section
from ctm_rl.agents.report.page import render_page
from ctm_rl.agents.report.report import (
    Found,
    ReportOptions,
    document_of,
    find_trained,
    model_sections,
    run_sections,
    warnings_in,
)
from ctm_rl.agents.run_directory.directory import CONFIG_FILE, METRICS_FILE, is_in_use
from ctm_rl.agents.run_directory.metrics_file import last_row
from ctm_rl.agents.run_directory.progress import used_share
from ctm_rl.checkpoints import store
from ctm_rl.errors import UserError

REST = 4.0
"""After figures of a model that took t seconds to make, the next ones are made t times this later at the earliest: the
run has the machine for itself most of the time."""
SECONDS = 3.0
"""Time for the numbers of a model that answers, see ``ReportOptions.seconds``."""
_FAILURES = (OSError, ValueError, RuntimeError, LookupError)
"""What reading a run that is being written, and its model, may raise."""

Stamp = tuple[int, ...]


class Marks(NamedTuple):
    """By what it is known whether a run has written something."""

    metrics: Stamp
    """Of the file of metrics; empty: there is none."""
    checkpoint: Stamp
    """Of the newest checkpoint, its iteration first; empty: there is none."""


class Snapshot(NamedTuple):
    """What is shown at a moment."""

    version: int
    """Counts the pages; 0: there is none yet."""
    page: bytes
    """The report, as a file."""


class Watched:
    """The report of a run, made again when there is something new. One thread updates it; others may read ``current``.

    Args:
        run: the run's directory.
        options: what is shown of its model.
        clock: seconds, ever increasing.
    """

    def __init__(self, run: Path, options: ReportOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.current = Snapshot(0, b"")
        self._options, self._clock = options, clock
        self._marks: Marks | None = None
        self._found, self._found_notes = Found(None, None, None), list[str]()
        self._sections, self._section_notes = list[Section](), list[str]()
        self._read: Stamp | None = None
        self._looked_into: Stamp = ()
        self._rests_until = float("-inf")

    @property
    def experiment(self) -> AnyExperiment | None:
        """Of the run; ``None``: it is not known."""
        return self._found.experiment

    def update(self) -> bool:
        """Makes the page again if the run has written something; returns whether there is a new one.

        The first page has no figures of the model, which take a while: the next call makes them.
        """
        marks = marks_of(self.run)
        is_changed = marks != self._marks and (self._marks is None or self.run.is_dir())
        is_new_model = bool(marks.checkpoint) and marks.checkpoint != self._looked_into
        can_look = is_new_model and self._marks is not None and self._clock() >= self._rests_until
        if not is_changed and not can_look:
            return False
        self._marks = marks
        if marks.checkpoint != self._read:
            self._find(marks.checkpoint)
        if can_look:
            self._look_into(marks.checkpoint)
        self._make_page()
        return True

    def _find(self, checkpoint: Stamp) -> None:
        """Reads the model and the experiment."""
        notes: list[str] = []
        with warnings_in(notes):
            try:
                self._found = find_trained(self.run, self.run, self._options, notes)
            except _FAILURES as error:  # it is being written
                notes.append(_as_note(error))
        self._found_notes, self._read = notes, checkpoint

    def _look_into(self, checkpoint: Stamp) -> None:
        """Makes the figures of the model."""
        started = self._clock()
        notes: list[str] = []
        sections: list[Section] = []
        with warnings_in(notes):
            try:
                sections = model_sections(self._found, self.run, self._options, notes)
            except Exception as error:  # whatever an environment may raise: the curves go on
                notes.append(f"There are no figures of the model: {_as_note(error)}")
        self._sections, self._section_notes, self._looked_into = sections, notes, checkpoint
        now = self._clock()
        self._rests_until = now + REST * (now - started)

    def _make_page(self) -> None:
        """Makes the page of what there is."""
        notes = [*self._found_notes, *self._section_notes]
        if self._sections and self._looked_into != self._read and self._looked_into:
            notes.append(f"Figures of the model are still those of iteration {self._looked_into[0]}.")
        try:
            of_run = run_sections(self.run, self._found, notes)
            page = self._render(notes, [*self._sections, *of_run], of_run).encode()
        except _FAILURES:  # it is being written, or gone: the page stays
            return
        self.current = Snapshot(self.current.version + 1, page)

    def _render(self, notes: list[str], sections: list[Section], fewer: list[Section]) -> str:
        """The page; if it would be too large, that of fewer sections, with a note that says why."""
        try:
            return render_page(document_of(self.run, self._found, notes, sections))
        except UserError as error:
            return render_page(document_of(self.run, self._found, [*notes, _as_note(error)], fewer))


def marks_of(run: Path) -> Marks:
    """Reads by what it is known whether a run has written something.

    Args:
        run: its directory.
    """
    try:
        newest = max(store.iterations_of(run), default=None)
    except OSError:
        newest = None
    if newest is None:
        checkpoint: Stamp = ()
    else:
        checkpoint = (newest, *_stamp(store.path_of(run, newest) / store.STATE_FILE))
    return Marks((*_stamp(run / METRICS_FILE), *_stamp(run / CONFIG_FILE)), checkpoint)


def _stamp(file: Path) -> Stamp:
    """What changes when a file is written; empty: there is none."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _as_note(error: Exception) -> str:
    """An error as a line."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_state(run: Path, experiment: AnyExperiment | None) -> str:
    """How far a run is, and whether it trains, in a line.

    Args:
        run: its directory.
        experiment: of the run.
    """
    if not run.is_dir():
        return "the run's directory is gone; this is its last page"
    row = last_row(run)
    at = "no iteration yet" if row is None else f"iteration {int(row.get('iteration') or 0):,}"
    if is_in_use(run):
        return f"{at}, training"
    is_whole = row is not None and {"env_steps", "seconds"} <= row.keys()
    if experiment is not None and row is not None and is_whole and used_share(experiment.budget, row) >= 1.0:
        return f"{at}, the run has ended: its budget is used up"
    return f"{at}, no process of this machine trains it now"
