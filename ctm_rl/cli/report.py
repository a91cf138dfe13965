"""``ctm-rl report``: its options, where the page goes, and that nothing else is overwritten."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from ctm_rl.cli.check_arguments import parse
from ctm_rl.cli.command_options import EvaluatedEnv
from ctm_rl.errors import UserError, expand, user_errors

FILE = "report.html"
MARK = '<meta name="generator" content="ctm-rl '
"""How a page is known to be a report, which may be overwritten."""
_HEAD_BYTES = 4096
_MAX_SAMPLES = 100
_PROG = "ctm-rl report"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """Writes one HTML page about a run: what ran, how it learned, and what its model does, tick by tick."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's directory, or one checkpoint in it."""
    samples: int = 6
    """How many samples, or episodes, are shown, from right and wrong ones about half each."""
    out: str | None = None
    """The page's file; None: report.html in the run's directory, or in the current folder if that cannot be written."""
    checkpoint: str | None = None
    """Which checkpoint of the run: best, last, or the number of an iteration; None: the last one."""
    episodes: int | None = None
    """Models that answer: how many samples the numbers are of; None: as evaluate, fewer where that takes long."""
    seed: int = 0
    """The same seed shows the same samples, or plays the same episodes, as evaluate does."""
    env: EvaluatedEnv = field(default_factory=EvaluatedEnv)
    """What differs from training."""
    human_labels: str | None = None
    """Models that answer: compare with the human answers in this file, in CIFAR-10H's format."""
    trust: bool = False
    """The run may import its environment's module from this folder, although no run that you have trained on this
    machine does so."""


class Written(NamedTuple):
    """A report that has been written."""

    file: Path
    """The page."""
    notes: Sequence[str]
    """What is missing in it, and why."""
    how_to_open: str
    """A command that opens it."""


def report(arguments: list[str]) -> Written:
    """Makes the report that a command line asks for, and writes it.

    Args:
        arguments: the command line after the command.

    Raises:
        UserError: there is no such run, or the page cannot be written there.
    """
    options = parse(ReportOptions, arguments, _PROG)
    directory = expand(options.dir)
    _check(options, directory)
    from ctm_rl.checkpoints.best import run_of
    from ctm_rl.zoo.entries import is_zoo

    # a run of the zoo is part of what is installed: nothing is written there
    file = choose_file(Path.cwd() if is_zoo(directory) else run_of(directory), options.out)
    from ctm_rl.agents.report import report as reports
    from ctm_rl.agents.report.page import render_page
    from ctm_rl.envs.data.human_labels import read_human_labels

    values: dict[str, Any] = {item.name: getattr(options, item.name) for item in dataclasses.fields(options)}
    with user_errors():
        labels = values.pop("human_labels")
        human = None if labels is None else read_human_labels(expand(labels))
    env_kwargs = values.pop("env").kwargs
    del values["dir"], values["out"]
    document = reports.make_report(directory, reports.ReportOptions(**values, env_kwargs=env_kwargs, human=human))
    write(file, render_page(document))
    return Written(file, document.notes, how_to_open(file))


def _check(options: ReportOptions, directory: Path) -> None:
    """Refuses numbers that are out of range, and directories of several runs."""
    check_samples(options.samples)
    check_numbers(options.episodes, options.seed)
    check_single_run(directory)


def check_samples(samples: int) -> None:
    """Refuses a number of samples that is out of range.

    Raises:
        UserError: one line with the number and its limit.
    """
    if not 1 <= samples <= _MAX_SAMPLES:
        raise UserError(f"--samples must be from 1 to {_MAX_SAMPLES}, got {samples}.")


def check_single_run(directory: Path) -> None:
    """Refuses directories of several runs.

    Raises:
        UserError: it is one; the message names the runs in it.
    """
    from ctm_rl.agents.seeds.plan import is_seeds
    from ctm_rl.agents.tuning.plan import describe_trials, is_sweep

    if is_sweep(directory):
        raise UserError(describe_trials(directory, str(directory)))
    if is_seeds(directory):
        runs = sorted(path.name for path in directory.iterdir() if path.is_dir())
        raise UserError(f"{directory} holds the runs of several seeds; name one of them: {', '.join(runs)}.")


def check_numbers(episodes: int | None, seed: int) -> None:
    """Refuses numbers of an evaluation that are out of range.

    Raises:
        UserError: one line with the number and its limit.
    """
    from ctm_rl.agents.experiments.settings import MAX_SEED

    if episodes is not None and episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {episodes}.")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"--seed must be at least 0 and at most {MAX_SEED}, got {seed}.")


def choose_file(run: Path, out: str | None) -> Path:
    """Chooses where the page goes, and checks that it can be written there.

    Args:
        run: the run's directory.
        out: the file that was asked for; ``None``: ``report.html`` in the run's directory, or in the current folder
            where that one cannot be written.

    Raises:
        UserError: it cannot be written, or there is a file that is no report.
    """
    if out is None:
        folder = run if _is_writable(run) else Path.cwd()
        file = folder / FILE
    else:
        file = expand(out)
        if not out.strip() or file.is_dir():
            raise UserError(f"--out must be the name of a file, such as {FILE}, got {out!r}.")
    if not file.parent.is_dir():
        raise UserError(f"--out {file} cannot be written: there is no directory {file.parent}.")
    if not _is_writable(file.parent):
        raise UserError(f"--out {file} cannot be written: {file.parent} is not writable; name another file by --out.")
    if os.path.lexists(file) and not is_report(file):
        raise UserError(f"{file} exists and is no report; it stays: name another file by --out.")
    return file


def _is_writable(folder: Path) -> bool:
    """Whether files can be created in a folder."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def is_report(file: Path) -> bool:
    """Whether a file is a page that ``ctm-rl report`` has written."""
    try:
        if file.is_symlink() or not file.is_file():
            return False
        with file.open("rb") as stream:
            return MARK.encode() in stream.read(_HEAD_BYTES)
    except OSError:
        return False


def write(file: Path, text: str) -> None:
    """Writes the page under another name, then renames it.

    Raises:
        UserError: it cannot be written.
    """
    from ctm_rl.agents.run_directory.directory import write_atomically

    try:
        write_atomically(file, text)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}; name another file by --out.") from error


def how_to_open(file: Path) -> str:
    """A command that opens a page in the browser."""
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    return f"{opener} {shlex.quote(str(file))}"
