"""From what the command line asks of a benchmark to the text that it writes."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ctm_rl.agents.bench.settings import BenchOptions
from ctm_rl.errors import UserError, expand


def measure(
    options: BenchOptions, run: Callable[[Any], dict[str, Any]], to_text: Callable[[dict[str, Any]], str]
) -> str:
    """Measures, and gives the result as it was asked for.

    Args:
        options: where the result goes, and whether it is for a program or a person.
        run: measures; is given what to call with a line about what is being done.
        to_text: makes a table for a person of what ``run`` gives.

    Returns:
        One line of JSON, or a table for a person.

    Raises:
        UserError: the experiment cannot be run here, or the result cannot be written where it was asked to be.
    """
    out = None if options.out is None else expand(options.out).absolute()
    if out is not None:
        _check_writable(out)
    with _progress() as tell:
        result = run(tell)
    line = json.dumps(result, allow_nan=False) + "\n"
    told = "" if out is None else _save(out, line, result)
    return line if options.json else to_text(result) + told


def read(path: Path) -> str:
    """Makes the Markdown table of an earlier result.

    Raises:
        UserError: the file cannot be read, or is no result of ``ctm-rl bench --json``.
    """
    from ctm_rl.agents.bench.table import to_markdown

    try:
        result = json.loads(path.read_bytes())
        return to_markdown(result)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name a file made by ctm-rl bench --out.") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no result of ctm-rl bench --json.") from error


def _save(out: Path, line: str, result: dict[str, Any]) -> str:
    """Writes the JSON, and the curves beside it; says where."""
    out.write_text(line)
    if "curves" not in result:
        return f"written: {out}\n"
    from ctm_rl.agents.bench.scaling import draw

    picture = out.with_suffix(".png")
    if draw(result, picture):
        return f"written: {out}, {picture}\n"
    return f'written: {out}; no picture, since matplotlib is not installed (pip install "ctm-rl[bench]").\n'


def _check_writable(path: Path) -> None:
    """Refuses, before anything is measured, a file that could not be written afterwards."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--out {path} cannot be written; name a file in a directory that is there.")


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Says on a terminal what is being done; elsewhere nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("starting") as status:
        yield status.update
