"""The page of a report: one file that loads nothing, and what a browser shows of it."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, browser
from example_report import ATTACK, STEPS, TICKS, example_report
from paths import ROOT

from ctm_rl.agents.report.document import Document, Figure, Matrix, Sample, Section, Table, to_plain
from ctm_rl.agents.report.page import ASSETS, MAX_BYTES, SCRIPTS, render_page, write_page
from ctm_rl.errors import UserError

KINDS = {kind.kind for kind in Figure.__subclasses__() if kind.__module__ == Figure.__module__}
UPLOT = ROOT / "third_party" / "uplot"


class Elements(HTMLParser):
    """The tags of a page with their attributes, and the contents of its scripts, styles and title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style", "title") and data.strip():
            self.contents.append((self.tags[-1][0], data))

    def of(self, tag: str) -> list[str]:
        return [content for name, content in self.contents if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(example_report())


@pytest.fixture(scope="module")
def elements(page: str) -> Elements:
    return Elements(page)


def test_uplot_is_as_published() -> None:
    recorded = dict(re.findall(r"\| `([\w.]+)` \| `(\w{64})` \|", (UPLOT / "README.md").read_text()))
    files = {path.name for path in UPLOT.iterdir()} - {"README.md"}
    assert recorded == {name: hashlib.sha256((UPLOT / name).read_bytes()).hexdigest() for name in files}


def test_a_page_loads_nothing(page: str, elements: Elements) -> None:
    addresses = [
        value for _, attributes in elements.tags for name in ("src", "href") if (value := attributes.get(name))
    ]
    assert addresses == ["data:,"]
    assert {tag for tag, _ in elements.tags} <= {
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "script",
        "noscript",
    }
    assert not re.findall(r"@import|url\((?!data:)", "".join(elements.of("style")))
    assert not re.findall(
        r"\bfetch\(|XMLHttpRequest|WebSocket|importScripts|\bimport\(", "".join(elements.of("script")[1:])
    )
    assert len(page.encode()) < 0.5 * MAX_BYTES


def test_the_policy_forbids_any_network_and_any_other_script(elements: Elements) -> None:
    policies = [attributes for tag, attributes in elements.tags if tag == "meta" and "http-equiv" in attributes]
    policy = dict(part.split(" ", 1) for part in str(policies[0]["content"]).split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data: blob:"
    assert set(policy) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    data, *scripts = elements.of("script")
    assert json.loads(data)["title"] == "A machine that thinks"
    for name, contents in {"script-src": scripts, "style-src": elements.of("style")}.items():
        hashes = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
        assert policy[name].split() == [f"'sha256-{one}'" for one in hashes]


def test_texts_stay_what_they_are(elements: Elements) -> None:
    assert json.loads(elements.of("script")[0]) == json.loads(json.dumps(to_plain(example_report())))
    attacked = Document(title=ATTACK, sections=[])
    assert Elements(render_page(attacked)).of("title") == [ATTACK]


def test_scripts_share_one_strict_scope(elements: Elements) -> None:
    ours = elements.of("script")[2]
    assert ours.startswith('(() => {\n"use strict";\n')
    assert ours.rstrip().endswith("})();")
    assert "</script" not in ours.lower()


def large(megabytes: float, title: str = "large") -> Matrix:
    side = int((megabytes * 1e6 / (2 * 4 / 3)) ** 0.5)
    return Matrix(title=title, values=np.zeros((side, side)), x_label="x", y_label="y")


def test_samples_that_do_not_fit_are_left_out_evenly() -> None:
    samples = [
        Sample(name=f"sample {i}", verdict="right" if i < 8 else "wrong", num_places=1, figures=[large(0.9)])
        for i in range(10)
    ]
    document = Document(title="t", sections=[Section(name="samples", title="Samples", samples=samples)])
    text = render_page(document)
    shown = json.loads(Elements(text).of("script")[0])
    assert 4e6 < len(text.encode()) <= MAX_BYTES
    assert [one["name"] for one in shown["sections"][0]["samples"]] == [f"sample {i}" for i in (0, 1, 2, 8, 9)]
    assert shown["notes"] == [
        "5 of 10 samples are left out: with all of them, the page would take 9.1 MB, and at most 5.0 MB are allowed."
    ]


def test_a_page_too_large_without_samples_is_an_error_that_names_figures(tmp_path: Path) -> None:
    figures = [large(6, "all neurons"), large(0.1)]
    document = Document(title="t", sections=[Section(name="s", title="S", figures=figures)])
    with pytest.raises(
        UserError, match=r"would take 6\.3 MB, and at most 5\.0 MB are allowed; .*all neurons \(6\.0 MB\), large"
    ):
        write_page(document, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def with_broken_figure(document: Document) -> Document:
    """The example with a figure that cannot be drawn."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Unknown(Table):
        kind = "unknown"

    broken = Section(name="broken", title="Broken", figures=[Unknown(title="broken", columns=[], rows=[])])
    return dataclasses.replace(document, sections=[*document.sections, broken])


def without_samples(document: Document) -> Document:
    """The sections without samples."""
    return dataclasses.replace(document, sections=[section for section in document.sections if not section.samples])


def place(page: Browser) -> str:
    return page.run("return document.querySelector('.bar-place').textContent")


def colours_of(page: Browser, *names: str) -> list[str]:
    """The colours of lines by their names in legends, or of variables of the style."""
    return page.run(
        """
        const probe = document.body.appendChild(document.createElement("i"));
        const found = arguments[0].map((name) => {
          const legends = [...document.querySelectorAll(".legend button")];
          const swatch = legends.find((one) => one.textContent === name)?.firstChild ?? probe;
          probe.style.background = `var(${name})`;
          return getComputedStyle(swatch).backgroundColor;
        });
        probe.remove();
        return found;
        """,
        names,
    )


def tip_of(page: Browser, figure: Any) -> str:
    """What the tip says about the upper left corner of a figure."""
    return page.run(
        """
        const canvas = arguments[0].querySelector("canvas");
        const { left, top } = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: left + 5, clientY: top + 5 }));
        return document.querySelector(".tip").textContent;
        """,
        figure,
    )


def check_moves(page: Browser, *keys: tuple[str, ...]) -> set[str]:
    """The kinds of all figures; pressing keys changes what all moving figures show, and leaves none blank."""
    before = page.survey()
    for key in keys:
        page.press(*key)
    after = page.survey()
    assert sum(look.moves for look in before) > 2
    assert [old.title for old, new in zip(before, after, strict=True) if old.moves and old == new] == []
    assert [look.title for look in after if look.is_blank] == []
    return {look.kind for look in after}


def calculate(page: Browser, expression: str, *arguments: object) -> Any:
    """What an expression is in the scope of the page's scripts, of arguments in their JSON form."""
    sources = "".join((ASSETS / name).read_text() for name in SCRIPTS)
    return page.run(f"{sources}\nreturn {expression};", *map(to_plain, arguments))


