"""Writes the pages of ``docs/live/``, in which trained machines run in the reader's browser, and their list.

    python scripts/make_live_pages.py zoo:mazes zoo:parity zoo:cartpole

Each argument is a trained run of mazes, parity or CartPole: its directory, one checkpoint in it, or one of the zoo.
Pages of more than 1.5 MB are written again with weights in half precision.
"""

import sys
from pathlib import Path

import torch

from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.report.browser_model import find_obstacle, live_section
from ctm_rl.agents.report.document import Document, Machine
from ctm_rl.agents.report.page import render_page
from ctm_rl.checkpoints.best import find, run_of
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "live"
MAX_BYTES = 1_500_000
BEGIN, END = "<!-- live pages -->\n", "<!-- end of live pages -->\n"
TASKS = ("mazes", "parity", "cartpole")
"""In the order in which they are listed."""


def page_of(run: Path, *, is_halved: bool | None = None) -> tuple[str, bytes]:
    """The task of a trained run, and its page.

    Raises:
        UserError: the run cannot be read, or its machine cannot run in a page.
    """
    _, model, experiment = load_trained(run_of(run), find(run), torch.device("cpu"))
    if isinstance(model, OfficialModel) or experiment is None:
        raise UserError(f"{run} is a published model, whose task a page does not know.")
    section = live_section(model, experiment, is_halved=is_halved)
    if section is None:
        raise UserError(f"{run} cannot run in a page: {find_obstacle(model, experiment)}")
    (figure,) = section.figures
    assert isinstance(figure, Machine)
    subtitle = "A Continuous Thought Machine, trained with ctm_rl, that runs in this page."
    return figure.task, render_page(Document(title=figure.title, subtitle=subtitle, sections=[section])).encode()


def write_list(folder: Path) -> None:
    """Writes the list of the pages that there are into ``index.md``, between its two comments."""
    index = folder / "index.md"
    before, rest = index.read_text().split(BEGIN)
    _, after = rest.split(END)
    titles = [(page.stem, page.read_text().partition("<title>")[2].partition("<")[0]) for page in folder.glob("*.html")]
    lines = [f"- [{title}]({name}.html)\n" for name, title in sorted(titles, key=lambda page: TASKS.index(page[0]))]
    index.write_text(f"{before}{BEGIN}\n{''.join(lines)}\n{END}{after}")


def main(runs: list[str], folder: Path = FOLDER) -> None:
    """Writes the page of each run, and the list.

    Raises:
        UserError: a run cannot be read, its machine cannot run in a page, or its page is too large.
    """
    for run in map(Path, runs):
        task, page = page_of(run)
        if len(page) > MAX_BYTES:
            task, page = page_of(run, is_halved=True)
        if len(page) > MAX_BYTES:
            raise UserError(f"the page of {run} would take {len(page):,} bytes, and docs/ has room for {MAX_BYTES:,}.")
        path = folder / f"{task}.html"
        path.write_bytes(page)
        print(f"{path}: {len(page):,} bytes")
    write_list(folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"make_live_pages: {error}") from error
