"""``ctm-rl compare``: its options, and where the page goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ctm_rl.cli.check_arguments import parse
from ctm_rl.cli.report import Written, check_numbers, choose_file, how_to_open, write
from ctm_rl.errors import UserError, expand

FILE = "compare.html"
PROG = "ctm-rl compare"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """Writes one HTML page about several runs side by side: what differs, how they learned, what they do, how fast.

    Runs that differ in their seeds alone are one line with its spread. Models are evaluated on the same samples or
    episodes.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directories of runs or of several seeds, or checkpoints; at least two runs."""
    out: str | None = None
    """The page's file; None: compare.html in the current folder."""
    checkpoint: str | None = None
    """Which checkpoint of every run: best, last, or the number of an iteration; None: the last one."""
    episodes: int | None = None
    """How many samples, or episodes, each run is evaluated on; None: as evaluate, fewer where that takes long."""
    evaluate: bool = True
    """Evaluate the models; otherwise the page has what was recorded in training, in seconds."""
    seed: int = 0
    """The same seed evaluates on the same samples or episodes, as evaluate does."""
    trust: bool = False
    """The runs may import their environments' modules from this folder, although no run that you have trained on this
    machine does so."""


def compare(arguments: list[str]) -> Written:
    """Makes the comparison that a command line asks for, and writes it.

    Args:
        arguments: the command line after the command.

    Raises:
        UserError: a path is no run, there are fewer than two, or the page cannot be written there.
    """
    options = parse(CompareOptions, arguments, PROG)
    check_numbers(options.episodes, options.seed)
    paths = [expand(path) for path in options.runs]
    _check_paths(paths)
    if options.episodes is not None and not options.evaluate:
        raise UserError("--episodes and --no-evaluate exclude each other; leave one out.")
    file = choose_file(Path.cwd(), FILE if options.out is None else options.out)
    from ctm_rl.agents.report.compare.compare import make_comparison
    from ctm_rl.agents.report.page import render_page
    from ctm_rl.agents.report.report import ReportOptions

    wanted = ReportOptions(
        checkpoint=options.checkpoint, episodes=options.episodes, seed=options.seed, trust=options.trust
    )
    document = make_comparison(paths, wanted, evaluate=options.evaluate)
    write(file, render_page(document))
    return Written(file, document.notes, how_to_open(file))


def _check_paths(paths: list[Path]) -> None:
    """Refuses what is no run before anything heavy is loaded."""
    from ctm_rl.agents.run_directory.directory import check_is_run
    from ctm_rl.agents.seeds.plan import is_seeds
    from ctm_rl.agents.tuning.plan import describe_trials, is_sweep
    from ctm_rl.checkpoints.best import run_of

    for path in paths:
        if is_sweep(path):
            raise UserError(describe_trials(path, str(path)))
        if not is_seeds(path):
            check_is_run(run_of(path))
