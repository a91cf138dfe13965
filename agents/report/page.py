"""The page of a report: one HTML file that holds its data, its style and what draws it, and needs no network."""

import base64
import collections
import dataclasses
import hashlib
import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctm_rl
from ctm_rl.agents.report.document import Document, Machine, Section, to_plain
from ctm_rl.errors import UserError

MAX_BYTES = 5_000_000
"""Largest page: it is sent by mail and opened on phones."""
NUM_NAMED = 3
"""Figures that the message about a page that is too large names."""

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    *("arrays.js", "theme.js", "elements.js", "clock.js", "figures.js"),
    *("figure-text.js", "figure-lines.js", "figure-bars.js", "figure-traces.js", "figure-matrix.js"),
    *("figure-picture.js", "figure-sequence.js", "controls.js"),
)
"""Files in the order in which they share one function scope, followed by ``page.js``."""
MACHINE_FILES = ("machine.js", "live*.js", "live*.css")
"""What a page with a machine needs beside."""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ctm-rl {version}">
<link rel="icon" href="data:,">
<title>{title}</title>
{styles}
</head>
<body>
<noscript>This report is drawn by JavaScript, which is turned off.</noscript>
<script type="application/json" id="report">{data}</script>
{scripts}
</body>
</html>
"""


def render_page(document: Document) -> str:
    """A report as one HTML file that loads nothing: its policy forbids any network.

    A page that would be too large loses samples, of the verdict that has the most of them first; a note at its top
    says so.

    Args:
        document: what the report shows.

    Raises:
        UserError: the page would be larger than ``MAX_BYTES`` with a single sample; the message names the figures that
            take most of it.
    """
    machine_files = _machine_files(document)
    styles, scripts = _styles(machine_files), _scripts(machine_files)
    room = MAX_BYTES - sum(len(part.encode()) for part in (*styles, *scripts)) - len(_PAGE) - 2000
    return _PAGE.format(
        policy=_policy(styles, scripts),
        version=html.escape(ctm_rl.__version__),
        title=html.escape(document.title),
        data=_fitting_data(document, room),
        styles="\n".join(f"<style>{style}</style>" for style in styles),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def write_page(document: Document, path: Path | str) -> None:
    """Writes a report as one HTML file.

    Args:
        document: what the report shows.
        path: the file; one that is there is replaced.

    Raises:
        UserError: as for ``render_page``.
        OSError: the file cannot be written.
    """
    Path(path).write_text(render_page(document), encoding="utf-8")


def _machine_files(document: Document) -> list[Path]:
    """What draws machines, if the document has any."""
    figures = (figure for section in document.sections for figure in section.figures)
    if not any(isinstance(figure, Machine) for figure in figures):
        return []
    return [path for pattern in MACHINE_FILES for path in sorted(ASSETS.glob(pattern))]


def _styles(machine_files: list[Path]) -> list[str]:
    """The contents of the style elements."""
    more = [path for path in machine_files if path.suffix == ".css"]
    return [_read(path) for path in (ASSETS / "uplot" / "uPlot.min.css", ASSETS / "page.css", *more)]


def _scripts(machine_files: list[Path]) -> list[str]:
    """The contents of the script elements: uPlot as it is, and ours in one strict function scope."""
    more = [path for path in machine_files if path.suffix == ".js"]
    parts = [_read(path) for path in (*(ASSETS / name for name in SCRIPTS), *more, ASSETS / "page.js")]
    ours = "".join(['(() => {\n"use strict";\n', *parts, "})();\n"])
    return [_read(ASSETS / "uplot" / "uPlot.iife.min.js"), ours]


def _read(path: Path) -> str:
    """A file of the page."""
    return path.read_text(encoding="utf-8")


def _policy(styles: list[str], scripts: list[str]) -> str:
    """The Content-Security-Policy: nothing is loaded, and only these styles and scripts have any effect."""
    allowed = {"script-src": scripts, "style-src": styles}
    hashes = [f"{name} {' '.join(map(source_hash, parts))}" for name, parts in allowed.items()]
    return "; ".join(["default-src 'none'", *hashes, "img-src data: blob:", "base-uri 'none'", "form-action 'none'"])


def source_hash(text: str) -> str:
    """The content of an element as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _fitting_data(document: Document, room: int) -> str:
    """The document as JSON of at most ``room`` bytes, with as many of its samples as fit."""
    data = _as_json(to_plain(document))
    if len(data) <= room:
        return data
    whole = len(data) + MAX_BYTES - room
    sizes = [len(_as_json(to_plain(sample))) for section in document.sections for sample in section.samples]
    kept = list(_kept_samples(document, sizes, len(data) - room))
    if not kept:
        raise UserError(_too_large(document, whole))
    note = (
        f"{len(sizes) - len(kept)} of {len(sizes)} samples are left out: with all of them, the page would take "
        f"{_megabytes(whole)}, and at most {_megabytes(MAX_BYTES)} are allowed."
    )
    return _as_json(to_plain(_with_samples(document, set(kept), note)))


def _kept_samples(document: Document, sizes: list[int], excess: int) -> Iterator[int]:
    """Numbers of the samples that stay; none where leaving all out is not enough.

    Args:
        document: the report.
        sizes: bytes of each sample.
        excess: bytes by which the page is too large.
    """
    verdicts = [sample.verdict for section in document.sections for sample in section.samples]
    kept = list(range(len(verdicts)))
    excess += 500  # the note
    while excess > 0 and kept:
        most_common, _ = collections.Counter(verdicts[index] for index in kept).most_common(1)[0]
        left_out = max(index for index in kept if verdicts[index] == most_common)
        kept.remove(left_out)
        excess -= sizes[left_out] + 1
    if excess <= 0:
        yield from kept


def _with_samples(document: Document, kept: set[int], note: str) -> Document:
    """A document with some of its samples, and a note."""
    sections: list[Section] = []
    first = 0
    for section in document.sections:
        samples = [sample for index, sample in enumerate(section.samples, first) if index in kept]
        first += len(section.samples)
        sections.append(dataclasses.replace(section, samples=samples))
    return dataclasses.replace(document, sections=sections, notes=[*document.notes, note])


def _too_large(document: Document, size: int) -> str:
    """What is wrong with a page that no leaving out of samples makes small enough."""
    figures = [
        (len(_as_json(to_plain(figure))), figure.title)
        for section in document.sections
        for figure in (*section.figures, *(one for sample in section.samples for one in sample.figures))
    ]
    largest = sorted(figures, reverse=True)[:NUM_NAMED]
    named = ", ".join(f"{title} ({_megabytes(number)})" for number, title in largest)
    samples = ", even for a single sample" if any(section.samples for section in document.sections) else ""
    return (
        f"the page would take {_megabytes(size)}, and at most {_megabytes(MAX_BYTES)} are allowed{samples}; its "
        f"largest figures are {named}."
    )


def _megabytes(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 1e6:.1f} MB"


def _as_json(plain: Any) -> str:
    """JSON in ASCII that ends no script element."""
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
