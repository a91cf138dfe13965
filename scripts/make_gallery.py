"""Makes the pictures and films of ``docs/gallery.md`` from the trained runs that are shipped, and their list.

``python scripts/make_gallery.py NAME ...`` makes those of the named runs of the zoo, without a name those of all. It
needs Chromium and ``pip install "ctm-rl[test]"``. A picture shows some figures of the page that ``ctm-rl report
zoo:NAME`` writes, once for light and once for dark pages; a film is what ``ctm-rl record zoo:NAME --with-thinking``
records, smaller and with fewer steps.
"""

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ctm_rl.agents.video.player import PlayerOptions, load_player
from ctm_rl.agents.video.record import painter
from ctm_rl.cli.main import main as ctm_rl
from ctm_rl.errors import UserError
from ctm_rl.zoo.entries import PREFIX, names

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FOLDER = Path("images", "gallery")
"""In ``docs/``."""
PAGE = "gallery.md"
BEGIN, END = "<!-- gallery -->\n", "<!-- end of gallery -->\n"
THEMES = ("light", "dark")
MAX_FILM_BYTES, MAX_BYTES = 220_000, 1_500_000
"""Of a film, and of all pictures and films together."""
FILM_SIZE = 640, 360
QUALITIES = (80, 65, 50, 40, 30)
"""Of a film: the first one with which it is small enough."""
PICTURE_QUALITY = 66
WIDTH, HEIGHT, SCALE = 1020, 1600, 1.25
"""Of the window in which figures are drawn, in CSS pixels; and pixels for each of them."""
ACTING = ("What happens", "What it sees", "Action probabilities", "Neurons")
ANSWERING = ("What it attends to", "Probability of each class", "Certainty", "Neurons")


class Picture(NamedTuple):
    """What is shown of a run's report."""

    text: str
    """What is to be seen, in a sentence."""
    titles: Sequence[str]
    """Of the figures, in this order; those that the page has not are left out."""
    sample: int = 0
    """Which sample or episode of the page, from 0; right and wrong ones take turns."""
    share: float = 0.5
    """How far in its time."""
    columns: int = 3


class Film(NamedTuple):
    """What is shown of a run at play."""

    text: str
    """What is to be seen, in a sentence."""
    episodes: int = 1
    first: int = 0
    """The step that it begins with, from 0."""
    steps: int = 1000
    """The step that it ends before, at most."""
    every: int = 1
    """One frame for so many steps."""
    fps: float = 10.0
    """Frames per second."""


PICTURES = {
    "mazes": Picture(
        "Where the heads look in a maze that the machine never saw, and the route that it answers.",
        ("Maze", "Certainty", "Neurons by similarity (PCA)", "Neurons"),
        sample=6,  # start and goal are set by hand, and far apart
        share=1.0,
    ),
    "minigrid-doorkey": Picture(
        "An agent with a key before a door, in the middle of an episode: what happens, what it is shown of it, what it "
        "will do, and its neurons. After the first tick of this step it would have turned on to the right; the second "
        "tick decides for the door.",
        ACTING,
        share=0.47,
    ),
    "cartpole": Picture(
        "The pole is balanced without being shown a velocity: how fast it falls is in the synchronisation of neurons.",
        ("What happens", "Output synchronisation", "Neurons by similarity (PCA)", "Neurons"),
    ),
    "acrobot": Picture(
        "Two links are swung up by the joint between them, and the critic knows how long it will take.",
        ("What happens", "Output synchronisation", "Neurons by similarity (PCA)", "Value"),
        share=0.7,
    ),
    "minigrid-memory": Picture(
        "A key was seen at the start; at the end of the corridor, where it is out of sight, the agent turns away from "
        "the ball.",
        ("What happens", "What it sees", "Output synchronisation", "Neurons"),
        share=0.6,
    ),
    "pendulum": Picture(
        "A torque swings a pendulum up and holds it there; the policy is shown no velocity.",
        ("What happens", "Output synchronisation", "Neurons by similarity (PCA)", "Neurons"),
    ),
    "parity": Picture(
        "Attention goes through the sequence, tick by tick, and the parities come out one after the other.",
        ("The sequence", "Attention over positions and ticks", "Neurons"),
        share=1.0,
        columns=2,
    ),
    "sorting": Picture(
        "Numbers are emitted in their order; the machine waits longer where the gap is wide.",
        ("What is emitted when", "The numbers", "Certainty", "Neurons"),
        share=1.0,
    ),
    "qa-mnist": Picture(
        "Digits and operations are shown one by one, and then the answer is asked for.",
        ("What is shown when", "What it attends to", "Neurons by similarity (PCA)", "Certainty", "Neurons"),
        share=0.25,
    ),
    "mnist": Picture("A digit: where the machine looks, and how sure it is of each class.", ANSWERING, share=0.43),
}
"""Of each run, in the order of the page; other runs come after them, with ``DEFAULT``."""
DEFAULT = Picture("What it sees, and what it makes of it.", (*ACTING, *ANSWERING))
FILMS = {
    "cartpole": Film("The policy balances the pole.", steps=120, every=4, fps=10),
    "minigrid-doorkey": Film("Episodes of the agent with its key.", episodes=3, fps=3),
}


