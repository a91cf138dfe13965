"""Machines that run in the page: mazes that are drawn, bits that are flipped, a pole that is pushed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser
from machines import acting, answering, shipped

from ctm_rl.agents.report.browser_model import export_machine
from ctm_rl.agents.report.document import Document, Section
from ctm_rl.agents.report.page import write_page
from ctm_rl.configs.parity import parity

MAX_MILLISECONDS = 20
"""Of a tick of the maze model of ``ctm-rl train mazes``."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One page with all three, for a reader who wants less motion."""
    cases = {"mazes": shipped("mazes"), "parity": answering(parity(), 9, 1), "cartpole": acting(1)}
    sections = []
    for name, case in cases.items():
        figure = export_machine(case.model, case.experiment)
        assert figure is not None
        sections.append(Section(name=name, title=name, figures=[figure]))
    path = tmp_path_factory.mktemp("live") / "page.html"
    write_page(Document(title="Live", sections=sections), path)
    with browser() as opened:
        opened.prefer(prefers_reduced_motion="reduce")
        opened.resize(1280)
        opened.open(path)
        yield opened


@pytest.fixture
def inside(page: Browser) -> Callable[..., Any]:
    """Runs a script in the figure of a task, which is ``figure`` there; ``press(text)`` presses a button."""
    prepared = """
        const figure = document.querySelector(`#${arguments[0]} figure`);
        const buttons = [...figure.querySelectorAll("button")];
        const press = (text) => buttons.find((button) => [button.textContent, button.ariaLabel].includes(text)).click();
        const status = () => figure.querySelector(".live-status").textContent;
    """

    def run(task: str, script: str) -> Any:
        found = page.run(prepared + script, task)
        page.frame()
        return found

    return run


def pixels(page: Browser, task: str) -> list[int]:
    """Checksum of the first canvas of a task's figure."""
    (figure,) = page.driver.find_elements("css selector", f"#{task} figure")
    page.show(figure)
    return page.look(figure).pixels[0]


def test_all_are_drawn_at_every_width_and_theme(page: Browser, tmp_path: Path) -> None:
    for width, theme in ((400, "dark"), (1280, "light")):
        page.resize(width)
        page.prefer(prefers_reduced_motion="reduce", prefers_color_scheme=theme)
        looks = page.survey()
        assert [look.state for look in looks] == ["drawn"] * 3
        for look in looks:
            assert all(colours > 1 for _, colours, _ in look.pixels), look.title
        assert page.overflow() == 0
    assert page.console() == []
    assert [url for url in page.requests() if not url.startswith("file:")] == []


def test_a_maze_is_thought_about_in_time(page: Browser, inside: Callable[..., Any]) -> None:
    pixels(page, "mazes")
    took = """
        press("New maze");
        return Number(figure.querySelector(".live").dataset.tickMilliseconds);
    """
    # the best of some: other processes take their share of the processor
    assert 0 < min(inside("mazes", took) for _ in range(8)) < MAX_MILLISECONDS


def test_a_maze_is_drawn_and_gone_on_in(page: Browser, inside: Callable[..., Any]) -> None:
    before = pixels(page, "mazes")
    inside("mazes", 'press("One tick back");')
    ticks = inside("mazes", 'return figure.querySelector("output").textContent;')
    seeded = """
        const seed = figure.querySelector("input[type=number]");
        seed.value = 5;
        seed.dispatchEvent(new Event("change"));
    """
    inside("mazes", seeded)
    new = pixels(page, "mazes")
    assert new != before
    # the start is set by a key, in the corner
    page.run('document.querySelector("#mazes canvas").focus({ preventScroll: true })')
    for _ in range(8):
        page.press("up")
        page.press("left")
    page.press("right")
    page.press("down")
    assert inside("mazes", "return status();") == "row 2, column 2: open"
    page.press("s")
    assert inside("mazes", "return status();").startswith("certainty 0.")
    page.press("right")
    page.press("left")
    assert inside("mazes", "return status();") == "row 2, column 2: start"
    assert pixels(page, "mazes") != new
    assert ticks.startswith("tick ")
    inside("mazes", 'press("Until the goal");')
    page.wait('!document.querySelector("#mazes .live-status").textContent.startsWith("answer")')
    assert inside("mazes", "return status();").startswith(("given up after ", "the goal, with "))


def test_larger_mazes_are_read_too(page: Browser, inside: Callable[..., Any]) -> None:
    before = pixels(page, "mazes")
    choose = """
        const select = figure.querySelector("select");
        select.value = SIZE;
        select.dispatchEvent(new Event("change"));
        return figure.querySelector(".switch canvas").width;
    """
    assert inside("mazes", choose.replace("SIZE", "13")) == 7  # places on a side of the encoder's map
    assert pixels(page, "mazes") != before
    assert inside("mazes", choose.replace("SIZE", "9")) == 5
    assert page.console() == []


def test_a_flipped_bit_flips_the_truth_behind_it(page: Browser, inside: Callable[..., Any]) -> None:
    pixels(page, "parity")
    read = """
        return [...figure.querySelectorAll(".live-place")].map((place) => {
          const [, answer, verdict] = place.querySelector("button").ariaLabel.match(/answered (\\w+), (\\w+)/);
          return (answer === "odd") === (verdict === "right");
        });
    """
    before = inside("parity", read)
    assert len(before) == 9
    inside("parity", 'figure.querySelectorAll(".live-bit")[4].click();')
    after = inside("parity", read)
    assert after == [*before[:4], *(not odd for odd in before[4:])]
    inside("parity", 'press("all +");')
    assert inside("parity", read) == [False] * 9
    assert "of 9 places right" in inside("parity", "return status();")


def test_the_pole_is_pushed_and_falls(page: Browser, inside: Callable[..., Any]) -> None:
    still = pixels(page, "cartpole")
    assert inside("cartpole", "return status();").startswith("0 of 500 steps")  # less motion: it waits
    inside("cartpole", 'press("One step");')
    assert inside("cartpole", "return status();").startswith("1 of 500 steps")
    assert pixels(page, "cartpole") != still
    inside("cartpole", 'for (let i = 0; i < 8; i++) press("Push →");')
    inside("cartpole", 'for (let i = 0; i < 40 && !status().startsWith("fallen"); i++) press("One step");')
    fallen = inside("cartpole", "return status();")
    assert fallen.startswith("fallen after ")
    assert int(fallen.split()[2]) < 8
    inside("cartpole", 'press("New episode"); press("Play");')
    page.wait('!document.querySelector("#cartpole .live-status").textContent.startsWith("0 of 500")')
    inside("cartpole", 'press("Pause");')
    assert page.console() == []
