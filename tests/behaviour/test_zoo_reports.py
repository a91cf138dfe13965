"""The report of each trained run that is shipped: what it costs, and what a browser shows of it."""

import os
import time
from pathlib import Path

import pytest
from browser import Browser, Look, browser

from ctm_rl.agents.report.page import MAX_BYTES
from ctm_rl.cli.main import main
from ctm_rl.zoo.entries import names

MAX_SECONDS = 60
"""Of processor time: by the clock a busy machine takes longer."""
MOVING = ("readout", "lines", "traces", "matrix", "points", "sequence", "timeline")
"""Kinds of figures that the slider must move where they show a sample; pictures and bars may be of the input alone."""
WIDE, NARROW = 1280, 400


def write_report(name: str, file: Path) -> tuple[float, float]:
    """Writes the report of an entry, and tells the seconds of processor time and by the clock."""
    before, start = sum(os.times()[:4]), time.perf_counter()
    assert main(["report", f"zoo:{name}", "--out", str(file)]) == 0
    return sum(os.times()[:4]) - before, time.perf_counter() - start


def check_figures(page: Browser) -> list[Look]:
    """What all figures look like; each is drawn and shows something, and nothing is wider than the window."""
    looks = page.survey()
    assert [look.title for look in looks if look.state != "drawn" or look.is_blank] == []
    assert page.overflow() == 0
    return looks


def place(page: Browser) -> str:
    """The slider's place in words."""
    return page.run("return document.querySelector('.bar-place').textContent")


def slide(page: Browser, share: float) -> None:
    """Moves the slider to a share of its length, as a pointer does."""
    page.run(
        "const slider = document.querySelector('.bar input[type=range]');"
        "slider.value = Math.round(slider.max * arguments[0]);"
        "slider.dispatchEvent(new Event('input', { bubbles: true }));",
        share,
    )
    page.frame()


def check_slider_and_keys(page: Browser, looks: list[Look]) -> None:
    """The slider and keys change the place, and every figure that moves shows something else at one of the places."""
    # The first range of a page may be that of a machine that runs in it.
    page.run("document.querySelector('.bar input[type=range]').focus()")
    page.press("home")
    places, seen = [place(page)], [looks]
    for move in (lambda: page.press("right"), lambda: slide(page, 0.5), lambda: page.press("end")):
        move()
        places.append(place(page))
        seen.append(check_figures(page))
    assert len(set(places)) == len(places)
    moving = [each for each in zip(*seen, strict=True) if each[0].moves]
    figures = page.run(
        "return [...document.querySelectorAll('.sample figure')].map((one) => [one.dataset.kind, one.dataset.moves])"
    )
    assert [kind for kind, moves in figures if kind in MOVING and moves != "yes"] == []
    assert len(moving) >= len([kind for kind, _ in figures if kind in MOVING]) > 2
    assert [each[0].title for each in moving if all(look == each[0] for look in each)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_report_is_written_in_time_and_a_browser_shows_all_of_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    processor_seconds, seconds = write_report(name, file)
    assert processor_seconds <= MAX_SECONDS
    assert file.stat().st_size <= MAX_BYTES
    with browser() as page:
        page.prefer(prefers_color_scheme="light")
        page.resize(WIDE)
        page.open(file)
        looks = check_figures(page)
        check_slider_and_keys(page, looks)
        light = page.run("return getComputedStyle(document.documentElement).backgroundColor")
        page.prefer(prefers_color_scheme="dark")
        assert page.run("return getComputedStyle(document.documentElement).backgroundColor") != light
        page.resize(NARROW)
        assert len(check_figures(page)) == len(looks)
        assert page.console() == []
        assert page.requests() == [file.as_uri()]
    size = file.stat().st_size / 1e6
    print(f"zoo:{name}: {processor_seconds:.1f} s of processor time, {seconds:.1f} s by the clock, {size:.2f} MB,")
    print(f"{len(looks)} figures, {sum(look.moves for look in looks)} of them moving")