def check_calculations(page: Browser) -> None:
    """What figures are drawn from: arrays, palettes, attention, routes, the slider's place."""
    decoded = "Array.from(decodeArray(arguments[0]).data, (value) => Number.isNaN(value) ? null : String(value))"
    halves = [0.0, -0.0, 1.0, -2.5, 1 / 3, 65504.0, 6e-8, 6.1e-5, np.inf, -np.inf]
    numbers = [float(text.replace("Infinity", "inf")) for text in calculate(page, decoded, np.array(halves))]
    assert numbers == np.array(halves, dtype=np.float16).astype(float).tolist()
    assert calculate(page, decoded, np.array([[1.5, np.nan]])) == ["1.5", None]
    assert calculate(page, decoded, [1.5, float("nan"), 2]) == ["1.5", None, "2"]
    assert calculate(page, decoded, np.array([-70_000, 3])) == ["-70000", "3"]
    assert calculate(page, decoded, np.array([[True], [False]])) == ["1", "0"]
    shape = "entryOf(decodeArray(arguments[0]), 1)"
    assert calculate(page, f"[{shape}.shape, Array.from({shape}.data)]", np.arange(12).reshape(2, 3, 2)) == [
        [3, 2],
        [6, 7, 8, 9, 10, 11],
    ]

    # Lines break neither within an option nor before a percent sign.
    prose = "proseOf(arguments[0]).map((part) => part.className ? [part.className, part.textContent] : part)"
    parts = ["in 95\u00a0% of steps, ", ["option", "--halt-certainty"], " 0.9 ends - so"]
    assert calculate(page, prose, "in 95 % of steps, --halt-certainty 0.9 ends - so") == parts

    # uPlot scales fonts of whole pixels alone for sharp screens.
    fonts = (
        "chartOptions({}, { x: [1, 2], all: [] }, [0, 1], 300, {}).axes.flatMap((axis) => [axis.font, axis.labelFont])"
    )
    assert [font for font in calculate(page, fonts) if not re.search(r"(?<![.\d])\d+px", font)] == []

    # The sequential palette grows evenly lighter; the diverging one is symmetric in lightness about its middle.
    light = (
        "[...Array(11).keys()].map((i) => { const [r, g, b] = {}(i / 10, false); return 0.3 * r + 0.6 * g + 0.1 * b; })"
    )
    lightness = np.array(calculate(page, light.replace("{}", "sequentialColour")))
    assert np.all(np.diff(lightness) > 8)
    lightness = np.array(calculate(page, light.replace("{}", "divergingColour")))
    assert np.all(np.diff(lightness[5:]) < 0)
    np.testing.assert_allclose(lightness, lightness[::-1], atol=20)

    # The values beside a palette's bar have room, those of a clipped one too.
    clipped = "Object.assign([-0.692, 0.692], { isClipped: true })"
    assert calculate(page, f"colourBarTexts({clipped})") == ["≥ 0.692", "0", "≤ \u22120.692"]
    assert calculate(page, f"colourBarRoom({clipped})") > 80 > calculate(page, "colourBarRoom([0, 1])")

    # Two heads on a grid of 2 x 3: the first looks at one cell, the second nowhere.
    attention = np.full((1, 2, 2, 3), np.nan)
    attention[0, 0] = [[0, 0, 0], [0, 0.25, 0.75]]
    centre = calculate(page, "attentionCentres(decodeArray(arguments[0]))", attention)
    assert centre == [[[1, 1.75], None]]
    colours = "Array.from(attentionColours(decodeArray(arguments[0]).data, [true, true], IMAGE_COLOURS))"
    opacities = calculate(page, colours, attention)[3::4]
    assert opacities == [0, 0, 0, 0, 102, 204]

    route = np.array([[1, 1], [1, 2], [2, 2], [np.nan, np.nan], [5, 5]])
    assert calculate(page, "routePoints(decodeArray(arguments[0]))", route) == [[1, 1], [1, 2], [2, 2]]

    places = (
        "(() => { const clock = new Clock(); clock.setTime(5, [3, 3, 4, 4, 4]); clock.go(3); return clock.at(); })()"
    )
    at = {"place": 3, "numPlaces": 5, "tick": 2, "numTicks": 3, "step": 4, "start": 2}
    assert calculate(page, places) == at
    assert calculate(page, "['tick', 'step', 'time'].map((one) => cursorValue(one, arguments[0]))", at) == [2, 4, 3]


