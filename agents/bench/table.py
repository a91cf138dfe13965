"""Writes a measurement as text: an aligned table for the terminal, or Markdown for a document."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Result = dict[str, Any]
_WIDTH = 120
"""Characters in a line, if the table is not written to a terminal."""


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


_COLUMNS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "s/iteration": ("seconds", _seconds),
    "rollout": ("rollout", _seconds),
    "update": ("update", _seconds),
    "weight sync": ("weight_sync", _seconds),
    "env steps/s": ("env_steps_per_second", _whole),
    "parameters": ("parameters", _whole),
    "peak MB": ("peak_mb", _whole),
    "update MB": ("update_peak_mb", _whole),
}
_LEGEND = "MB: highest memory of a contender's process above the built model, in the iteration and in its update alone."


def to_text(result: Result) -> str:
    """Makes an aligned table of a result, with notes below it."""
    console = Console(width=None if Console().is_terminal else _WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in _COLUMNS:
        table.add_column(title, justify="right")
    for row in result["rows"]:
        table.add_row(row["name"], *_cells(row))
    with console.capture() as captured:
        console.print(table)
        for line in _lines(result):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    return captured.get()


def to_markdown(result: Result) -> str:
    """Makes a Markdown table of a result, with the machine, versions and command below it."""
    rows = [[f"`{row['name']}`", *_cells(row)] for row in result["rows"]]
    lines = markdown_table(["", *_COLUMNS], ["---", *["---:"] * len(_COLUMNS)], rows)
    return "\n".join([*lines, "", *(f"- {line}" for line in _lines(result)), ""])


def markdown_table(titles: Sequence[str], alignments: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Makes the lines of a Markdown table; ``---:`` aligns a column to the right."""
    return [f"| {' | '.join(cells)} |" for cells in (titles, alignments, *rows)]


def _cells(row: dict[str, Any]) -> list[str]:
    return ["" if "unavailable" in row else form(row.get(key)) for key, form in _COLUMNS.values()]


def _lines(result: Result) -> list[str]:
    """The notes below the table."""
    lines = []
    for row in result["rows"]:
        note = f"not measured: {row['unavailable']}" if "unavailable" in row else row["note"]
        lines.append(f"{row['name']}: {row['what']}; {note}")
    if "minibatch" in result:
        lines.append(_minibatch(result["minibatch"]))
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    lines += [
        _LEGEND,
        f"medians of {settings['rounds']} rounds, contenders in turn, {settings['num_threads']} threads each",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GiB; {versions}",
        result["command"],
    ]
    return lines


def _minibatch(part: dict[str, Any]) -> str:
    """A line on the update of one minibatch and its arithmetic floor."""
    return (
        f"one minibatch of ctm-rl, {part['rows']} x {part['steps']} steps: forward {_seconds(part['forward'])} s, "
        f"forward and backward {_seconds(part['forward_backward'])} s, {_whole(part['peak_mb'])} MB; floor "
        f"{part['floor']:.4f} s ({part['gflop']:.2f} GFLOP at {part['matrix_rate_gflops']:.0f} GFLOP/s), "
        f"measured/floor {part['times_floor']:.1f}"
    )
