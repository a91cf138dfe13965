"""``ctm-rl watch``: its options, and that its process leaves the machine to the one that trains."""

import math
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import tyro

from ctm_rl.cli.check_arguments import parse
from ctm_rl.cli.report import check_samples, check_single_run
from ctm_rl.errors import UserError, expand

PROG = "ctm-rl watch"
NICENESS = 5
"""By how much this process has a lower priority than those that train."""
_MAX_PORT = 65535
_MIN_SECONDS, _MAX_SECONDS = 0.5, 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchOptions:
    """Shows the report of a run in a browser on this machine while it trains; Ctrl-C ends it.

    Curves are drawn again after every iteration, and figures of the model after every checkpoint. The run's directory
    is only read.
    """

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The run's directory."""
    port: int = 0
    """The port of 127.0.0.1 where the page is; 0: any free one."""
    every: float = 5.0
    """Seconds between two checks whether the run has written something."""
    samples: int = 4
    """How many samples, or episodes, are shown."""
    trust: bool = False
    """The run may import its environment's module from this folder, although no run that you have trained on this
    machine does so."""


def watch(arguments: list[str], write: Callable[[str], None]) -> None:
    """Shows the run that a command line asks for, until an interrupt.

    Args:
        arguments: the command line after the command.
        write: writes a line.

    Raises:
        UserError: there is no such run, or the port cannot be used.
        KeyboardInterrupt: it was ended.
    """
    options = parse(WatchOptions, arguments, PROG)
    if not 0 <= options.port <= _MAX_PORT:
        raise UserError(f"--port must be from 0 to {_MAX_PORT}, got {options.port}.")
    if not (math.isfinite(options.every) and _MIN_SECONDS <= options.every <= _MAX_SECONDS):
        raise UserError(f"--every must be from {_MIN_SECONDS:g} to {_MAX_SECONDS:g} seconds, got {options.every:g}.")
    check_samples(options.samples)
    check_single_run(expand(options.dir))
    from ctm_rl.agents.run_directory.directory import check_is_run
    from ctm_rl.checkpoints.best import run_of

    run = run_of(expand(options.dir))
    check_is_run(run)
    import torch

    from ctm_rl.agents.report.report import ReportOptions
    from ctm_rl.agents.report.watch.server import watch as show
    from ctm_rl.agents.report.watch.watched import SECONDS, Watched

    os.nice(NICENESS)
    torch.set_num_threads(1)
    watched = Watched(run, ReportOptions(samples=options.samples, seconds=SECONDS, trust=options.trust))
    place = shlex.quote(options.dir)
    show(watched, options.port, options.every, lambda address: write(f"watching {place}: {address} (Ctrl-C ends it)"))