def test_a_browser_shows_every_figure_and_the_slider_moves_them(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(with_broken_figure(example_report()), path)
    with browser() as page:
        page.prefer(prefers_color_scheme="light")
        page.resize(1280)
        page.open(path)

        *whole, broken = page.survey()
        assert [look.title for look in whole if look.state != "drawn" or look.is_blank] == []
        assert colours_of(page, "halting", "machine") == colours_of(page, "--series-3", "--series-0")
        assert broken.state == "failed"
        assert broken.text.startswith("This figure could not be drawn: nothing here draws figures of kind")
        (message,) = page.console()
        assert "unknown" in message
        assert page.run("return document.title") == "A machine that thinks"
        assert page.overflow() == 0

        # The slider, by keys: what is on the screen moves at once, all else when it comes there.
        picture = page.figures()[[look.kind for look in whole].index("picture")]
        page.show(picture)
        before = page.look(picture)
        page.press("left")
        page.frame()
        assert page.look(picture).pixels != before.pixels
        page.press("right")
        page.frame()
        assert page.look(picture).pixels == before.pixels
        assert place(page) == f"tick {TICKS} of {TICKS}"
        sequence = page.figures()[[look.kind for look in whole].index("sequence")]
        page.show(sequence)
        assert tip_of(page, sequence).startswith("position 1: ")  # from 1, as in other figures
        kinds = check_moves(page, ("shift", "left"), ("right",))
        assert place(page) == f"tick {TICKS - 9} of {TICKS}"
        page.press("?")
        assert page.run("return document.querySelector('dialog').open")
        page.press("escape")

        # The next samples; the last is an episode, whose time has steps.
        page.press("n")
        assert "wrong" in page.run("return document.querySelector('.sample-name').textContent")
        page.press("n")
        assert place(page) == "step 0, tick 1 of 3"
        kinds |= check_moves(page, ("right",), ("right",), ("right",), ("right",))
        assert kinds == {"unknown", *KINDS} - {"machine"}
        assert place(page) == "step 1, tick 2 of 3"
        page.run("document.querySelector('input[type=range]').focus()")
        page.press("end")
        assert place(page) == f"step {STEPS - 1}, tick 3 of 3"
        assert page.run("return document.activeElement.getAttribute('aria-valuetext')") == place(page)
        page.press("space")
        page.wait("document.querySelector('.play').title === 'Pause'")
        page.wait("document.querySelector('.play').title === 'Play'")
        assert place(page) == f"step {STEPS - 1}, tick 3 of 3"

        # Dark, and as narrow as a phone.
        light = page.run("return getComputedStyle(document.documentElement).backgroundColor")
        page.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
        assert page.run("return getComputedStyle(document.documentElement).backgroundColor") != light
        page.resize(400)
        assert [look.title for look in page.survey()[:-1] if look.is_blank] == []
        assert page.overflow() == 0
        assert page.console() == []
        assert page.requests() == [path.as_uri()]

        # Without samples, the slider moves the cursors of charts.
        write_page(without_samples(example_report()), path)
        page.open(path)
        assert place(page) == f"tick {TICKS} of {TICKS}"
        check_moves(page, ("shift", "left"))
        check_calculations(page)
        assert page.console() == []