def take_pictures(page: Any, name: str, folder: Path) -> None:
    """Writes the pictures of a run.

    Args:
        page: a browser.
        name: of the run.
        folder: where to.

    Raises:
        UserError: the report has none of the figures.
    """
    shown = PICTURES.get(name, DEFAULT)
    with tempfile.TemporaryDirectory() as place:
        report = Path(place, "report.html")
        if ctm_rl(["report", f"{PREFIX}{name}", "--out", str(report)]) != 0:
            raise UserError(f"there is no report of {PREFIX}{name}.")
        for theme in THEMES:
            page.prefer(prefers_color_scheme=theme, prefers_reduced_motion="reduce")
            page.resize(WIDTH, HEIGHT, SCALE)
            page.open(report)
            grid = arrange(page, shown)
            image = Image.open(io.BytesIO(grid.screenshot_as_png)).convert("RGB")
            image.save(folder / f"{name}-{theme}.webp", quality=PICTURE_QUALITY, method=6)


def arrange(page: Any, shown: Picture) -> Any:
    """Leaves nothing on a page but some figures of the shown sample, and returns what holds them.

    Raises:
        UserError: there are none.
    """
    for _ in range(shown.sample):
        page.press("n")
    is_there = page.run(
        """
        const [titles, columns, share] = arguments;
        const grid = document.querySelector(".sample .grid");
        const figures = [...grid.querySelectorAll("figure")];
        const placeOf = (figure) => titles.indexOf(figure.querySelector("h3").textContent);
        figures.forEach((figure) => (figure.style.order = placeOf(figure)));
        figures.filter((figure) => placeOf(figure) < 0).forEach((figure) => (figure.style.display = "none"));
        const style = new CSSStyleSheet();  // the page's policy forbids a style element
        style.replaceSync(`
          .head, .contents, .text, .bar, .sample-name, figcaption { display: none !important; }
          section:not(:has(.sample)) { display: none; }
          .body { padding: 0; } section { margin: 0; padding: 0; border: 0; }
          .sample .grid { margin: 0; padding: 20px 20px 0; }
          .sample .grid { grid-template-columns: repeat(${columns}, minmax(0, 1fr)); }`);
        document.adoptedStyleSheets.push(style);
        const slider = document.querySelector(".bar input[type=range]");
        slider.value = Math.round(slider.max * share);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        return figures.some((figure) => placeOf(figure) >= 0);
        """,
        list(shown.titles),
        shown.columns,
        shown.share,
    )
    if not is_there:
        raise UserError(f"the report has no figure called {' or '.join(shown.titles)}.")
    page.survey()
    page.run("scrollTo(0, 0)")
    page.frame()
    return page.driver.find_element("css selector", ".sample .grid")


def make_film(name: str, film: Film, file: Path) -> None:
    """Writes a film of a run.

    Raises:
        UserError: it is too large, whatever its quality.
    """
    options = PlayerOptions(episodes=film.episodes, steps=film.steps)
    player = load_player(Path(f"{PREFIX}{name}"), options)
    draw = painter(player)
    frames = []
    for number, step in enumerate(player.play(render=True)):
        image = draw(step)
        if number >= film.first and (number - film.first) % film.every == 0:
            frames.append(Image.fromarray(image).resize(FILM_SIZE, Image.Resampling.LANCZOS))
    first, *rest = frames
    for quality in QUALITIES:
        options = {"quality": quality, "method": 4, "duration": round(1000 / film.fps), "loop": 0}
        first.save(file, save_all=True, append_images=rest, **options)
        if file.stat().st_size <= MAX_FILM_BYTES:
            return
    raise UserError(f"{file.name} takes {file.stat().st_size:,} bytes, and {MAX_FILM_BYTES:,} are allowed.")


def section_of(name: str, folder: Path) -> str:
    """The part of the list that shows a run."""
    shown, film = PICTURES.get(name, DEFAULT), FILMS.get(name)
    light, dark = (f"{FOLDER.as_posix()}/{name}-{theme}.webp#only-{theme}" for theme in THEMES)
    text = f"## {name}\n\n![{shown.text}]({light})\n![The same for dark pages]({dark})\n\n{shown.text}\n\n"
    text += f"```bash\nctm-rl report {PREFIX}{name}\n```\n\n"
    if film is not None and (folder / f"{name}-film.webp").exists():
        text += f"![{film.text}]({FOLDER.as_posix()}/{name}-film.webp)\n\n{film.text}\n\n"
        text += f"```bash\nctm-rl record {PREFIX}{name} --with-thinking\n```\n\n"
    return text


def write_list(docs: Path) -> None:
    """Writes the list of the pictures that there are into the gallery's page, between its two comments."""
    folder, page = docs / FOLDER, docs / PAGE
    there = {file.name.removesuffix("-light.webp") for file in folder.glob("*-light.webp")}
    ordered = [*(name for name in PICTURES if name in there), *sorted(there - set(PICTURES))]
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{''.join(section_of(name, folder) for name in ordered)}{END}{after}")


def main(chosen: Sequence[str], docs: Path = DOCS) -> None:
    """Makes pictures and films of runs, and the list of all that there are.

    Raises:
        UserError: there is no such run, or all files together are too large.
    """
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        raise UserError(f"{unknown[0]} is not in the zoo, which has {', '.join(names())}.")
    sys.path.append(str(ROOT / "tests" / "helpers"))
    from browser import browser

    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as page:
        for name in chosen or names():
            take_pictures(page, name, folder)
            if name in FILMS:
                make_film(name, FILMS[name], folder / f"{name}-film.webp")
    write_list(docs)
    total = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{total:,} bytes in {folder}")
    if total > MAX_BYTES:
        raise UserError(f"{folder} takes {total:,} bytes, and {MAX_BYTES:,} are allowed.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"make_gallery: {error}")
