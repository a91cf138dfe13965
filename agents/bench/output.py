"""Runs a benchmark and writes its result: JSON, or a table for a person."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctm_rl.agents.bench.settings import BenchOptions
from ctm_rl.agents.run_directory.progress import status_line
from ctm_rl.errors import UserError, expand


def measure(
    options: BenchOptions, run: Callable[[Any], dict[str, Any]], to_text: Callable[[dict[str, Any]], str]
) -> str:
    """Measures, and returns the result in the requested form.

    Args:
        options: whether the result is JSON or a table, and a file for the JSON.
        run: measures; calls its argument with a line about what is being done.
        to_text: makes a table of the result of ``run``.

    Returns:
        One line of JSON, or a table for a person.

    Raises:
        UserError: the experiment cannot run on this machine, or the file cannot be written.
    """
    out = None if options.out is None else expand(options.out).absolute()
    if out is not None:
        check_writable(out)
    with status_line() as report:
        result = run(report)
    line = json.dumps(result, allow_nan=False) + "\n"
    written = "" if out is None else _save(out, line, result)
    return line if options.json else to_text(result) + written


def read(path: Path) -> str:
    """Reads an earlier result and makes its Markdown table.

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
        raise UserError(f"{path} is not a result of ctm-rl bench --json; name one.") from error


def _save(out: Path, line: str, result: dict[str, Any]) -> str:
    """Writes the JSON, and a figure of curves beside it; returns a line that names the files."""
    out.write_text(line)
    if "curves" not in result:
        return f"written: {out}\n"
    from ctm_rl.agents.bench.scaling import draw

    figure = out.with_suffix(".png")
    if draw(result, figure):
        return f"written: {out}, {figure}\n"
    return f'written: {out}; no figure, since matplotlib is not installed (pip install "ctm-rl[bench]").\n'


def check_writable(path: Path) -> None:
    """Refuses, before anything is measured, a file that cannot be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--out {path} cannot be written; name a file in a directory that exists.")
