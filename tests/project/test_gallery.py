"""The gallery: its list names the pictures that there are, which are small, and the runs that are shipped."""

import shutil
from pathlib import Path

import make_gallery
import pytest
from make_gallery import DOCS, FOLDER, PAGE, Picture
from PIL import Image

from ctm_rl.errors import UserError
from ctm_rl.zoo.entries import names


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """The folder of the documents with the gallery alone."""
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    shutil.copytree(DOCS / FOLDER, tmp_path / FOLDER)
    shutil.copy(DOCS / PAGE, tmp_path)
    return tmp_path


def test_the_list_is_of_the_pictures_that_there_are(docs: Path) -> None:
    make_gallery.write_list(docs)
    assert (docs / PAGE).read_text() == (DOCS / PAGE).read_text(), "run python scripts/make_gallery.py"
    for theme in make_gallery.THEMES:
        shutil.copy(docs / FOLDER / f"cartpole-{theme}.webp", docs / FOLDER / f"another-{theme}.webp")
        (docs / FOLDER / f"acrobot-{theme}.webp").unlink()
    make_gallery.write_list(docs)
    text = (docs / PAGE).read_text()
    assert "ctm-rl report zoo:another\n" in text
    assert "acrobot" not in text


def test_pictures_are_small_and_of_shipped_runs() -> None:
    files = list((DOCS / FOLDER).iterdir())
    assert sum(file.stat().st_size for file in files) <= make_gallery.MAX_BYTES
    assert {file.stem.rpartition("-")[0] for file in files} <= set(names())
    films = [file for file in files if file.stem.endswith("-film")]
    assert len(films) >= 2
    for film in films:
        assert film.stat().st_size <= make_gallery.MAX_FILM_BYTES
        with Image.open(film) as image:
            assert getattr(image, "n_frames", 1) > 10
            assert image.size == make_gallery.FILM_SIZE


def test_an_unknown_run_and_missing_figures_are_refused(docs: Path) -> None:
    with pytest.raises(UserError, match="nothing is not in the zoo, which has acrobot"):
        make_gallery.main(["nothing"], docs)

    class Page:
        """A page without any of the figures."""

        def run(self, *_: object) -> bool:
            return False

    with pytest.raises(UserError, match="no figure called One or Two"):
        make_gallery.arrange(Page(), Picture("", ("One", "Two")))
