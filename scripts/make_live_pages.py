"""Writes the pages of ``docs/live/``, in which trained machines run in the reader's browser, and their list.

    python scripts/make_live_pages.py zoo:mazes zoo:parity zoo:cartpole

Each argument is a trained run of mazes, parity or CartPole: its directory, one checkpoint in it, or one of the zoo.
Pages of more than 1.5 MB are written again with weights in half precision.
"""

import sys
from pathlib import Path

import torch

from ctm_rl.agents.evaluation.load import load_trained
from ctm_rl.agents.report.browser_model import export_machine, find_obstacle
from ctm_rl.agents.report.document import Document, Machine, Section
from ctm_rl.agents.report.page import render_page
from ctm_rl.checkpoints.best import find, run_of
from ctm_rl.checkpoints.published import OfficialModel
from ctm_rl.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "live"
MAX_BYTES = 1_500_000
BEGIN, END = "<!-- live pages -->\n", "<!-- end of live pages -->\n"
TRY = {
    "mazes": """\
The machine sees the maze as an image, once, and then thinks for some ticks: at each its attention rests on other \
places, and each ends with an answer, a whole route. The slider goes through the ticks; the pictures show the most \
certain one at first.

Close a passage, and see where it goes instead. In a larger maze than it was trained on, it answers a piece of the \
route; "Until the goal" lets it begin again where each piece ends.""",
    "parity": """\
The machine sees the whole sequence, and answers for every place whether the number of -1 up to it is odd. Flip an \
early bit, and every answer behind it has to change. The bars show which places each attention head reads at a tick.""",
    "cartpole": """\
The policy is not shown how fast cart and pole move. It finds out by remembering: its neurons keep a state from step \
to step. Push the pole with the mouse, a finger or the arrow keys; a few hard pushes in the same direction are too \
much for it.""",
}


def machine_of(run: Path, *, is_halved: bool | None = None) -> Machine:
    """The figure of a trained run.

    Raises:
        UserError: it cannot be read, or its machine cannot run in a page.
    """
    _, model, experiment = load_trained(run_of(run), find(run), torch.device("cpu"))
    if isinstance(model, OfficialModel) or experiment is None:
        raise UserError(f"{run} is a published model, whose task a page does not know.")
    figure = export_machine(model, experiment, is_halved=is_halved)
    if figure is None:
        raise UserError(f"{run} cannot run in a page: {find_obstacle(model, experiment)}")
    return figure


def page_of(figure: Machine) -> str:
    """The page of one machine."""
    section = Section(name=figure.task, title="What to try", text=TRY[figure.task], figures=[figure])
    subtitle = "A Continuous Thought Machine, trained with ctm_rl, that runs in this page."
    return render_page(Document(title=figure.title, subtitle=subtitle, sections=[section]))


def write_list(folder: Path) -> None:
    """Writes the list of the pages that there are into ``index.md``, between its two comments."""
    index = folder / "index.md"
    before, rest = index.read_text().split(BEGIN)
    _, after = rest.split(END)
    titles = [(page.stem, page.read_text().partition("<title>")[2].partition("<")[0]) for page in folder.glob("*.html")]
    lines = [f"- [{title}]({name}.html)\n" for name, title in sorted(titles, key=lambda page: list(TRY).index(page[0]))]
    index.write_text(f"{before}{BEGIN}\n{''.join(lines)}\n{END}{after}")


def main(runs: list[str], folder: Path = FOLDER) -> None:
    """Writes the page of each run, and the list.

    Raises:
        UserError: a run cannot be read, its machine cannot run in a page, or its page is too large.
    """
    for run in map(Path, runs):
        figure = machine_of(run)
        page = page_of(figure).encode()
        if len(page) > MAX_BYTES:
            page = page_of(machine_of(run, is_halved=True)).encode()
        if len(page) > MAX_BYTES:
            raise UserError(f"the page of {run} would take {len(page):,} bytes, and docs/ has room for {MAX_BYTES:,}.")
        path = folder / f"{figure.task}.html"
        path.write_bytes(page)
        print(f"{path}: {len(page):,} bytes")
    write_list(folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        raise SystemExit(f"make_live_pages: {error}") from error
